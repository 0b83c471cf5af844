//! A driver whose platform others use as well, and sleepers that go deeper with time.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::{sync::Arc, time::Duration};

use common::{Bench, SLEEP, World, create, file, web};
use dormouse_api_types::{EventKind, Keep, MachineState, ProblemKind, Why};
use dormouse_daemon::{clock::Clock as _, driver::Order};
use dormouse_machine::lifecycle::Process;
use dormouse_platform::Notice;
use dormouse_types::Depth;

async fn changed(bench: &Bench, by: &str) {
    bench.platform.send(Notice::Changed(web(), by.into())).await.unwrap();
}

async fn cause(bench: &Bench) -> String {
    bench.host.why(&web()).await.unwrap().cause.unwrap_or_default()
}

#[tokio::test]
async fn what_others_do_is_followed_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.world.set(Process::Still, false);
    changed(&bench, "suspended by virsh").await;
    bench.wait_state(MachineState::Suspended).await;
    assert_eq!(cause(&bench).await, "suspended by virsh");
    let problem = bench.order(Order::Wake).await.unwrap_err();
    assert!(problem.fix.unwrap().contains("virsh resume"));
    assert_eq!(bench.host.why(&web()).await.unwrap().would_wake, [""; 0]);

    bench.world.set(Process::Running, false);
    changed(&bench, "resumed by virsh").await;
    bench.wait_state(MachineState::Active).await;
    assert_eq!(cause(&bench).await, "resumed by virsh");

    bench.world.set(Process::Absent, false);
    changed(&bench, "destroyed by virsh").await;
    bench.wait_state(MachineState::Stopped).await;
    assert_eq!(cause(&bench).await, "destroyed by virsh");
    let calls = bench.world.take_calls();
    let fought = ["resume", "boot", "kill", "power-down"].iter().any(|call| calls.contains(&(*call).into()));
    assert!(!fought, "{calls:?}");
}

#[tokio::test]
async fn a_sleeper_that_others_start_is_given_what_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.order(SLEEP).await.unwrap();
    bench.world.take_calls();
    bench.world.set(Process::Running, false);
    changed(&bench, "started by virsh").await;
    bench.wait_state(MachineState::Active).await;
    bench.order(Order::Wake).await.unwrap();
    let expected = ["observe", "journal:waking", "prepare", "release", "journal:active"];
    assert_eq!(bench.world.take_calls(), expected);
    let wake = bench.host.why(&web()).await.unwrap().last_wake.unwrap();
    assert_eq!((&*wake.cause, wake.frame.as_deref()), ("others", Some("started by virsh")));
}

#[tokio::test]
async fn since_when_a_platform_cannot_be_asked_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.platform.send(Notice::Unreachable(web(), "connection reset".into())).await.unwrap();
    let obstacles = async |bench: &Bench| bench.host.why(&web()).await.unwrap().obstacles.join("; ");
    bench.wait("the obstacle", async |b| obstacles(b).await.contains("connection reset")).await;
    assert!(obstacles(&bench).await.contains("cannot be asked since"));
    let unreachable = async |bench: &Bench| bench.host.show(&web()).await.unwrap().unreachable;
    assert_eq!(unreachable(&bench).await, Some(obstacles(&bench).await));
    assert_eq!(bench.state().await, MachineState::Active);
    changed(&bench, "it is back").await;
    bench.wait("the end of it", async |b| obstacles(b).await.is_empty()).await;
    assert_eq!(unreachable(&bench).await, None);
}

