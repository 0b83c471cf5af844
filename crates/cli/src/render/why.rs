//! Why a machine is awake, what woke it, what would wake it.

use std::collections::BTreeMap;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use dormouse_api_types::{
    AwakeBudget, Ignored, Keep, LastWake, MachineState, MakesRoom, NeedsRoom, Service, Signal, WakeTest,
    WakeVerdict, Why,
};
use dormouse_types::Timestamp;

use super::table::{Cell, fields};
use super::{BOLD, PLAIN, ago, clean, coloured, hold, human, state_style, state_words};

/// The screen that the page fits on, whatever there is to tell; programs get all of it.
const COLUMNS: usize = 80;
/// What is left of a line beside the labels.
const VALUE: usize = COLUMNS - 14;
/// Of each list so many are shown, and how many more there are.
const LISTED: usize = 3;
/// So many signals; one less where budgets are told of.
const SIGNALS: usize = 7;

/// The page of `why`: at most 24 lines of 80 columns.
pub(crate) fn why(why: &Why, now: Timestamp) -> String {
    let style = state_style(why.state);
    let state = state_words(why.state, why.depth);
    let cause = why.cause.as_ref().map(|cause| format!(": {}", clean(cause))).unwrap_or_default();
    let since = human::span(now.since(why.since.timestamp()));
    let used = format!("{} is {state} for {since}", why.machine).chars().count();
    let cause = cut(&cause, COLUMNS.saturating_sub(used));
    // What was done for it in its sleep is of no interest while it is awake, or has failed.
    let is_over = matches!(why.state, MachineState::Active | MachineState::Stopped | MachineState::Failed);
    let asleep = |cells: Vec<Cell>| if is_over { Vec::new() } else { cells };
    let awake = |cells: Vec<Cell>| if why.state == MachineState::Active { cells } else { Vec::new() };
    let yellow = coloured(AnsiColor::Yellow);
    let obstacle = if why.needs_room.is_some() { 2 } else { 3 };
    let page = fields(&[
        ("failed", failed(why)),
        ("will sleep", will_sleep(why, now)),
        ("wakes", wakes_ahead(why, now)),
        ("policy", why.policy.iter().flat_map(|policy| wrapped(policy, 1, PLAIN)).collect()),
        (
            "use",
            awake(signals(&why.signals, if why.budgets.is_empty() { SIGNALS } else { SIGNALS - 1 }, now)),
        ),
        ("kept awake", awake(listed(&why.keeps, |keep| self::keep(keep, now), yellow))),
        ("holds", listed(&why.holds, |h| hold(h, now), yellow)),
        ("obstacles", why.obstacles.iter().take(1).flat_map(|o| wrapped(o, obstacle, yellow)).collect()),
        ("budget", budgets(why, now)),
        ("woken by", why.last_wake.iter().flat_map(|wake| wrapped(&woken(wake, now), 2, PLAIN)).collect()),
        ("wakes on", wakes_on(why)),
        ("services", asleep(listed(&why.services, service, PLAIN))),
        ("answered", asleep(counts(&why.answered))),
        ("ignored", asleep(listed(&why.ignored, |i| ignored(i, now), PLAIN))),
        ("held", held(why)),
        ("dropped", asleep(counts(&why.dropped))),
    ]);
    format!("{BOLD}{}{BOLD:#} is {style}{state}{style:#} for {since}{cause}\n{page}", why.machine)
}

/// The first of a list, a line each.
fn listed<T>(all: &[T], line: impl Fn(&T) -> String, style: Style) -> Vec<Cell> {
    let shown = if all.len() > LISTED { LISTED - 1 } else { LISTED };
    let mut cells: Vec<_> =
        all.iter().take(shown).map(|one| Cell::styled(cut(&line(one), VALUE), style)).collect();
    if all.len() > LISTED {
        cells.push(format!("and {} more: see -o json", all.len() - shown).into());
    }
    cells
}

/// A text in lines between words, at most so many.
fn wrapped(text: &str, most: usize, style: Style) -> Vec<Cell> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let used = lines.last().map_or(0, |line| line.chars().count());
        let is_last = lines.len() == most;
        match lines.last_mut() {
            Some(line) if used == 0 => line.push_str(word),
            Some(line) if is_last || used + 1 + word.chars().count() <= VALUE => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines.iter().map(|line| Cell::styled(cut(line, VALUE), style)).collect()
}

/// The text, or its beginning if it has more characters than `most`.
fn cut(text: &str, most: usize) -> String {
    let text = clean(text);
    if text.chars().count() <= most {
        return text.into_owned();
    }
    text.chars().take(most.saturating_sub(3)).chain("...".chars()).collect()
}

fn failed(why: &Why) -> Vec<Cell> {
    let Some(failure) = &why.failure else { return Vec::new() };
    let red = coloured(AnsiColor::Red);
    let way = if failure.state_kept {
        format!(
            "the saved state is kept: dormouse wake {0}; or give it up: dormouse start --cold {0}",
            why.machine
        )
    } else {
        format!("boot it afresh: dormouse start --cold {}", why.machine)
    };
    let why = wrapped(&format!("while {}: {}", failure.during, failure.why), 3, red);
    why.into_iter().chain(wrapped(&way, 2, PLAIN)).collect()
}

