//! Inhibitor locks of systemd-logind, and what they are to a machine.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
#[path = "common/logind.rs"]
mod logind;

use std::sync::{Arc, Mutex};

use common::{Bench, World, create, file};
use dormouse_api_types::{MachineState, Why};
use dormouse_daemon::{driver::Order, inhibit::Inhibitors};
use logind::{Logind, connect, lock};

/// A machine that is asleep after a second without use, beside this logind, and logind's end of the connection.
async fn bench(dir: &std::path::Path, logind: &Arc<Mutex<Logind>>) -> (Bench, zbus::Connection) {
    let (server, client) = connect(logind).await;
    let world = Arc::new(World::default());
    *world.inhibitors.lock().unwrap() = Arc::new(Inhibitors::over(client));
    let bench = Bench::start_with(dir, world, "").await;
    bench.host.create(create(&file("web", 2).replace("never", "1s"))).await.unwrap();
    bench.order(Order::Start { cold: false }).await.unwrap();
    bench.world.take_calls();
    (bench, server)
}

/// Its reasons once it has been idle for longer than it is to be, and a lock keeps it awake.
async fn kept(bench: &Bench) -> Why {
    let is_idle = async |bench: &Bench| {
        let web = bench.host.show(&common::web()).await.unwrap().summary;
        web.idle_for_ms > Some(1_500)
    };
    bench.wait("its time", is_idle).await;
    bench.wait_why(|why| why.keeps.iter().any(|keep| keep.kind == "inhibitor")).await
}

#[tokio::test]
async fn a_lock_keeps_an_idle_machine_awake_until_it_is_released() {
    let dir = tempfile::tempdir().unwrap();
    let logind = Arc::new(Mutex::new(Logind::default()));
    logind.lock().unwrap().locks = vec![lock("sleep", "dormouse:web", "block")];
    let (bench, _server) = bench(dir.path(), &logind).await;
    let why = kept(&bench).await;
    assert_eq!((why.state, why.would_sleep_at), (MachineState::Active, None));
    let [keep] = &*why.keeps else { panic!("{why:?}") };
    assert_eq!(keep.why, "\"backup\", lock of process 42");
    assert!(!bench.world.take_calls().contains(&"capture".into()));

    // One of another machine takes its place.
    logind.lock().unwrap().locks = vec![lock("sleep", "dormouse:db", "block")];
    bench.wait_state(MachineState::Asleep).await;

    // Who sleeps is not woken by a lock, and who is woken is kept.
    logind.lock().unwrap().locks = vec![lock("sleep", "dormouse", "block")];
    bench.order(Order::Wake).await.unwrap();
    assert_eq!(kept(&bench).await.state, MachineState::Active);
}

#[tokio::test]
async fn a_logind_that_is_gone_lets_nobody_sleep_whom_it_kept_awake() {
    let dir = tempfile::tempdir().unwrap();
    let logind = Arc::new(Mutex::new(Logind::default()));
    logind.lock().unwrap().locks = vec![lock("sleep", "dormouse", "block")];
    let (bench, _server) = bench(dir.path(), &logind).await;
    kept(&bench).await;
    logind.lock().unwrap().refusal = Some(zbus::fdo::Error::Failed("out of order".into()));
    let is_old = |why: &Why| why.keeps.iter().any(|keep| keep.why.contains("does not answer now"));
    let why = bench.wait_why(is_old).await;
    assert_eq!((why.state, why.would_sleep_at), (MachineState::Active, None));
    assert!(!bench.world.take_calls().contains(&"capture".into()));
}