#[tokio::test]
async fn a_sleeper_goes_deeper_when_it_is_time() {
    let dir = tempfile::tempdir().unwrap();
    let deeper = "depth = \"paused\"\ndeeper = [{ depth = \"saved\", after = \"500ms\" }]\n";
    let bench = Bench::with_file(dir.path(), &format!("{}{deeper}", file("web", 2)), "").await;
    let given = bench.order(SLEEP).await.unwrap();
    assert_eq!(given.outcome.depth, Some(Depth::Paused));
    let since = bench.host.why(&web()).await.unwrap().since;
    bench.world.take_calls();
    let depth = async |bench: &Bench| bench.host.show(&web()).await.unwrap().summary.depth;
    bench.wait("to be saved", async |b| depth(b).await == Some(Depth::Saved)).await;
    bench.wait("its process to end", async |b| b.world.process() == Process::Absent).await;
    assert_eq!(bench.world.take_calls(), ["journal:settling", "save", "flush", "journal:asleep", "quit"]);
    let why = bench.host.why(&web()).await.unwrap();
    assert_eq!((why.state, why.since), (MachineState::Asleep, since), "it sleeps since it fell asleep");
    bench.order(Order::Wake).await.unwrap();
    assert_eq!(bench.world.resumes(), 1);
}

#[tokio::test]
async fn one_that_cannot_be_saved_sleeps_on() {
    let dir = tempfile::tempdir().unwrap();
    let deeper = "depth = \"paused\"\ndeeper = [{ depth = \"saved\", after = \"200ms\" }]\n";
    let bench = Bench::with_file(dir.path(), &format!("{}{deeper}", file("web", 2)), "").await;
    bench.world.fail("save", true);
    bench.order(SLEEP).await.unwrap();
    bench.wait("a warning", async |b| b.warnings().iter().any(|why| why.contains("cannot save"))).await;
    bench.wait_state(MachineState::Asleep).await;
    let why = bench.host.why(&web()).await.unwrap();
    assert_eq!((why.depth, bench.world.process()), (Some(Depth::Paused), Process::Still));
    assert!(why.would_sleep_at.is_some(), "it is tried again");
    bench.order(Order::Wake).await.unwrap();
}

#[tokio::test]
async fn a_depth_that_is_not_there_is_passed_over_on_the_way_down_and_told() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    world.lack(Depth::Saved);
    let steps = "[{ depth = \"saved\", after = \"100ms\" }, { depth = \"off\", after = \"200ms\" }]";
    let deeper = format!("{}depth = \"paused\"\ndeeper = {steps}\n", file("web", 2));
    let bench = Bench::start_with(dir.path(), world, "").await;
    bench.host.create(create(&deeper)).await.unwrap();
    bench.wait_warning("sleep.deeper has saved").await;
    let checks = bench.host.examine(&web()).await.unwrap().checks;
    assert!(
        checks.iter().any(|check| check.found.contains("cannot be reached, and sleep.deeper leads there"))
    );
    bench.order(Order::Start { cold: false }).await.unwrap();
    bench.order(SLEEP).await.unwrap();
    let depth = async |bench: &Bench| bench.host.show(&web()).await.unwrap().summary.depth;
    bench.wait("to be off", async |b| depth(b).await == Some(Depth::Off)).await;
}

