//! What does not fit is dropped, counted and explained; the rest is delivered once and in order.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, LONG, Numbered, SECOND, Scene, TCP_ONLY};
use dormouse_lab::{
    Guest,
    api::{MachineState, Why},
    wait_for,
};
use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// Frames that are not the test's: router solicitations, multicast reports and the like.
const NOISE: u64 = 100;
const HELD: u64 = 1000;

fn boot(prefix: &str) -> Scene {
    let config = format!("{FAST_SAMPLES}[limits]\nheld_frames = {HELD}\n");
    let guest = Guest::new("web", 2).dirty(10).set("wake.on", vec![TCP_ONLY.to_owned()]);
    let scene = Scene::boot(prefix, &config, guest);
    scene.client.reset_sink(scene.guest.ip()).unwrap();
    scene
}

fn dropped(why: &Why) -> u64 {
    why.dropped.iter().filter(|(reason, _)| *reason != "filtered").map(|(_, frames)| frames).sum()
}

#[test]
fn a_flood_beyond_the_limits() {
    let scene = boot("flood");
    scene.sleep();
    let sent = 5 * HELD;
    let mut flood = Numbered::to(&scene.client, scene.guest.ip());
    (0..sent).for_each(|_| flood.send());
    let all_seen = || {
        let why = scene.daemon.why("web")?;
        Ok((dropped(&why) + why.held.frames >= sent).then_some(why))
    };
    let why = wait_for("all frames to be counted", LONG, all_seen).unwrap().0;
    assert!(why.held.frames <= HELD, "{:?}", why.held);
    // At the limit, or, once they come too fast to be looked at one by one, before that.
    let beyond = why.dropped["frame-limit"] + why.dropped.get("flood").copied().unwrap_or(0);
    assert!(beyond >= sent - HELD, "{:?}", why.dropped);
    assert_eq!(why.state, MachineState::Asleep);

    scene.page();
    let stats = scene.settled_sink(HELD);
    assert_eq!((stats.duplicates, stats.reordered, stats.malformed), (0, 0, 0), "{stats:?}");
    let missing = sent - stats.received;
    assert!(stats.received + NOISE >= HELD, "{stats:?}");
    // Each that is missing was counted.
    let counted = dropped(&scene.daemon.why("web").unwrap());
    assert!((missing..=missing + NOISE).contains(&counted), "{counted} counted, {missing} missing");
}

/// The queue's limit holds in bytes too, and while the guest wakes.
#[test]
fn a_flood_of_large_frames_while_it_wakes() {
    let config = format!("{FAST_SAMPLES}[limits]\nheld_bytes = \"256KiB\"\n");
    let scene = Scene::boot("bytes", &config, Guest::new("web", 2).dirty(10));
    scene.client.reset_sink(scene.guest.ip()).unwrap();
    let errors = scene.sink().rcvbuf_errors;
    scene.sleep();
    let (mark, kernel) = (scene.mark(), scene.dropped_by_the_kernel());
    // The first one wakes it.
    let flood = scene.client.udp_stream(scene.guest.ip(), 20_000, 1400).unwrap();
    let awake = scene.entered(mark, MachineState::Active);
    thread::sleep(SECOND / 4);
    let sent = flood.stop();
    let stats = scene.settled_sink(sent.datagrams);
    assert_eq!(stats.rcvbuf_errors, errors, "the guest itself dropped some: the test says nothing");
    assert_eq!((stats.duplicates, stats.reordered), (0, 0), "{stats:?}");
    let why = scene.daemon.why("web").unwrap();
    let missing = sent.datagrams - stats.received;
    // Awake again, a guest that gets no processor loses what its tap has no room for, as without us.
    let by_kernel = scene.dropped_by_the_kernel() - kernel;
    let counted = dropped(&why);
    let explained = counted <= missing + NOISE && missing <= counted + by_kernel;
    assert!(
        counted > 0 && explained,
        "{missing} missing, {by_kernel} by the kernel: {:?}; {awake:?}",
        why.dropped
    );
}

#[test]
fn broadcasts_are_held_once_and_delivered_once() {
    let scene = boot("broadcast");
    let mut numbered = Numbered::to(&scene.client, Ipv4Addr::new(10, 9, 0, 255));
    // Awake, through every step of going to sleep, asleep, and through every step of waking.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                numbered.send();
                thread::sleep(SECOND / 500);
            }
            numbered.sent()
        });
        for _ in 0..5 {
            thread::sleep(SECOND / 10);
            scene.sleep();
            scene.wait_no_qemu();
            thread::sleep(SECOND / 10);
            let held = scene.daemon.why("web").unwrap().held.frames;
            assert!((1..HELD).contains(&held), "{held}");
            scene.page();
            scene.wait(MachineState::Active);
        }
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap();
        let stats = scene.settled_sink(sent);
        // In order they are not: once the guest's tap has joined the bridge, new ones reach the guest
        // directly, while older ones are still held.
        assert_eq!((stats.received, stats.lost, stats.duplicates), (sent, 0, 0), "{stats:?}");
    });
}
