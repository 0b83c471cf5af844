//! Holds: placed, released, and taken back where they cannot be kept.

use std::time::Duration;

use dormouse_api_types::{EventKind, Problem, ProblemKind};
use dormouse_machine::{
    hold::Hold,
    lifecycle::{Cause, State},
};

use super::{
    orders::{Goal, Taken},
    run::{Driver, Ticket},
};
use crate::events::Draft;

impl Driver {
    pub(super) fn place_hold(
        &mut self,
        reason: &str,
        by: &str,
        (span, tied): (Option<Duration>, bool),
    ) -> Result<Taken, Problem> {
        let now = self.now();
        let until = span.map(|span| now + span);
        // Tried on a copy: the journal is not to be told of a hold that is refused.
        let mut holds = self.journal.record().holds.clone();
        let placed = holds.add(reason, by, now, until);
        let id = placed
            .map(|hold| hold.id)
            .map_err(|error| Problem::new(ProblemKind::Refused, error.to_string()))?;
        if tied {
            holds.tie(id);
        }
        self.journal.change(|record| record.holds = holds, Some(Ticket::Hold(id)));
        let line = format!("hold {id} by {by}: {reason}");
        let name = self.subject.spec.name.clone();
        tracing::info!(machine = %name, "{line}");
        self.shared.events.publish(Draft::of(&name, EventKind::Hold).cause(Some(line)));
        let sleeps = matches!(self.life.state(), State::Settling { .. } | State::Asleep { .. });
        if sleeps {
            self.wanted(Cause::Hold(reason.to_owned()));
        }
        Ok((if sleeps { Goal::Awake } else { Goal::Any }, Some(id), String::new()))
    }

    pub(super) fn release_hold(&mut self, id: Option<u64>) -> Result<Taken, Problem> {
        let mut holds = self.journal.record().holds.clone();
        let released = match id {
            None => holds.release_all(),
            Some(id) => holds.release(id).into_iter().collect(),
        };
        if let (Some(id), true) = (id, released.is_empty()) {
            let detail = format!("{} has no hold {id}", self.subject.spec.name);
            return Err(Problem::new(ProblemKind::NotFound, detail).fix("`dormouse show` lists its holds"));
        }
        if !released.is_empty() {
            self.journal.change(|record| record.holds = holds, None);
        }
        self.tell_released(&released, "released");
        self.forget_holds();
        let detail = if released.is_empty() { "had no holds".into() } else { String::new() };
        Ok((Goal::Any, id, detail))
    }

    /// An earlier daemon had holds that were tied to its connections.
    pub(super) fn release_tied(&mut self) {
        let mut holds = self.journal.record().holds.clone();
        let released = holds.release_tied();
        if !released.is_empty() {
            self.journal.change(|record| record.holds = holds, None);
            self.tell_released(&released, "its connection ended with the daemon");
        }
    }

    /// Says that holds are no more.
    pub(super) fn tell_released(&self, released: &[Hold], why: &str) {
        let name = &self.subject.spec.name;
        for Hold { id, reason, .. } in released {
            let line = format!("hold {id} ({reason}): {why}");
            tracing::info!(machine = %name, "{line}");
            self.shared.events.publish(Draft::of(name, EventKind::Release).cause(Some(line)));
        }
    }

    /// A hold could not be made durable: who placed it is told, and it is taken back.
    pub(super) fn hold_failed(&mut self, id: u64, why: &str) {
        self.journal.change(|record| drop(record.holds.release(id)), None);
        self.forget_holds();
        for waiter in self.waiters.extract_if(.., |waiter| waiter.hold == Some(id)) {
            let problem = Problem::new(ProblemKind::Failed, format!("the hold is not durable: {why}"));
            waiter.reply.send(Err(problem));
        }
    }
}
