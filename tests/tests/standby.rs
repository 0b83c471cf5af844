//! Machines with a process that stands by for their wake.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{STANDBY, Scene, kill9};
use dormouse_lab::{Guest, api::MachineState};

#[test]
fn it_is_woken_by_way_of_it_and_sleeps_on_without_it() {
    let guest = Guest::new("web", 2).dirty(10).set("sleep.depth", "saved");
    let mut scene = Scene::boot("standby", STANDBY, guest);
    let before = scene.before();
    scene.sleep();
    let standby = scene.wait_standby();
    scene.page();
    scene.wait(MachineState::Active);
    assert_eq!(scene.qemu(), standby, "it woke by another process");
    assert_eq!(scene.before(), before);

    // It ends by itself: nobody hears of it, and the machine sleeps as before.
    scene.sleep();
    kill9(scene.wait_standby());
    scene.wait_no_qemu();
    assert_eq!(scene.state(), MachineState::Asleep);
    assert!(scene.pings(scene.guest.ip()));
    let show = scene.daemon.run(&["show", "web"]).unwrap();
    assert!(!show.contains("standing by"), "{show:?}");
    scene.page();
    scene.wait(MachineState::Active);
    assert_eq!(scene.before(), before);

    // A killed daemon leaves it to the next one, which wakes the machine by it.
    scene.sleep();
    let standby = scene.wait_standby();
    scene.restart("");
    assert_eq!(scene.state(), MachineState::Asleep);
    assert_eq!(scene.wait_standby(), standby);
    scene.page();
    scene.wait(MachineState::Active);
    assert_eq!(scene.qemu(), standby, "it woke by another process");

    // One that is asked to end takes it along, and the next makes another.
    scene.sleep();
    scene.wait_standby();
    scene.daemon.stop().unwrap();
    scene.wait_no_qemu();
    scene.restart("");
    scene.wait_standby();
    let doctor = scene.daemon.cli(&["doctor"]).unwrap();
    assert!(doctor.stdout.contains("1 standing by for wakes"), "{doctor:?}");

    // What gives up the sleep gives up the standby.
    scene.daemon.run(&["stop", "--force", "web"]).unwrap();
    scene.wait_no_qemu();
    assert_eq!(scene.state(), MachineState::Stopped);
    scene.start(&[]);
    scene.sleep();
    scene.wait_standby();
    scene.daemon.run(&["rm", "--force", "web"]).unwrap();
    scene.wait_no_qemu();
    let failed = scene.events.all().into_iter().find(|event| event.to == Some(MachineState::Failed));
    assert_eq!(failed, None);
}
