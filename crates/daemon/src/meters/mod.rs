//! The accounts of this host's machines: [`dormouse_machine::meter`], told what happens and kept durable.
//!
//! ```text
//! drivers ── states, counters ──► Meters (a ledger for each machine) ──► with the driver's next write
//! keeper  ── memory, each minute ──┘                                └──► alone, each minute, if awake
//! ```
//!
//! A machine's rows are in the same transaction as its record wherever one is written, so that a restart finds
//! both of the same instant.

mod keeper;
mod report;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dormouse_machine::{
    lifecycle::State,
    meter::{Account, Bucket, Event, Grid, Ledger, Moment, Posting, Row, Subject, Tags},
    spec::MachineSpec,
};
use dormouse_registry::{Error, UsageStore};
use dormouse_types::{MachineName, Timestamp};
use jiff::tz::TimeZone;

use crate::clock::Clock;

pub(crate) use keeper::{Which, start as start_keeper};
pub(crate) use report::report;

/// The accounts of all machines. Cheap to clone.
#[derive(Clone)]
pub struct Meters {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn UsageStore>,
    clock: Arc<dyn Clock>,
    zone: TimeZone,
    ledgers: Mutex<BTreeMap<MachineName, Ledger>>,
    /// Accounts of an earlier daemon, and of machines that are no more.
    stored: Mutex<BTreeMap<MachineName, Account>>,
    /// The boot of the host.
    boot: Option<String>,
    /// What was found when old hours were last looked for.
    kept: Mutex<Option<Kept>>,
}

/// How much is kept of what machines used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Rows of all machines.
    pub(crate) rows: usize,
    /// With more than so many, hours become days sooner than is configured.
    pub(crate) most: usize,
    /// How long hours are kept now.
    pub(crate) hourly: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// random(4): another one after each boot.
fn boot() -> Option<String> {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.ok().map(|id| id.trim().to_owned()).filter(|id| !id.is_empty())
}

impl Meters {
    /// Takes up what is stored. If that cannot be read, accounts begin anew.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn open(store: Arc<dyn UsageStore>, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let stored = store.accounts().await?.into_iter().collect();
        let inner = Inner {
            store,
            clock,
            zone: TimeZone::system(),
            ledgers: Mutex::default(),
            stored: Mutex::new(stored),
            boot: boot(),
            kept: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn moment(&self) -> Moment {
        Moment { wall: self.inner.clock.now(), steady: self.inner.clock.steady() }
    }

    fn grid(&self) -> Grid {
        let now = i128::from(self.inner.clock.now().0);
        let now = jiff::Timestamp::from_nanosecond(now).unwrap_or_default();
        Grid::of_offset(self.inner.zone.to_offset(now).seconds())
    }

    /// A driver begins with a machine, which is in `state`, and in `journalled` by its record: its account is taken
    /// up, or begun.
    pub(crate) fn adopt(&self, spec: &MachineSpec, state: &State, journalled: &State) {
        let (now, grid) = (self.moment(), self.grid());
        let tags = Tags { owner: spec.owner.clone(), labels: spec.labels.clone() };
        let configured = spec.platform.memory();
        let mut ledgers = lock(&self.inner.ledgers);
        if let Some(ledger) = ledgers.get_mut(&spec.name) {
            // Its driver was started again, perhaps with another file.
            ledger.handle(Event::Tagged(tags), now);
            ledger.handle(Event::Configured(configured), now);
            return ledger.handle(Event::Entered(state), now);
        }
        let boot = self.inner.boot.as_deref();
        let subject = Subject { machine: spec.name.clone(), tags, configured, state, journalled, boot };
        let ledger = match lock(&self.inner.stored).remove(&spec.name) {
            Some(last) => Ledger::resume(subject, last, grid, now),
            None => Ledger::new(subject, None, grid, now),
        };
        ledgers.insert(spec.name.clone(), ledger);
    }

    /// Something happened to a machine.
    pub(crate) fn tell(&self, machine: &MachineName, event: Event<'_>) {
        let now = self.moment();
        if let Some(ledger) = lock(&self.inner.ledgers).get_mut(machine) {
            ledger.handle(event, now);
        }
    }

    /// What is to be written of a machine beside its record, if anything happened.
    pub(crate) fn post(&self, machine: &MachineName) -> Option<Posting> {
        let now = self.moment();
        let mut ledgers = lock(&self.inner.ledgers);
        let ledger = ledgers.get_mut(machine)?;
        ledger.handle(Event::Tick, now);
        ledger.is_changed().then(|| ledger.post())
    }

    /// What is to be written when a machine is forgotten.
    pub(crate) fn close(&self, machine: &MachineName) -> Option<Posting> {
        let now = self.moment();
        if let Some(ledger) = lock(&self.inner.ledgers).get_mut(machine) {
            return Some(ledger.close(now));
        }
        // It was not driven: its account ends where it was written last.
        let Account { serial, nudge, bucket, .. } = lock(&self.inner.stored).get(machine)?.clone();
        let last = Bucket { start: bucket.end, end: bucket.end, ..Bucket::default() };
        let account = Account { serial: serial + 1, nudge, bucket: last, open: None };
        Some(Posting { machine: machine.clone(), closed: vec![bucket], account })
    }

    /// A machine that was to be forgotten stays.
    pub(crate) fn reopen(&self, machine: &MachineName) {
        if let Some(ledger) = lock(&self.inner.ledgers).get_mut(machine) {
            ledger.reopen();
        }
    }

    /// How much is kept, once that is known.
    pub(crate) fn kept(&self) -> Option<Kept> {
        *lock(&self.inner.kept)
    }

    /// What was posted is durable. An account that was closed is one of the past from now on.
    pub(crate) fn posted(&self, machine: &MachineName, account: &Account) {
        let mut ledgers = lock(&self.inner.ledgers);
        if account.open.is_none() {
            ledgers.remove(machine);
            lock(&self.inner.stored).insert(machine.clone(), account.clone());
        } else if let Some(ledger) = ledgers.get_mut(machine) {
            ledger.posted(account.serial);
        }
    }

    /// All machines that have an account, also those that are no more.
    fn machines(&self) -> Vec<MachineName> {
        let mut names: Vec<_> = lock(&self.inner.ledgers).keys().cloned().collect();
        names.extend(lock(&self.inner.stored).keys().cloned());
        names
    }

    /// What a machine used in buckets that begin from `since` on and before `until`, up to this moment.
    async fn rows(
        &self,
        machine: &MachineName,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Row>, Error> {
        let mut buckets: BTreeMap<Timestamp, _> = BTreeMap::new();
        for bucket in self.inner.store.buckets(machine, since, until).await? {
            buckets.insert(bucket.start, bucket);
        }
        let now = self.moment();
        if let Some(ledger) = lock(&self.inner.ledgers).get_mut(machine) {
            ledger.handle(Event::Tick, now);
            // What the ledger has is newer than what is stored.
            let live = ledger.buckets().filter(|bucket| (since..until).contains(&bucket.start));
            buckets.extend(live.map(|bucket| (bucket.start, bucket.clone())));
        } else if let Some(account) = lock(&self.inner.stored).get(machine) {
            let last = Some(&account.bucket).filter(|bucket| (since..until).contains(&bucket.start));
            buckets.extend(last.map(|bucket| (bucket.start, bucket.clone())));
        }
        let row = |bucket| Row { machine: machine.clone(), bucket };
        Ok(buckets.into_values().map(row).collect())
    }
}
