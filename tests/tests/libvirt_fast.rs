//! Domains of libvirt that wake fast: paged out while paused, and saved beside a RAM file.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{DomainScene, LONG, ROOMY, TCP_ONLY};
use dormouse_lab::{Domain, Guest, api::MachineState, wait_until};
use std::fs;

fn guest() -> Guest {
    Guest::new("web", 2).dirty(20).set("wake.on", vec![TCP_ONLY.to_owned()])
}

/// Puts it to sleep; the last words of a connection may undo that.
fn sleeps(scene: &DomainScene, depth: &str) {
    let sleep = || Ok(scene.daemon.cli(&["sleep", "--depth", depth, scene.name()])?.code == Some(0));
    wait_until("it to sleep", LONG, sleep).unwrap();
}

/// Bytes of files that the domain's process has in memory.
fn file_bytes(scene: &DomainScene) -> u64 {
    let pid = scene.lab.qemu_pids().unwrap()[0];
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn a_paused_domain_gives_its_memory_back_and_finds_it_again() {
    let backing = "<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>";
    let domain = Domain::new(guest().set("libvirt.page_out", true)).extra(backing);
    let scene = DomainScene::boot("pageout", ROOMY, domain);
    for _ in 0..2 {
        let (before, awake) = (scene.before(), file_bytes(&scene));
        sleeps(&scene, "paused");
        // Beside everything else, and so some time after it sleeps.
        wait_until("its memory to be away", LONG, || Ok(file_bytes(&scene) < awake.min(64 << 20))).unwrap();
        scene.page();
        scene.wait(MachineState::Active);
        assert_eq!(scene.before(), before);
    }
    // Somebody else wakes it.
    let before = scene.before();
    sleeps(&scene, "paused");
    scene.virsh(&["resume"]);
    scene.follows(MachineState::Active);
    assert_eq!(scene.before(), before);
}

fn ram_file(prefix: &str) -> DomainScene {
    DomainScene::boot(prefix, ROOMY, Domain::new(guest().with_disk().set("libvirt.save", "ram-file")))
}

#[test]
fn a_domain_with_a_ram_file_is_saved_without_its_memory() {
    let scene = ram_file("ramfile");
    let definition = || scene.virsh(&["dumpxml", "--inactive"]);
    assert!(definition().contains("dormouse-ram"));
    for _ in 0..3 {
        let before = scene.before();
        sleeps(&scene, "saved");
        scene.wait_no_qemu();
        assert_eq!(scene.domstate(), "shut off");
        assert!(!scene.virsh(&["dominfo"]).contains("Managed save:   yes"));
        scene.page();
        scene.wait(MachineState::Active);
        assert_eq!(scene.before(), before);
        assert!(!definition().contains("-incoming"), "{}", definition());
    }
    // What others save and restore is whole.
    let before = scene.before();
    scene.virsh(&["managedsave"]);
    scene.wait_no_qemu();
    scene.virsh(&["start"]);
    scene.follows(MachineState::Active);
    assert_eq!(scene.before(), before);
}

#[test]
fn who_starts_a_sleeper_with_a_ram_file_boots_it_and_the_state_is_never_used() {
    let mut scene = ram_file("ramuser");
    let before = scene.before();
    sleeps(&scene, "saved");
    scene.virsh(&["start"]);
    scene.booted(2);
    let after = scene.before();
    assert_ne!(after.boot_id, before.boot_id);
    sleeps(&scene, "saved");
    scene.page();
    scene.wait(MachineState::Active);
    assert_eq!(scene.before(), after);
    // Nobody watches: the daemon is away while somebody runs the domain, and ends it.
    sleeps(&scene, "saved");
    scene.daemon.kill9().unwrap();
    scene.virsh(&["start"]);
    scene.domain.wait_ready(&scene.lab, 3, LONG).unwrap();
    scene.virsh(&["destroy"]);
    scene.daemon.restart().unwrap();
    scene.logged(&["no more use"]);
    assert_eq!(scene.domstate(), "shut off");
    scene.wait(MachineState::Stopped);
    // Nothing of it is used: it boots.
    scene.daemon.run(&["start", "web"]).unwrap();
    scene.booted(4);
    assert_ne!(scene.before().boot_id, after.boot_id);
}
