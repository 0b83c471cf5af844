//! What machines used, as a table for people and as CSV for programs.

use std::collections::BTreeMap;

use dormouse_api_types::{Usage, UsageReport};

use super::table::{Cell, table};
use super::{BOLD, clean, human};

/// The table of `usage`, with a line for the sum.
pub(crate) fn usage(report: &UsageReport) -> String {
    let keys: Vec<String> = report.by.iter().map(|key| key.to_uppercase()).collect();
    let mut heading: Vec<&str> = keys.iter().map(String::as_str).collect();
    heading.extend([
        "AWAKE",
        "ASLEEP",
        "OTHER",
        "WAKES",
        "SLEEPS",
        "VCPU",
        "GIB-H AWAKE",
        "GIB-H SAVED",
        "WH",
        "WH SAVED",
    ]);
    let mut body: Vec<Vec<Cell>> = report
        .lines
        .iter()
        .map(|line| cells(report.by.iter().map(|key| value(&line.group, key)).collect(), &line.usage))
        .collect();
    if report.lines.len() > 1 {
        let mut names = vec![String::new(); report.by.len()];
        if let Some(first) = names.first_mut() {
            *first = "total".into();
        }
        body.push(cells(names, &report.total));
    }
    let span = format!("{BOLD}{}{BOLD:#} to {BOLD}{}{BOLD:#}\n", clean(&report.since), clean(&report.until));
    span + &table(&heading, body)
}

fn value(group: &BTreeMap<String, String>, key: &str) -> String {
    let value = group.get(key).map(String::as_str).unwrap_or_default();
    if value.is_empty() { "-".into() } else { value.into() }
}

fn cells(names: Vec<String>, usage: &Usage) -> Vec<Cell> {
    let span = |seconds: f64| Cell::number(human::span(duration(seconds)));
    let other = usage.total_seconds - usage.awake_seconds - usage.asleep_seconds;
    let figures = [
        span(usage.awake_seconds),
        span(usage.asleep_seconds),
        span(other),
        Cell::number(sum(&usage.wakes).to_string()),
        Cell::number(sum(&usage.sleeps).to_string()),
        span(usage.vcpu_seconds),
        Cell::number(format!("{:.2}", usage.memory_awake_gib_hours)),
        Cell::number(format!("{:.2}", usage.memory_saved_gib_hours)),
        Cell::number(format!("{:.1}", usage.energy_used_wh)),
        Cell::number(format!("{:.1}", usage.energy_saved_wh)),
    ];
    names.into_iter().map(Cell::from).chain(figures).collect()
}

fn duration(seconds: f64) -> std::time::Duration {
    std::time::Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}

fn sum(counts: &BTreeMap<String, u64>) -> u64 {
    counts.values().fold(0, |sum, count| sum.saturating_add(*count))
}

/// Causes and reasons that have columns of their own; what else there is, is only in the sum.
const WAKES: [&str; 6] = ["packet", "command", "hold", "ahead", "others", "restart"];
const SLEEPS: [&str; 4] = ["idle", "command", "budget", "others"];

/// One line for each combination of keys, with a heading (RFC 4180); columns are only added at the end.
pub(crate) fn usage_csv(report: &UsageReport) -> String {
    let mut text = line(
        report.by.iter().cloned().chain(columns(&Usage::default()).into_iter().map(|(name, _)| name)),
        report,
        true,
    );
    for of in &report.lines {
        let names = report.by.iter().map(|key| of.group.get(key).cloned().unwrap_or_default());
        text += &line(names.chain(columns(&of.usage).into_iter().map(|(_, value)| value)), report, false);
    }
    text
}

fn line(fields: impl Iterator<Item = String>, report: &UsageReport, head: bool) -> String {
    let span =
        if head { ["since".into(), "until".into()] } else { [report.since.clone(), report.until.clone()] };
    let fields: Vec<_> = span.into_iter().chain(fields).map(quoted).collect();
    fields.join(",") + "\r\n"
}

