//! A sleep that meets a packet, a hold or a command while it settles is undone, and nothing is lost.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, LONG, Numbered, SECOND, Scene};
use dormouse_lab::{
    Guest,
    api::{EventKind, MachineState, Outcome},
};
use std::{thread, time::Duration};

/// Tries until so many of the sleeps were undone, and at most this often.
const UNDONE: usize = 4;
const TRIES: u64 = 60;

/// Numbers without a pattern, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[test]
fn whatever_wants_a_machine_that_settles_undoes_the_sleep() {
    let scene = Scene::boot("race", FAST_SAMPLES, Guest::new("web", 2).dirty(20));
    let before = scene.before();
    scene.client.reset_sink(scene.guest.ip()).unwrap();
    packets(&scene);
    commands(&scene);
    holds(&scene);
    assert_eq!(scene.before(), before);
}

/// How many sleeps were undone since the mark.
fn undone(scene: &Scene, mark: u64) -> usize {
    let events = scene.events.all();
    events.iter().filter(|e| e.seq > mark && e.to == Some(MachineState::Undoing)).count()
}

/// Starts a sleep, waits until it is seen to settle and a little longer, and does something.
#[track_caller]
fn disturb(scene: &Scene, random: &mut Random, act: impl FnOnce()) {
    let mark = scene.mark();
    thread::scope(|scope| {
        // Undone, it ends with a failure: which of the two it is this time is for the events to say.
        scope.spawn(|| scene.daemon.cli(&["sleep", scene.name()]).unwrap());
        scene.entered(mark, MachineState::Settling);
        // Short ones and long ones alike: how long it settles depends on the host.
        let limit = 1_000 << random.below(8);
        thread::sleep(Duration::from_micros(random.below(limit)));
        act();
    });
    // What came before the capture was the guest's while it still ran, and is no reason to wake.
    scene.daemon.wake(scene.name()).unwrap();
    scene.wait(MachineState::Active);
}

/// Datagrams at random times into sleeps: each arrives once, in order, and by its sleep's undoing
/// or by a wake.
#[track_caller]
fn packets(scene: &Scene) {
    let mark = scene.mark();
    let (mut random, mut numbered) = (Random(42), Numbered::to(&scene.client, scene.guest.ip()));
    for n in 0..TRIES {
        disturb(scene, &mut random, || (0..3).for_each(|_| numbered.send()));
        if n >= 20 && undone(scene, mark) >= UNDONE {
            break;
        }
    }
    assert!(undone(scene, mark) >= UNDONE, "only {} of {TRIES} sleeps were undone", undone(scene, mark));
    let stats = scene.settled_sink(numbered.sent());
    assert!(stats.is_whole(numbered.sent()), "{} sent: {stats:?}", numbered.sent());
    let by_packet = scene.event(mark, "an undoing by a packet", |event| {
        event.to == Some(MachineState::Undoing) && event.cause.as_ref().is_some_and(|c| c.contains("packet"))
    });
    assert_eq!(by_packet.from, Some(MachineState::Settling));
}

#[track_caller]
fn commands(scene: &Scene) {
    let (mark, mut random) = (scene.mark(), Random(7));
    for _ in 0..TRIES {
        // The client is a process of some ms: the delay before it is none.
        disturb(scene, &mut random, || drop(scene.daemon.wake(scene.name()).unwrap()));
        if undone(scene, mark) > 0 {
            break;
        }
    }
    by_cause(scene, mark, "command");
}

#[track_caller]
fn holds(scene: &Scene) {
    let (mark, mut random) = (scene.mark(), Random(9));
    for _ in 0..TRIES {
        disturb(scene, &mut random, || {
            scene.daemon.run(&["hold", "--reason", "backup", scene.name()]).unwrap();
        });
        scene.daemon.run(&["release", scene.name()]).unwrap();
        if undone(scene, mark) > 0 {
            break;
        }
    }
    by_cause(scene, mark, "backup");
}

/// Either the settling sleep was undone, or (where sleeping is too fast to be met) it was woken; by this.
#[track_caller]
fn by_cause(scene: &Scene, mark: u64, cause: &str) {
    scene.event(mark, &format!("an undoing or a wake by {cause}"), |event| {
        matches!(event.to, Some(MachineState::Undoing | MachineState::Waking))
            && event.cause.as_ref().is_some_and(|c| c.contains(cause))
    });
}

#[test]
fn a_hold_keeps_an_idle_guest_awake_until_it_ends() {
    let guest = Guest::new("web", 2).set("sleep.idle_after", "2s");
    let scene = Scene::new("hold", FAST_SAMPLES, guest);
    let name = scene.name();
    scene.daemon.run(&["start", name]).unwrap();
    let hold: Outcome = hold(&scene, &["--reason", "nightly backup"]);
    scene.daemon.wait_ready(&scene.guest, 1).unwrap();
    let mark = scene.mark();

    // Idle for much longer than its file asks, it is awake, and says why.
    let idle =
        scene.daemon.wait_machine(name, "idle", LONG, |m| m.summary.idle_for_ms.is_some_and(|ms| ms > 4_000));
    assert_eq!(idle.unwrap().0.summary.state, MachineState::Active);
    let why = scene.daemon.why(name).unwrap();
    assert_eq!(why.holds.iter().map(|h| h.reason.as_str()).collect::<Vec<_>>(), ["nightly backup"]);
    assert!(scene.events.all().iter().all(|e| e.to != Some(MachineState::Settling)));

    // A second hold ends by itself; the first still counts, and then it is released by its number.
    let second = self::hold(&scene, &["--for", "1s"]);
    assert_ne!(second.hold, hold.hold);
    scene.event(mark, "the end of the second hold", |event| event.kind == EventKind::Release);
    thread::sleep(SECOND);
    assert_eq!(scene.state(), MachineState::Active);
    scene.daemon.run(&["release", "--hold", &hold.hold.unwrap().to_string(), name]).unwrap();
    scene.entered(mark, MachineState::Asleep);

    // A hold on a sleeper wakes it, keeps it awake, and when its time is over it sleeps again.
    let mark = scene.mark();
    self::hold(&scene, &["--for", "4s"]);
    let awake = scene.entered(mark, MachineState::Active);
    let asleep = scene.entered(mark, MachineState::Asleep);
    let span = asleep.at.timestamp().since(awake.at.timestamp());
    assert!(span > 3 * SECOND, "held for {span:?} only");
}

#[track_caller]
fn hold(scene: &Scene, options: &[&str]) -> Outcome {
    scene.daemon.json(&[&["hold"], options, &[scene.name()]].concat()).unwrap()
}
