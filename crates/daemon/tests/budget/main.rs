//! Budgets of awake memory: who makes room for whom, and what is said where there is none.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod strict;

use std::{path::Path, sync::Arc, time::Duration};

use common::{Bench, World, create, file, hold, within};
use dormouse_api_types::{CheckStatus, EventKind, MachineState, Why};
use dormouse_daemon::{clock::Clock as _, driver::Order};
use dormouse_types::{Depth, MachineName};

const START: Order = Order::Start { cold: false };

/// Room for two of three machines of 64 MiB.
const TWO: &str = "[budget]\nawake_memory = \"128MiB\"\n";

fn name(name: &str) -> MachineName {
    name.parse().unwrap()
}

/// A host with the machines `a`, `b` and `c`, which do nothing, and would sleep by themselves after a minute.
async fn three(dir: &Path, config: &str) -> Bench {
    three_with(dir, config, |_, toml| toml).await
}

/// The same with machine files that are changed first.
async fn three_with(dir: &Path, config: &str, change: impl Fn(&str, String) -> String) -> Bench {
    let world = Arc::new(World::default());
    let bench = Bench::start_with(dir, Arc::clone(&world), config).await;
    for (n, machine) in (2..).zip(["a", "b", "c"]) {
        world.neighbour(&name(machine));
        let sleeps = "idle_after = \"1m\"\nmin_awake = \"1s\"";
        let toml = file(machine, n).replace("idle_after = \"never\"", sleeps);
        bench.host.create(create(&change(machine, toml))).await.unwrap();
    }
    bench
}

/// Starts some of them, and waits until each is idle.
async fn start(bench: &Bench, machines: &[&str]) {
    for machine in machines {
        order(bench, machine, START).await.unwrap();
    }
    for machine in machines {
        wait_idle(bench, machine).await;
    }
}

async fn depth(bench: &Bench, machine: &str) -> Option<Depth> {
    let why = why(bench, machine).await;
    why.depth.filter(|_| why.state == MachineState::Asleep)
}

async fn order(
    bench: &Bench,
    machine: &str,
    order: Order,
) -> Result<MachineState, dormouse_api_types::Problem> {
    let given = within("an order", bench.host.order(&name(machine), order, true)).await;
    given.map(|given| given.outcome.state)
}

fn packet(bench: &Bench, machine: &str) {
    let frame = "tcp 10.9.0.1:40000 > 10.9.0.2:80 [S]".into();
    bench.presence.send(dormouse_surrogate::Notice::Wake { name: name(machine), frame }).unwrap();
}

async fn why(bench: &Bench, machine: &str) -> Why {
    bench.host.why(&name(machine)).await.unwrap()
}

/// Waits until a machine's reasons are such.
async fn wait(bench: &Bench, machine: &str, what: &str, is_it: impl Fn(&Why) -> bool) -> Why {
    bench.wait(&format!("{machine} {what}"), async |bench| is_it(&why(bench, machine).await)).await;
    why(bench, machine).await
}

async fn wait_state(bench: &Bench, machine: &str, state: MachineState) -> Why {
    wait(bench, machine, &state.to_string(), |why| why.state == state).await
}

async fn wait_idle(bench: &Bench, machine: &str) {
    let is_idle = |why: &Why| {
        why.keeps.is_empty() && !why.signals.is_empty() && why.signals.iter().all(|signal| !signal.busy)
    };
    wait(bench, machine, "idle", is_idle).await;
}

