//! A budget of awake memory: of three guests two may be awake.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, LONG, Scene};
use dormouse_lab::{
    Client, Guest,
    api::{Event, MachineState, UsageReport, Why},
    wait_until,
};
use std::net::SocketAddr;

/// A guest that would not sleep by itself as long as the test takes. (One under emulation is never quite idle.)
fn guest(name: &str, number: u8) -> Guest {
    Guest::new(name, number)
        .set("qemu.memory", "128MiB")
        .set("sleep.idle_after", "10m")
        .set("sleep.min_awake", "1s")
        .set("sleep.cpu_below", 90)
}

#[track_caller]
fn wait_why(scene: &Scene, guest: &Guest, what: &str, is_it: impl Fn(&Why) -> bool) -> Why {
    let mut last = scene.daemon.why(guest.name()).unwrap();
    wait_until(&format!("{} {what}", guest.name()), LONG, || {
        last = scene.daemon.why(guest.name())?;
        Ok(is_it(&last))
    })
    .unwrap();
    last
}

/// Waits until it is idle by samples that were all taken from now on: what it did before is in them.
#[track_caller]
fn wait_idle(scene: &Scene, guest: &Guest) {
    let mut samples = Vec::new();
    wait_until(&format!("{} to be idle", guest.name()), LONG, || {
        let why = scene.daemon.why(guest.name())?;
        let cpu = why.signals.iter().find(|signal| signal.name == "cpu").and_then(|signal| signal.value);
        if samples.last() != Some(&cpu) {
            samples.push(cpu);
        }
        let is_quiet = !why.signals.is_empty() && why.signals.iter().all(|signal| !signal.busy);
        Ok(samples.len() > 3 && why.keeps.is_empty() && is_quiet)
    })
    .unwrap();
}

#[track_caller]
fn serves(client: &Client, guest: &Guest) {
    let page = client.http_get(SocketAddr::new(guest.ip().into(), 80), "/cgi-bin/uptime", LONG).unwrap();
    assert_eq!(page.status, 200, "{page:?}");
}

#[track_caller]
fn made_room(scene: &Scene, guest: &Guest, other: &str) {
    let why = wait_why(scene, guest, "to sleep", |why| why.state == MachineState::Asleep);
    assert_eq!(why.cause, Some(format!("put to sleep to make room for {other}")), "{why:?}");
}

fn hold(scene: &Scene, guest: &Guest) {
    scene.daemon.run(&["hold", guest.name(), "--reason", "in use"]).unwrap();
}

#[track_caller]
fn boot(scene: &Scene, guest: &Guest) {
    scene.daemon.run(&["start", guest.name()]).unwrap();
    scene.daemon.wait_ready(guest, 1).unwrap();
    // So that its addresses are known.
    serves(&scene.client, guest);
}

#[test]
fn the_idle_sleep_so_that_others_can_wake() {
    let config = format!("{FAST_SAMPLES}[budget]\nawake_memory = \"256MiB\"\n");
    let [a, b, c] = [guest("a", 2), guest("b", 3), guest("c", 4)];
    let scene = Scene::new("budget", &config, a.clone());
    for other in [&b, &c] {
        scene.daemon.create(&scene.lab, &scene.image, other).unwrap();
    }
    boot(&scene, &a);
    boot(&scene, &b);
    hold(&scene, &b);
    wait_idle(&scene, &a);
    let page = scene.daemon.run(&["why", a.name()]).unwrap();
    assert!(page.contains("would make room (saved), before all others"), "{page}");

    // A third is started: the one that is not in use makes room.
    boot(&scene, &c);
    made_room(&scene, &a, "c");
    let page = scene.daemon.run(&["why", a.name()]).unwrap();
    assert!(page.contains("put to sleep to make room for c"), "{page}");
    let page = scene.daemon.run(&["why", b.name()]).unwrap();
    assert!(page.contains("256 MiB awake of 256 MiB"), "{page}");

    // A packet wakes the sleeper, and the other one makes room.
    hold(&scene, &c);
    scene.daemon.run(&["release", b.name()]).unwrap();
    wait_idle(&scene, &b);
    serves(&scene.client, &a);
    made_room(&scene, &b, "a");

    let usage: UsageReport = scene.daemon.json(&["usage"]).unwrap();
    assert_eq!(usage.total.sleeps, [("budget".to_owned(), 2)].into(), "{usage:?}");

    // Both others are in use: the packet wakes it all the same, which is said.
    let mark = scene.mark();
    hold(&scene, &a);
    serves(&scene.client, &b);
    scene.warned(mark, &["wakes all the same", "128.0 MiB too small"]);
    let page = scene.daemon.cli(&["doctor"]).unwrap().stdout;
    assert!(page.contains("384.0 MiB awake of 256.0 MiB"), "{page}");
    assert_eq!(scene.lab.qemu_pids().unwrap().len(), 3);
}

#[test]
fn in_a_strict_budget_what_there_is_no_room_for_waits_and_nothing_is_lost() {
    let config = format!(
        "{FAST_SAMPLES}[budget]\nawake_memory = \"256MiB\"\nstrict = true\n[budget.owners]\nalice = \"128MiB\"\n"
    );
    let of_alice = |guest: Guest| guest.set("owner", "alice");
    let [a, b, c] = [of_alice(guest("a", 2)), of_alice(guest("b", 3)), guest("c", 4)];
    let scene = Scene::new("budget-strict", &config, a.clone());
    for other in [&b, &c] {
        scene.daemon.create(&scene.lab, &scene.image, other).unwrap();
    }
    boot(&scene, &a);
    wait_idle(&scene, &a);
    // The host has room for both, their owner has not: one sleeps before the other boots.
    scene.daemon.run(&["start", b.name()]).unwrap();
    assert_eq!(scene.daemon.state(a.name()).unwrap(), MachineState::Asleep);
    made_room(&scene, &a, "b");
    scene.daemon.wait_ready(&b, 1).unwrap();
    boot(&scene, &c);
    hold(&scene, &b);
    hold(&scene, &c);

    // Nobody can make room: an order is refused, with the reason.
    let said = scene.refused(&["wake", a.name()], 4);
    assert!(said.contains("alice's budget of awake memory is 128.0 MiB too small"), "{said}");
    let page = scene.daemon.run(&["why", a.name()]).unwrap();
    assert!(page.contains("cannot wake: 128 MiB of awake memory are lacking"), "{page}");

    // A client's packets are held, until there is room.
    std::thread::scope(|scope| {
        let answered = scope.spawn(|| serves(&scene.client, &a));
        let why =
            wait_why(&scene, &a, "to wait for room", |why| why.held.frames > 0 && !why.obstacles.is_empty());
        assert_eq!(why.state, MachineState::Asleep, "{why:?}");
        assert!(why.obstacles[0].contains("cannot wake yet: alice's budget"), "{why:?}");
        scene.daemon.run(&["release", b.name()]).unwrap();
        answered.join().unwrap();
    });
    made_room(&scene, &b, "a");
    let why = scene.daemon.why(a.name()).unwrap();
    assert_eq!((why.state, why.last_wake.unwrap().cause), (MachineState::Active, "packet".into()));
    // The one that was held never went.
    let c = c.name().parse().unwrap();
    let went = |event: &Event| event.machine.as_ref() == Some(&c) && event.to == Some(MachineState::Settling);
    assert_eq!(scene.events.all().into_iter().find(went), None);
}
