//! Strict budgets: what there is no room for is refused, or waits.

use std::sync::Arc;

use dormouse_api_types::{MachineState, ProblemKind};
use dormouse_daemon::driver::Order;

use super::{
    START, TWO,
    common::{Bench, hold, within},
    name, order, packet, start, three, three_with, wait, wait_state, warned, why,
};

#[tokio::test]
async fn a_strict_budget_refuses_orders_and_lets_packets_wait() {
    let dir = tempfile::tempdir().unwrap();
    let bench = three(dir.path(), &format!("{TWO}strict = true\n")).await;
    order(&bench, "c", START).await.unwrap();
    order(&bench, "c", Order::Sleep { depth: None }).await.unwrap();
    order(&bench, "a", START).await.unwrap();
    order(&bench, "b", START).await.unwrap();
    let problem = order(&bench, "c", Order::Wake).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Refused);
    assert!(problem.detail.contains("budget of awake memory is 64.0 MiB too small"), "{problem:?}");
    packet(&bench, "c");
    let told = wait(&bench, "c", "to wait for room", |why| !why.obstacles.is_empty()).await;
    assert!(told.obstacles[0].contains("cannot wake yet"), "{told:?}");
    assert_eq!(told.state, MachineState::Asleep);
    assert!(warned(&bench, "c", "cannot wake: the budget"), "{:?}", bench.warnings());
    // There is room: what waited wakes it.
    order(&bench, "a", Order::Sleep { depth: None }).await.unwrap();
    let told = wait_state(&bench, "c", MachineState::Active).await;
    assert!(told.obstacles.is_empty() && told.last_wake.unwrap().cause == "packet");
    assert_eq!(why(&bench, "a").await.state, MachineState::Asleep);
}

#[tokio::test]
async fn of_three_that_wake_at_once_only_two_have_room() {
    let dir = tempfile::tempdir().unwrap();
    let bench = three(dir.path(), &format!("{TWO}strict = true\n")).await;
    let all = ["a", "b", "c"];
    for machine in all {
        order(&bench, machine, START).await.unwrap();
        order(&bench, machine, Order::Sleep { depth: None }).await.unwrap();
    }
    all.iter().for_each(|machine| packet(&bench, machine));
    let one_waits = async |bench: &Bench| {
        let mut states = Vec::new();
        for machine in all {
            let why = why(bench, machine).await;
            states.push((why.state, why.obstacles.is_empty()));
        }
        let count = |is| states.iter().filter(|state| **state == is).count();
        count((MachineState::Active, true)) == 2 && count((MachineState::Asleep, false)) == 1
    };
    bench.wait("two awake and one that waits", one_waits).await;
}

#[tokio::test]
async fn an_order_to_stop_ends_the_wait_for_room() {
    let dir = tempfile::tempdir().unwrap();
    let bench = three(dir.path(), &format!("{TWO}strict = true\n")).await;
    for machine in ["c", "a", "b"] {
        order(&bench, machine, START).await.unwrap();
        if machine == "c" {
            order(&bench, machine, Order::Sleep { depth: None }).await.unwrap();
        }
    }
    packet(&bench, "c");
    wait(&bench, "c", "to wait for room", |why| !why.obstacles.is_empty()).await;
    let stop = Order::Stop { force: true, patience: None };
    assert_eq!(order(&bench, "c", stop).await.unwrap(), MachineState::Stopped);
    let told = why(&bench, "c").await;
    assert!(told.obstacles.is_empty(), "{told:?}");
    // Nothing is left that would start it.
    order(&bench, "a", Order::Sleep { depth: None }).await.unwrap();
    order(&bench, "a", Order::Wake).await.unwrap();
    assert_eq!(why(&bench, "c").await.state, MachineState::Stopped);
}

