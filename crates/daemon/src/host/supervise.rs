//! Drivers are watched: one that ends by a fault in this program is started again.

use std::{sync::Arc, time::Duration};

use dormouse_api_types::EventKind;
use dormouse_machine::lifecycle::State;
use dormouse_types::{MachineName, Timestamp};
use tokio::{sync::oneshot, task::JoinError};

use super::Host;
use crate::{
    chain::chain,
    driver::{End, Ends, Handle, Subject, drive_known, drive_new},
    events::Draft,
};

/// So many faults in [`WINDOW`], and the machine is left alone.
const FAULTS: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);

impl Host {
    /// Starts a driver; `known` says that an earlier one has driven the machine. The receiver is
    /// told once nothing of the earlier one has to be claimed any more.
    pub(super) fn drive(self: &Arc<Self>, subject: Subject, known: bool) -> (Handle, oneshot::Receiver<()>) {
        let (handle, ends, recovered) = Handle::new(&subject);
        self.write().insert(handle.name.clone(), handle.clone());
        tokio::spawn(supervise(Arc::clone(self), subject, ends, known));
        (handle, recovered)
    }

    /// The machine as the registry has it now: what the failed driver knew is not to be trusted.
    async fn reload(&self, subject: &Subject) -> Option<Subject> {
        let entries = match self.shared.registry.load().await {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(machine = %subject.record.name, error = chain(&error), "cannot be driven again");
                return None;
            }
        };
        let entry = entries.into_iter().find(|entry| entry.name == subject.record.name)?;
        let (revision, record) = entry.record.ok()?;
        Some(Subject { record, revision, ..subject.clone() })
    }

    /// The machine with the file that it has now. `None`: it cannot be driven any more.
    async fn rewritten(&self, subject: &Subject) -> Option<Subject> {
        let name = &subject.record.name;
        let Some(again) = self.reload(subject).await else {
            self.give_up(subject);
            return None;
        };
        match self.instance(&again.record) {
            Ok((spec, instance)) => {
                let again = Subject { spec, instance, ..again };
                if let Some(handle) = self.write().get_mut(name) {
                    *handle = handle.rewritten(&again);
                }
                Some(again)
            }
            Err(why) => {
                self.write().remove(name);
                self.lose(name, Some(again.record), why);
                None
            }
        }
    }

    fn tell_fault(&self, name: &MachineName, error: &JoinError) {
        let why = format!("a fault in dormoused ended its driver, which is started again: {error}");
        tracing::error!(machine = %name, "{why}");
        self.events().publish(Draft::of(name, EventKind::Warning).cause(Some(why)));
    }

    /// Leaves a machine alone whose driver fails again and again. What runs goes on running.
    fn give_up(&self, subject: &Subject) {
        let name = &subject.record.name;
        let mut failed = subject.clone();
        failed.record.state = State::Failed {
            during: "driving it".into(),
            why: "faults in dormoused ended its driver again and again: restart dormoused, and report this"
                .into(),
            state_kept: false,
        };
        let (handle, _, _) = Handle::new(&failed);
        self.write().insert(name.clone(), handle);
        let why = "left alone after several faults in dormoused";
        tracing::error!(machine = %name, "{why}");
        self.events().publish(Draft::of(name, EventKind::Warning).cause(Some(why)));
    }
}

async fn supervise(host: Arc<Host>, mut subject: Subject, mut ends: Ends, mut known: bool) {
    let mut faults: Vec<Timestamp> = Vec::new();
    loop {
        let shared = host.shared.clone();
        let driver = if known {
            tokio::spawn(drive_known(shared, subject.clone(), ends))
        } else {
            tokio::spawn(drive_new(shared, subject.clone(), ends))
        };
        let error = match driver.await {
            Ok(End::Removed | End::Closed) => return,
            Ok(End::Rewritten(same)) => {
                let Some(again) = host.rewritten(&subject).await else { return };
                (subject, known, ends) = (again, true, *same);
                // It may have been changed back while it slept.
                host.look_again(&subject.record.name);
                continue;
            }
            Err(error) if error.is_cancelled() => return,
            Err(error) => error,
        };
        host.tell_fault(&subject.record.name, &error);
        let now = host.shared.clock.now();
        faults.retain(|at| now.since(*at) < WINDOW);
        faults.push(now);
        let again = if faults.len() < FAULTS { host.reload(&subject).await } else { None };
        let Some(again) = again else { return host.give_up(&subject) };
        (subject, known) = (again, true);
        let (handle, new_ends, _) = Handle::new(&subject);
        host.write().insert(handle.name.clone(), handle);
        ends = new_ends;
    }
}
