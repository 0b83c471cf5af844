//! How a driver begins: it asks the platform what is true, and goes on from there.

use std::{sync::Arc, time::Duration};

use dormouse_api_types::{EventKind, Problem, ProblemKind};
use dormouse_machine::lifecycle::{Lifecycle, Observed, Process, State, StateOnDisk, Task};
use dormouse_types::Depth;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{End, Ends, Message, Order, Shared, Subject, run::Driver, tasks::Outcome, view::state_of};
use crate::{chain::chain, events::Draft};

/// How long to wait before a platform that could not say what is true is asked again: at first, and
/// at most, doubling between.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A sleeper whose platform has not said by then what is true is stood in for as it was last.
const PROMPT: Duration = Duration::from_secs(2);

type StandingIn = BoxFuture<'static, Outcome>;

/// A sleeper is stood in for while nobody can say what is true.
#[derive(Default)]
struct Meanwhile {
    /// When to begin.
    due: Option<Instant>,
    /// It is being done.
    task: Option<StandingIn>,
}

/// How long to look for what stands in the way of a machine's sleep, before its driver goes on.
const OBSTACLES: Duration = Duration::from_secs(2);

/// Drives a machine that was just created: there is nothing to find.
pub(crate) async fn drive_new(shared: Shared, subject: Subject, ends: Ends) -> End {
    shared.meters.adopt(&subject.spec, &subject.record.state, &subject.record.state);
    Box::new(Driver::new(shared, subject, ends)).drive().await
}

/// Drives a machine that an earlier daemon, or an earlier driver, has driven.
pub(crate) async fn drive_known(shared: Shared, subject: Subject, ends: Ends) -> End {
    let mut driver = Box::new(Driver::new(shared, subject, ends));
    let Some((seen, kept)) = driver.look().await else { return End::Closed };
    driver.release_tied();
    driver.adopt(seen);
    kept.into_iter().for_each(|message| driver.message(message));
    driver.drive().await
}

impl Meanwhile {
    /// What takes long is known to take long.
    fn hasten(&mut self) {
        if let Some(due) = &mut self.due {
            *due = Instant::now().min(*due);
        }
    }

    /// `None` once it is due; the result once it is done.
    async fn step(&mut self) -> Option<Outcome> {
        if let Some(task) = &mut self.task {
            let result = task.await;
            self.task = None;
            return Some(result);
        }
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
        self.due = None;
        None
    }
}

impl Driver {
    /// Asks the platform until it can say what is true, and takes orders to stop by force meanwhile. Also
    /// gives what waits until then. `None` when the daemon ends.
    ///
    /// Who sleeps by the record is stood in for as soon as it is known that this takes its time.
    async fn look(&mut self) -> Option<(Observed, Vec<Message>)> {
        let (mut next, mut again) = (Instant::now(), AGAIN.0);
        let (mut kept, mut obstacle) = (Vec::new(), None);
        let mut meanwhile = Meanwhile { due: self.sleeps_by_record().then_some(next + PROMPT), task: None };
        loop {
            let instance = Arc::clone(&self.subject.instance);
            let asked = async move {
                tokio::time::sleep_until(next).await;
                let seen = instance.observe().await;
                if seen.is_ok() && instance.shape().shared {
                    // Orders are judged by what bars the depths; what takes longer is seen later.
                    let _ = tokio::time::timeout(OBSTACLES, instance.obstacles()).await;
                }
                seen
            };
            // A message ends the question, so that an order to end the process finds nothing in its way.
            tokio::select! {
                message = self.receive() => {
                    let message = message?;
                    if matches!(message, Message::Platform(dormouse_platform::Notice::Unreachable(..))) {
                        meanwhile.hasten();
                    }
                    if self.told_before_adoption(message, obstacle.as_deref(), &mut kept).await {
                        next = Instant::now();
                    }
                }
                stood_in = meanwhile.step() => match stood_in {
                    None => meanwhile.task = self.stand_in_as_recorded().await,
                    Some(result) => self.stood_in_as_recorded(result, &mut meanwhile),
                },
                seen = asked => match seen {
                    Ok(seen) => {
                        if let Some(task) = meanwhile.task.take() {
                            self.stood_in_as_recorded(task.await, &mut meanwhile);
                        }
                        return Some((seen, kept));
                    }
                    Err(error) => {
                        let why = format!("cannot tell whether it runs; asking again: {}", chain(&error));
                        if obstacle.as_ref() != Some(&why) {
                            self.warn(why.clone());
                        }
                        self.show_unknown(&why);
                        obstacle = Some(why);
                        next = Instant::now() + again;
                        again = (again * 2).min(AGAIN.1);
                        meanwhile.hasten();
                    }
                },
            }
        }
    }