/// RFC 4180, section 2: quotes are doubled.
fn quoted(field: String) -> String {
    if field.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

fn columns(usage: &Usage) -> Vec<(String, String)> {
    let seconds = [
        ("total_seconds", usage.total_seconds),
        ("awake_seconds", usage.awake_seconds),
        ("waking_seconds", usage.waking_seconds),
        ("asleep_seconds", usage.asleep_seconds),
        ("paused_seconds", usage.paused_seconds),
        ("pmsuspended_seconds", usage.pmsuspended_seconds),
        ("saved_seconds", usage.saved_seconds),
        ("off_seconds", usage.off_seconds),
        ("suspended_seconds", usage.suspended_seconds),
        ("stopped_seconds", usage.stopped_seconds),
        ("failed_seconds", usage.failed_seconds),
        ("unknown_seconds", usage.unknown_seconds),
        ("vcpu_seconds", usage.vcpu_seconds),
        ("memory_configured_gib_hours", usage.memory_configured_gib_hours),
        ("memory_awake_gib_hours", usage.memory_awake_gib_hours),
        ("memory_occupied_gib_hours", usage.memory_occupied_gib_hours),
        ("memory_saved_gib_hours", usage.memory_saved_gib_hours),
        ("energy_used_wh", usage.energy_used_wh),
        ("energy_saved_wh", usage.energy_saved_wh),
    ];
    let mut columns: Vec<_> = seconds.map(|(name, value)| (name.to_owned(), value.to_string())).into();
    columns.push(("starts".into(), usage.starts.to_string()));
    for (kind, counts, words) in [("wakes", &usage.wakes, &WAKES[..]), ("sleeps", &usage.sleeps, &SLEEPS[..])]
    {
        columns.push((kind.into(), sum(counts).to_string()));
        let of =
            |word: &&str| (format!("{kind}_{word}"), counts.get(*word).copied().unwrap_or(0).to_string());
        columns.extend(words.iter().map(of));
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_api_types::UsageLine;

    fn report() -> UsageReport {
        let usage = Usage {
            total_seconds: 7200.0,
            awake_seconds: 1800.5,
            asleep_seconds: 5399.5,
            saved_seconds: 5399.5,
            vcpu_seconds: 12.25,
            memory_saved_gib_hours: 1.499_861,
            wakes: [("packet".into(), 2), ("moon".into(), 1)].into(),
            sleeps: [("idle".into(), 3)].into(),
            starts: 1,
            ..Usage::default()
        };
        let of =
            |owner: &str| UsageLine { group: [("owner".into(), owner.into())].into(), usage: usage.clone() };
        UsageReport {
            since: "2026-11-01T00:00:00+01:00".into(),
            until: "2026-11-21T16:30:00+01:00".into(),
            by: vec!["owner".into()],
            lines: vec![of(""), of("alice")],
            total: Usage { awake_seconds: 3601.0, ..usage },
            ..UsageReport::default()
        }
    }

    #[test]
    fn a_table() {
        let text = anstream::adapter::strip_str(&usage(&report())).to_string();
        let expected = "\
2026-11-01T00:00:00+01:00 to 2026-11-21T16:30:00+01:00
OWNER   AWAKE   ASLEEP  OTHER  WAKES  SLEEPS  VCPU  GIB-H AWAKE  GIB-H SAVED   WH  WH SAVED
-         30m  1h 29m   0 ms      3       3  12 s         0.00         1.50  0.0       0.0
alice     30m  1h 29m   0 ms      3       3  12 s         0.00         1.50  0.0       0.0
total      1h  1h 29m   0 ms      3       3  12 s         0.00         1.50  0.0       0.0
";
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeeze(&text), squeeze(expected), "{text}");
    }

    #[test]
    fn csv_has_a_field_for_each_column_and_quotes_what_needs_it() {
        let mut report = report();
        report.lines[1].group.insert("owner".into(), "a \"b\", c".into());
        let text = usage_csv(&report);
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[2].contains(",\"a \"\"b\"\", c\",7200,1800.5,"), "{text}");
        let head: Vec<&str> = lines[0].split(',').collect();
        let first: Vec<&str> = lines[1].split(',').collect();
        assert_eq!(head.len(), first.len());
        let of = |name: &str| first[head.iter().position(|column| *column == name).unwrap()];
        assert_eq!(
            ["owner", "wakes", "wakes_packet", "sleeps_idle", "vcpu_seconds"].map(of),
            ["", "3", "2", "3", "12.25"]
        );
    }
}