#[tokio::test]
async fn a_clock_that_is_set_makes_no_sleep_longer_or_shorter() {
    for step in [36_000, -36_000] {
        let dir = tempfile::tempdir().unwrap();
        let deeper = "depth = \"paused\"\ndeeper = [{ depth = \"off\", after = \"1h\" }]\n";
        let bench = Bench::with_file(dir.path(), &format!("{}{deeper}", file("web", 2)), "").await;
        bench.order(SLEEP).await.unwrap();
        bench.world.clock.step(step);
        // The driver looks at the clock whenever something happens.
        bench.learn(&[[10, 9, 0, 2].into()]);
        let now = bench.world.clock.now();
        let (least, most) = (now + Duration::from_secs(3_500), now + Duration::from_secs(3_700));
        let is_due = |why: &Why| {
            let due = why.would_sleep_at.map(|at| at.timestamp());
            due.is_some_and(|due| least < due && due < most)
        };
        let why = bench.wait_why(is_due).await;
        assert_eq!((why.state, why.depth), (MachineState::Asleep, Some(Depth::Paused)), "{step}");
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_keeps_nobody_awake() {
    let dir = tempfile::tempdir().unwrap();
    let file = file("web", 2).replace("\"never\"", "\"1s\"\nmin_awake = \"2s\"");
    let bench = Bench::with_file(dir.path(), &file, "").await;
    bench.world.clock.step(-36_000);
    bench.wait_state(MachineState::Asleep).await;
}

#[tokio::test]
async fn a_clock_that_is_set_forward_puts_nobody_to_sleep_too_early() {
    let dir = tempfile::tempdir().unwrap();
    let file = file("web", 2).replace("\"never\"", "\"1s\"\nmin_awake = \"1h\"");
    let bench = Bench::with_file(dir.path(), &file, "").await;
    bench.world.clock.step(36_000);
    let least = bench.world.clock.now() + Duration::from_secs(3_500);
    let is_kept = |why: &Why| {
        let until = |keep: &Keep| keep.until.map(|at| at.timestamp()).is_some_and(|until| until > least);
        why.keeps.iter().any(|keep| keep.kind == "min-awake" && until(keep))
    };
    bench.wait_why(is_kept).await;
    assert_eq!(bench.state().await, MachineState::Active);
}

#[tokio::test]
async fn what_bars_a_depth_is_known_to_the_next_driver() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.world.bar(Depth::Saved, "a card of the host");
    bench.world.panic_at("capabilities");
    bench.order(SLEEP).await.unwrap_err();
    bench.wait("the new driver", async |b| b.events().iter().any(|e| e.kind == EventKind::Adopted)).await;
    let problem = bench.order(SLEEP).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Refused);
    assert!(problem.detail.contains("depth saved: device: a card of the host"), "{}", problem.detail);
    assert!(!bench.world.take_calls().contains(&"capture".into()));
    bench.order(Order::Sleep { depth: Some(Depth::Paused) }).await.unwrap();
}

#[tokio::test]
async fn an_idle_machine_that_cannot_sleep_is_left_alone_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_file(dir.path(), &file("web", 2).replace("never", "1s"), "").await;
    bench.world.bar(Depth::Saved, "a card of the host");
    bench.wait_warning("it is idle, and cannot sleep at depth saved: device: a card of the host").await;
    let why = bench.wait_why(|why| why.keeps.iter().any(|keep| keep.kind == "obstacle")).await;
    assert_eq!((why.state, why.would_sleep_at), (MachineState::Active, None));
    assert!(!bench.world.take_calls().contains(&"capture".into()));
}

#[tokio::test]
async fn after_a_sleep_that_failed_the_next_one_waits() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_file(dir.path(), &file("web", 2).replace("never", "1s"), "").await;
    bench.world.fail("save", true);
    bench.wait_warning("cannot save").await;
    let is_kept =
        |why: &Why| why.keeps.iter().any(|keep| keep.kind == "failed-sleep" && keep.until.is_some());
    bench.wait_why(is_kept).await;
    let idle_for = async |bench: &Bench| bench.host.show(&web()).await.unwrap().summary.idle_for_ms;
    bench.wait("its time", async |bench| idle_for(bench).await > Some(1_300)).await;
    let calls = bench.world.take_calls();
    assert_eq!(calls.iter().filter(|call| *call == "capture").count(), 1, "{calls:?}");
    // Who asks for it has his way.
    bench.world.fail("save", false);
    bench.order(SLEEP).await.unwrap();
}

#[tokio::test]
async fn what_a_platform_cannot_ask_the_guest_is_refused() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    world.mute();
    let bench = Bench::start_with(dir.path(), world, "").await;
    for (key, line) in [("sleep.users", "users = \"keep-awake\""), ("sleep.load_below", "load_below = 0.5")] {
        let problem = bench.host.create(create(&format!("{}{line}\n", file("web", 2)))).await.unwrap_err();
        assert_eq!((problem.kind, problem.key.as_deref()), (ProblemKind::Invalid, Some(key)));
        assert!(problem.fix.unwrap().contains("remove the key"));
    }
    bench.host.create(create(&format!("{}users = \"ignore\"\n", file("web", 2)))).await.unwrap();
}

