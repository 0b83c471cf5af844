//! The main job: an idle guest sleeps, stays present, and is running again when a client connects.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, ROOMY, SECOND, Scene, TCP_ONLY};
use dormouse_lab::{
    Guest,
    api::{EventKind, MachineState},
};
use std::{
    io::{Read, Write},
    net::{IpAddr, TcpStream},
    thread,
};

#[test]
fn an_idle_guest_sleeps_stays_present_and_wakes_at_a_connection() {
    let guest = Guest::new("web", 2).dirty(30).set("sleep.idle_after", "4s");
    let scene = Scene::boot("story", FAST_SAMPLES, guest);
    let before = scene.before();
    let mut shell = scene.client.ssh(&scene.image, scene.guest.ip()).unwrap();
    let mut echo = scene.client.echo(scene.guest.ip6()).unwrap();
    let uptime = scene.sink().uptime_ms;
    let awake = scene.lab.host_memory(&scene.daemon.state_dir()).unwrap();
    assert!(awake.total() > before.memory.pages * 4096, "{awake:?}");

    sleeps_by_itself(&scene, awake.total());
    stays_present(&scene);
    wakes_at_the_first_syn(&scene);

    assert_eq!(shell.run("echo still here").unwrap(), "still here\n");
    echo.say("still here").unwrap();
    assert_eq!(scene.before(), before);
    assert!(scene.sink().uptime_ms > uptime);
}

#[track_caller]
fn sleeps_by_itself(scene: &Scene, awake: u64) {
    let asleep = scene.entered(0, MachineState::Asleep);
    assert!(asleep.cause.as_ref().is_some_and(|cause| cause.contains("idle")), "{asleep:?}");
    scene.wait_no_qemu();
    let memory = scene.lab.host_memory(&scene.daemon.state_dir()).unwrap();
    // What is left is the page cache of the small files: the state, the logs, the registry.
    assert!(memory.processes == 0 && memory.cached < awake / 20, "{awake} -> {memory:?}");
    assert!(asleep.figures["freed_bytes"] > 0.9 * (awake - memory.total()) as f64 - 1e7, "{asleep:?}");
}

#[track_caller]
fn stays_present(scene: &Scene) {
    let (ip, ip6) = (scene.guest.ip(), scene.guest.ip6());
    scene.client.forget_neighbours().unwrap();
    let arp = scene.client.arping(ip, SECOND).unwrap();
    assert_eq!((arp.mac, arp.requests), (scene.guest.mac(), 1));
    for to in [IpAddr::from(ip), ip6.into(), ip.into(), ip6.into()] {
        scene.client.ping(to, SECOND).unwrap();
    }
    // Nobody speaks for addresses that are not its own.
    assert!(scene.client.ping([10, 9, 0, 77], SECOND / 5).is_err());
    assert!(scene.lab.qemu_pids().unwrap().is_empty());
    let why = scene.daemon.why(scene.name()).unwrap();
    assert_eq!(why.state, MachineState::Asleep);
    // One address request by arping and one by the kernel, and a solicitation.
    let answered: u64 = why.answered.values().sum();
    assert!(answered >= 7, "{:?}", why.answered);
}

#[track_caller]
fn wakes_at_the_first_syn(scene: &Scene) {
    scene.wakes_at_the_first_syn();
    let wake = scene.daemon.why(scene.name()).unwrap().last_wake.unwrap();
    assert_eq!(wake.cause, "packet");
    let frame = wake.frame.unwrap();
    assert!(frame.contains("10.9.0.2") && frame.contains("80"), "{frame}");
    let states: Vec<_> = scene.events.all().iter().filter_map(|event| event.to).collect();
    assert!(!states.contains(&MachineState::Undoing), "{states:?}");
}

#[test]
fn streams_go_whole_through_sleep_and_wake() {
    let guest = Guest::new("web", 2).dirty(20).set("wake.on", vec![TCP_ONLY.to_owned()]);
    let scene = Scene::boot("streams", ROOMY, guest);
    let before = scene.before();
    for to in [IpAddr::from(scene.guest.ip()), scene.guest.ip6().into()] {
        datagrams(&scene, to);
    }
    upload(&scene, 20 << 20, 3);
    assert_eq!(scene.before(), before);
}

