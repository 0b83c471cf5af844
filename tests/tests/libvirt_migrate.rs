//! A domain that others migrate to another libvirtd, and back, is followed.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{DomainScene, FAST_SAMPLES};
use dormouse_lab::{Domain, Guest, Libvirtd, api::MachineState};

/// While it runs; with its memory through the lab's own network.
#[track_caller]
fn migrate(from: &Libvirtd, to: &Libvirtd) {
    let words = ["migrate", "--live", "--persistent", "--migrateuri", "tcp://127.0.0.1", "web", &to.uri()];
    from.virsh(&words).unwrap();
}

#[test]
fn a_domain_that_is_migrated_away_is_let_go_and_comes_back() {
    let guest = Guest::new("web", 2).dirty(10);
    let scene = DomainScene::boot("lv-migrate", FAST_SAMPLES, Domain::new(guest));
    let there = Libvirtd::start_another(&scene.lab, "there").unwrap();
    let before = scene.before();

    let mark = scene.mark();
    migrate(&scene.libvirtd, &there);
    scene.follows(MachineState::Stopped);
    let stopped = scene.entered(mark, MachineState::Stopped);
    assert!(stopped.cause.as_ref().is_some_and(|cause| cause.contains("migrated")), "{stopped:?}");
    // It runs there, and nobody stands in for it or starts it here.
    assert_eq!(there.domstate("web").unwrap(), "running");
    assert_eq!(scene.domstate(), "shut off");
    assert_eq!(scene.before(), before);
    assert_eq!(scene.state(), MachineState::Stopped);

    migrate(&there, &scene.libvirtd);
    scene.follows(MachineState::Active);
    assert_eq!(scene.before(), before);
    // It is Dormouse's to put to sleep as before.
    scene.sleep();
    scene.wakes_at_the_first_syn();
    assert_eq!(scene.before(), before);
    assert_eq!(there.domstate("web").unwrap(), "shut off");
}
