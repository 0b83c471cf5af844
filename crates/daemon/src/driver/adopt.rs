//! How a driver begins: it asks the platform what is true, and goes on from there.

use std::time::Duration;

use dormouse_api_types::EventKind;
use dormouse_machine::lifecycle::{Lifecycle, Observed, Process, State, StateOnDisk};

use super::{End, Ends, Shared, Subject, run::Driver, view::state_of};
use crate::{chain::chain, events::Draft};

/// How long to wait before a platform that could not say what is true is asked again: at first, and
/// at most, doubling between.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Drives a machine that was just created: there is nothing to find.
pub(crate) async fn drive_new(shared: Shared, subject: Subject, ends: Ends) -> End {
    Driver::new(shared, subject, ends).drive().await
}

/// Drives a machine that an earlier daemon, or an earlier driver, has driven.
pub(crate) async fn drive_known(shared: Shared, subject: Subject, ends: Ends) -> End {
    let mut driver = Driver::new(shared, subject, ends);
    let mut again = AGAIN.0;
    let seen = loop {
        match driver.subject.instance.observe().await {
            Ok(seen) => break seen,
            Err(error) => {
                driver.warn(format!("cannot tell whether it runs; asking again: {}", chain(&error)));
                if driver.has_no_mailbox() {
                    return End::Closed;
                }
                tokio::time::sleep(again).await;
                again = (again * 2).min(AGAIN.1);
            }
        }
    };
    driver.adopt(seen);
    driver.drive().await
}

impl Driver {
    fn adopt(&mut self, seen: Observed) {
        let last = self.journal.record().state.clone();
        let (life, actions) = Lifecycle::recover(last.clone(), seen, self.now());
        self.life = life;
        self.tell_adopted(&last, seen);
        self.act(actions);
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