/// Each signal with its value, what it is measured by, and what it does.
fn signals(signals: &[Signal], most: usize, now: Timestamp) -> Vec<Cell> {
    let shown = if signals.len() > most { most - 1 } else { most };
    let name = |signal: &Signal| cut(&signal.name, 22);
    let width = signals.iter().take(shown).map(|signal| name(signal).chars().count()).max().unwrap_or(0);
    let mut cells: Vec<_> = signals
        .iter()
        .take(shown)
        .map(|signal| {
            let style = if signal.busy { coloured(AnsiColor::Yellow) } else { PLAIN };
            let line = format!("{:width$}  {}", name(signal), self::signal(signal, now));
            Cell::styled(cut(&line, VALUE), style)
        })
        .collect();
    if signals.len() > most {
        cells.push(format!("and {} more: see -o json", signals.len() - shown).into());
    }
    cells
}

fn signal(signal: &Signal, now: Timestamp) -> String {
    let blank = if signal.unit.is_empty() { "" } else { " " };
    let value = signal
        .value
        .map_or("unknown".into(), |value| format!("{}{blank}{}", human::figure(value), signal.unit));
    let detail = signal.detail.as_ref().map(|detail| format!("; {detail}")).unwrap_or_default();
    let Some(threshold) = signal.threshold else { return format!("{value}{detail}") };
    let word = if signal.busy { "busy" } else { "quiet" };
    let since =
        signal.since.map(|at| format!(" for {}", human::span(now.since(at.timestamp())))).unwrap_or_default();
    let ends = signal.until.filter(|_| signal.busy);
    let ends = ends.map(|at| format!(", for another {}", human::span(at.timestamp().since(now))));
    let ends = ends.unwrap_or_default();
    format!("{value}, busy from {}: {word}{since}{ends}{detail}", human::figure(threshold))
}

fn keep(keep: &Keep, now: Timestamp) -> String {
    let ends = keep.until.map(|at| format!(", for another {}", human::span(at.timestamp().since(now))));
    format!("{}: {}{}", keep.kind, keep.why, ends.unwrap_or_default())
}

fn will_sleep(why: &Why, now: Timestamp) -> Vec<Cell> {
    if why.state != MachineState::Active {
        let deeper = why.would_sleep_at.zip(why.would_sleep_depth);
        let deeper = deeper
            .map(|(at, depth)| format!("deeper ({depth}) in {}", human::span(at.timestamp().since(now))));
        return deeper.into_iter().map(Cell::from).collect();
    }
    let Some(at) = why.would_sleep_at else {
        return vec![cut(&waits_for(why), VALUE).into()];
    };
    let depth = why.would_sleep_depth.map(|depth| format!(" ({depth})")).unwrap_or_default();
    let span = human::span(at.timestamp().since(now));
    vec![format!("in {span} if nothing changes{depth}").into()]
}

/// When it will be awake before anybody wants it.
fn wakes_ahead(why: &Why, now: Timestamp) -> Vec<Cell> {
    let at = why.would_wake_at.filter(|_| why.state == MachineState::Asleep);
    at.map(|at| format!("ahead of need in {}", human::span(at.timestamp().since(now))).into())
        .into_iter()
        .collect()
}

/// What must end before it can be said when it goes to sleep.
fn waits_for(why: &Why) -> String {
    let busy = || why.signals.iter().filter(|signal| signal.busy);
    let endless = busy().filter(|signal| signal.until.is_none());
    // Where it is not known what follows the end of its use, that has to end first.
    let ending = busy().filter(|signal| signal.until.is_some() && why.keeps.is_empty());
    let busy = endless.chain(ending);
    let keeps = why.keeps.iter().filter(|keep| keep.until.is_none()).map(|keep| keep.kind.clone());
    let holds = why.holds.iter().filter(|hold| hold.until.is_none()).map(|hold| format!("hold #{}", hold.id));
    let all: Vec<_> = busy.map(|signal| signal.name.clone()).chain(keeps).chain(holds).collect();
    match (all.is_empty(), why.signals.is_empty(), why.obstacles.is_empty()) {
        (false, ..) => format!("not while this lasts: {}", all.join(", ")),
        (_, _, false) => "not while there are obstacles".into(),
        (_, true, _) => "not known yet: its counters were not read twice".into(),
        _ => "only when told".into(),
    }
}

