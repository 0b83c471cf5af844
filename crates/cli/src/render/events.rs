//! What happened, one line for each event.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use dormouse_api_types::{Event, EventKind, MachineState};

use super::{BOLD, clean, coloured, human, state_style};

/// `2026-11-21T07:19:51.042Z web active -> settling: idle for 10m (took 8 ms)`.
pub(crate) fn event(event: &Event) -> String {
    let dim = Style::new().dimmed();
    let mut line = format!("{dim}{}{dim:#}", event.at);
    if let Some(machine) = &event.machine {
        let _ = write!(line, " {BOLD}{machine}{BOLD:#}");
    }
    line.push_str(&what(event));
    if let Some(cause) = &event.cause {
        let _ = write!(line, ": {}", clean(cause));
    }
    let figures: Vec<_> = event.figures.iter().map(|(name, value)| figure(name, *value)).collect();
    if !figures.is_empty() {
        let _ = write!(line, " ({})", clean(&figures.join(", ")));
    }
    line + "\n"
}

fn what(event: &Event) -> String {
    let word = |state: MachineState| format!("{0}{state}{0:#}", state_style(state));
    match (event.kind, event.from, event.to) {
        (EventKind::State, Some(from), Some(to)) => format!(" {} -> {}", word(from), word(to)),
        (EventKind::State, None, Some(to)) => format!(" -> {}", word(to)),
        (kind, _, to) => {
            let style = if kind == EventKind::Warning { coloured(AnsiColor::Yellow) } else { Style::new() };
            let to = to.map(|to| format!(" {}", word(to))).unwrap_or_default();
            format!(" {style}{kind}{style:#}{to}")
        }
    }
}

/// A figure whose name carries its unit: `took_ms` 8 is `took 8 ms`.
fn figure(name: &str, value: f64) -> String {
    let (words, value) = match name.rsplit_once('_') {
        Some((words, "ms")) => {
            (words, human::span(Duration::try_from_secs_f64(value / 1e3).unwrap_or_default()))
        }
        Some((words, "bytes")) => (words, human::size(whole(value))),
        Some((words, unit)) => (words, format!("{} {unit}", human::figure(value))),
        None => (name, human::figure(value)),
    };
    format!("{} {value}", words.replace('_', " "))
}

/// The nearest size; figures travel as floating point.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, as sizes should")]
const fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_types::Timestamp;
    use proptest::prelude::*;

    fn state(from: MachineState, to: MachineState) -> Event {
        Event {
            seq: 1,
            at: Timestamp(1_795_245_591_042_000_000).into(),
            machine: Some("web".parse().unwrap()),
            kind: EventKind::State,
            from: Some(from),
            to: Some(to),
            cause: None,
            figures: std::collections::BTreeMap::new(),
        }
    }

    fn plain(event: &Event) -> String {
        anstream::adapter::strip_str(&super::event(event)).to_string()
    }

    #[test]
    fn a_change_of_state() {
        let mut event = state(MachineState::Settling, MachineState::Asleep);
        event.figures = [("took_ms".into(), 8.4), ("freed_bytes".into(), 268_435_456.0)].into();
        event.cause = Some("idle".into());
        let text = "2026-11-21T07:19:51.042Z web settling -> asleep: idle (freed 256 MiB, took 8 ms)\n";
        assert_eq!(plain(&event), text);
    }

    #[test]
    fn other_kinds() {
        let mut event = state(MachineState::Settling, MachineState::Asleep);
        (event.machine, event.from, event.to, event.kind) = (None, None, None, EventKind::Lagged);
        event.figures = [("missed_events".into(), 12.0)].into();
        assert_eq!(plain(&event), "2026-11-21T07:19:51.042Z lagged (missed 12 events)\n");
    }

    proptest! {
        #[test]
        fn an_event_is_one_line(cause: String, name: String, value: f64) {
            let mut event = state(MachineState::Active, MachineState::Unknown);
            event.cause = Some(cause);
            event.figures = [(name, value)].into();
            prop_assert_eq!(plain(&event).lines().count(), 1);
        }
    }
}