    fn sleeps_by_record(&self) -> bool {
        matches!(self.journal.record().state, State::Asleep { .. })
    }

    /// Stands in for a machine that sleeps by its record. One that somebody seems to have woken is left to
    /// itself until it is known.
    async fn stand_in_as_recorded(&self) -> Option<StandingIn> {
        let keeps_process =
            matches!(self.journal.record().state, State::Asleep { depth } if Depth::keeps_process(depth));
        if !keeps_process && self.subject.instance.has_process_here().await {
            self.warn(
                "it seems to have been started meanwhile: nobody stands in for it until that is known".into(),
            );
            return None;
        }
        Some(Box::pin(self.context().carry_out(Task::StandIn)))
    }

    fn stood_in_as_recorded(&mut self, result: Outcome, meanwhile: &mut Meanwhile) {
        match result {
            Ok(output) => {
                let name = &self.subject.spec.name;
                tracing::info!(machine = %name, "is stood in for as it was last, until its platform can be asked");
                self.ports = output.ports.unwrap_or_default();
                self.is_recovered();
            }
            Err(failure) => {
                let name = &self.subject.spec.name;
                tracing::warn!(machine = %name, "cannot {} yet: {}", Task::StandIn, failure.why);
                meanwhile.due = Some(Instant::now() + PROMPT);
            }
        }
    }

    /// Keeps a message until it is known what is true; what cannot wait for that is answered. True if
    /// the process was ended, which may change what is known.
    async fn told_before_adoption(
        &self,
        message: Message,
        obstacle: Option<&str>,
        kept: &mut Vec<Message>,
    ) -> bool {
        let is_forced = match (&message, obstacle) {
            // The platform may be able to say now.
            (Message::Platform(dormouse_platform::Notice::Changed(..)), Some(_)) => {
                kept.push(message);
                return true;
            }
            (Message::MakeRoom { .. }, _) => return false,
            (_, None) | (Message::Rewrite { .. } | Message::Presence(_) | Message::Platform(_), _) => {
                kept.push(message);
                return false;
            }
            (Message::Order { order, .. }, _) => matches!(order, Order::Stop { force: true, .. }),
            (Message::Remove { force, .. }, _) => *force,
        };
        let ended =
            if is_forced { self.subject.instance.kill().await.map_err(|e| chain(&e)) } else { Ok(()) };
        let (Some(why), true) = (obstacle, is_forced && ended.is_ok()) else {
            message.refuse(self.unknown(ended.err().as_deref().or(obstacle)));
            return false;
        };
        tracing::warn!(machine = %self.subject.spec.name, why, "its process was ended by force");
        kept.push(message);
        true
    }

    fn unknown(&self, why: Option<&str>) -> Problem {
        let detail = format!("{}: {}", self.subject.spec.name, why.unwrap_or_default());
        Problem::new(ProblemKind::Unavailable, detail)
            .fix("try again, or end it with `dormouse stop --force`")
    }

    fn adopt(&mut self, seen: Observed) {
        let last = self.journal.record().state.clone();
        let shape = self.subject.instance.shape();
        let (life, actions) = Lifecycle::recover(last.clone(), shape, seen, self.now());
        self.life = life;
        self.idleness.mind.adopt(self.life.state(), self.since);
        self.shared.meters.adopt(&self.subject.spec, self.life.state(), &last);
        self.tell_adopted(&last, seen);
        self.tell_unknown_responders();
        self.page_out(self.life.state());
        self.act(actions);
    }

    /// The configuration may have changed since the machine was created.
    fn tell_unknown_responders(&self) {
        for responder in &self.subject.spec.responders {
            if !self.shared.config.responder.contains_key(&responder.name) {
                self.warn(format!(
                    "its file names the responder {0}, and dormoused.toml has no [responder.{0}]: what that \
                     would be asked about is held",
                    responder.name
                ));
            }
        }
    }

    fn tell_adopted(&self, last: &State, seen: Observed) {
        let name = &self.subject.spec.name;
        let found = match seen.process {
            Process::Absent => "no process",
            Process::Running => "a running guest",
            Process::Still => "a guest that stands still",
            Process::Incoming => "a process whose guest never ran",
        };
        let state = match seen.saved_state {
            StateOnDisk::None => "",
            StateOnDisk::Taken => " and a saved state that a process was given",
            StateOnDisk::Whole => " and a whole saved state",
        };
        let was = state_of(last);
        tracing::info!(machine = %name, "adopted: it was {was}, found {found}{state}");
        let cause = format!("was {was}; found {found}{state}");
        self.shared.events.publish(Draft::of(name, EventKind::Adopted).cause(Some(cause)));
    }
}
