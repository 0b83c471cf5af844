//! libvirtd is restarted, stopped, killed and frozen: sleepers are answered for, and wakes wait for it.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{Before, DomainScene, FAST_SAMPLES, SECOND};
use dormouse_lab::{Domain, Guest, Libvirtd, Result, api::MachineState};
use std::thread;

/// Somebody connects while libvirtd is away, and is served when it is back, by the guest as it was.
#[track_caller]
fn is_served_when_it_is_back(
    scene: &DomainScene,
    before: &Before,
    back: impl FnOnce(&Libvirtd) -> Result<()>,
) {
    thread::scope(|scope| {
        let page = scope.spawn(|| scene.page());
        // Longer than a wake takes: one that does not wait would be over, or have failed.
        thread::sleep(3 * SECOND);
        assert!(!page.is_finished());
        assert_ne!(scene.state(), MachineState::Failed, "{:?}", scene.daemon.show("web"));
        scene.speaks();
        back(&scene.libvirtd).unwrap();
        page.join().unwrap();
    });
    scene.wait(MachineState::Active);
    assert_eq!(scene.before(), *before);
}

/// While libvirtd is away its sleeper is answered for; somebody connects, and is served when it is back.
#[track_caller]
fn wakes_when_it_is_back(
    scene: &DomainScene,
    away: impl FnOnce(&Libvirtd) -> Result<()>,
    back: impl FnOnce(&Libvirtd) -> Result<()>,
) {
    let before = scene.before();
    scene.sleep();
    away(&scene.libvirtd).unwrap();
    scene.speaks();
    assert_eq!(scene.state(), MachineState::Asleep);
    is_served_when_it_is_back(scene, &before, back);
}

#[test]
fn libvirtd_may_go_and_come() {
    let guest = Guest::new("web", 2).dirty(10);
    let scene = DomainScene::boot("lv-away", FAST_SAMPLES, Domain::new(guest));
    scene.speaks();
    let (before, qemu) = (scene.before(), scene.qemu());
    scene.libvirtd.restart().unwrap();
    scene.libvirtd.kill9().unwrap();
    scene.libvirtd.resume().unwrap();
    assert_eq!((scene.before(), scene.qemu()), (before, qemu));
    scene.wait(MachineState::Active);

    wakes_when_it_is_back(&scene, Libvirtd::stop, |libvirtd| libvirtd.resume().map(drop));
    wakes_when_it_is_back(&scene, Libvirtd::freeze, Libvirtd::thaw);

    // What others do while the daemon cannot hear of it is seen when libvirtd is back.
    scene.libvirtd.restart().unwrap();
    scene.virsh(&["suspend"]);
    scene.follows(MachineState::Suspended);
    scene.virsh(&["resume"]);
    scene.follows(MachineState::Active);
}

/// The daemon is killed while libvirtd is away, and comes back before it: its sleepers are answered for.
#[track_caller]
fn restarts_without_it(
    scene: &mut DomainScene,
    depth: &str,
    away: impl FnOnce(&Libvirtd) -> Result<()>,
    back: impl FnOnce(&Libvirtd) -> Result<()>,
) {
    let before = scene.before();
    scene.sleep_at(depth);
    away(&scene.libvirtd).unwrap();
    scene.daemon.kill9().unwrap();
    scene.restart("");
    scene.client.forget_neighbours().unwrap();
    scene.speaks();
    assert_eq!(scene.state(), MachineState::Asleep);
    is_served_when_it_is_back(scene, &before, back);
}

#[test]
fn a_daemon_that_starts_without_libvirtd_stands_in_for_its_sleepers() {
    let guest = Guest::new("web", 2).dirty(10);
    let mut scene = DomainScene::boot("lv-away-d", FAST_SAMPLES, Domain::new(guest));
    scene.speaks();
    for depth in ["saved", "paused"] {
        let back = |libvirtd: &Libvirtd| libvirtd.resume().map(drop);
        restarts_without_it(&mut scene, depth, Libvirtd::stop, back);
    }
    restarts_without_it(&mut scene, "saved", Libvirtd::freeze, Libvirtd::thaw);

    // Somebody starts it while neither looks: there is no second one of its address.
    let before = scene.before();
    scene.sleep_at("saved");
    scene.daemon.kill9().unwrap();
    scene.virsh(&["start"]);
    scene.libvirtd.stop().unwrap();
    scene.restart("");
    scene.logged(&["seems to have been started meanwhile"]);
    assert_eq!(scene.before(), before);
    scene.libvirtd.resume().unwrap();
    scene.wait(MachineState::Active);
    assert_eq!(scene.before(), before);
}
