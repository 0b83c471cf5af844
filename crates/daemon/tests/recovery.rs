//! A host that finds what an earlier one left.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::{path::Path, sync::Arc};

use common::{Bench, SLEEP, WEB_MAC, World, create, file, open, web};
use dormouse_api_types::{EventKind, MachineState, ProblemKind};
use dormouse_daemon::driver::Order;
use dormouse_machine::lifecycle::{Cause, Process, SleepReason, State};
use dormouse_registry::{Expect, Record, Registry, Transaction};
use dormouse_types::{Depth, Timestamp};
use dormouse_wire::Persona;

async fn remember(dir: &Path, state: State) {
    remember_file(dir, state, file("web", 2)).await;
}

async fn remember_file(dir: &Path, state: State, file: String) {
    let registry = open(dir).await;
    let mut record = Record::new(web(), file, "/".into(), Timestamp(1));
    record.state = state;
    record.personas.insert(WEB_MAC, persona());
    registry.commit(Transaction::put(Expect::Absent, record)).await.unwrap();
}

fn persona() -> Persona {
    Persona { groups: vec![[224, 0, 0, 251].into()], ..Persona::default() }
}

async fn found(state: State, process: Process, saved: bool) -> (Bench, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    remember(dir.path(), state).await;
    let world = Arc::new(World::default());
    world.set(process, saved);
    let bench = Bench::start_with(dir.path(), world, "").await;
    // What was done by the time that the API would be served.
    let calls = bench.world.take_calls();
    (bench, calls)
}

#[tokio::test]
async fn sleepers_are_stood_in_for_before_the_api_is_served() {
    let asleep = State::Asleep { depth: Depth::Saved };
    let (bench, calls) = found(asleep, Process::Absent, true).await;
    assert_eq!(calls, ["observe", "stand-in", "settle"]);
    assert_eq!(bench.world.sleeper().ports[0].persona, persona());
    assert_eq!(bench.state().await, MachineState::Asleep);
    bench.packet();
    bench.wait_state(MachineState::Active).await;
}

#[tokio::test]
async fn a_responder_that_is_no_longer_configured_is_told_of_and_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let responder = |name| format!("[[responder]]\nname = {name:?}\nframes = [\"any\"]\n");
    let file = [file("web", 2), responder("snmp"), responder("gone")].concat();
    remember_file(dir.path(), State::Asleep { depth: Depth::Saved }, file).await;
    let world = Arc::new(World::default());
    world.set(Process::Absent, true);
    let bench = Bench::start_with(dir.path(), world, "[responder.snmp]\nprogram = \"/bin/cat\"\n").await;
    let asked: Vec<_> = bench.world.sleeper().externals.into_iter().map(|rule| rule.program).collect();
    assert_eq!(asked, ["snmp"]);
    let warnings = bench.warnings();
    assert!(matches!(&*warnings, [why] if why.contains("[responder.gone]")), "{warnings:?}");
}

#[tokio::test]
async fn a_sleeper_whose_bridge_comes_late_is_stood_in_for() {
    let dir = tempfile::tempdir().unwrap();
    remember(dir.path(), State::Asleep { depth: Depth::Saved }).await;
    let world = Arc::new(World::default());
    world.set(Process::Absent, true);
    world.fail("stand-in", true);
    let bench = Bench::start_with(dir.path(), Arc::clone(&world), "").await;
    let summary = bench.host.list().await.remove(0);
    assert_eq!(summary.state, MachineState::Asleep);
    assert!(summary.absent.unwrap().contains("stand-in was made to fail"));
    world.fail("stand-in", false);
    // Nobody tells that the bridge is there: it is tried again.
    bench.wait("the surrogate", async |bench| bench.host.list().await[0].absent.is_none()).await;
    assert!(bench.events().iter().any(|e| e.kind == EventKind::Presence));
    bench.packet();
    bench.wait_state(MachineState::Active).await;
}

/// Its platform refuses, or does not answer at all.
#[tokio::test]
async fn a_sleeper_is_stood_in_for_before_its_platform_can_be_asked() {
    for hangs in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        remember(dir.path(), State::Asleep { depth: Depth::Saved }).await;
        let world = Arc::new(World::default());
        world.set(Process::Absent, true);
        world.fail("observe", !hangs);
        if hangs {
            world.gate("observe");
        }
        let bench = Bench::start_with(dir.path(), Arc::clone(&world), "").await;
        let calls = world.take_calls();
        assert!(calls.contains(&"stand-in".into()), "{calls:?}");
        assert_eq!(bench.state().await, MachineState::Asleep);
        // What wants it waits until it is known what is so.
        bench.packet();
        world.fail("observe", false);
        world.let_all_go();
        bench.wait_state(MachineState::Active).await;
        assert_eq!(world.resumes(), 1);
    }
}

#[tokio::test]
async fn nothing_is_left_of_a_guest_that_ended_meanwhile() {
    let (bench, mut calls) = found(State::Active, Process::Absent, false).await;
    bench.wait_state(MachineState::Stopped).await;
    bench.order(Order::Stop { force: false, patience: None }).await.unwrap();
    calls.extend(bench.world.take_calls());
    assert!(calls.contains(&"detach".into()), "{calls:?}");
}

#[tokio::test]
async fn running_guests_are_adopted() {
    let (bench, calls) = found(State::Active, Process::Running, false).await;
    assert_eq!(calls, ["observe", "watch", "settle"]);
    assert_eq!(bench.state().await, MachineState::Active);
}

