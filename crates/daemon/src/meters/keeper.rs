//! What is done for the accounts beside the drivers: memory is measured, machines that are awake are written
//! down each minute, old hours become days.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use dormouse_machine::meter::{Class, Event, Posting};
use dormouse_registry::{Tidy, Transaction};
use dormouse_types::{MachineName, Timestamp};
use futures::{StreamExt as _, stream};
use tokio::time::{Instant, MissedTickBehavior};

use super::{Kept, Meters, lock, report::day_start};
use crate::{chain::chain, config::Metering, driver::Handle, host::Host};

/// How often it is asked whose memory is to be measured, and to whom something happened that no write of
/// a record has made durable.
const LOOK: Duration = Duration::from_secs(5);
/// How often the memory of a machine that is awake is measured, and its account written.
const AWAKE: Duration = Duration::from_secs(60);
/// How often that of a sleeper is: the host may take what is left of it, and what stands by may come and go.
const ASLEEP: Duration = Duration::from_secs(600);
/// How often old hours are looked for.
const TIDY: Duration = Duration::from_secs(24 * 3600);
/// Hours that are younger stay hours in any case.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Machines whose memory is measured at the same time.
const AT_ONCE: usize = 8;
/// Closed buckets of all machines together, of some 200 octets each; with more, hours become days sooner.
const MOST: usize = 1_000_000;

/// Starts the keeper.
pub(crate) fn start(host: &Arc<Host>) {
    tokio::spawn(keep(Arc::downgrade(host)));
}

async fn keep(host: Weak<Host>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut measured: BTreeMap<MachineName, (Class, Instant)> = BTreeMap::new();
    let mut written = Instant::now();
    let mut tidied: Option<Instant> = None;
    loop {
        ticks.tick().await;
        let Some(host) = host.upgrade() else { return };
        let meters = host.meters();
        meters.measure(&host.handles(), &mut measured).await;
        let all = written.elapsed() >= AWAKE;
        if all {
            written = Instant::now();
        }
        host.write_usage(if all { Which::Awake } else { Which::Changed }).await;
        if tidied.is_none_or(|at| at.elapsed() >= TIDY) {
            tidied = Some(Instant::now());
            meters.tidy(&host.config().metering).await;
        }
    }
}

/// Whose accounts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Which {
    /// Of machines to which something happened.
    Changed,
    /// And of those that are awake.
    Awake,
    /// Of all.
    All,
}

impl Host {
    /// Writes accounts.
    pub(crate) async fn write_usage(&self, which: Which) {
        let meters = self.meters();
        let postings = meters.due(which);
        if postings.is_empty() {
            return;
        }
        let transaction = Transaction::default().with_usage(postings.iter().cloned());
        match self.registry().commit(transaction).await {
            Ok(_) => postings.iter().for_each(|p| meters.posted(&p.machine, &p.account)),
            Err(error) => tracing::warn!(error = chain(&error), "what machines used is not durable"),
        }
    }
}

impl Meters {
    /// What is to be written though no record is.
    pub(super) fn due(&self, which: Which) -> Vec<Posting> {
        let now = self.moment();
        let mut ledgers = lock(&self.inner.ledgers);
        let mut due = Vec::new();
        for ledger in ledgers.values_mut() {
            if ledger.is_closed() {
                continue;
            }
            ledger.handle(Event::Tick, now);
            let is_wanted = match which {
                Which::Changed => false,
                Which::Awake => ledger.class().is_awake(),
                Which::All => true,
            };
            if ledger.is_changed() || is_wanted {
                due.push(ledger.post());
            }
        }
        due
    }

    /// Measures memory, of each machine as often as it may change.
    async fn measure(&self, handles: &[Handle], measured: &mut BTreeMap<MachineName, (Class, Instant)>) {
        measured.retain(|name, _| handles.iter().any(|handle| handle.name == *name));
        let due = |handle: &Handle| {
            let class = lock(&self.inner.ledgers).get(&handle.name)?.class();
            let often = if class == Class::Awake { AWAKE } else { ASLEEP };
            let settled = handle.peek(|view| view.settled);
            let is_due = match measured.get(&handle.name) {
                Some((was, at)) if *was == class => at.elapsed() >= often,
                _ => settled || class == Class::Awake,
            };
            is_due.then(|| (handle.clone(), class))
        };
        let due: Vec<_> = handles.iter().filter_map(due).collect();
        let now = Instant::now();
        let facts = stream::iter(due)
            .map(|(handle, class)| async move { (handle.instance.facts().await, handle.name, class) })
            .buffer_unordered(AT_ONCE);
        let mut facts = std::pin::pin!(facts);
        while let Some((facts, name, class)) = facts.next().await {
            // What nobody knows is not booked.
            if facts.resident_bytes.is_none_or(|bytes| self.occupied(&name, class, bytes)) {
                measured.insert(name, (class, now));
            }
        }
    }

    /// Takes in what a machine occupied while it was of a class; false if it is not any more, so that the figure
    /// says nothing of now.
    pub(super) fn occupied(&self, machine: &MachineName, class: Class, bytes: u64) -> bool {
        let now = self.moment();
        let mut ledgers = lock(&self.inner.ledgers);
        let Some(ledger) = ledgers.get_mut(machine).filter(|ledger| ledger.class() == class) else {
            return false;
        };
        ledger.handle(Event::Occupied(bytes), now);
        true
    }

    /// Makes days of old hours and forgets what is older than that, of each machine by itself.
    async fn tidy(&self, keep: &Metering) {
        self.tidy_below(MOST, keep).await;
    }

    /// With more than `most` rows, hours become days sooner; what is to be kept at all is kept.
    pub(super) async fn tidy_below(&self, most: usize, keep: &Metering) {
        let mut hourly = keep.hourly.get();
        loop {
            let rows = self.tidy_to(hourly, keep.keep.get()).await;
            *lock(&self.inner.kept) = Some(Kept { rows, most, hourly });
            if rows <= most || hourly < DAY {
                break;
            }
            hourly /= 2;
            tracing::warn!(rows, ?hourly, "much is kept of what machines used: its hours become days sooner");
        }
    }

    async fn tidy_to(&self, hourly: Duration, keep: Duration) -> usize {
        let now = self.inner.clock.now();
        let zone = self.inner.zone.clone();
        let days_before = day_start(&zone, now - hourly);
        let tidy =
            Tidy { days_before, forget_before: now - keep, day: Arc::new(move |at| day_start(&zone, at)) };
        let mut left = 0;
        for machine in self.machines() {
            match self.inner.store.tidy(&machine, tidy.clone()).await {
                Ok(0) => self.let_go(&machine, tidy.forget_before),
                Ok(count) => left += count,
                Err(error) => {
                    tracing::warn!(%machine, error = chain(&error), "what it used long ago is kept as it is");
                }
            }
        }
        left
    }

    /// Forgets a machine that is no more and of which nothing is kept, as the store does.
    fn let_go(&self, machine: &MachineName, forget_before: Timestamp) {
        let mut stored = lock(&self.inner.stored);
        if stored.get(machine).is_some_and(|last| last.open.is_none() && last.bucket.end < forget_before) {
            stored.remove(machine);
        }
    }
}
