//! Answers as text for people. Pure: `now` is a parameter, and colours are ANSI codes that the
//! printer takes away where they do not belong.
//!
//! What comes from elsewhere (reasons, frames, paths) passes through [`clean`] on its way, so
//! that it cannot drive the terminal.

mod doctor;
mod events;
mod human;
mod import;
mod machines;
mod simulate;
mod table;
mod usage;
mod why;

pub(crate) use doctor::report;
pub(crate) use events::event;
pub(crate) use human::clean;
pub(crate) use import::{importable, imported, rehearsed};
pub(crate) use machines::{list, outcome, show};
pub(crate) use simulate::{simulation, simulation_csv};
pub(crate) use usage::{usage, usage_csv};
pub(crate) use why::{wake_test, why};

use anstyle::{AnsiColor, Style};
use dormouse_api_types::{Hold, MachineState, Time};
use dormouse_types::{Depth, Timestamp};

const PLAIN: Style = Style::new();
const BOLD: Style = Style::new().bold();

fn coloured(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(colour.into()))
}

/// What stands over the answer about one of several machines.
pub(crate) fn heading(name: &str) -> String {
    format!("{BOLD}{}{BOLD:#}\n", clean(name))
}

/// The state, and how deep where that says more: `asleep (saved)`.
fn state_words(state: MachineState, depth: Option<Depth>) -> String {
    match (state, depth) {
        (MachineState::Asleep, Some(depth)) => format!("{state} ({depth})"),
        (MachineState::Settling, Some(depth)) => format!("{state} (to {depth})"),
        (MachineState::Waking, Some(depth)) => format!("{state} (from {depth})"),
        _ => state.to_string(),
    }
}

fn state_style(state: MachineState) -> Style {
    match state {
        MachineState::Active => coloured(AnsiColor::Green),
        MachineState::Asleep => coloured(AnsiColor::Blue),
        MachineState::Failed => coloured(AnsiColor::Red).bold(),
        MachineState::Stopped | MachineState::Suspended | MachineState::Unknown => Style::new().dimmed(),
        MachineState::Settling | MachineState::Undoing | MachineState::Waking | MachineState::Stopping => {
            coloured(AnsiColor::Yellow)
        }
    }
}

/// `3m 12s ago`.
fn ago(at: Time, now: Timestamp) -> String {
    format!("{} ago", human::span(now.since(at.timestamp())))
}

fn hold(hold: &Hold, now: Timestamp) -> String {
    let placed = ago(hold.since, now);
    let ends = hold.until.map_or("until released".into(), |until| {
        format!("for another {}", human::span(until.timestamp().since(now)))
    });
    format!("#{} {:?}, placed {placed}, {ends}", hold.id, hold.reason)
}
