//! The daemon dies at every step of sleep and wake.

use crate::{Before, FAST_SAMPLES, LONG, Scene};
use dormouse_lab::{
    Guest,
    api::{EventKind, MachineState},
};
use std::time::Instant;

const EDGES: [&str; 2] = ["before", "after"];

/// A guest whose daemon is killed again and again.
#[derive(Debug)]
pub struct Crashes {
    /// It.
    pub scene: Scene,
    before: Before,
    /// A process stands by before each wake.
    standby: bool,
}

impl Crashes {
    /// A guest that sleeps at this depth, awake.
    ///
    /// # Panics
    ///
    /// When it does not boot.
    #[track_caller]
    #[must_use]
    pub fn new(prefix: &str, depth: &str) -> Self {
        let guest = Guest::new("web", 2).dirty(10).set("sleep.depth", depth);
        Self::of(Scene::boot(prefix, FAST_SAMPLES, guest))
    }

    /// A guest that is awake.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    #[track_caller]
    #[must_use]
    pub fn of(scene: Scene) -> Self {
        let before = scene.before();
        Self { scene, before, standby: false }
    }

    /// Has a process stand by before each wake; the daemon is configured for it.
    #[must_use]
    pub const fn with_standby(mut self) -> Self {
        self.standby = true;
        self
    }

    #[track_caller]
    fn sleep(&self) {
        self.scene.sleep();
        if self.standby {
            self.scene.wait_standby();
        }
    }

    /// It is what it was.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[track_caller]
    pub fn is_the_same(&self, step: &str) {
        assert_eq!(self.scene.before(), self.before, "{step}");
    }

    /// With the crash planted, does as told, and waits until the daemon is dead.
    #[track_caller]
    fn die_at(&mut self, step: &str, verb: &str) {
        self.scene.restart(step);
        let words: Vec<&str> = verb.split(' ').chain(["web"]).collect();
        let out = self.scene.daemon.cli(&words).unwrap();
        assert_ne!(out.code, Some(0), "{step}: {verb} went well: {out:?}");
        let ended = self.scene.daemon.wait_end(LONG);
        assert!(ended.is_ok(), "{step}: {ended:?}; {out:?}");
    }

    /// Restarts the daemon: the machine is found, is sound, is present, and is what it was.
    ///
    /// # Panics
    ///
    /// When it is not so.
    #[track_caller]
    pub fn is_whole(&mut self, step: &str) {
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
        self.is_the_same(step);
        println!("{step}: found {found}, answered for: {answered}, after {took:?}");
    }

    /// The daemon dies there as it does what the command's words tell it, is restarted, and nothing is lost.
    ///
    /// # Panics
    ///
    /// When it does not die there, or anything is lost.
    #[track_caller]
    pub fn dies_at(&mut self, step: &str, verb: &str) {
        self.die_at(step, verb);
        self.is_whole(step);
    }

    /// The daemon dies before and after each step, is restarted, and nothing is lost.
    ///
    /// # Panics
    ///
    /// When it does not die there, or anything is lost.
    #[track_caller]
    pub fn at_each_edge(&mut self, steps: &[&str], verb: &str) {
        for step in steps {
            for edge in EDGES {
                let step = format!("{step}:{edge}");
                if verb == "wake" {
                    self.sleep();
                }
                self.dies_at(&step, verb);
            }
        }
        // It sleeps and wakes as if nothing had been.
        self.sleep();
        self.scene.page();
        self.is_the_same("undisturbed");
        self.scene.wait(MachineState::Active);
    }
}
