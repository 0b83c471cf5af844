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

use super::{Meters, lock, report::day_start};
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
/// Machines whose memory is measured at the same time.
const AT_ONCE: usize = 8;
/// Closed buckets of all machines together, of some 200 octets each; with more, less is kept of each.
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
        host.write_usage(all).await;
        if tidied.is_none_or(|at| at.elapsed() >= TIDY) {
            tidied = Some(Instant::now());
            meters.tidy(&host.config().metering).await;
        }
    }
}

impl Host {
    /// Writes the accounts of machines to which something happened; of all that are awake if `awake`.
    pub(crate) async fn write_usage(&self, awake: bool) {
        let meters = self.meters();
        let postings = meters.due(awake);
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
    fn due(&self, awake: bool) -> Vec<Posting> {
        let now = self.moment();
        let mut ledgers = lock(&self.inner.ledgers);
        let mut due = Vec::new();
        for ledger in ledgers.values_mut() {
            ledger.handle(Event::Tick, now);
            if ledger.is_changed() || (awake && ledger.class().is_awake()) {
                due.push(ledger.post());
            }
        }
        due
    }

    /// Measures memory, of each machine as often as it may change.
    async fn measure(&self, handles: &[Handle], measured: &mut BTreeMap<MachineName, (Class, Instant)>) {
        measured.retain(|name, _| handles.iter().any(|handle| handle.name == *name));
        let is_due = |handle: &&Handle| {
            let Some(class) = lock(&self.inner.ledgers).get(&handle.name).map(|ledger| ledger.class()) else {
                return false;
            };
            let often = if class == Class::Awake { AWAKE } else { ASLEEP };
            let settled = handle.peek(|view| view.settled);
            match measured.get(&handle.name) {
                Some((was, at)) if *was == class => at.elapsed() >= often,
                _ => settled || class == Class::Awake,
            }
        };
        let due: Vec<_> = handles.iter().filter(is_due).cloned().collect();
        let now = Instant::now();
        let facts = stream::iter(due)
            .map(|handle| async move { (handle.instance.facts().await, handle.name) })
            .buffer_unordered(AT_ONCE);
        let mut facts = std::pin::pin!(facts);
        while let Some((facts, name)) = facts.next().await {
            self.tell(&name, Event::Occupied(facts.resident_bytes));
            if let Some(ledger) = lock(&self.inner.ledgers).get(&name) {
                measured.insert(name, (ledger.class(), now));
            }
        }
    }

    /// Makes days of old hours and forgets what is older than that, of each machine by itself.
    async fn tidy(&self, keep: &Metering) {
        let (mut hourly, mut whole) = (keep.hourly.get(), keep.keep.get());
        // Twice as little each time, until the bound is kept.
        for _ in 0..8 {
            let left = self.tidy_to(hourly, whole).await;
            if left <= MOST {
                return;
            }
            (hourly, whole) = (hourly / 2, whole / 2);
            tracing::warn!(left, "too much is kept of what machines used: less is from now on");
        }
    }

    async fn tidy_to(&self, hourly: Duration, keep: Duration) -> usize {
        let now = self.inner.clock.now();
        let ago = |span: Duration| {
            Timestamp(now.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
        };
        let zone = self.inner.zone.clone();
        let days_before = day_start(&zone, ago(hourly));
        let tidy =
            Tidy { days_before, forget_before: ago(keep), day: Arc::new(move |at| day_start(&zone, at)) };
        let mut left = 0;
        for machine in self.machines() {
            match self.inner.store.tidy(&machine, tidy.clone()).await {
                Ok(count) => left += count,
                Err(error) => {
                    tracing::warn!(%machine, error = chain(&error), "what it used long ago is kept as it is");
                }
            }
        }
        left
    }
}
