//! What a domain's guest agent is for: the clock is set after a wake, and it says who is logged in.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use crate::idle::{hold_boot, let_sleep, only_busy_by, signal, wait_why};
use dormouse_e2e::{DomainScene, FAST_SAMPLES, LONG, SECOND, TCP_ONLY};
use dormouse_lab::{Domain, Guest, SshSession, api::MachineState, wait_until};
use std::{
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

/// Seconds of the epoch, here.
fn host_clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().try_into().unwrap()
}

/// Is the guest's clock within two seconds of the host's? It is read at some moment between two of here.
fn is_right(shell: &mut SshSession) -> bool {
    let before = host_clock();
    let guest: i64 = shell.run("date +%s").unwrap().trim().parse().unwrap();
    (before - 2..=host_clock() + 2).contains(&guest)
}

#[test]
fn the_agent_sets_the_clock_and_says_who_is_logged_in() {
    let on = format!("wake.on={:?}", [TCP_ONLY]);
    let keys =
        ["sleep.idle_after=1s", "sleep.cpu_below=90", "sleep.users=keep-awake", "sleep.load_below=100", &on];
    let domain = Domain::new(Guest::new("web", 2)).agent();
    let scene = DomainScene::imported("lv-agent", FAST_SAMPLES, domain, &keys);
    hold_boot(&scene);
    scene.daemon.run(&["start", scene.name()]).unwrap();
    scene.booted(1);
    let mut shell = scene.client.ssh(&scene.image, scene.guest.ip()).unwrap();
    shell.run("guestd login alice pts/9").unwrap();
    assert!(is_right(&mut shell));

    // Its clock stands still as long as it sleeps. (An agent that was not there when it was asked at the
    // start keeps it awake, as the user does.)
    let_sleep(&scene);
    scene.sleep_at("saved");
    thread::sleep(4 * SECOND);
    scene.daemon.wake(scene.name()).unwrap();
    scene.wait(MachineState::Active);
    wait_until("the clock to be right", LONG, || Ok(is_right(&mut shell))).unwrap();

    // Whoever is logged in is heard of when it wakes, and keeps it awake.
    let why = wait_why(&scene, "the user alone to keep it awake", |why| only_busy_by(why, "users", SECOND));
    assert_eq!((why.state, why.would_sleep_at), (MachineState::Active, None), "{why:?}");
    let users = signal(&why, "users").unwrap();
    assert_eq!(
        (users.value, users.threshold, users.detail.as_deref()),
        (Some(1.0), Some(1.0), Some("alice"))
    );
    let load = signal(&why, "load").unwrap();
    assert!(load.value.is_some() && load.threshold == Some(100.0), "{load:?}");

    // And without users it sleeps.
    shell.run("guestd logout pts/9").unwrap();
    scene.sleep_at("paused");
    scene.daemon.run(&["hold", scene.name(), "--reason", "a look at it"]).unwrap();
    wait_why(&scene, "all to be quiet", |why| {
        let told =
            |name: &str| signal(why, name).filter(|signal| !signal.busy).and_then(|signal| signal.value);
        told("load").is_some() && told("users") == Some(0.0)
    });
    let_sleep(&scene);
    scene.wait(MachineState::Asleep);
    assert_eq!(scene.domstate(), "shut off");
}
