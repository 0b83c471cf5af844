//! What a simulation came to.

use std::fmt::Write as _;

use dormouse_simulate::{Report, Row};

use super::table::{Cell, table};

const HEADING: [&str; 8] =
    ["POLICY", "ASLEEP h", "OF ORACLE", "WAKES", "USER HITS", "AHEAD", "IN VAIN", "WASTED h"];

/// As a table, with a line of what was replayed.
pub(crate) fn simulation(report: &Report) -> String {
    let body = report.rows().iter().map(row).collect();
    let mut text = table(&HEADING, body);
    let (machines, hours, uses) = (report.machines(), report.hours(), report.uses());
    let _ = writeln!(text, "\n{machines} lines of {hours:.0} h together; use began {uses} times");
    text
}

fn row(row: &Row) -> Vec<Cell> {
    let count = |count: u64| Cell::number(count.to_string());
    vec![
        Cell::from(&row.policy),
        Cell::number(format!("{:.1}", row.asleep_hours)),
        Cell::number(format!("{:.1} %", row.of_oracle_percent)),
        count(row.wakes),
        count(row.user_hits),
        count(row.ahead),
        count(row.ahead_in_vain),
        Cell::number(format!("{:.1}", row.wasted_hours)),
    ]
}

/// As CSV with a heading (RFC 4180).
pub(crate) fn simulation_csv(report: &Report) -> String {
    let mut text = String::from(
        "policy,asleep_hours,of_oracle_percent,wakes,user_hits,ahead,ahead_in_vain,wasted_hours\r\n",
    );
    for row in report.rows() {
        let Row { policy, asleep_hours, of_oracle_percent, wakes, user_hits, ahead, .. } = &row;
        let (vain, wasted) = (row.ahead_in_vain, row.wasted_hours);
        let _ =
            write!(text, "{policy},{asleep_hours:.3},{of_oracle_percent:.3},{wakes},{user_hits},{ahead},");
        let _ = write!(text, "{vain},{wasted:.3}\r\n");
    }
    text
}
