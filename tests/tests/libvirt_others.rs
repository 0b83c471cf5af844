//! What others do to a domain by virsh is followed, and never fought.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{DomainScene, FAST_SAMPLES, Numbered, TCP_ONLY};
use dormouse_lab::{Domain, Guest, api::MachineState};

/// A guest that connections wake; datagrams to its sink are held.
fn web(prefix: &str) -> DomainScene {
    let guest = Guest::new("web", 2).dirty(10).set("wake.on", vec![TCP_ONLY.to_owned()]);
    let scene = DomainScene::boot(prefix, FAST_SAMPLES, Domain::new(guest));
    scene.speaks();
    scene
}

/// It is as somebody else's `virsh` left it, and stays so.
#[track_caller]
fn is_left(scene: &DomainScene, machine: MachineState, domain: &str) {
    scene.follows(machine);
    assert_eq!(scene.domstate(), domain);
    let by = scene.daemon.why(scene.name()).unwrap();
    assert_eq!(by.state, machine, "{by:?}");
}

#[test]
fn while_it_is_awake() {
    let scene = web("lv-awake");
    let before = scene.before();
    scene.virsh(&["suspend"]);
    is_left(&scene, MachineState::Suspended, "paused");
    scene.virsh(&["resume"]);
    is_left(&scene, MachineState::Active, "running");
    assert_eq!(scene.before(), before);

    scene.virsh(&["managedsave"]);
    is_left(&scene, MachineState::Stopped, "shut off");
    scene.virsh(&["start"]);
    is_left(&scene, MachineState::Active, "running");
    assert_eq!(scene.before(), before);

    let file = scene.lab.dir().join("web.save");
    let file = file.to_str().unwrap();
    scene.libvirtd.virsh(&["save", "web", file]).unwrap();
    is_left(&scene, MachineState::Stopped, "shut off");
    scene.libvirtd.virsh(&["restore", file]).unwrap();
    is_left(&scene, MachineState::Active, "running");
    assert_eq!(scene.before(), before);

    scene.virsh(&["destroy"]);
    is_left(&scene, MachineState::Stopped, "shut off");
    scene.virsh(&["start"]);
    scene.booted(2);
    // It is Dormouse's to put to sleep as before.
    let before = scene.before();
    scene.sleep();
    scene.wakes_at_the_first_syn();
    assert_eq!(scene.before(), before);

    // The guest shuts down as its button says.
    scene.virsh(&["shutdown"]);
    is_left(&scene, MachineState::Stopped, "shut off");
    scene.daemon.run(&["start", "web"]).unwrap();
    scene.booted(3);
}

#[test]
fn while_it_sleeps() {
    let scene = web("lv-asleep");
    let before = scene.before();
    for (depth, verb) in [("paused", "resume"), ("saved", "start")] {
        scene.client.reset_sink(scene.guest.ip()).unwrap();
        scene.sleep_at(depth);
        let mut held = Numbered::to(&scene.client, scene.guest.ip());
        (0..5).for_each(|_| held.send());
        scene.speaks();
        assert_eq!(scene.state(), MachineState::Asleep);
        scene.virsh(&[verb]);
        is_left(&scene, MachineState::Active, "running");
        // What was held for it is delivered.
        let stats = scene.settled_sink(held.sent());
        assert!(stats.is_whole(held.sent()), "{depth}: {stats:?}");
        assert_eq!(scene.before(), before, "{depth}");
    }

    scene.sleep_at("paused");
    scene.virsh(&["destroy"]);
    is_left(&scene, MachineState::Stopped, "shut off");
    assert!(!scene.pings(scene.guest.ip()));
    scene.virsh(&["start"]);
    scene.booted(2);

    // libvirt tells nobody of this.
    scene.sleep_at("saved");
    scene.virsh(&["managedsave-remove"]);
    is_left(&scene, MachineState::Stopped, "shut off");
    let why = scene.daemon.why(scene.name()).unwrap();
    assert!(why.cause.as_ref().is_some_and(|cause| cause.contains("managed save was removed")), "{why:?}");
    assert!(!scene.pings(scene.guest.ip()));
    scene.daemon.run(&["start", "web"]).unwrap();
    scene.booted(3);

    // Nor of this, and says that it is there: it would boot what is to be restored.
    scene.sleep_at("saved");
    std::fs::remove_file(scene.libvirtd.state_dir().join("qemu/save/web.save")).unwrap();
    assert_eq!(scene.state(), MachineState::Asleep);
    assert_ne!(scene.daemon.cli(&["wake", "web"]).unwrap().code, Some(0));
    is_left(&scene, MachineState::Stopped, "shut off");
    scene.daemon.run(&["start", "web"]).unwrap();
    scene.booted(4);

    // Someone takes the domain away with what it was to wake from.
    scene.sleep_at("saved");
    scene.virsh(&["undefine", "--managed-save"]);
    scene.follows(MachineState::Stopped);
    assert!(!scene.pings(scene.guest.ip()));
    scene.daemon.run(&["rm", "web"]).unwrap();
}

#[test]
fn what_others_save_of_a_paused_sleeper_runs_on() {
    let mut scene = web("lv-theirs");
    let before = scene.before();
    for is_restarted in [false, true] {
        scene.sleep_at("paused");
        if is_restarted {
            scene.daemon.restart().unwrap();
            scene.wait(MachineState::Asleep);
        }
        scene.virsh(&["managedsave"]);
        is_left(&scene, MachineState::Stopped, "shut off");
        scene.virsh(&["start"]);
        is_left(&scene, MachineState::Active, "running");
        assert_eq!(scene.before(), before);
    }
}