#[tokio::test]
async fn what_others_run_is_forgotten_and_runs_on() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.world.define(Vec::new());
    bench.order(SLEEP).await.unwrap();
    let refused = bench.host.remove(&web(), false).await.unwrap_err();
    assert!(refused.fix.unwrap().contains("dormouse wake web"));
    assert_eq!(bench.state().await, MachineState::Asleep);

    bench.order(Order::Wake).await.unwrap();
    bench.world.take_calls();
    bench.host.remove(&web(), false).await.unwrap();
    assert!(bench.host.show(&web()).await.is_err());
    assert_eq!(bench.world.process(), Process::Running);
    let calls = bench.world.take_calls();
    assert!(calls.contains(&"dismiss".into()) && !calls.contains(&"kill".into()), "{calls:?}");
}

/// A machine that others look after too, and which is stopped.
async fn shared(dir: &std::path::Path) -> Bench {
    let world = Arc::new(World::default());
    world.define(Vec::new());
    let bench = Bench::start_with(dir, world, "").await;
    bench.host.create(create(&file("web", 2))).await.unwrap();
    bench
}

#[tokio::test]
async fn a_start_of_what_is_defined_no_more_says_what_failed() {
    let dir = tempfile::tempdir().unwrap();
    let bench = shared(dir.path()).await;
    bench.platform.send(Notice::Undefined(web(), "undefined by virsh".into())).await.unwrap();
    bench.wait_warning("undefined by virsh").await;
    bench.world.fail("boot", true);
    let problem = bench.order(Order::Start { cold: false }).await.unwrap_err();
    assert_eq!(problem.detail, "web is stopped now (cannot boot: boot was made to fail)");
}

#[tokio::test]
async fn an_order_that_others_cross_says_who() {
    let dir = tempfile::tempdir().unwrap();
    let bench = shared(dir.path()).await;
    bench.order(Order::Start { cold: false }).await.unwrap();
    bench.world.gate("capture");
    let ordered = bench.order_later(SLEEP);
    bench.world.reached("capture").await;
    bench.world.set(Process::Absent, false);
    changed(&bench, "destroyed by virsh").await;
    bench.world.let_all_go();
    let problem = ordered.await.unwrap().unwrap_err();
    assert!(problem.detail.contains("(destroyed by virsh)"), "{}", problem.detail);
}

#[tokio::test]
async fn a_stop_that_failed_says_what_failed() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.world.fail("power-down", true);
    let problem = bench.order(Order::Stop { force: false, patience: None }).await.unwrap_err();
    let why = "web is active now (cannot shut down the guest: power-down was made to fail)";
    assert_eq!(problem.detail, why);
    // What failed before is nobody's reason for what comes.
    bench.world.fail("power-down", false);
    bench.world.gate("capture");
    let ordered = bench.order_later(SLEEP);
    bench.world.reached("capture").await;
    bench.packet();
    bench.world.let_all_go();
    let problem = ordered.await.unwrap().unwrap_err();
    assert!(problem.detail.contains("packet") && !problem.detail.contains("power-down"), "{problem:?}");
}

/// It is asked again for what it has not done, once it is back.
#[tokio::test]
async fn a_platform_that_goes_away_while_it_starts_and_wakes_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let bench = shared(dir.path()).await;
    bench.world.cut("boot");
    bench.order(Order::Start { cold: false }).await.unwrap();
    bench.order(SLEEP).await.unwrap();
    bench.world.take_calls();
    ["load", "resume"].iter().for_each(|step| bench.world.cut(step));
    bench.order(Order::Wake).await.unwrap();
    assert_eq!(bench.world.resumes(), 1);
    let calls = bench.world.take_calls();
    let asked = |step: &str| calls.iter().filter(|call| *call == step).count();
    assert_eq!((asked("load"), asked("resume")), (2, 2), "{calls:?}");
    assert!(bench.warnings().iter().any(|why| why.contains("end of file")));
}
