//! The daemon of a domain of libvirt dies at every step of sleep and wake, and loses no machine.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{Crashes, DomainScene, FAST_SAMPLES, LONG, Scene, freeze, thaw};
use dormouse_lab::{Domain, Guest, Libvirtd, api::MachineState, wait_until};
use std::fs::{self, OpenOptions};

/// In the order of a platform whose interfaces come with the process, and whose save ends it.
const SLEEP_SAVED: [&str; 7] =
    ["journal:settling", "capture", "drain", "pause", "stand-in", "save", "journal:asleep"];
const WAKE_SAVED: [&str; 6] = ["load", "journal:waking", "prepare", "resume", "release", "journal:active"];
/// It suspends itself once: the lab's firmware brings its guest back from S3 without what it needs for another.
const UNTIL_SUSPENDED: [&str; 4] = ["capture:after", "drain:after", "suspend:before", "suspend:after"];

/// How often it is tried to meet the daemon in the middle of something.
const TRIES: usize = 10;

/// With as little memory as it boots with: it is saved and restored some forty times.
fn domain() -> Domain {
    Domain::new(Guest::new("web", 2).dirty(10)).memory(128)
}

#[test]
fn while_it_falls_asleep() {
    let domain = domain().agent().suspend_to_memory();
    let DomainScene { libvirtd, scene, .. } = DomainScene::boot("lv-crash-s", FAST_SAMPLES, domain);
    let mut crashes = Crashes::of(scene);
    crashes.at_each_edge(&SLEEP_SAVED, "sleep");
    for step in UNTIL_SUSPENDED {
        crashes.dies_at(step, "sleep --depth pmsuspended");
    }
    assert_eq!(libvirtd.domstate("web").unwrap(), "running");
}

/// Where its process is told to leave its memory out of what it saves, and to put it in again.
const BESIDE_A_RAM_FILE: [(&str, &str); 5] = [
    ("save:before", "sleep"),
    ("save:after", "sleep"),
    ("load:before", "wake"),
    ("load:after", "wake"),
    ("resume:after", "wake"),
];

#[test]
fn beside_a_ram_file() {
    let guest = Guest::new("web", 2).dirty(10).with_disk().set("libvirt.save", "ram-file");
    let domain = Domain::new(guest).memory(128);
    let DomainScene { libvirtd, scene, .. } = DomainScene::boot("lv-crash-r", FAST_SAMPLES, domain);
    let mut crashes = Crashes::of(scene);
    for (step, verb) in BESIDE_A_RAM_FILE {
        if verb == "wake" {
            crashes.scene.sleep();
        }
        crashes.dies_at(step, verb);
        others_save_it_whole(&libvirtd, &crashes, step);
    }
}

#[test]
fn while_it_writes_a_state_without_memory() {
    let guest = Guest::new("web", 2).dirty(10).with_disk().set("libvirt.save", "ram-file");
    let domain = Domain::new(guest).memory(128);
    let DomainScene { libvirtd, scene, .. } = DomainScene::boot("lv-crash-m", FAST_SAMPLES, domain);
    let mut crashes = Crashes::of(scene);
    let met = (0..TRIES).any(|_| {
        let met = dies_while_it_writes(&mut crashes.scene);
        crashes.is_whole("in the middle of the state");
        others_save_it_whole(&libvirtd, &crashes, "in the middle of the state");
        met
    });
    assert!(met, "no save was met in the middle");
}

/// What others save has all of its memory: that of the file is wiped meanwhile.
#[track_caller]
fn others_save_it_whole(libvirtd: &Libvirtd, crashes: &Crashes, step: &str) {
    libvirtd.virsh(&["managedsave", "web"]).unwrap();
    crashes.scene.wait(MachineState::Stopped);
    let ram = crashes.scene.daemon.state_dir().join("domains/web/ram");
    let ram = OpenOptions::new().write(true).open(ram).unwrap();
    let size = ram.metadata().unwrap().len();
    assert!(size > 0);
    ram.set_len(0).and_then(|()| ram.set_len(size)).unwrap();
    libvirtd.virsh(&["start", "web"]).unwrap();
    crashes.scene.wait(MachineState::Active);
    crashes.is_the_same(step);
}

/// Kills the daemon while QEMU, which stands still meanwhile, writes its devices' state. Was it met so?
fn dies_while_it_writes(scene: &mut Scene) -> bool {
    let state = scene.daemon.state_dir().join("domains/web/state");
    let mut sleep = scene.daemon.command(&["sleep", "web"]).spawn().unwrap();
    let mut writes = || {
        let ended = sleep.try_wait().unwrap().is_some();
        Ok(ended || fs::metadata(&state).is_ok_and(|file| file.len() > 0))
    };
    wait_until("its state to be written", LONG, &mut writes).unwrap();
    let qemu = scene.lab.qemu_pids().unwrap();
    qemu.iter().for_each(|pid| freeze(*pid));
    let met = !qemu.is_empty() && !state.with_extension("json").exists();
    scene.daemon.kill9().unwrap();
    qemu.iter().for_each(|pid| thaw(*pid));
    sleep.wait().unwrap();
    println!("met in the middle: {met}");
    met
}

#[test]
fn while_it_wakes() {
    let DomainScene { libvirtd, scene, .. } = DomainScene::boot("lv-crash-w", FAST_SAMPLES, domain());
    let mut crashes = Crashes::of(scene);
    crashes.at_each_edge(&WAKE_SAVED, "wake");
    assert_eq!(libvirtd.domstate("web").unwrap(), "running");
}