/// What is awake of the budgets that bound it, and what that means to it: a line each.
fn budgets(why: &Why, now: Timestamp) -> Vec<Cell> {
    let told = |budget: &AwakeBudget| {
        let AwakeBudget { owner, bytes, awake_bytes, .. } = budget;
        let whose = owner.as_ref().map(|owner| format!(" ({owner})")).unwrap_or_default();
        format!("{} awake of {}{whose}", human::size(*awake_bytes), human::size(*bytes))
    };
    let is_exceeded = why.budgets.iter().any(|b| b.awake_bytes > b.bytes);
    let style = if is_exceeded { coloured(AnsiColor::Yellow) } else { PLAIN };
    let all: Vec<_> = why.budgets.iter().map(told).collect();
    if all.is_empty() {
        return Vec::new();
    }
    let spent = Cell::styled(cut(&all.join(", "), VALUE), style);
    let is_strict = why.budgets.iter().any(|budget| budget.strict);
    let line = |line: String| cut(&line, VALUE).into();
    match (&why.needs_room, why.makes_room) {
        (Some(needs), _) => vec![line(needs_room(needs, is_strict))],
        (_, Some(makes)) => vec![spent, line(makes_room(makes, now))],
        _ if why.state == MachineState::Active => vec![spent],
        _ => Vec::new(),
    }
}

fn makes_room(makes: MakesRoom, now: Timestamp) -> String {
    let MakesRoom { depth, from, after } = makes;
    let line = match after {
        0 => "before all others".to_owned(),
        1 => "after one other".to_owned(),
        n => format!("after {n} others"),
    };
    let from = from.map(|at| format!(", not for another {}", human::span(at.timestamp().since(now))));
    format!("would make room ({depth}), {line}{}", from.unwrap_or_default())
}

fn needs_room(needs: &NeedsRoom, is_strict: bool) -> String {
    let names: Vec<_> = needs.sleep.iter().map(ToString::to_string).collect();
    match needs.lacking_bytes {
        0 => format!("its wake would put to sleep: {}", names.join(", ")),
        lacking if is_strict => format!("cannot wake: {} of awake memory are lacking", human::size(lacking)),
        lacking => format!("its wake would exceed it by {}", human::size(lacking)),
    }
}

fn woken(wake: &LastWake, now: Timestamp) -> String {
    let frame = wake.frame.as_ref().map(|frame| format!(" {frame}")).unwrap_or_default();
    let took = wake.took_ms.map(|ms| format!(", ran after {}", human::span(Duration::from_millis(ms))));
    format!("{}{frame}, {}{}", wake.cause, ago(wake.at, now), took.unwrap_or_default())
}

fn wakes_on(why: &Why) -> Vec<Cell> {
    let rules = why.would_wake.iter().map(String::as_str);
    let name = &why.machine;
    let command = format!("dormouse wake {name}");
    let told = |text: &str| wrapped(text, 3, PLAIN);
    match why.state {
        MachineState::Stopped => return told(&format!("nothing but a start: dormouse start {name}")),
        MachineState::Suspended => {
            return told(
                "nothing of Dormouse: virsh resume DOMAIN, or, if its guest suspended itself, virsh dompmwakeup \
                 DOMAIN",
            );
        }
        // How, it is told above.
        MachineState::Failed if why.failure.is_some() => return Vec::new(),
        _ if why.would_wake.is_empty() => {
            return told(&format!("nothing but commands and holds: {command}"));
        }
        _ => {}
    }
    wrapped(&rules.chain([command.as_str()]).collect::<Vec<_>>().join(", "), 2, PLAIN)
}

fn service(service: &Service) -> String {
    let wakes = if service.wakes { ", whose use wakes it" } else { "" };
    format!("tcp:{} {}{wakes}", service.port, service.answer)
}

fn ignored(ignored: &Ignored, now: Timestamp) -> String {
    let Ignored { reason, frames, last, at } = ignored;
    format!("{frames} {reason}: last {last}, {}", ago(*at, now))
}

/// What a frame would do, in two lines.
pub(crate) fn wake_test(test: &WakeTest) -> String {
    let (colour, words) = match test.verdict {
        WakeVerdict::Wakes => (AnsiColor::Green, "wakes it, by"),
        WakeVerdict::Answered => (AnsiColor::Blue, "is answered without it, by"),
        WakeVerdict::Held => (AnsiColor::Yellow, "is held and does not wake it:"),
        WakeVerdict::Ignored => (AnsiColor::Yellow, "is ignored:"),
        WakeVerdict::Asked => (AnsiColor::Blue, "is for a program to decide,"),
        WakeVerdict::Unknown => (AnsiColor::Yellow, "does what this version does not know:"),
    };
    let style = coloured(colour);
    let (frame, by) = (clean(&test.frame), clean(&test.by));
    format!("{BOLD}{}{BOLD:#}: {frame}\n  {style}{words}{style:#} {by}\n", test.machine)
}

fn held(why: &Why) -> Vec<Cell> {
    match why.held.frames {
        0 => Vec::new(),
        1 => vec![format!("1 frame, {}", human::size(why.held.bytes)).into()],
        frames => vec![format!("{frames} frames, {}", human::size(why.held.bytes)).into()],
    }
}

fn counts(counts: &BTreeMap<String, u64>) -> Vec<Cell> {
    let counts: Vec<_> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if counts.is_empty() { Vec::new() } else { wrapped(&counts.join(", "), 2, PLAIN) }
}

#[cfg(test)]
mod tests;
