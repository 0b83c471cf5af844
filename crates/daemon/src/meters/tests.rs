//! What becomes of accounts beside the drivers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dormouse_machine::{
    lifecycle::State,
    meter::{Account, Amounts, Bucket, Class, Posting, Tags},
    spec::MachineSpec,
};
use dormouse_registry::{Redb, Registry as _, Transaction};
use dormouse_types::{Depth, MachineName, Timestamp};

use super::{Meters, Which};
use crate::{
    clock::Clock,
    config::{Metering, Span},
};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const ASLEEP: State = State::Asleep { depth: Depth::Saved };

/// Seconds, of both clocks.
#[derive(Debug)]
struct Seconds(AtomicU64);

impl Seconds {
    fn pass(&self, span: Duration) {
        self.0.fetch_add(span.as_secs(), Ordering::SeqCst);
    }
}

impl Clock for Seconds {
    fn now(&self) -> Timestamp {
        Timestamp(0) + self.steady()
    }

    fn steady(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

struct Bench {
    _dir: tempfile::TempDir,
    registry: Redb,
    clock: Arc<Seconds>,
    meters: Meters,
}

impl Bench {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Redb::open(dir.path()).unwrap();
        let clock = Arc::new(Seconds(AtomicU64::new(1_795_244_400)));
        let meters = Meters::open(Arc::new(registry.clone()), Arc::clone(&clock) as _).await.unwrap();
        Self { _dir: dir, registry, clock, meters }
    }

    async fn write(&self, posting: Posting) {
        let (machine, account) = (posting.machine.clone(), posting.account.clone());
        self.registry.commit(Transaction::default().with_usage([posting])).await.unwrap();
        self.meters.posted(&machine, &account);
    }

    async fn total(&self) -> Amounts {
        let mut sum = Amounts::default();
        let rows = self.meters.rows(&web(), Timestamp(0), Timestamp(u64::MAX)).await.unwrap();
        rows.iter().for_each(|row| sum.merge(&row.bucket.amounts));
        sum
    }
}

fn web() -> MachineName {
    "web".parse().unwrap()
}

fn spec() -> MachineSpec {
    let text = "name = \"web\"\n[libvirt]\ndomain = \"web\"\n";
    MachineSpec::from_toml(text, "/".as_ref()).unwrap()
}

fn metering(hourly: Duration, keep: Duration) -> Metering {
    Metering { hourly: Span::new(hourly), keep: Span::new(keep) }
}

#[tokio::test]
async fn what_a_machine_occupied_awake_is_not_booked_on_a_sleeper() {
    let bench = Bench::start().await;
    bench.meters.adopt(&spec(), &State::Active, &State::Active);
    assert!(bench.meters.occupied(&web(), Class::Awake, 1 << 30));
    bench.meters.tell(&web(), dormouse_machine::meter::Event::Entered(&ASLEEP));
    bench.meters.tell(&web(), dormouse_machine::meter::Event::Occupied(0));
    assert!(!bench.meters.occupied(&web(), Class::Awake, 1 << 30));
    bench.clock.pass(HOUR);
    let used = bench.total().await;
    assert_eq!((used.occupied, used.span(Class::Saved)), (0, HOUR));
}

#[tokio::test]
async fn who_is_removed_is_written_no_more_unless_that_fails() {
    let bench = Bench::start().await;
    bench.meters.adopt(&spec(), &State::Stopped, &State::Stopped);
    let last = bench.meters.close(&web()).unwrap();
    bench.meters.tell(&web(), dormouse_machine::meter::Event::Entered(&State::Active));
    assert_eq!((bench.meters.post(&web()), bench.meters.due(Which::All)), (None, Vec::new()));
    bench.meters.reopen(&web());
    let [again] = &*bench.meters.due(Which::Changed) else { panic!("it is driven") };
    assert!(again.account.open.is_some() && again.account.serial > last.account.serial);
    let last = bench.meters.close(&web()).unwrap();
    bench.write(last).await;
    assert_eq!(bench.meters.post(&web()), None);
    assert_eq!(bench.meters.machines(), [web()], "it is told of");
}

#[tokio::test]
async fn who_is_removed_is_let_go_when_nothing_is_kept_of_it() {
    let bench = Bench::start().await;
    bench.meters.adopt(&spec(), &State::Active, &State::Active);
    bench.clock.pass(HOUR);
    let last = bench.meters.close(&web()).unwrap();
    bench.write(last).await;
    bench.clock.pass(20 * DAY);
    bench.meters.tidy_below(100, &metering(2 * DAY, 30 * DAY)).await;
    assert_eq!(bench.meters.machines(), [web()]);
    bench.clock.pass(20 * DAY);
    bench.meters.tidy_below(100, &metering(2 * DAY, 30 * DAY)).await;
    assert_eq!(bench.meters.machines(), []);
    assert_eq!(bench.total().await, Amounts::default());
}

#[tokio::test]
async fn with_too_many_rows_hours_become_days_sooner_and_nothing_is_forgotten() {
    let bench = Bench::start().await;
    let (now, mut closed) = (bench.clock.now(), Vec::new());
    for hours in 1..=20 * 24 {
        let start = now - HOUR * hours;
        let mut amounts = Amounts::default();
        amounts.spans.insert(Class::Awake, 1);
        closed.push(Bucket { start, end: start + HOUR, tags: Tags::default(), amounts });
    }
    let account = Account { serial: 1, nudge: 0, bucket: closed[0].clone(), open: None };
    bench.write(Posting { machine: web(), closed, account }).await;
    let wanted = metering(16 * DAY, 400 * DAY);
    bench.meters.tidy_below(1000, &wanted).await;
    let kept = bench.meters.kept().unwrap();
    assert_eq!(kept.hourly, 16 * DAY);
    assert!(kept.rows > 300, "{kept:?}");
    bench.meters.tidy_below(150, &wanted).await;
    let kept = bench.meters.kept().unwrap();
    assert_eq!(kept.hourly, 4 * DAY);
    assert!(kept.rows <= 150, "{kept:?}");
    assert_eq!(bench.total().await.span(Class::Awake), Duration::from_nanos(20 * 24));
}
