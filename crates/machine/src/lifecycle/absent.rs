//! Sleepers that nobody stands in for, as long as their bridge is not there.

use std::time::Duration;

use dormouse_types::{Depth, Timestamp};

use super::engine::{Lifecycle, Step, is_due};
use super::{State, Task};

/// After what time a `StandIn` that failed is tried again: at first, and at most, doubling between.
pub const STAND_IN_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// A `StandIn` that is owed.
#[derive(Clone, Debug)]
pub(super) struct Absent {
    /// Why nobody stands in.
    why: String,
    due: Timestamp,
    /// The next span between two tries.
    wait: Duration,
    /// Some of its interfaces are stood in for: it can be woken from them.
    partly: bool,
    /// It came to be so after the pending `StandIn` was asked for, which can say nothing of it.
    anew: bool,
}

impl Lifecycle {
    /// Why nobody stands in for the machine, though it sleeps.
    #[must_use]
    pub fn absent(&self) -> Option<&str> {
        self.absent.as_ref().map(|absent| absent.why.as_str())
    }

    /// Some of its interfaces are stood in for, though not all.
    #[must_use]
    pub fn is_partly_absent(&self) -> bool {
        self.absent.as_ref().is_some_and(|absent| absent.partly)
    }

    /// When `StandIn` is to be tried again.
    pub(super) fn absent_until(&self) -> Option<Timestamp> {
        self.absent.as_ref().filter(|_| self.sleeps()).map(|absent| absent.due)
    }

    fn sleeps(&self) -> bool {
        matches!(self.state, State::Asleep { .. })
    }

    /// `StandIn` failed, and is tried again later.
    pub(super) fn owe_stand_in(&mut self, why: String) {
        let (first, most) = STAND_IN_RETRY;
        let wait = self.absent.as_ref().map_or(first, |absent| absent.wait);
        let due = self.now + wait;
        self.absent = Some(Absent { why, due, wait: (wait * 2).min(most), partly: false, anew: false });
    }

    /// `StandIn` is done, but not for all interfaces: for those it is owed.
    pub(super) fn stands_in_partly(&mut self, why: String) {
        let (first, most) = STAND_IN_RETRY;
        let wait = self.absent.as_ref().map_or(first, |absent| absent.wait);
        let asked = self.is_pending(Task::StandIn);
        self.done(Task::StandIn, Ok(()));
        // A loss that came meanwhile is owed already.
        if asked
            && self.absent.is_none()
            && matches!(self.state, State::Settling { .. } | State::Asleep { .. })
        {
            let due = self.now + wait;
            self.absent = Some(Absent { why, due, wait: (wait * 2).min(most), partly: true, anew: false });
        }
    }

    /// Nobody stands in any more. Before the sleep's own `StandIn` that is no news to it.
    pub(super) fn lost(&mut self, why: String) {
        let stood_in = matches!(self.state, State::Settling { .. })
            && self.touched.stood_in
            && !self.is_pending(Task::StandIn);
        if self.sleeps() || stood_in {
            let (wait, most) = STAND_IN_RETRY;
            let (due, anew) = (self.now + wait, self.is_pending(Task::StandIn));
            self.absent = Some(Absent { why, due, wait: (wait * 2).min(most), partly: false, anew });
        }
    }

    /// Tries at once.
    pub(super) fn hasten_stand_in(&mut self) {
        let now = self.now;
        if let Some(absent) = &mut self.absent {
            absent.due = now;
        }
    }

    /// The step that is owed now, if it is.
    pub(super) fn owed_stand_in(&self) -> Option<Step> {
        let due = self.absent_until()?;
        (self.rests() && is_due(due, STAND_IN_RETRY.1, self.now)).then_some(Step::Do(Task::StandIn))
    }

    /// `StandIn` is done.
    pub(super) fn stands_in(&mut self) {
        self.absent.take_if(|absent| !std::mem::take(&mut absent.anew));
    }

    /// A machine that was to be woken sleeps on, until somebody can stand in for it: then it wakes.
    /// True if it can.
    pub(super) fn sleep_until_stood_in(&mut self, why: &str) -> bool {
        let State::Waking { from: Some(depth), cause, .. } = self.state.clone() else { return false };
        let to_come = |task| self.plan.contains(&Step::Do(task));
        let can = match depth {
            Depth::Saved => to_come(Task::Load) && self.is_whole(),
            Depth::Off => to_come(Task::Boot),
            Depth::Paused | Depth::Pmsuspended => false,
        };
        if can {
            let asleep = State::Asleep { depth };
            let mut steps = if to_come(Task::Kill) { vec![Step::Do(Task::Kill)] } else { Vec::new() };
            steps.push(Step::Journal(asleep.clone()));
            self.begin(asleep, steps);
            self.wanted = Some(cause);
            self.owe_stand_in(why.to_owned());
        }
        can
    }
}
