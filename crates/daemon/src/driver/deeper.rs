//! Sleep that goes deeper with time.

use std::time::Duration;

use dormouse_machine::lifecycle::{Event, SleepReason, State};
use dormouse_types::{Depth, Timestamp};

use super::run::Driver;

/// After how long it is tried again, where it failed or something else was going on.
const AGAIN: Duration = Duration::from_secs(600);

impl Driver {
    /// When a sleeper is to sleep deeper if nobody wants it, and how deep.
    pub(super) fn deeper_at(&self) -> Option<(Timestamp, Depth)> {
        let State::Asleep { depth } = *self.life.state() else { return None };
        let step = self.subject.spec.sleep.deeper.iter().find(|step| step.depth > depth)?;
        let can =
            self.life.absent().is_none() && self.subject.instance.capabilities().depths.contains(&step.depth);
        let due = self.since + step.after;
        can.then(|| (self.not_deeper_before.map_or(due, |least| due.max(least)), step.depth))
    }

    /// Goes deeper if it is time.
    pub(super) fn go_deeper(&mut self) {
        let now = self.now();
        if let Some((at, depth)) = self.deeper_at()
            && at <= now
        {
            self.not_deeper_before = Some(now + AGAIN);
            self.event(Event::Deeper(depth));
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
        }
        if matches!(to, State::Asleep { depth: Depth::Saved }) || *to == State::Active {
            self.not_deeper_before = None;
        }
    }
}