#[tokio::test]
async fn a_half_done_sleep_is_undone() {
    let settling = State::Settling { depth: Depth::Saved, reason: SleepReason::Idle };
    let (bench, _) = found(settling, Process::Still, false).await;
    bench.wait_state(MachineState::Active).await;
    assert_eq!(bench.world.process(), Process::Running);
    assert!(!bench.world.is_captured());
}

#[tokio::test]
async fn a_guest_lost_on_its_way_is_failed_and_boots_cold() {
    let waking = State::Waking { from: Some(Depth::Saved), state_used: true, cause: Cause::Command };
    let (bench, _) = found(waking, Process::Absent, false).await;
    bench.wait_state(MachineState::Failed).await;
    assert!(bench.order(Order::Wake).await.is_err());
    bench.order(Order::Start { cold: true }).await.unwrap();
    assert_eq!(bench.state().await, MachineState::Active);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_harms_no_other_machine() {
    let dir = tempfile::tempdir().unwrap();
    remember(dir.path(), State::Asleep { depth: Depth::Off }).await;
    let registry = open(dir.path()).await;
    let lost =
        Record::new("lost".parse().unwrap(), file("lost", 3) + "unheard-of = 1\n", "/".into(), Timestamp(1));
    registry.commit(Transaction::put(Expect::Absent, lost)).await.unwrap();
    drop(registry);
    let bench = Bench::start(dir.path()).await;
    assert_eq!(bench.state().await, MachineState::Asleep);
    // It is shown for what it is, in its place.
    let list = bench.host.list().await;
    let shown: Vec<_> = list.iter().map(|m| (m.name.as_str(), m.state)).collect();
    assert_eq!(shown, [("lost", MachineState::Failed), ("web", MachineState::Asleep)]);
    let detail = bench.host.show(&list[0].name).await.unwrap();
    assert!(detail.failure.unwrap().why.contains("unheard-of"));
    assert!(detail.toml.contains("unheard-of"));
    // Its address is not free.
    let problem = bench.host.create(create(&file("other", 3))).await.unwrap_err();
    assert!(problem.detail.contains("an address of lost"), "{problem:?}");
    assert!(bench.warnings().iter().any(|w| w.contains("left as it is")), "{:?}", bench.warnings());
    // Nor its name: what is remembered of it is not overwritten.
    let (name, toml) = ("lost".parse().unwrap(), file("lost", 3));
    assert_eq!(bench.host.create(create(&file("lost", 4))).await.unwrap_err().kind, ProblemKind::Exists);
    let report = bench.host.doctor().await;
    let check = report.checks.iter().find(|check| check.name == "machine lost").unwrap();
    assert!(check.fix.as_ref().unwrap().contains("rm --force"), "{check:?}");
    assert!(bench.host.remove(&name, false).await.is_err());
    bench.host.remove(&name, true).await.unwrap();
    bench.host.create(create(&toml)).await.unwrap();
}

/// Every step of a sleep and a wake: the daemon ends there, and another one goes on.
#[test]
fn a_daemon_that_ends_at_any_step_loses_nothing() {
    let sleep =
        ["journal:settling", "capture", "drain", "save", "stand-in", "flush", "journal:asleep", "quit"];
    let wake = ["prepare", "load", "journal:waking", "resume", "release", "journal:active"];
    for (step, wakes) in sleep.iter().map(|s| (s, false)).chain(wake.iter().map(|s| (s, true))) {
        let dir = tempfile::tempdir().unwrap();
        let world = Arc::new(World::default());
        end_at(dir.path(), &world, step, wakes);
        world.let_all_go();
        runtime().block_on(async {
            let bench = Bench::start_with(dir.path(), Arc::clone(&world), "").await;
            let given = bench.order(Order::Wake).await.unwrap_or_else(|e| panic!("{step}: {}", e.detail));
            assert_eq!(given.outcome.state, MachineState::Active, "{step}");
            assert_eq!((world.process(), world.is_captured()), (Process::Running, false), "{step}");
            assert!(world.resumes() <= 1, "{step}: a state was used twice");
            bench.order(SLEEP).await.unwrap_or_else(|e| panic!("{step}: {}", e.detail));
        });
    }
}

fn end_at(dir: &Path, world: &Arc<World>, step: &str, wakes: bool) {
    let runtime = runtime();
    runtime.block_on(async {
        let bench = Bench::start_with(dir, Arc::clone(world), "").await;
        bench.host.create(create(&file("web", 2))).await.unwrap();
        bench.order(Order::Start { cold: false }).await.unwrap();
        if wakes {
            bench.order(SLEEP).await.unwrap();
        }
        world.gate(step);
        let _order = bench.order_later(if wakes { Order::Wake } else { SLEEP });
        world.reached(step).await;
    });
    // All of the daemon's tasks end where they are.
    runtime.shutdown_background();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[tokio::test]
async fn a_hold_that_was_tied_to_a_connection_ended_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let registry = open(dir.path()).await;
    let mut record = Record::new(web(), file("web", 2), "/".into(), Timestamp(1));
    record.state = State::Active;
    record.holds.add("upgrade", "uid 0", Timestamp(1), None).unwrap();
    let tied = record.holds.add("copying", "uid 0", Timestamp(1), None).unwrap().id;
    record.holds.tie(tied);
    registry.commit(Transaction::put(Expect::Absent, record)).await.unwrap();
    drop(registry);
    let world = Arc::new(World::default());
    world.set(Process::Running, false);
    let bench = Bench::start_with(dir.path(), world, "").await;
    let why = bench.wait_why(|why| why.holds.len() == 1).await;
    assert_eq!(why.holds[0].reason, "upgrade");
}
