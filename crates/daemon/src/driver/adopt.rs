//! How a driver begins: it asks the platform what is true, and goes on from there.

use std::{sync::Arc, time::Duration};

use dormouse_api_types::{EventKind, Problem, ProblemKind};
use dormouse_machine::lifecycle::{Lifecycle, Observed, Process, State, StateOnDisk};
use tokio::time::Instant;

use super::{End, Ends, Message, Order, Shared, Subject, run::Driver, view::state_of};
use crate::{chain::chain, events::Draft};

/// How long to wait before a platform that could not say what is true is asked again: at first, and
/// at most, doubling between.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Drives a machine that was just created: there is nothing to find.
pub(crate) async fn drive_new(shared: Shared, subject: Subject, ends: Ends) -> End {
    shared.meters.adopt(&subject.spec, &subject.record.state);
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

impl Driver {
    /// Asks the platform until it can say what is true, and takes orders to stop by force meanwhile. Also
    /// gives what waits until then. `None` when the daemon ends.
    async fn look(&mut self) -> Option<(Observed, Vec<Message>)> {
        let (mut next, mut again) = (Instant::now(), AGAIN.0);
        let (mut kept, mut obstacle) = (Vec::new(), None);
        loop {
            let instance = Arc::clone(&self.subject.instance);
            let asked = async move {
                tokio::time::sleep_until(next).await;
                instance.observe().await
            };
            // A message ends the question, so that an order to end the process finds nothing in its way.
            tokio::select! {
                message = self.receive() => {
                    if self.told_before_adoption(message?, obstacle.as_deref(), &mut kept).await {
                        next = Instant::now();
                    }
                }
                seen = asked => match seen {
                    Ok(seen) => return Some((seen, kept)),
                    Err(error) => {
                        let why = format!("cannot tell whether it runs; asking again: {}", chain(&error));
                        self.warn(why.clone());
                        self.show_unknown(&why);
                        obstacle = Some(why);
                        next = Instant::now() + again;
                        again = (again * 2).min(AGAIN.1);
                    }
                },
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
        self.shared.meters.adopt(&self.subject.spec, self.life.state());
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