/// Waits until one of two is in a state.
async fn wait_first(bench: &Bench, machines: [&str; 2], state: MachineState) -> Why {
    let waiting = async {
        loop {
            for machine in machines {
                let why = why(bench, machine).await;
                if why.state == state {
                    return why;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("one of two", waiting).await
}

/// Was it said that a budget is exceeded?
fn exceeded(bench: &Bench) -> bool {
    bench.warnings().iter().any(|why| why.contains("budget"))
}

/// Three machines, room for two; `a` and `b` run, and are idle.
async fn two_idle(dir: &Path) -> Bench {
    let bench = three(dir, TWO).await;
    order(&bench, "a", START).await.unwrap();
    order(&bench, "b", START).await.unwrap();
    wait_idle(&bench, "a").await;
    wait_idle(&bench, "b").await;
    bench
}

fn warned(bench: &Bench, machine: &str, words: &str) -> bool {
    bench.events().iter().any(|event| {
        let has = event.cause.as_ref().is_some_and(|cause| cause.contains(words));
        event.kind == EventKind::Warning && event.machine == Some(name(machine)) && has
    })
}

#[tokio::test]
async fn the_longest_idle_makes_room_and_a_packet_wakes_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let bench = two_idle(dir.path()).await;
    // An order: `a` was idle first.
    assert_eq!(order(&bench, "c", START).await.unwrap(), MachineState::Active);
    let told = wait_state(&bench, "a", MachineState::Asleep).await;
    assert_eq!(told.cause.as_deref(), Some("put to sleep to make room for c"));
    let told = why(&bench, "b").await;
    assert_eq!(told.state, MachineState::Active);
    let [budget] = &*told.budgets else { panic!("{told:?}") };
    assert_eq!((budget.bytes, budget.awake_bytes, budget.strict), (128 << 20, 128 << 20, false));
    // A packet; `c` is not to go.
    order(&bench, "c", hold("in use")).await.unwrap();
    packet(&bench, "a");
    wait_state(&bench, "a", MachineState::Active).await;
    let told = wait_state(&bench, "b", MachineState::Asleep).await;
    assert_eq!(told.cause.as_deref(), Some("put to sleep to make room for a"));
    assert!(!exceeded(&bench), "{:?}", bench.warnings());
    // Nobody can make room now.
    order(&bench, "a", hold("in use")).await.unwrap();
    packet(&bench, "b");
    wait_state(&bench, "b", MachineState::Active).await;
    assert!(warned(&bench, "b", "64.0 MiB too small"), "{:?}", bench.warnings());
    let report = bench.host.doctor().await;
    let check = report.checks.iter().find(|check| check.name == "budget").unwrap();
    assert_eq!(check.status, CheckStatus::Warn, "{check:?}");
    // As soon as somebody can the budget is kept again.
    order(&bench, "c", Order::Release { hold: None }).await.unwrap();
    let told = wait_first(&bench, ["b", "c"], MachineState::Asleep).await;
    assert_eq!(told.cause.as_deref(), Some("put to sleep to keep the budget of awake memory"));
}

#[tokio::test]
async fn who_is_in_use_again_at_the_last_look_stays_and_the_next_goes() {
    let dir = tempfile::tempdir().unwrap();
    let bench = two_idle(dir.path()).await;
    bench.world.neighbour(&name("a")).work(Duration::from_secs(8));
    assert_eq!(order(&bench, "c", START).await.unwrap(), MachineState::Active);
    wait_state(&bench, "b", MachineState::Asleep).await;
    assert_eq!(why(&bench, "a").await.state, MachineState::Active);
    assert!(!exceeded(&bench), "{:?}", bench.warnings());
}

#[tokio::test]
async fn held_machines_make_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let bench = three(dir.path(), TWO).await;
    for machine in ["a", "b"] {
        order(&bench, machine, START).await.unwrap();
        wait_idle(&bench, machine).await;
        order(&bench, machine, hold("backup")).await.unwrap();
    }
    assert_eq!(order(&bench, "c", START).await.unwrap(), MachineState::Active);
    assert!(warned(&bench, "c", "wakes all the same"), "{:?}", bench.warnings());
    for machine in ["a", "b"] {
        assert_eq!(why(&bench, machine).await.state, MachineState::Active);
    }
}

#[tokio::test]
async fn why_tells_who_would_make_room_and_what_a_wake_would_cost() {
    let dir = tempfile::tempdir().unwrap();
    let bench = three(dir.path(), TWO).await;
    start(&bench, &["a", "b"]).await;
    let [first, second] = [why(&bench, "a").await, why(&bench, "b").await];
    let makes = |why: &Why| why.makes_room.map(|makes| (makes.after, makes.from.is_none(), makes.depth));
    assert_eq!(makes(&first), Some((0, true, Depth::Saved)), "{first:?}");
    assert_eq!(makes(&second), Some((1, true, Depth::Saved)), "{second:?}");
    assert_eq!(first.needs_room, None);
    let third = why(&bench, "c").await;
    let needs = third.needs_room.clone().unwrap();
    assert_eq!((needs.sleep, needs.lacking_bytes), (vec![name("a")], 0), "{third:?}");
    assert_eq!(third.makes_room, None);
    // A hold that ends: not before that.
    let hour = Some(Duration::from_secs(3600));
    let held = Order::Hold { reason: "backup".into(), by: "test".into(), span: hour, tied: false };
    order(&bench, "a", held).await.unwrap();
    let told = wait(&bench, "a", "to be held", |why| !why.holds.is_empty()).await;
    assert_eq!(told.makes_room.unwrap().from, told.holds[0].until, "{told:?}");
    assert_eq!(why(&bench, "c").await.needs_room.unwrap().sleep, [name("b")]);
    // One that does not end: never, and then there is no room.
    for machine in ["a", "b"] {
        order(&bench, machine, hold("in use")).await.unwrap();
        wait(&bench, machine, "to make no room", |why| why.makes_room.is_none()).await;
    }
    let needs = why(&bench, "c").await.needs_room.unwrap();
    assert_eq!((needs.sleep, needs.lacking_bytes), (vec![], 64 << 20));
}

#[tokio::test]
async fn who_keeps_its_memory_asleep_makes_no_room_by_that() {
    let dir = tempfile::tempdir().unwrap();
    let paused = |_: &str, toml: String| format!("{toml}depth = \"paused\"\n");
    let bench = three_with(dir.path(), &format!("{TWO}strict = true\n"), paused).await;
    start(&bench, &["a", "b"]).await;
    assert!(order(&bench, "c", START).await.unwrap_err().detail.contains("too small"));
    // Nor is there room when it sleeps as it does.
    order(&bench, "a", Order::Sleep { depth: None }).await.unwrap();
    assert_eq!(depth(&bench, "a").await, Some(Depth::Paused));
    assert!(order(&bench, "c", START).await.unwrap_err().detail.contains("too small"));
    assert_eq!(why(&bench, "b").await.budgets[0].awake_bytes, 128 << 20);
    // It can wake: it has its memory already.
    assert_eq!(order(&bench, "a", Order::Wake).await.unwrap(), MachineState::Active);
}

#[tokio::test]
async fn who_sleeps_with_its_memory_is_saved_where_its_file_lets_it_go_deeper() {
    let dir = tempfile::tempdir().unwrap();
    let deeper = |_: &str, toml: String| {
        format!("{toml}depth = \"paused\"\ndeeper = [{{ depth = \"saved\", after = \"1h\" }}]\n")
    };
    let bench = three_with(dir.path(), &format!("{TWO}strict = true\n"), deeper).await;
    start(&bench, &["a", "b"]).await;
    order(&bench, "b", Order::Sleep { depth: None }).await.unwrap();
    order(&bench, "a", hold("in use")).await.unwrap();
    let paused = why(&bench, "b").await;
    // The sleeper is saved, without being woken.
    assert_eq!(order(&bench, "c", START).await.unwrap(), MachineState::Active);
    assert_eq!(depth(&bench, "b").await, Some(Depth::Saved));
    let saved = why(&bench, "b").await;
    assert_eq!((saved.state, saved.last_wake), (MachineState::Asleep, paused.last_wake));
    // The one that is awake goes where its memory is given back at once.
    order(&bench, "a", Order::Release { hold: None }).await.unwrap();
    order(&bench, "c", hold("in use")).await.unwrap();
    wait_idle(&bench, "a").await;
    assert_eq!(order(&bench, "b", Order::Wake).await.unwrap(), MachineState::Active);
    assert_eq!(depth(&bench, "a").await, Some(Depth::Saved));
}

#[tokio::test]
async fn whoever_is_kept_awake_stays_whatever_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let keep = r#"[policy.keep]
program = "/bin/sh"
args = ["-c", 'while read -r line; do id=${line#*\"id\":}; echo "{\"id\":${id%%,*},\"verdict\":\"keep\",\"why\":\"as I like\"}"; done']
"#;
    let kept = |machine: &str, toml: String| match machine {
        "a" => format!("{toml}stay_awake = [\"mon-sun\"]\n"),
        "b" => format!("{toml}policy = \"external:keep\"\n"),
        _ => toml,
    };
    let bench = three_with(dir.path(), &format!("{TWO}{keep}"), kept).await;
    order(&bench, "a", START).await.unwrap();
    order(&bench, "b", START).await.unwrap();
    for (machine, kind) in [("a", "schedule"), ("b", "policy")] {
        let is_it = |why: &Why| why.keeps.iter().any(|keep| keep.kind == kind) && why.keeps.len() == 1;
        wait(&bench, machine, "to be kept awake", is_it).await;
    }
    assert_eq!(order(&bench, "c", START).await.unwrap(), MachineState::Active);
    assert!(warned(&bench, "c", "wakes all the same"), "{:?}", bench.warnings());
    for machine in ["a", "b"] {
        let told = why(&bench, machine).await;
        assert_eq!(
            (told.state, told.makes_room.filter(|makes| makes.from.is_none())),
            (MachineState::Active, None)
        );
    }
}

#[tokio::test]
async fn what_is_woken_ahead_exceeds_no_budget_and_is_let_be_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let noon = |machine: &str, toml: String| match machine {
        "c" => format!("{toml}stay_awake = [\"12:00-13:00\"]\nwake_ahead = \"5m\"\ntimezone = \"UTC\"\n"),
        _ => toml,
    };
    let bench = three_with(dir.path(), TWO, noon).await;
    // Half past eleven.
    let of_day = |now: dormouse_types::Timestamp| i64::try_from(now.0 / 1_000_000_000 % 86_400).unwrap();
    let clock = &bench.world.clock;
    clock.step(86_400 + 41_400 - of_day(clock.now()));
    order(&bench, "c", START).await.unwrap();
    order(&bench, "c", Order::Sleep { depth: None }).await.unwrap();
    for machine in ["a", "b"] {
        order(&bench, machine, START).await.unwrap();
        order(&bench, machine, hold("in use")).await.unwrap();
    }
    let look = async || order(&bench, "c", Order::Release { hold: None }).await.unwrap();
    clock.step(1_800);
    look().await;
    let told = wait(&bench, "c", "to wait for room", |why| !why.obstacles.is_empty()).await;
    assert_eq!(told.state, MachineState::Asleep);
    // At two nobody wants it any more.
    clock.step(7_200);
    look().await;
    wait(&bench, "c", "to wait no longer", |why| why.obstacles.is_empty()).await;
    // The next day there is room.
    order(&bench, "a", Order::Release { hold: None }).await.unwrap();
    order(&bench, "a", Order::Sleep { depth: None }).await.unwrap();
    clock.step(86_400 - 7_200);
    look().await;
    let told = wait_state(&bench, "c", MachineState::Active).await;
    let wake = told.last_wake.unwrap();
    assert!(wake.cause == "ahead" && wake.took_ms.unwrap() < 60_000, "not since yesterday: {wake:?}");
    let refused = bench.warnings().iter().filter(|why| why.contains("cannot wake")).count();
    assert_eq!(refused, 1, "{:?}", bench.warnings());
}
