//! How long a machine is in its state, and sleep that goes deeper with time.

use std::time::Duration;

use dormouse_machine::lifecycle::{Cause, Event, SleepReason, State};
use dormouse_types::{Depth, Timestamp};

use super::{room::Wish, run::Driver};

/// After how long it is tried again, where it failed or something else was going on.
const AGAIN: Duration = Duration::from_secs(600);

/// How long a machine has been in its state: by a clock that is never set, and by the wall clock only for
/// the time before its driver began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    before: Duration,
    /// Of the steady clock.
    from: Duration,
}

impl Age {
    /// Of a state that was entered `before` the instant `now` of the steady clock.
    pub(super) const fn new(before: Duration, now: Duration) -> Self {
        Self { before, from: now }
    }

    const fn at(self, now: Duration) -> Duration {
        self.before.saturating_add(now.saturating_sub(self.from))
    }
}

impl Driver {
    /// For how long the machine has been in its state; one that sleeps deeper sleeps since it fell asleep.
    pub(super) fn age(&self) -> Duration {
        self.age.at(self.steady())
    }

    /// When a sleeper is to sleep deeper if nobody wants it, and how deep.
    pub(super) fn deeper_at(&self) -> Option<(Timestamp, Depth)> {
        self.deeper_in().map(|(left, depth)| (self.now() + left, depth))
    }

    /// In how long; the first depth of those that its platform reaches.
    fn deeper_in(&self) -> Option<(Duration, Depth)> {
        let State::Asleep { depth } = *self.life.state() else { return None };
        let steps = &self.subject.spec.sleep.deeper;
        if steps.is_empty() || self.life.absent().is_some() || self.room.is_wanted() {
            return None;
        }
        let reached = self.subject.instance.capabilities().depths;
        let step = steps.iter().find(|step| step.depth > depth && reached.contains(&step.depth))?;
        let again =
            self.not_deeper_before.map_or(Duration::ZERO, |least| least.saturating_sub(self.steady()));
        Some((step.after.saturating_sub(self.age()).max(again), step.depth))
    }

    /// Goes deeper if it is time.
    pub(super) fn go_deeper(&mut self) {
        if let Some((Duration::ZERO, depth)) = self.deeper_in() {
            self.not_deeper_before = Some(self.steady() + AGAIN);
            if depth == Depth::Off && self.needs_room() {
                // It is awake for as long as it shuts down.
                self.ask_for_room(Wish::Wanted(Cause::Deeper));
            } else {
                self.event(Event::Deeper(depth));
            }
        }
    }

    /// The time at which a machine entered its state: one that goes deeper sleeps on since it fell asleep.
    pub(super) fn entered(&mut self, from: &State, to: &State, now: Timestamp) {
        let is_deeper = |state: &State| {
            matches!(state, State::Settling { depth: Depth::Saved, reason: SleepReason::Deeper(from) }
                if from.keeps_process())
        };
        let sleeps_on = matches!((from, to), (State::Asleep { .. }, state) | (state, State::Asleep { .. })
            if is_deeper(state));
        if !sleeps_on {
            self.since = now;
            self.age = Age::new(Duration::ZERO, self.steady());
        }
        if matches!(to, State::Asleep { depth: Depth::Saved }) || *to == State::Active {
            self.not_deeper_before = None;
        }
    }
}
