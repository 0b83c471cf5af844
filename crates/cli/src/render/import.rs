//! What can be imported, and what came of it.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use dormouse_api_types::{ImportReport, ImportStatus, ImportedDomain, SleepObstacle};

use super::table::{Cell, rows, table};
use super::{BOLD, PLAIN, clean, coloured};

/// The list of all domains.
pub(crate) fn importable(report: &ImportReport) -> String {
    let heading = ["DOMAIN", "STATE", "IMPORT", "MACHINE", "NOTE"];
    table(&heading, report.domains.iter().map(row).collect()) + &note(report)
}

fn note(report: &ImportReport) -> String {
    report.note.as_ref().map_or_else(String::new, |note| format!("note: {}\n", clean(note)))
}

fn row(domain: &ImportedDomain) -> Vec<Cell> {
    let machine = domain.machine.as_ref().map_or("-", |machine| machine.as_str());
    let limits: Vec<_> = domain.obstacles.iter().filter(|o| !o.depths.is_empty()).map(limit).collect();
    let note = domain.problem.as_ref().map_or_else(|| limits.join("; "), |problem| problem.detail.clone());
    vec![
        domain.domain.as_str().into(),
        domain.activity.as_deref().unwrap_or("-").into(),
        Cell::styled(domain.status.to_string(), style(domain.status)),
        machine.into(),
        note.into(),
    ]
}

fn style(status: ImportStatus) -> Style {
    match status {
        ImportStatus::Imported | ImportStatus::Importable => coloured(AnsiColor::Green),
        ImportStatus::Refused => coloured(AnsiColor::Red),
        ImportStatus::Known | ImportStatus::Unknown => PLAIN,
    }
}

fn limit(obstacle: &SleepObstacle) -> String {
    let depths: Vec<_> = obstacle.depths.iter().map(ToString::to_string).collect();
    format!("not {}: {}", depths.join(", "), obstacle.what)
}

/// What came of those that were imported, or are machines already; the others are errors.
pub(crate) fn imported(report: &ImportReport) -> String {
    let mut text = String::new();
    for domain in &report.domains {
        let (Some(machine), None) = (&domain.machine, &domain.problem) else { continue };
        let activity = domain.activity.as_deref().unwrap_or("-");
        let word = if domain.status == ImportStatus::Known { "is a machine already" } else { "imported" };
        let name = clean(&domain.domain);
        let by = if *name == *machine.as_str() { String::new() } else { format!(" as {machine}") };
        let _ = writeln!(text, "{BOLD}{name}{BOLD:#} {word}{by}, {activity}");
        if domain.status == ImportStatus::Imported {
            if let Some(next) = &domain.next {
                let _ = writeln!(text, "   {}", clean(next));
            }
            let _ = writeln!(text, "   what stands in its way: dormouse doctor {machine}");
            text += &rows(&domain.obstacles.iter().flat_map(lines).collect::<Vec<_>>());
        }
    }
    text + &note(report)
}

fn lines(obstacle: &SleepObstacle) -> Vec<Vec<Cell>> {
    let what = if obstacle.depths.is_empty() { format!("note: {}", obstacle.what) } else { limit(obstacle) };
    let line = |text: String| vec![Cell::from(" "), Cell::from(text)];
    let fix = obstacle.fix.iter().map(|fix| line(format!("  fix: {fix}")));
    std::iter::once(line(format!("{what}: {}", obstacle.reason))).chain(fix).collect()
}

/// The machine files that an import would make, each as it could be given to `create`.
pub(crate) fn rehearsed(report: &ImportReport) -> String {
    let mut text = String::new();
    for domain in &report.domains {
        let Some(toml) = &domain.toml else { continue };
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "# domain {}", clean(&domain.domain));
        for line in domain.obstacles.iter().flat_map(lines) {
            let line = rows(&[line]);
            let _ = writeln!(text, "# {}", line.trim());
        }
        // Line by line, so that nothing in it drives the terminal.
        for line in toml.lines() {
            let _ = writeln!(text, "{}", clean(line));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_api_types::{Problem, ProblemKind};
    use dormouse_types::Depth;

    fn domain(name: &str, status: ImportStatus) -> ImportedDomain {
        ImportedDomain {
            domain: name.into(),
            uuid: None,
            activity: Some("running".into()),
            status,
            machine: name.parse().ok(),
            toml: Some(format!("name = {name:?}\n")),
            obstacles: vec![
                SleepObstacle {
                    depths: vec![Depth::Saved],
                    what: "hostdev usb".into(),
                    reason: "cannot be saved".into(),
                    fix: Some("remove it".into()),
                },
                SleepObstacle {
                    depths: vec![],
                    what: "autostart".into(),
                    reason: "starts it".into(),
                    fix: None,
                },
            ],
            next: Some(format!("it sleeps (saved) after 10m idle; `dormouse wake {name}` wakes it")),
            problem: None,
        }
    }

    fn refused() -> ImportedDomain {
        let problem = Problem::new(ProblemKind::Refused, "interface: macvtap\x07").fix("a bridge");
        ImportedDomain {
            machine: None,
            toml: None,
            problem: Some(problem),
            ..domain("Gaming PC", ImportStatus::Refused)
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_list() {
        let domains = vec![domain("web", ImportStatus::Importable), refused()];
        let expected = "\
DOMAIN     STATE    IMPORT      MACHINE  NOTE
web        running  importable  web      not saved: hostdev usb
Gaming PC  running  refused     -        interface: macvtap\\u{7}
";
        assert_eq!(plain(&importable(&ImportReport { domains, note: None })), expected);
    }

    #[test]
    fn what_came_of_it() {
        let mut shop = domain("shop", ImportStatus::Imported);
        shop.domain = "Web Shop".into();
        let domains = vec![shop, domain("old", ImportStatus::Known), refused()];
        let expected = "\
Web Shop imported as shop, running
   it sleeps (saved) after 10m idle; `dormouse wake shop` wakes it
   what stands in its way: dormouse doctor shop
   not saved: hostdev usb: cannot be saved
     fix: remove it
   note: autostart: starts it
old is a machine already, running
note: whose it is\\u{7}
";
        assert_eq!(
            plain(&imported(&ImportReport { domains, note: Some("whose it is\x07".into()) })),
            expected
        );
    }

    #[test]
    fn a_rehearsal_prints_machine_files() {
        let domains = vec![domain("web", ImportStatus::Importable), refused()];
        let expected = "\
# domain web
# not saved: hostdev usb: cannot be saved
# fix: remove it
# note: autostart: starts it
name = \"web\"
";
        assert_eq!(plain(&rehearsed(&ImportReport { domains, note: None })), expected);
    }
}
