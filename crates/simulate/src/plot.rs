//! The report as a picture: hours asleep against user hits, and the day of some machines.
//!
//! SVG written by hand: two scales, circles, rectangles and text. Colours follow the reader's light or dark
//! scheme, and are told apart by those who see few (after Okabe and Ito).

use std::fmt::Write as _;

use dormouse_types::Timestamp;

use crate::{Move, Options, Report, Row, What};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = WIDTH - 30.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 380.0;
/// Height of a machine's strips in the timeline.
const STRIP: f64 = 12.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#222}.t{font-size:17px;font-weight:600}.s{font-size:11px}\
.e{text-anchor:end}.m{text-anchor:middle}.g{stroke:#ccc;stroke-width:1}.a{stroke:#222;stroke-width:1}\
.b{fill:#fff}.i{fill:#e6e6e6}.u{fill:#666}.h{fill:#d00000}\
.p0{fill:#0072b2}.p1{fill:#009e73}.p2{fill:#e69f00}.p3{fill:#cc79a7}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.g{stroke:#444}.a{stroke:#ddd}.b{fill:#16181c}.i{fill:#30343a}\
.u{fill:#9a9a9a}.h{fill:#ff6b6b}.p0{fill:#56b4e9}.p1{fill:#2fc59b}.p2{fill:#f0b93a}.p3{fill:#e09ac4}}";

/// A machine's first day, as it went under each policy.
#[derive(Clone, Debug)]
pub(crate) struct Day {
    name: String,
    begins: Timestamp,
    ends: Timestamp,
    moves: Vec<Move>,
}

impl Day {
    pub(crate) const fn new(name: String, begins: Timestamp, ends: Timestamp, moves: Vec<Move>) -> Self {
        Self { name, begins, ends, moves }
    }
}

/// Is there something to see in a machine's day: both use and idleness, and some turns?
pub(crate) fn is_telling(options: &Options, values: &[f64]) -> bool {
    let quiet = |value: f64| value < options.cpu_below;
    let idle = values.iter().filter(|value| quiet(**value)).count();
    let turns = values.iter().zip(values.iter().skip(1)).filter(|(a, b)| quiet(**a) != quiet(**b)).count();
    idle * 10 > values.len() * 4 && idle * 10 < values.len() * 9 && (6..=40).contains(&turns)
}

/// Draws it.
pub(crate) fn svg(report: &Report, days: &[Day]) -> String {
    let rows = report.rows();
    let policies: Vec<&Row> =
        rows.iter().filter(|row| !matches!(&*row.policy, "oracle" | "always-on")).collect();
    let strips = f64_of(policies.len() + 1) * STRIP + 14.0;
    let height = BOTTOM + 110.0 + f64_of(days.len()) * strips + 20.0;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">\
         <title>Hours asleep against user hits</title><style>{STYLE}</style>\
         <rect class=\"b\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\n"
    );
    scatter(&mut text, report, &rows, &policies);
    if !days.is_empty() {
        timeline(&mut text, days, &policies, strips);
    }
    text.push_str("</svg>\n");
    text
}

fn scatter(text: &mut String, report: &Report, rows: &[Row], policies: &[&Row]) {
    let most = rows.iter().map(|row| f64_of_u64(row.user_hits)).fold(1.0, f64::max);
    let step = nice(most / 5.0);
    let most = (most / step).ceil() * step;
    let x = |hits: f64| LEFT + (RIGHT - LEFT) * hits / most;
    let y = |percent: f64| BOTTOM - (BOTTOM - TOP) * percent / 100.0;
    label(text, LEFT, 30.0, "t", "Hours asleep against user hits");
    let all =
        format!("{:.0} h of {} lines, use began {} times", report.hours(), report.machines(), report.uses());
    label(text, LEFT, 48.0, "s", &all);
    for percent in [0.0, 20.0, 40.0, 60.0, 80.0, 100.0] {
        line(text, "g", [LEFT, y(percent), RIGHT, y(percent)]);
        label(text, LEFT - 8.0, y(percent) + 4.0, "e", &format!("{percent:.0} %"));
    }
    let mut at = 0.0;
    while at <= most {
        line(text, "g", [x(at), TOP, x(at), BOTTOM]);
        label(text, x(at), BOTTOM + 18.0, "m", &format!("{at:.0}"));
        at += step;
    }
    line(text, "a", [LEFT, BOTTOM, RIGHT, BOTTOM]);
    line(text, "a", [LEFT, TOP, LEFT, BOTTOM]);
    label(
        text,
        f64::midpoint(LEFT, RIGHT),
        BOTTOM + 38.0,
        "m",
        "user hits: uses that began while the machine was asleep",
    );
    let (tx, ty) = (LEFT - 62.0, f64::midpoint(TOP, BOTTOM));
    let _ = writeln!(
        text,
        "<text class=\"m\" transform=\"translate({tx:.0} {ty:.0}) rotate(-90)\">asleep, of the oracle's hours</text>"
    );
    for row in rows {
        let class = policies.iter().position(|other| other.policy == row.policy);
        let class = class.map_or_else(|| "u".into(), |_| colour(&row.policy));
        let (cx, cy) = (x(f64_of_u64(row.user_hits)), y(row.of_oracle_percent));
        let _ = writeln!(
            text,
            "<circle class=\"{class}\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"6\"><title>{}: {:.1} %, {} hits</title></circle>",
            escaped(&row.policy),
            row.of_oracle_percent,
            row.user_hits
        );
        // Where there are many, only a pointer tells them apart.
        if policies.len() <= 6 {
            let (dx, anchor) = if cx > (LEFT + RIGHT) * 0.6 { (-10.0, "e") } else { (10.0, "") };
            label(text, cx + dx, cy - 8.0, anchor, &row.policy);
        }
    }
}

fn timeline(text: &mut String, days: &[Day], policies: &[&Row], strips: f64) {
    let top = BOTTOM + 80.0;
    label(text, LEFT, top - 8.0, "t", "Some machines");
    label(
        text,
        LEFT + 130.0,
        top - 8.0,
        "s",
        "grey: in use; colour: asleep; red: user hit; hours from the trace's beginning",
    );
    for (number, day) in days.iter().enumerate() {
        let y = top + 8.0 + f64_of(number) * strips;
        let span = day.ends.since(day.begins).as_secs_f64().max(1.0);
        let x = |at: Timestamp| LEFT + (RIGHT - LEFT) * at.since(day.begins).as_secs_f64() / span;
        label(text, LEFT - 8.0, y + 10.0, "e", &day.name);
        strip(text, "i", [LEFT, RIGHT], y);
        for (from, to) in
            spans(day, 0, |what| matches!(what, What::Hit | What::Used), |what| what == What::Idle)
        {
            strip(text, "u", [x(from), x(to)], y);
        }
        for (policy, row) in policies.iter().enumerate() {
            let y = y + f64_of(policy + 1) * STRIP;
            let class = colour(&row.policy);
            label(text, LEFT - 8.0, y + 9.0, "e s", &row.policy);
            let ends = |what| matches!(what, What::Hit | What::WokenAhead);
            for (from, to) in spans(day, policy, |what| what == What::Slept, ends) {
                strip(text, &class, [x(from), x(to)], y);
            }
            for hit in day.moves.iter().filter(|it| it.policy == policy && it.what == What::Hit) {
                strip(text, "h", [x(hit.at) - 1.0, x(hit.at) + 1.0], y);
            }
        }
    }
    let bottom = top + f64_of(days.len()) * strips + 12.0;
    if let Some(day) = days.first() {
        let hours = day.ends.since(day.begins).as_secs_f64() / 3600.0;
        for part in 0..=4 {
            let share = f64::from(part) / 4.0;
            label(text, LEFT + (RIGHT - LEFT) * share, bottom, "m s", &format!("{:.0} h", hours * share));
        }
    }
}

/// From each move that begins something to the next that ends it, under one policy.
fn spans(
    day: &Day,
    policy: usize,
    begins: impl Fn(What) -> bool,
    ends: impl Fn(What) -> bool,
) -> Vec<(Timestamp, Timestamp)> {
    let mut spans = Vec::new();
    let mut open = None;
    for it in day.moves.iter().filter(|it| it.policy == policy) {
        if begins(it.what) {
            open = open.or(Some(it.at));
        } else if ends(it.what) {
            spans.extend(open.take().map(|from| (from, it.at)));
        }
    }
    spans.extend(open.map(|from| (from, day.ends)));
    spans
}

/// All variants of a policy have its colour.
fn colour(policy: &str) -> String {
    let number = ["fixed", "hysteresis", "predictive"].iter().position(|kind| policy.starts_with(kind));
    format!("p{}", number.unwrap_or(3))
}

fn strip(text: &mut String, class: &str, [from, to]: [f64; 2], y: f64) {
    let (width, height) = ((to - from).max(0.5), STRIP - 3.0);
    let _ = writeln!(
        text,
        "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height}\"/>"
    );
}

fn line(text: &mut String, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
    let _ = writeln!(
        text,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn label(text: &mut String, x: f64, y: f64, class: &str, words: &str) {
    let _ = writeln!(text, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(words));
}

/// As XML has it; control characters are not allowed in it at all.
fn escaped(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The next of 1, 2, 5, 10, 20, 50...
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor()).max(1.0);
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|nice| *nice >= step).unwrap_or(step)
}

#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
const fn f64_of(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
const fn f64_of_u64(count: u64) -> f64 {
    count as f64
}
