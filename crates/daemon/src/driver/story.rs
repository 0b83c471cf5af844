//! What a sleep or a wake came to, told in one event and one line of the log.

use std::{collections::BTreeMap, time::Duration};

use dormouse_api_types::EventKind;
use dormouse_machine::lifecycle::{Cause, SleepReason, State, Task};
use dormouse_types::{MachineName, Timestamp};

use super::{
    tasks::Output,
    view::{depth_of, state_of},
};
use crate::{
    events::{Draft, Events},
    fault::task_word,
};

/// What has been measured since the machine last rested.
#[derive(Debug, Default)]
pub(super) struct Story {
    started: Timestamp,
    /// When something wanted the machine, which is before it left its state.
    wanted: Option<Timestamp>,
    figures: BTreeMap<String, f64>,
    /// An entered sleep whose last steps are still to be measured.
    pending: Option<(State, State)>,
}

impl Story {
    /// A machine that is found at `now`.
    pub(super) fn new(now: Timestamp) -> Self {
        Self { started: now, ..Self::default() }
    }

    /// Something wants the machine.
    pub(super) fn wanted(&mut self, now: Timestamp) {
        self.wanted.get_or_insert(now);
    }

    /// What wanted the machine does so no more.
    pub(super) const fn unwanted(&mut self) {
        self.wanted = None;
    }

    /// When the present flow was caused.
    pub(super) fn caused(&self) -> Timestamp {
        self.wanted.unwrap_or(self.started)
    }

    /// A task has ended well.
    pub(super) fn task(&mut self, task: Task, took: Duration, output: &Output, now: Timestamp) {
        self.figures.insert(format!("{}_ms", task_word(task).replace('-', "_")), millis(took));
        self.figures.extend(output.figures.clone());
        if matches!(task, Task::Resume | Task::Boot) {
            self.figures.insert("to_running_ms".into(), millis(now.since(self.caused())));
        }
    }

    /// The machine changed its state. A sleep is told when its last step is done; all else at once.
    pub(super) fn announce(
        &mut self,
        name: &MachineName,
        from: State,
        to: State,
        why: Option<String>,
        now: Timestamp,
        events: &Events,
    ) {
        self.tell_pending(name, now, events);
        match to {
            State::Asleep { .. } => {
                self.set_took(now);
                self.pending = Some((from, to));
            }
            State::Settling { .. } | State::Waking { .. } | State::Stopping => {
                self.begin(now);
                self.publish(name, &from, &to, why, events);
            }
            _ => {
                self.set_took(now);
                self.publish(name, &from, &to, why, events);
                self.begin(now);
                self.wanted = None;
            }
        }
    }

    /// Tells of a sleep whose last step is done.
    pub(super) fn tell_pending(&mut self, name: &MachineName, now: Timestamp, events: &Events) {
        if let Some((from, to)) = self.pending.take() {
            self.publish(name, &from, &to, None, events);
            self.begin(now);
            self.wanted = None;
        }
    }

    fn begin(&mut self, now: Timestamp) {
        self.started = now;
        self.figures.clear();
    }

    fn set_took(&mut self, now: Timestamp) {
        self.figures.insert("took_ms".into(), millis(now.since(self.caused())));
    }

    fn publish(&self, name: &MachineName, from: &State, to: &State, why: Option<String>, events: &Events) {
        // Figures are of a flow: its start has none yet.
        let is_start = matches!(to, State::Settling { .. } | State::Waking { .. } | State::Stopping);
        let figures = if is_start { BTreeMap::new() } else { self.figures.clone() };
        let cause = reason_of(to).or(why).or_else(|| reason_of(from));
        log(name, from, to, cause.as_deref(), &figures);
        let draft = Draft::of(name, EventKind::State).states(state_of(from), state_of(to));
        events.publish(draft.cause(cause).figures(figures));
    }
}

fn log(name: &MachineName, from: &State, to: &State, cause: Option<&str>, figures: &BTreeMap<String, f64>) {
    let figures: Vec<String> = figures.iter().map(|(name, value)| format!("{name}={value:.1}")).collect();
    let (from, to) = (words(from), words(to));
    let (cause, figures) = (cause.unwrap_or("-"), figures.join(" "));
    if to.starts_with("failed") {
        tracing::error!(machine = %name, "{from} -> {to}: {cause}; {figures}");
    } else {
        tracing::info!(machine = %name, "{from} -> {to}: {cause}; {figures}");
    }
}

fn words(state: &State) -> String {
    match depth_of(state) {
        Some(depth) => format!("{} ({depth})", state_of(state)),
        None => state_of(state).to_string(),
    }
}

/// Why a machine is in a state, in one line.
pub(super) fn reason_of(state: &State) -> Option<String> {
    match state {
        State::Settling { reason: SleepReason::Budget(why), .. } => Some(format!("put to sleep {why}")),
        State::Settling { reason: SleepReason::Policy(why), .. } => Some(why.clone()),
        State::Settling { reason, .. } => Some(reason.word().into()),
        State::Undoing { cause } | State::Waking { cause, .. } => Some(cause_line(cause)),
        State::Suspended { by } => Some(by.clone()),
        State::Failed { during, why, .. } => Some(format!("{during}: {why}")),
        _ => None,
    }
}

/// A cause in one line.
pub(super) fn cause_line(cause: &Cause) -> String {
    let (word, detail) = cause_parts(cause);
    detail.map_or_else(|| word.into(), |detail| format!("{word}: {detail}"))
}

/// A cause's word in the API, and what is known beside it.
pub(crate) fn cause_parts(cause: &Cause) -> (&'static str, Option<&str>) {
    let detail = match cause {
        Cause::Hold(reason) => Some(reason.as_str()),
        Cause::Packet(frame) => Some(frame.as_str()),
        Cause::Failure(why) => Some(why.as_str()),
        Cause::Ahead(rule) => Some(rule.as_str()),
        Cause::Others(who) => Some(who.as_str()),
        Cause::Command | Cause::Restart | Cause::Deeper => None,
    };
    (cause.word(), detail)
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}