/// A stream of numbered datagrams through several sleeps arrives whole, once, in order. If the host
/// is so busy that the guest or the kernel cannot keep up, what was lost was counted, and a slower
/// stream must arrive.
#[track_caller]
fn datagrams(scene: &Scene, to: IpAddr) {
    let mut rate = 20_000;
    while !arrives_whole(scene, to, rate, 3) {
        rate /= 2;
        assert!(rate >= 2_500, "the guest cannot even read {rate} datagrams a second");
    }
}

/// False if something was lost, and it was counted where.
#[track_caller]
fn arrives_whole(scene: &Scene, to: IpAddr, rate: u32, cycles: usize) -> bool {
    let (mark, kernel) = (scene.mark(), scene.dropped_by_the_kernel());
    scene.client.reset_sink(scene.guest.ip()).unwrap();
    let errors = scene.sink().rcvbuf_errors;
    // Its Ethernet address is known before the first datagram: those that the client's own kernel
    // holds while it asks are overtaken by those that it sends meanwhile.
    scene.client.ping(to, SECOND).unwrap();
    let stream = scene.client.udp_stream(to, rate, 100).unwrap();
    for _ in 0..cycles {
        thread::sleep(SECOND / 3);
        scene.sleep();
        scene.wait_no_qemu();
        let held = scene.daemon.why(scene.name()).unwrap().held.frames;
        assert!(held > 0, "nothing was held at {rate} a second");
        scene.wakes_at_the_first_syn();
    }
    thread::sleep(SECOND / 3);
    let sent = stream.stop();
    let stats = scene.settled_sink(sent.datagrams);
    assert_eq!(stats.rcvbuf_errors, errors, "the guest itself dropped some: the test says nothing");
    let wakes = scene.events.all().into_iter().filter(|event| event.seq > mark);
    let dropped: f64 = wakes.filter_map(|event| event.figures.get("dropped_frames").copied()).sum();
    let by_kernel = scene.dropped_by_the_kernel() - kernel;
    println!("{rate} a second to {to}: {sent:?}, {dropped} dropped, {by_kernel} by the kernel, {stats:?}");
    assert_eq!((stats.duplicates, stats.reordered), (0, 0), "{to}: {stats:?}");
    let whole = stats.is_whole(sent.datagrams);
    assert!(whole || dropped > 0.0 || by_kernel > 0, "{to}: lost, and not counted: {sent:?} {stats:?}");
    whole
}

/// A bulk TCP transfer under way is stopped by sleeps, goes on after them, and loses nothing: local
/// clients send large segments with partial checksums, which must survive being held.
#[track_caller]
fn upload(scene: &Scene, bytes: usize, sleeps: usize) {
    let echo = scene.client.echo(scene.guest.ip()).unwrap();
    let data: Vec<u8> =
        (0..bytes as u64 / 8).flat_map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes()).collect();
    let (mut to, mut from) = (echo.stream().try_clone().unwrap(), echo.stream().try_clone().unwrap());
    let expected = data.len();
    thread::scope(|scope| {
        let sender = scope.spawn(|| send_slowly(&mut to, &data));
        let receiver = scope.spawn(move || {
            let mut back = vec![0; expected];
            from.read_exact(&mut back).map(|()| back)
        });
        let mut held = 0;
        for _ in 0..sleeps {
            thread::sleep(SECOND / 4);
            scene.sleep();
            scene.wait_no_qemu();
            held += scene.daemon.why(scene.name()).unwrap().held.frames;
            scene.daemon.wake(scene.name()).unwrap();
        }
        assert!(held > 0, "the transfer ended before the guest slept");
        sender.join().unwrap().unwrap();
        let back = receiver.join().unwrap().unwrap();
        assert!(back == data, "what came back is not what was sent");
    });
    // And it was seen in the events that frames were replayed at each of these wakes.
    let replays = scene
        .events
        .all()
        .iter()
        .filter(|e| e.kind == EventKind::State)
        .filter(|e| {
            e.to == Some(MachineState::Active) && e.figures.get("replayed_frames").is_some_and(|n| *n > 0.0)
        })
        .count();
    assert!(replays >= sleeps, "{replays}");
}

/// In bursts, so that it lasts over all the sleeps, and each burst is a train of large segments.
fn send_slowly(to: &mut TcpStream, data: &[u8]) -> std::io::Result<()> {
    for burst in data.chunks(512 << 10) {
        to.write_all(burst)?;
        thread::sleep(SECOND / 20);
    }
    Ok(())
}
