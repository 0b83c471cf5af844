//! Each policy as a point, hours asleep over user hits; those that differ in a parameter as a curve.

use std::fmt::Write as _;

use dormouse_machine::policy::{Kind, Settings};

use super::{BOTTOM, LEFT, RIGHT, TOP, colour, escaped, f64_of, is_usual, label, line};
use crate::{Report, Row};

/// The plot's scales. The vertical one begins below the lowest policy: always-on, whose share is nothing by
/// definition, is not drawn.
struct Scales {
    most_hits: f64,
    step_hits: f64,
    least_share: f64,
}

/// A policy in the plot.
struct Point<'a> {
    row: &'a Row,
    settings: &'a Settings,
}

impl Scales {
    fn of(points: &[Point<'_>]) -> Self {
        let most = points.iter().map(|point| hits(point.row)).fold(1.0, f64::max);
        let step_hits = nice(most / 6.0);
        let least = points.iter().map(|point| point.row.of_oracle_percent).fold(100.0, f64::min);
        let least_share = ((least - 1.0) / 10.0).floor() * 10.0;
        Self {
            most_hits: (most / step_hits).ceil() * step_hits,
            step_hits,
            least_share: least_share.max(0.0),
        }
    }

    fn x(&self, hits: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * hits / self.most_hits
    }

    fn y(&self, percent: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * (percent - self.least_share) / (100.0 - self.least_share)
    }

    fn place(&self, row: &Row) -> (f64, f64) {
        (self.x(hits(row)), self.y(row.of_oracle_percent))
    }
}

pub(super) fn draw(text: &mut String, report: &Report, policies: &[(String, Settings)]) {
    let rows = report.rows();
    // The first is the oracle.
    let points: Vec<_> =
        rows.iter().skip(1).zip(policies).map(|(row, (_, settings))| Point { row, settings }).collect();
    let scales = Scales::of(&points);
    label(text, LEFT, 30.0, "t", "Hours asleep against user hits");
    let all = format!(
        "{:.0} h of {} lines, use began {} times; further up and left is better",
        report.hours(),
        report.machines(),
        report.uses()
    );
    label(text, LEFT, 48.0, "s", &all);
    axes(text, &scales);
    if let Some(fixed) = points.iter().find(|it| it.settings.kind == Kind::Fixed && is_usual(it.settings)) {
        guides(text, &scales, fixed);
    }
    for kind in Kind::ALL {
        let of_kind: Vec<_> = points.iter().filter(|point| point.settings.kind == kind).collect();
        curve(text, &scales, kind, &of_kind);
    }
    if let Some(oracle) = rows.first() {
        let (cx, cy) = scales.place(oracle);
        let _ = writeln!(text, "<circle class=\"u\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"6\"/>");
        label(text, cx + 10.0, cy + 16.0, "", "oracle");
    }
    legend(text, &points);
}

fn axes(text: &mut String, scales: &Scales) {
    let step = if scales.least_share > 60.0 { 5.0 } else { 10.0 };
    let mut percent = scales.least_share;
    while percent <= 100.0 {
        let y = scales.y(percent);
        line(text, "g", [LEFT, y, RIGHT, y]);
        label(text, LEFT - 8.0, y + 4.0, "e", &format!("{percent:.0} %"));
        percent += step;
    }
    let mut at = 0.0;
    while at <= scales.most_hits {
        line(text, "g", [scales.x(at), TOP, scales.x(at), BOTTOM]);
        label(text, scales.x(at), BOTTOM + 18.0, "m", &format!("{at:.0}"));
        at += scales.step_hits;
    }
    line(text, "a", [LEFT, BOTTOM, RIGHT, BOTTOM]);
    line(text, "a", [LEFT, TOP, LEFT, BOTTOM]);
    let middle = f64::midpoint(LEFT, RIGHT);
    label(text, middle, BOTTOM + 38.0, "m", "user hits (uses that began while the machine was not awake)");
    let (tx, ty) = (LEFT - 62.0, f64::midpoint(TOP, BOTTOM));
    let _ = writeln!(
        text,
        "<text class=\"m\" transform=\"translate({tx:.0} {ty:.0}) rotate(-90)\">asleep (% of the oracle\u{2019}s hours)</text>"
    );
}

/// What has fewer hits than the usual fixed time, and more sleep, is left of and above these.
fn guides(text: &mut String, scales: &Scales, fixed: &Point<'_>) {
    let (x, y) = scales.place(fixed.row);
    line(text, "d", [x, TOP, x, BOTTOM]);
    line(text, "d", [LEFT, y, RIGHT, y]);
}

fn curve(text: &mut String, scales: &Scales, kind: Kind, points: &[&Point<'_>]) {
    let class = colour(kind);
    let places: Vec<_> = points.iter().map(|point| scales.place(point.row)).collect();
    if places.len() > 1 {
        let path: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(text, "<polyline class=\"{class} l\" points=\"{}\"/>", path.join(" "));
    }
    for (point, (cx, cy)) in points.iter().zip(&places) {
        let row = point.row;
        let _ = writeln!(
            text,
            "<circle class=\"{class}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"4\"><title>{}: {:.1} %, {} hits</title></circle>",
            escaped(&row.policy),
            row.of_oracle_percent,
            row.user_hits
        );
        if is_usual(point.settings) {
            let _ = writeln!(text, "<circle class=\"r\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"8\"/>");
        }
        // Of a variant, what is set.
        let set = row.policy.strip_prefix(kind.as_str()).unwrap_or_default().trim();
        let value = set.split_once('=').map_or(set, |(_, value)| value);
        if !set.is_empty() && points.len() <= 16 {
            let set = if set.contains(' ') { set } else { value };
            // The lowest curve has its labels below it.
            if kind == Kind::Fixed {
                label(text, cx + 6.0, cy + 15.0, "s", set);
            } else {
                label(text, cx - 7.0, cy - 7.0, "s e", set);
            }
        }
    }
}

/// In the corner that is empty: few sleep little and hit many.
fn legend(text: &mut String, points: &[Point<'_>]) {
    let kinds: Vec<_> =
        Kind::ALL.into_iter().filter(|kind| points.iter().any(|it| it.settings.kind == *kind)).collect();
    let is_ringed = points.iter().any(|point| is_usual(point.settings));
    let lines = f64_of(kinds.len()) + if is_ringed { 1.0 } else { 0.0 };
    let (x, mut y) = (RIGHT - 290.0, BOTTOM - 12.0 - (lines - 1.0) * 18.0);
    let _ = writeln!(
        text,
        "<rect class=\"b\" x=\"{:.0}\" y=\"{:.0}\" width=\"300\" height=\"{:.0}\"/>",
        x - 14.0,
        y - 16.0,
        lines * 18.0 + 8.0
    );
    for kind in kinds {
        let names = points.iter().filter(|it| it.settings.kind == kind).map(|it| &*it.row.policy);
        let _ = writeln!(
            text,
            "<circle class=\"{}\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\"/>",
            colour(kind),
            y - 4.0
        );
        label(text, x + 12.0, y, "", &described(kind, names));
        y += 18.0;
    }
    if is_ringed {
        let _ = writeln!(text, "<circle class=\"r\" cx=\"{x:.1}\" cy=\"{:.1}\" r=\"6\"/>", y - 4.0);
        label(text, x + 12.0, y, "", "usual parameters (dashed: those of fixed)");
    }
}

/// A kind, and which parameters its points have.
fn described<'a>(kind: Kind, names: impl Iterator<Item = &'a str>) -> String {
    let sets = names.map(|name| name.strip_prefix(kind.as_str()).unwrap_or_default());
    let mut keys: Vec<_> = sets
        .flat_map(|set| set.split_whitespace().filter_map(|word| word.split_once('=')).map(|(key, _)| key))
        .collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() { kind.to_string() } else { format!("{kind}, by {}", keys.join(" and ")) }
}

/// The next of 1, 2, 5, 10, 20, 50...
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor()).max(1.0);
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|nice| *nice >= step).unwrap_or(step)
}

#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
const fn hits(row: &Row) -> f64 {
    row.user_hits as f64
}
