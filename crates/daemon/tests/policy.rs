//! Policies in the daemon: a driver whose hours pass in no time, beside `dormouse simulate` on the same trace.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use common::{Bench, World, create, file, open, web};
use dormouse_api_types::{Event, EventKind, MachineState};
use dormouse_daemon::{clock::Clock, config::Config, driver::Order};
use dormouse_machine::{
    lifecycle::Process,
    policy::{Kind, Settings},
};
use dormouse_registry::{Change, Entry, Error, Record, Registry, Revision, Transaction};
use dormouse_simulate::{Move, Options, Replay, What};
use dormouse_types::{MachineName, Timestamp};
use jiff::tz::TimeZone;

/// A Monday, midnight.
const MONDAY: Timestamp = Timestamp(1_299_456_000_000_000_000);
const INTERVAL: Duration = Duration::from_secs(300);

/// The wall clock of a world whose hours pass while all wait.
struct Virtual {
    begun: tokio::time::Instant,
    start: Timestamp,
}

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        self.start + self.begun.elapsed()
    }

    fn steady(&self) -> Duration {
        self.begun.elapsed()
    }
}

/// Keeps records without a thread, for which the virtual clock would not wait.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<MachineName, (Revision, Record)>>);

#[async_trait]
impl Registry for Memory {
    async fn load(&self) -> Result<Vec<Entry>, Error> {
        let records = self.0.lock().unwrap().clone().into_iter();
        Ok(records.map(|(name, record)| Entry { name, record: Ok(record) }).collect())
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, Error> {
        let mut records = self.0.lock().unwrap();
        let last = records.values().map(|(revision, _)| revision.0).max().unwrap_or_default();
        let revision = Revision(last + 1);
        for change in transaction.changes() {
            match change {
                Change::Put(record) => {
                    drop(records.insert(record.name.clone(), (revision, (**record).clone())))
                }
                Change::Remove(name) => drop(records.remove(name)),
            }
        }
        Ok(revision)
    }
}

/// A machine under a policy, in a world of its own.
struct Stage {
    bench: Bench,
    registry: Arc<Memory>,
    clock: Arc<Virtual>,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn start(policy: &str) -> Self {
        Self::start_with("\"fixed\"", &format!("policy = {policy}")).await
    }

    /// Where dormoused.toml has `usual`, and the machine's file this line.
    async fn start_with(usual: &str, line: &str) -> Self {
        let stage = Self::with(Arc::default(), MONDAY, Arc::new(World::default()), usual).await;
        let file = file("web", 2).replace("\"never\"", &format!("\"15m\"\n{line}"));
        stage.bench.host.create(create(&file)).await.unwrap();
        stage.bench.order(Order::Start { cold: false }).await.unwrap();
        // As traces have it: a machine that is found is in use.
        stage.bench.world.load(1.0);
        stage
    }

    async fn with(registry: Arc<Memory>, start: Timestamp, world: Arc<World>, usual: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(Virtual { begun: tokio::time::Instant::now(), start });
        let config = format!("state_dir = {:?}\nsleep.policy = {usual}", folder.path());
        let config = Config::parse(&config, folder.path()).unwrap();
        let redb = open(folder.path()).await;
        let bench =
            Bench::start_at(world, redb, Arc::clone(&registry) as _, config, Arc::clone(&clock) as _).await;
        Self { bench, registry, clock, folder }
    }

    /// The same host after a restart of the daemon, at the same time.
    async fn restart(self) -> Self {
        let records = self.registry.0.lock().unwrap().clone();
        let world = Arc::new(World::default());
        world.set(Process::Absent, true);
        let next =
            Self::with(Arc::new(Memory(Mutex::new(records))), self.clock.now(), world, "\"fixed\"").await;
        drop(self.folder);
        next
    }

    /// Lives through a trace. Who comes, comes a little after the interval has begun: by so much later does
    /// the daemon see that use has ended.
    async fn live(&self, values: &[f64]) {
        for value in values {
            let end = tokio::time::Instant::now() + INTERVAL;
            if *value > 0.0 {
                tokio::time::sleep(Duration::from_secs(15)).await;
                if self.bench.state().await == MachineState::Asleep {
                    self.bench.packet();
                    self.bench.wait_state(MachineState::Active).await;
                }
            }
            self.bench.world.load(value / 100.0);
            tokio::time::sleep_until(end).await;
        }
    }

