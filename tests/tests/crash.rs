//! The daemon dies at every step of sleep and wake, before it and after it, and loses no machine.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{Before, FAST_SAMPLES, LONG, STANDBY, Scene};
use dormouse_lab::{
    Guest,
    api::{EventKind, MachineState},
};
use std::time::Instant;

/// What a daemon is told to do, and dies of.
const SLEEP_SAVED: [&str; 8] =
    ["journal:settling", "capture", "drain", "save", "stand-in", "flush", "journal:asleep", "quit"];
const WAKE_SAVED: [&str; 6] = ["prepare", "load", "journal:waking", "resume", "release", "journal:active"];
const SLEEP_PAUSED: [&str; 3] = ["pause", "stand-in", "journal:asleep"];
const WAKE_PAUSED: [&str; 5] = ["journal:waking", "prepare", "resume", "release", "journal:active"];
const EDGES: [&str; 2] = ["before", "after"];

struct Crashes {
    scene: Scene,
    before: Before,
    /// A process stands by before each wake.
    standby: bool,
}

impl Crashes {
    fn new(prefix: &str, depth: &str) -> Self {
        Self::with(prefix, depth, FAST_SAMPLES, false)
    }

    fn with(prefix: &str, depth: &str, config: &str, standby: bool) -> Self {
        let guest = Guest::new("web", 2).dirty(10).set("sleep.depth", depth);
        let scene = Scene::boot(prefix, config, guest);
        let before = scene.before();
        Self { scene, before, standby }
    }

    #[track_caller]
    fn sleep(&self) {
        self.scene.sleep();
        if self.standby {
            self.scene.wait_standby();
        }
    }

    /// With the crash planted, does as told, and waits until the daemon is dead.
    #[track_caller]
    fn die_at(&mut self, step: &str, verb: &str) {
        self.scene.restart(step);
        let out = self.scene.daemon.cli(&[verb, "web"]).unwrap();
        assert_ne!(out.code, Some(0), "{step}: {verb} went well: {out:?}");
        let ended = self.scene.daemon.wait_end(LONG);
        assert!(ended.is_ok(), "{step}: {ended:?}; {out:?}");
    }

    /// Restarts the daemon: the machine is found, is sound, is present, and is what it was.
    #[track_caller]
    fn is_whole(&mut self, step: &str) {
        let scene = &mut self.scene;
        let start = Instant::now();
        let to_api = scene.restart("");
        // Whoever sleeps is answered for before the daemon serves anyone.
        let asleep = scene.state() == MachineState::Asleep;
        let answered = scene.pings(scene.guest.ip());
        let took = start.elapsed();
        assert!(answered || !asleep, "{step}: not answered for {to_api:?} after the daemon's start");
        let found = scene.wait_sound();
        let adopted = scene.event(0, "the adoption", |event| event.kind == EventKind::Adopted);
        assert_eq!(adopted.machine.unwrap().as_str(), "web");
        scene.page();
        scene.wait(MachineState::Active);
        assert_eq!(scene.before(), self.before, "{step}");
        println!("{step}: found {found}, answered for: {answered}, after {took:?}");
    }

    #[track_caller]
    fn at_each_edge(&mut self, steps: &[&str], verb: &str) {
        for step in steps {
            for edge in EDGES {
                let step = format!("{step}:{edge}");
                if verb == "wake" {
                    self.sleep();
                }
                self.die_at(&step, verb);
                self.is_whole(&step);
            }
        }
        // It sleeps and wakes as if nothing had been.
        self.sleep();
        self.scene.page();
        assert_eq!(self.scene.before(), self.before);
        self.scene.wait(MachineState::Active);
    }
}

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
    Crashes::with("crash-y", "saved", STANDBY, true).at_each_edge(&WAKE_SAVED, "wake");
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
