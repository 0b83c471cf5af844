//! The daemon dies at every step of sleep and wake, before it and after it, and loses no machine.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{Crashes, FAST_SAMPLES, LONG, STANDBY, Scene};
use dormouse_lab::{Guest, api::MachineState};

/// What a daemon is told to do, and dies of.
const SLEEP_SAVED: [&str; 8] =
    ["journal:settling", "capture", "drain", "save", "stand-in", "flush", "journal:asleep", "quit"];
const WAKE_SAVED: [&str; 6] = ["prepare", "load", "journal:waking", "resume", "release", "journal:active"];
const SLEEP_PAUSED: [&str; 3] = ["pause", "stand-in", "journal:asleep"];
const WAKE_PAUSED: [&str; 5] = ["journal:waking", "prepare", "resume", "release", "journal:active"];

#[test]
fn while_it_saves() {
    Crashes::new("crash-s", "saved").at_each_edge(&SLEEP_SAVED, "sleep");
}

#[test]
fn while_it_loads() {
    Crashes::new("crash-l", "saved").at_each_edge(&WAKE_SAVED, "wake");
}

/// The standby of the daemon that was killed is found by the one that dies in the wake.
#[test]
fn while_it_wakes_by_way_of_a_standby() {
    let guest = Guest::new("web", 2).dirty(10);
    Crashes::of(Scene::boot("crash-y", STANDBY, guest)).with_standby().at_each_edge(&WAKE_SAVED, "wake");
}

#[test]
fn while_it_pauses_and_resumes() {
    let mut crashes = Crashes::new("crash-p", "paused");
    crashes.at_each_edge(&SLEEP_PAUSED, "sleep");
    crashes.at_each_edge(&WAKE_PAUSED, "wake");
}

/// A sleep that is being undone, and an off-sleep, which ends in a new boot by design.
#[test]
fn while_it_shuts_down_and_boots() {
    let guest = Guest::new("web", 2).set("sleep.depth", "off");
    let mut scene = Scene::boot("crash-o", FAST_SAMPLES, guest);
    for (step, verb) in [
        ("power-down:before", "sleep"),
        ("power-down:after", "sleep"),
        ("boot:before", "wake"),
        ("boot:after", "wake"),
        ("await-guest:before", "wake"),
        ("release:before", "wake"),
    ] {
        if verb == "wake" {
            scene.sleep();
        }
        scene.restart(step);
        let out = scene.daemon.cli(&[verb, "web"]).unwrap();
        assert_ne!(out.code, Some(0), "{step}: {out:?}");
        scene.daemon.wait_end(LONG).unwrap();
        scene.restart("");
        let found = scene.wait_sound();
        println!("{step}: found {found}");
        if found == MachineState::Asleep {
            assert!(scene.pings(scene.guest.ip()), "{step}");
            scene.daemon.wake("web").unwrap();
        }
        scene.daemon.wait_ready(&scene.guest, 1).unwrap();
        scene.page();
        scene.wait(MachineState::Active);
    }
}

/// A daemon that is killed is not missed by guests that run, and for sleepers it is back at once.
#[test]
fn killed_while_nothing_goes_on() {
    let mut crashes = Crashes::new("crash-k", "saved");
    let scene = &mut crashes.scene;
    let mut shell = scene.client.ssh(&scene.image, scene.guest.ip()).unwrap();
    scene.daemon.kill9().unwrap();
    assert_eq!(shell.run("echo without it").unwrap(), "without it\n");
    let qemu = scene.qemu();
    scene.restart("");
    assert_eq!((scene.state(), scene.qemu()), (MachineState::Active, qemu));
    // What runs is watched again: it can be put to sleep, and is woken.
    scene.sleep();
    scene.daemon.kill9().unwrap();
    crashes.is_whole("kill -9 while it sleeps");
    assert_eq!(shell.run("echo after it").unwrap(), "after it\n");
    stop_and_start(&mut crashes);
}

/// A daemon that is asked to end leaves what runs running, and sleepers asleep.
fn stop_and_start(crashes: &mut Crashes) {
    let qemu = crashes.scene.qemu();
    crashes.scene.daemon.stop().unwrap();
    assert_eq!(crashes.scene.qemu(), qemu);
    crashes.is_whole("stop while it runs");
    crashes.scene.sleep();
    crashes.scene.daemon.stop().unwrap();
    crashes.is_whole("stop while it sleeps");
}
