//! The driver's futures, side by side, and what is done when one ends.

use std::{future::Future, mem, time::Duration};

use dormouse_external::Opinion;
use dormouse_machine::lifecycle::{Event, Observed, Task};
use dormouse_registry::{Record, Revision};
use tokio::task::{Id, JoinError};

use super::{
    idleness::{Answers, Look},
    run::{Driver, Ticket},
    tasks::{Failure, Outcome},
};
use crate::{chain::chain, room::Answer};

/// What a future of this driver was for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    Task(Task),
    Write,
    Sample,
    Look,
    Room,
}

/// What came of it.
pub(super) enum Finished {
    Task(Task, Duration, Outcome),
    Write(Result<Revision, dormouse_registry::Error>),
    Sample(Box<Result<Answers, String>>),
    Opinion(Option<Opinion>, Look),
    Look(Result<Observed, String>),
    Room(Answer),
}

impl Driver {
    /// Starts a future, and remembers what it is for.
    pub(super) fn spawn(&mut self, job: Job, future: impl Future<Output = Finished> + Send + 'static) {
        let id = self.jobs.spawn(future).id();
        self.names.insert(id, job);
    }

    pub(super) fn finished(&mut self, ended: Result<(Id, Finished), JoinError>) {
        match ended {
            Ok((id, finished)) => {
                self.names.remove(&id);
                self.take(finished);
            }
            Err(error) => {
                // A fault in this program: the step has failed, the machine's life goes on.
                let why = format!("a fault in dormoused: {error}");
                match self.names.remove(&error.id()) {
                    Some(Job::Task(task)) => {
                        self.take(Finished::Task(task, Duration::ZERO, Err(Failure::new(why))));
                    }
                    Some(Job::Write) => self.take(Finished::Write(Err(dormouse_registry::Error::Closed))),
                    Some(Job::Sample) => self.take(Finished::Sample(Box::new(Err(why)))),
                    Some(Job::Room) => self.take(Finished::Room(Answer::FREE)),
                    Some(Job::Look) => self.take(Finished::Look(Err(why))),
                    None => {}
                }
            }
        }
    }

    fn take(&mut self, finished: Finished) {
        match finished {
            Finished::Task(task, took, Ok(output)) => {
                self.story.task(task, took, &output, self.now());
                self.last_status = output.status.or(self.last_status.take());
                self.ports = output.ports.unwrap_or(mem::take(&mut self.ports));
                if matches!(task, Task::StandIn | Task::Release | Task::Watch) {
                    self.is_recovered();
                }
                if task == Task::Boot {
                    self.forget_presence();
                }
                self.event(match output.unanswered {
                    Some(why) => Event::Partly(why),
                    None => Event::Done(task, Ok(())),
                });
            }
            Finished::Task(task, _, Err(failure)) => self.failed(task, failure),
            Finished::Write(result) => self.written(&result),
            Finished::Room(answer) => self.room(answer),
            Finished::Look(seen) => {
                match &seen {
                    Ok(_) => self.reached(),
                    Err(why) => self.unreachable(why.clone()),
                }
                self.event(Event::Found(seen));
            }
            Finished::Opinion(opinion, look) => self.judge_by(opinion, look),
            Finished::Sample(result) => {
                self.idleness.asked();
                match *result {
                    Ok(answers) => self.judge_idleness(answers),
                    Err(why) => {
                        self.refuse_favour();
                        self.warn(format!("cannot judge whether it is idle: {why}"));
                    }
                }
            }
        }
    }

    /// What boots afresh may have other addresses, and has no connections: it will tell.
    fn forget_presence(&mut self) {
        let record = self.journal.record();
        if !(record.learned.is_empty() && record.personas.is_empty()) {
            let forget = |record: &mut Record| {
                record.learned.clear();
                record.personas.clear();
            };
            self.journal.change(forget, None);
        }
    }

    fn failed(&mut self, task: Task, Failure { why, is_unanswered }: Failure) {
        let warning = format!("cannot {task}: {why}");
        self.hitch = Some(warning.clone());
        self.event(if is_unanswered { Event::Unanswered(task, why) } else { Event::Done(task, Err(why)) });
        // A sleeper without its bridge is told of once, not at every try.
        if task == Task::StandIn && self.life.absent().is_some() {
            tracing::debug!(machine = %self.subject.spec.name, "{warning}");
        } else {
            self.warn(warning);
        }
    }

    fn written(&mut self, result: &Result<Revision, dormouse_registry::Error>) {
        let why = result.as_ref().err().map(|error| chain(error));
        if let Some(why) = &why {
            self.warn(format!("its record is not durable: {why}"));
        }
        for ticket in self.journal.done(result) {
            match (ticket, &why) {
                (Ticket::State, why) => {
                    self.event(Event::Done(Task::Journal, why.clone().map_or(Ok(()), Err)));
                }
                (Ticket::Hold(id), Some(why)) => self.hold_failed(id, why),
                (Ticket::Hold(_), None) => {}
            }
        }
        self.write();
    }
}
