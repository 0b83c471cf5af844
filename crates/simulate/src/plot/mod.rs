//! The report as a picture: hours asleep against user hits, and the day of some machines.
//!
//! SVG written by hand: two scales, circles, rectangles and text. Colours follow the reader's light or dark
//! scheme, and are told apart by those who see few (after Okabe and Ito).

mod curve;

use std::fmt::Write as _;

use dormouse_machine::policy::{Kind, Settings};
use dormouse_types::Timestamp;

use crate::{Move, Options, Report, What};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = WIDTH - 30.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 440.0;
/// Height of a machine's strips in the timeline.
const STRIP: f64 = 12.0;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#222}.t{font-size:17px;font-weight:600}.s{font-size:11px}\
.e{text-anchor:end}.m{text-anchor:middle}.g{stroke:#ccc;stroke-width:1}.a{stroke:#222;stroke-width:1}\
.b{fill:#fff}.i{fill:#e6e6e6}.u{fill:#666}.h{fill:#d00000;stroke:none}.i,.u,rect{stroke:none}\
.p0{fill:#0072b2;stroke:#0072b2}.p1{fill:#009e73;stroke:#009e73}.p2{fill:#d55e00;stroke:#d55e00}.l{fill:none;stroke-width:2}.r{fill:none;stroke:#222;stroke-width:2}.d{stroke:#888;stroke-dasharray:5 4}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.g{stroke:#444}.a{stroke:#ddd}.b{fill:#16181c}.i{fill:#30343a}\
.u{fill:#9a9a9a}.h{fill:#ff6b6b}.p0{fill:#56b4e9;stroke:#56b4e9}.p1{fill:#2fc59b;stroke:#2fc59b}.p2{fill:#f0883a;stroke:#f0883a}.l{fill:none}.r{fill:none;stroke:#ddd}}";

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

/// Draws it; the policies are in the order of the report.
pub(crate) fn svg(report: &Report, policies: &[(String, Settings)], days: &[Day]) -> String {
    let shown = shown(policies);
    let strips = f64_of(shown.len() + 1) * STRIP + 14.0;
    let height = BOTTOM + if days.is_empty() { 60.0 } else { 110.0 + f64_of(days.len()) * strips + 20.0 };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">\
         <title>Hours asleep against user hits</title><style>{STYLE}</style>\
         <rect class=\"b\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\n"
    );
    curve::draw(&mut text, report, policies);
    if !days.is_empty() {
        timeline(&mut text, days, policies, &shown, strips);
    }
    text.push_str("</svg>\n");
    text
}

/// Whose days are drawn: of each kind the usual one, or else its first.
fn shown(policies: &[(String, Settings)]) -> Vec<usize> {
    let of_kind = |kind: Kind| {
        let mut all = policies.iter().enumerate().filter(move |(_, (_, settings))| settings.kind == kind);
        let first = all.clone().next();
        all.find(|(_, (_, settings))| is_usual(settings)).or(first).map(|(number, _)| number)
    };
    Kind::ALL.into_iter().filter_map(of_kind).collect()
}

/// A policy's name, and what is set if that is not the usual.
fn in_short(name: &str, settings: &Settings) -> String {
    let kind = settings.kind.as_str();
    let set = name.strip_prefix(kind).unwrap_or_default().trim();
    let values: Vec<_> =
        set.split_whitespace().map(|set| set.split_once('=').map_or(set, |(_, value)| value)).collect();
    if is_usual(settings) { kind.into() } else { format!("{kind} {}", values.join(" ")).trim().into() }
}

/// Are all parameters as they are if nobody sets them?
fn is_usual(settings: &Settings) -> bool {
    *settings == Settings { kind: settings.kind, ..Settings::default() }
}

fn timeline(text: &mut String, days: &[Day], policies: &[(String, Settings)], shown: &[usize], strips: f64) {
    let top = BOTTOM + 80.0;
    label(text, LEFT, top - 8.0, "t", "Some machines");
    label(
        text,
        LEFT + 160.0,
        top - 8.0,
        "s",
        "grey: in use; colour: asleep; red: user hit; below: hours from the trace's beginning",
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
        for (place, policy) in shown.iter().enumerate() {
            let Some((name, settings)) = policies.get(*policy) else { continue };
            let y = y + f64_of(place + 1) * STRIP;
            let class = colour(settings.kind);
            label(text, LEFT - 8.0, y + 9.0, "e s", &in_short(name, settings));
            let ends = |what| matches!(what, What::Hit | What::WokenAhead);
            for (from, to) in spans(day, *policy, |what| what == What::Slept, ends) {
                strip(text, class, [x(from), x(to)], y);
            }
            for hit in day.moves.iter().filter(|it| it.policy == *policy && it.what == What::Hit) {
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
const fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Fixed => "p0",
        Kind::Hysteresis => "p1",
        Kind::Predictive => "p2",
    }
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
    let text: String = text.chars().filter(|c| !c.is_control()).take(120).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
const fn f64_of(count: usize) -> f64 {
    count as f64
}
