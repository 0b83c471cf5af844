//! What the doctor found.

use anstyle::AnsiColor;
use dormouse_api_types::{Check, CheckStatus, Report};

use super::table::{Cell, rows};
use super::{PLAIN, coloured};

/// One line for each check, and under it the fix.
pub(crate) fn report(report: &Report) -> String {
    rows(&report.checks.iter().flat_map(lines).collect::<Vec<_>>())
}

fn lines(check: &Check) -> Vec<Vec<Cell>> {
    let colour = match check.status {
        CheckStatus::Ok => AnsiColor::Green,
        CheckStatus::Warn => AnsiColor::Yellow,
        CheckStatus::Fail => AnsiColor::Red,
    };
    let found = vec![
        Cell::styled(check.status.as_str(), coloured(colour)),
        Cell::styled(&check.name, PLAIN),
        Cell::from(&check.found),
    ];
    let fix = check.fix.iter().map(|fix| vec!["".into(), "".into(), format!("fix: {fix}").into()]);
    std::iter::once(found).chain(fix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fix_stands_under_its_check() {
        let check = |name: &str, status, fix: Option<&str>| Check {
            name: name.into(),
            status,
            found: "found".into(),
            fix: fix.map(Into::into),
        };
        let checks = vec![
            check("kvm", CheckStatus::Ok, None),
            check("bridge-netfilter", CheckStatus::Warn, Some("do")),
        ];
        let text = anstream::adapter::strip_str(&report(&Report { checks })).to_string();
        let expected = "\
ok    kvm               found
warn  bridge-netfilter  found
                        fix: do
";
        assert_eq!(text, expected);
    }
}
