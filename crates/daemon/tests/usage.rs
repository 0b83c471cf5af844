//! What machines used, through sleeps, restarts and removal.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::{path::Path, sync::Arc};

use common::{Bench, SLEEP, World, create, file, web};
use dormouse_api_types::{MachineState, ProblemKind, Usage, UsageQuery, UsageReport};
use dormouse_daemon::driver::Order;

async fn report(bench: &Bench, by: &str) -> UsageReport {
    let query = UsageQuery { by: Some(by.into()), ..UsageQuery::default() };
    bench.host.usage(&query).await.unwrap()
}

async fn total(bench: &Bench) -> Usage {
    report(bench, "machine").await.total
}

/// The seconds of all states are those that were counted.
fn adds_up(usage: &Usage) {
    let states = [
        usage.awake_seconds,
        usage.waking_seconds,
        usage.asleep_seconds,
        usage.suspended_seconds,
        usage.stopped_seconds,
        usage.failed_seconds,
        usage.unknown_seconds,
    ];
    let sum: f64 = states.iter().sum();
    assert!((sum - usage.total_seconds).abs() < 0.02, "{usage:?}");
}

/// A daemon that ends as by SIGKILL once `work` is done.
fn daemon<T>(dir: &Path, world: &Arc<World>, work: impl AsyncFnOnce(&Bench) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let done = runtime.block_on(async {
        let bench = Bench::start_with(dir, Arc::clone(world), "").await;
        work(&bench).await
    });
    runtime.shutdown_background();
    done
}

#[test]
fn counts_sleeps_and_wakes_and_goes_on_after_a_restart() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let before = daemon(dir.path(), &world, async |bench| {
        bench.host.create(create(&file("web", 2))).await.unwrap();
        bench.order(Order::Start { cold: false }).await.unwrap();
        bench.order(SLEEP).await.unwrap();
        bench.packet();
        bench.wait_state(MachineState::Active).await;
        bench.order(SLEEP).await.unwrap();
        bench.wait("some time asleep", async |bench| total(bench).await.saved_seconds > 0.0).await;
        total(bench).await
    });
    adds_up(&before);
    assert_eq!((before.starts, before.sleeps["command"], before.wakes["packet"]), (1, 2, 1));
    assert!(before.awake_seconds > 0.0, "{before:?}");
    let after = daemon(dir.path(), &world, async |bench| total(bench).await);
    adds_up(&after);
    assert_eq!((after.starts, &after.sleeps, &after.wakes), (1, &before.sleeps, &before.wakes));
    // What was not written down yet is counted as what was: no second is lost, and none is unknown.
    assert!(after.total_seconds >= before.total_seconds && after.unknown_seconds < 0.001, "{after:?}");
}

#[test]
fn a_removed_machine_is_still_told_of_and_its_namesake_apart_by_its_owner() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let of = |owner: &str| create(&format!("owner = {owner:?}\n{}", file("web", 2)));
    let starts = |report: UsageReport| -> Vec<_> {
        report.lines.into_iter().map(|line| (line.group["owner"].clone(), line.usage.starts)).collect()
    };
    daemon(dir.path(), &world, async |bench| {
        bench.host.create(of("alice")).await.unwrap();
        bench.order(Order::Start { cold: false }).await.unwrap();
        bench.host.remove(&web(), true).await.unwrap();
        let gone = total(bench).await;
        assert!(gone.total_seconds > 0.0);
        assert_eq!(total(bench).await, gone, "nothing is counted any more");
        bench.host.create(of("bob")).await.unwrap();
        bench.order(Order::Start { cold: false }).await.unwrap();
        assert_eq!(starts(report(bench, "owner").await), [("alice".into(), 1), ("bob".into(), 1)]);
    });
    let kept = daemon(dir.path(), &world, async |bench| starts(report(bench, "owner").await));
    assert_eq!(kept, [("alice".into(), 1), ("bob".into(), 1)]);
}

#[tokio::test]
async fn refuses_what_there_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    let ask = |by: Option<&str>, machine: Option<&str>| {
        let query =
            UsageQuery { by: by.map(Into::into), machine: machine.map(Into::into), ..UsageQuery::default() };
        let host = bench.host.clone();
        async move { host.usage(&query).await }
    };
    let problem = ask(Some("machine,month"), None).await.unwrap_err();
    assert_eq!((problem.kind, problem.key.as_deref()), (ProblemKind::Invalid, Some("by")));
    assert!(problem.detail.contains("label:KEY"), "{problem:?}");
    let problem = ask(None, Some("web,nobody")).await.unwrap_err();
    assert_eq!((problem.kind, problem.key.as_deref()), (ProblemKind::NotFound, Some("machine")));
    assert_eq!(ask(Some("day,hour,label:x"), Some("web")).await.unwrap().lines[0].group.len(), 3);
}
