//! A bridge goes while a machine sleeps, and comes again: nobody has to see to the machine.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, LONG, Scene};
use dormouse_lab::{
    Guest, Lab,
    api::{EventKind, MachineState},
    wait_until,
};

#[track_caller]
fn make_bridge(lab: &Lab) {
    let lines = "link add br0 type bridge stp_state 0 forward_delay 0\n\
                 link set br0 up\nlink set cl0 master br0\n";
    lab.switch().ip(lines).unwrap();
}

/// The sleeper is answered for again, and wakes as it was.
#[track_caller]
fn is_back(scene: &Scene) {
    let answered = || Ok(scene.pings(scene.guest.ip()));
    wait_until("an answer", LONG, answered).unwrap();
    assert_eq!(scene.state(), MachineState::Asleep);
    assert_eq!(scene.daemon.show("web").unwrap().summary.absent, None);
    scene.event(0, "the return", |event| event.kind == EventKind::Presence);
}

#[test]
fn a_bridge_may_go_and_come_while_a_machine_sleeps() {
    let mut scene = Scene::boot("bridge", FAST_SAMPLES, Guest::new("web", 2).dirty(10));
    let before = scene.before();
    scene.sleep();
    scene.lab.switch().ip("link del br0\n").unwrap();
    scene.warned(0, &["nobody answers for it", "br0"]);
    assert_eq!(scene.state(), MachineState::Asleep);
    make_bridge(&scene.lab);
    is_back(&scene);

    // It may come later than the daemon as well.
    scene.lab.switch().ip("link del br0\n").unwrap();
    scene.restart("");
    assert_eq!(scene.state(), MachineState::Asleep);
    let why = scene.daemon.why("web").unwrap();
    assert!(why.obstacles.iter().any(|o| o.contains("br0")), "{why:?}");
    make_bridge(&scene.lab);
    is_back(&scene);

    scene.page();
    scene.wait(MachineState::Active);
    assert_eq!(scene.before(), before);
}
