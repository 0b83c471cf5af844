//! Noise does not wake a guest: ends of connections, what its file ignores, scanners. A client does.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, LONG, SECOND, Scene};
use dormouse_lab::{
    Guest,
    api::{Event, MachineState, WakeTest, WakeVerdict},
    wait_until,
};

fn texts(rules: &[&str]) -> Vec<String> {
    rules.iter().map(ToString::to_string).collect()
}

/// The frames that `why` counts as ignored for a reason that begins so.
fn ignored(scene: &Scene, reason: &str) -> u64 {
    let why = scene.daemon.why(scene.name()).unwrap();
    why.ignored.iter().filter(|i| i.reason.starts_with(reason)).map(|i| i.frames).sum()
}

/// It did not begin to wake since the mark. That it fell asleep may be told a little after the command's end.
#[track_caller]
fn slept_on(scene: &Scene, mark: u64) {
    let woke = |event: &Event| event.seq > mark && event.from == Some(MachineState::Asleep);
    let woke: Vec<_> = scene.events.all().into_iter().filter(woke).collect();
    assert!(woke.is_empty(), "it woke: {woke:?}");
}

#[test]
fn noise_does_not_wake_and_a_client_does() {
    let guest = Guest::new("web", 2)
        .set("wake.on", texts(&["tcp:22,80,7778,7779"]))
        .set("wake.ignore", texts(&["udp:5666 from 10.9.0.0/24"]));
    let scene = Scene::boot("rules", FAST_SAMPLES, guest);
    let shell = scene.client.echo(scene.guest.ip()).unwrap();
    scene.sleep();
    let mark = scene.mark();

    // The client's end of an open connection: kept, for the guest has to hear of it.
    let held = scene.daemon.why("web").unwrap().held.frames;
    drop(shell);
    wait_until("the FIN to be held", LONG, || Ok(scene.daemon.why("web")?.held.frames > held)).unwrap();

    let ip = scene.guest.ip();
    scene
        .client
        .namespace()
        .run(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"alive?", (ip, 5666)).unwrap();
        })
        .unwrap();
    wait_until("the datagram to be ignored", LONG, || Ok(ignored(&scene, "ignore udp:5666") > 0)).unwrap();
    slept_on(&scene, mark);
    assert_eq!(scene.state(), MachineState::Asleep);

    would(&scene, "tcp 10.9.0.9 > :22", WakeVerdict::Wakes, 0);
    would(&scene, "tcp 10.9.0.9 > :22 flags FIN,ACK", WakeVerdict::Held, 6);
    would(&scene, "udp 10.9.0.9 > :5666", WakeVerdict::Ignored, 6);
    would(&scene, "icmp 10.9.0.9", WakeVerdict::Answered, 6);

    scene.page();
    scene.wait(MachineState::Active);
    would(&scene, "tcp 10.9.0.9 > :22", WakeVerdict::Wakes, 0);
}

#[track_caller]
fn would(scene: &Scene, frame: &str, verdict: WakeVerdict, code: i32) {
    let said = scene.daemon.cli(&["-o", "json", "wake-test", "web", frame]).unwrap();
    let test: WakeTest = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((test.verdict, said.code), (verdict, Some(code)), "{frame}: {test:?}");
}

#[test]
fn a_scanner_does_not_wake_and_a_client_does() {
    let guest = Guest::new("web", 2).set("wake.on", texts(&["tcp:80"]));
    let scene = Scene::boot("scan", FAST_SAMPLES, guest);
    // By its answer its address is learned, without which nmap does not even begin.
    scene.page();
    scene.sleep();
    let mark = scene.mark();
    let ip = scene.guest.ip().to_string();
    // In order (-r): port 80 is the 31st that it tries.
    let mut nmap = scene.client.namespace().command("nmap");
    nmap.args(["-sS", "-Pn", "-n", "-r", "--max-retries", "1", "-p", "50-120", &ip]);
    let out = nmap.output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let why = scene.daemon.why("web").unwrap();
    assert!(ignored(&scene, "scanner") > 0, "{why:?}\n{out:?}");
    slept_on(&scene, mark);
    // The client is the scanner's host: it is served when that has rested, or its SYN is sent again.
    wait_until("the client to be served", LONG, || {
        Ok(scene.client.http_get(scene.web(), "/cgi-bin/uptime", 20 * SECOND).is_ok())
    })
    .unwrap();
    assert_eq!(scene.state(), MachineState::Active);
}
