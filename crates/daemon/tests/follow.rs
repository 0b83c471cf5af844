//! A driver whose platform others use as well, and sleepers that go deeper with time.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{Bench, SLEEP, file, web};
use dormouse_api_types::MachineState;
use dormouse_daemon::driver::Order;
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
    assert_eq!(bench.state().await, MachineState::Active);
    changed(&bench, "it is back").await;
    bench.wait("the end of it", async |b| obstacles(b).await.is_empty()).await;
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