    fn moves(&self) -> Vec<(What, Timestamp)> {
        let what = |event: &Event| match (event.to?, event.cause.as_deref().unwrap_or_default()) {
            (MachineState::Asleep, _) => Some(What::Slept),
            (MachineState::Active, cause) if cause.starts_with("ahead: ") => Some(What::WokenAhead),
            (MachineState::Active, cause) if cause.starts_with("packet: ") => Some(What::Hit),
            _ => None,
        };
        let states = self.bench.events().into_iter().filter(|event| event.kind == EventKind::State);
        states.filter_map(|event| Some((what(&event)?, event.at.timestamp()))).collect()
    }
}

/// What `dormouse simulate` makes of it.
fn simulated(settings: Settings, values: &[f64]) -> Vec<(What, Timestamp)> {
    let mut replay = Replay::new(
        &Options {
            cpu_below: 10.0,
            interval: INTERVAL,
            start: MONDAY,
            warm_up: Duration::ZERO,
            sleep_takes: Duration::ZERO,
            wake_takes: Duration::ZERO,
            separate: false,
            zone: TimeZone::UTC,
            policies: vec![(settings.kind.to_string(), settings)],
        },
        MONDAY,
    );
    replay.record();
    values.iter().for_each(|value| replay.step(*value));
    let moves = replay.recorded().into_iter();
    let moves = moves.filter(|it| matches!(it.what, What::Slept | What::WokenAhead | What::Hit));
    moves.map(|Move { at, what, .. }| (what, at)).collect()
}

/// Somebody comes each half an hour, then nobody for a while, then as before.
fn habits() -> Vec<f64> {
    let visit = [60.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let mut values = visit.repeat(12);
    values.extend([60.0]);
    values.extend([0.0; 40]);
    values.extend(visit.repeat(2));
    values
}

/// Lives through habits, and does as simulated.
async fn agree(stage: Stage, settings: Settings) {
    let kind = settings.kind;
    let values = habits();
    // Opening the files of a host takes time, whatever the clock.
    let begun = stage.clock.now();
    stage.live(&values).await;
    let (lived, simulated) = (stage.moves(), simulated(settings, &values));
    assert!(simulated.len() > 3, "{kind}: {simulated:?}");
    assert_eq!(lived.len(), simulated.len(), "{kind}: {lived:?} {simulated:?}");
    for ((what, at), (expected, time)) in lived.iter().zip(&simulated) {
        let (at, time) = (at.since(begun), time.since(MONDAY));
        let off = at.abs_diff(time);
        assert!(
            what == expected && off < Duration::from_secs(90),
            "{kind}: {what:?} {at:?}, {expected:?} {time:?}"
        );
    }
}

async fn agree_by(kind: Kind) {
    agree(Stage::start(&format!("\"{kind}\"")).await, Settings { kind, ..Settings::default() }).await;
}

#[tokio::test(start_paused = true)]
async fn the_daemon_and_the_simulation_decide_the_same_by_a_fixed_time() {
    agree_by(Kind::Fixed).await;
}

#[tokio::test(start_paused = true)]
async fn the_daemon_and_the_simulation_decide_the_same_by_hysteresis() {
    agree_by(Kind::Hysteresis).await;
}

#[tokio::test(start_paused = true)]
async fn the_daemon_and_the_simulation_decide_the_same_by_prediction() {
    agree_by(Kind::Predictive).await;
}

#[test]
fn every_policy_is_compared() {
    assert_eq!(Kind::ALL, [Kind::Fixed, Kind::Hysteresis, Kind::Predictive]);
}

#[tokio::test(start_paused = true)]
async fn parameters_of_the_configuration_are_those_of_the_simulation() {
    let mut settings = Settings { kind: Kind::Predictive, ..Settings::default() };
    settings.set("wake_cost", "2h").unwrap();
    assert_ne!(
        simulated(settings, &habits()),
        simulated(Settings { kind: Kind::Predictive, ..Settings::default() }, &habits())
    );
    let costly = "{ name = \"predictive\", wake_cost = \"2h\" }";
    agree(Stage::start_with(costly, "policy = \"predictive\"").await, settings).await;
}

#[tokio::test(start_paused = true)]
async fn a_predictive_machine_is_awake_for_who_comes_and_sleeps_again_if_nobody_came() {
    let stage = Stage::start("{ name = \"predictive\", wake_cost = \"20m\" }").await;
    stage.live(&[60.0, 0.0, 0.0, 0.0, 0.0, 0.0].repeat(20)).await;
    // Half an hour after the last one somebody comes again.
    let due = stage.clock.now();
    let [.., (What::Slept, slept), (What::WokenAhead, woken)] = &*stage.moves() else {
        panic!("it is not awake for who comes next: {:?}", stage.moves())
    };
    let (early, asleep) = (due.since(*woken), woken.since(*slept));
    assert!(*woken < due && early < Duration::from_secs(600), "{early:?} before somebody comes");
    assert!(asleep > Duration::from_secs(300), "{asleep:?}");
    let why = stage.bench.host.why(&web()).await.unwrap();
    assert_eq!(why.state, MachineState::Active);
    let wake = why.last_wake.unwrap();
    let told = wake.frame.unwrap_or_default();
    assert!(wake.cause == "ahead" && told.contains("idle times"), "{} {told}", wake.cause);
    assert!(why.cause.is_some_and(|cause| cause == format!("ahead: {told}")));
    let before = stage.moves().len();
    stage.live(&[60.0]).await;
    stage.live(&[0.0; 12]).await;
    let moves: Vec<_> = stage.moves().into_iter().skip(before).map(|(what, _)| what).collect();
    let at = moves.iter().position(|what| *what == What::WokenAhead);
    let at = at.unwrap_or_else(|| panic!("nobody woke it: {moves:?}"));
    assert_eq!(moves.get(at + 1), Some(&What::Slept), "{moves:?}");
    assert!(!moves.contains(&What::Hit), "{moves:?}");
}

#[tokio::test(start_paused = true)]
async fn what_it_learned_and_plans_outlives_the_daemon() {
    let stage = Stage::start("{ name = \"predictive\", wake_cost = \"20m\" }").await;
    stage.live(&[60.0, 0.0, 0.0, 0.0, 0.0, 0.0].repeat(20)).await;
    stage.live(&[60.0, 0.0, 0.0, 0.0]).await;
    stage.bench.wait_state(MachineState::Asleep).await;
    let before = stage.bench.host.why(&web()).await.unwrap();
    assert!(before.policy.as_ref().unwrap().contains("idle times"), "{before:?}");
    let ahead = before.would_wake_at.unwrap().timestamp().since(stage.clock.now());
    assert!(ahead < Duration::from_secs(3600), "{before:?}");

    let stage = stage.restart().await;
    let after = stage.bench.host.why(&web()).await.unwrap();
    assert_eq!((after.policy, after.would_wake_at), (before.policy, before.would_wake_at));
    assert_eq!(stage.bench.warnings(), Vec::<String>::new());
    stage.live(&[0.0; 4]).await;
    assert_eq!(stage.moves().first().map(|(what, _)| *what), Some(What::WokenAhead));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_said_once_and_learned_afresh() {
    let stage = Stage::start("\"predictive\"").await;
    stage.live(&[60.0, 0.0, 0.0, 0.0]).await;
    stage.bench.wait_state(MachineState::Asleep).await;
    let spoil = |record: &mut Record| record.policy.as_mut().unwrap()["memory"]["version"] = 99.into();
    spoil(&mut stage.registry.0.lock().unwrap().get_mut(&web()).unwrap().1);
    let stage = stage.restart().await;
    stage.bench.wait_warning("learns afresh").await;
    stage.live(&[0.0]).await;
    let kept = stage.registry.0.lock().unwrap().get(&web()).unwrap().1.policy.clone().unwrap();
    assert_eq!(kept["memory"]["version"], 1, "{kept}");
    let stage = stage.restart().await;
    stage.live(&[0.0]).await;
    assert_eq!(stage.bench.warnings(), Vec::<String>::new());
    assert_eq!(stage.bench.state().await, MachineState::Asleep);
}