#[tokio::test]
async fn an_owner_makes_room_of_its_own_and_is_named_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[budget]\nstrict = true\n[budget.owners]\nalice = \"64MiB\"\n";
    let owner = |machine: &str, toml: String| {
        let owner = if machine == "a" { "bob" } else { "alice" };
        format!("owner = {owner:?}\n{toml}")
    };
    let bench = three_with(dir.path(), config, owner).await;
    start(&bench, &["a", "b"]).await;
    // Bob's was idle first, and is bound by nothing.
    assert_eq!(order(&bench, "c", START).await.unwrap(), MachineState::Active);
    let told = wait_state(&bench, "b", MachineState::Asleep).await;
    assert_eq!(told.cause.as_deref(), Some("put to sleep to make room for c"));
    let told = why(&bench, "a").await;
    assert_eq!((told.state, told.budgets, told.makes_room), (MachineState::Active, vec![], None));
    let [budget] = &*why(&bench, "c").await.budgets else { panic!("one budget") };
    assert_eq!((budget.owner.as_deref(), budget.awake_bytes), (Some("alice"), 64 << 20));
    order(&bench, "c", hold("in use")).await.unwrap();
    let problem = order(&bench, "b", Order::Wake).await.unwrap_err();
    assert!(problem.detail.contains("alice's budget of awake memory is 64.0 MiB too small"), "{problem:?}");
}

#[tokio::test]
async fn a_packet_that_came_while_an_order_waited_is_not_forgotten_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let bench = three(dir.path(), &format!("{TWO}strict = true\n")).await;
    order(&bench, "c", START).await.unwrap();
    order(&bench, "c", Order::Sleep { depth: None }).await.unwrap();
    start(&bench, &["a", "b"]).await;
    order(&bench, "b", hold("in use")).await.unwrap();
    let a = bench.world.neighbour(&name("a"));
    a.gate("save");
    let host = Arc::clone(&bench.host);
    let waking = tokio::spawn(async move { host.order(&name("c"), Order::Wake, true).await });
    a.reached("save").await;
    packet(&bench, "c");
    // The one that was to make room is wanted itself, and then in use.
    order(&bench, "a", hold("in use")).await.unwrap();
    a.let_all_go();
    let problem = within("the order", waking).await.unwrap().unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Refused, "{problem:?}");
    wait(&bench, "c", "to wait for room", |why| !why.obstacles.is_empty()).await;
    order(&bench, "a", Order::Release { hold: None }).await.unwrap();
    order(&bench, "a", Order::Sleep { depth: None }).await.unwrap();
    let told = wait_state(&bench, "c", MachineState::Active).await;
    assert_eq!(told.last_wake.unwrap().cause, "packet");
}

#[tokio::test]
async fn a_hold_that_waits_for_room_is_forgotten_with_its_end_and_a_packet_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let bench = three(dir.path(), &format!("{TWO}strict = true\n")).await;
    order(&bench, "c", START).await.unwrap();
    order(&bench, "c", Order::Sleep { depth: None }).await.unwrap();
    start(&bench, &["a", "b"]).await;
    for machine in ["a", "b"] {
        order(&bench, machine, hold("in use")).await.unwrap();
    }
    let release = async || order(&bench, "c", Order::Release { hold: None }).await.unwrap();
    let problem = order(&bench, "c", hold("backup")).await.unwrap_err();
    assert!(problem.detail.contains("too small"), "{problem:?}");
    let told = why(&bench, "c").await;
    assert_eq!((told.state, told.holds.len()), (MachineState::Asleep, 1), "{told:?}");
    assert!(told.obstacles[0].contains("cannot wake yet"), "{told:?}");
    release().await;
    wait(&bench, "c", "to wait no longer", |why| why.obstacles.is_empty()).await;

    order(&bench, "c", hold("backup")).await.unwrap_err();
    packet(&bench, "c");
    wait(&bench, "c", "to wait", |why| !why.obstacles.is_empty()).await;
    release().await;
    order(&bench, "a", Order::Release { hold: None }).await.unwrap();
    order(&bench, "a", Order::Sleep { depth: None }).await.unwrap();
    let told = wait_state(&bench, "c", MachineState::Active).await;
    assert_eq!(told.last_wake.unwrap().cause, "packet");
}
