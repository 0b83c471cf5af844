//! What is spoken for a sleeper at its TCP ports, programs that are asked about its frames, and rules
//! that say what wakes it.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{LONG, SECOND, Scene};
use dormouse_lab::{
    Daemon, Guest, Lab,
    api::{MachineState, Why},
    wait_until,
};
use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Another of the client's addresses, outside the network that may use ssh.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 200);

const WAKE_ON: [&str; 4] =
    ["tcp:22 from 10.9.0.0/25", "tcp:22 from fd77::/64", "udp:4100 rate 3/10s", "tcp:80"];
/// Port, what is spoken there, and whether that wakes.
const SERVICES: [(u16, &str, bool); 4] =
    [(80, "waking-page", true), (8080, "connect", false), (2525, "banner", false), (9, "echo", false)];

const BANNER: &str = "421 asleep, try later\r\n";

/// Says to wake, whatever it is asked.
const WAKER: &str = "#!/usr/bin/python3
import json, sys
for line in sys.stdin:
    print(json.dumps({'id': json.loads(line)['id'], 'verdict': 'wake'}), flush=True)
";

/// Ends with the first thing that it is asked.
const CRASHER: &str = "#!/bin/sh
read -r question
exit 7
";

fn table(pairs: &[(&str, toml::Value)]) -> toml::Value {
    toml::Table::from_iter(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone()))).into()
}

fn guest() -> Guest {
    let services = SERVICES.map(|(port, answer, wakes)| {
        let mut pairs =
            vec![("port", i64::from(port).into()), ("answer", answer.into()), ("wakes", wakes.into())];
        if answer == "banner" {
            pairs.push(("text", BANNER.into()));
        }
        table(&pairs)
    });
    let frames = |rule: &str| vec![toml::Value::from(rule)].into();
    let responders = [("udp-echo", "udp:7"), ("waker", "udp:4001"), ("crasher", "udp:4100")]
        .map(|(name, rule)| table(&[("name", name.into()), ("frames", frames(rule))]));
    Guest::new("web", 2)
        .dirty(10)
        .set("wake.on", WAKE_ON.map(toml::Value::from).to_vec())
        .set("service", services.to_vec())
        .set("responder", responders.to_vec())
}

/// The example that is installed, and two of the test's own.
fn config(lab: &Lab) -> String {
    let echo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/responders/udp-echo.py");
    let program = |name: &str, text: &str| {
        let path = lab.write(name, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    // Where the user of the programs can read it, wherever this tree is.
    let echo = program("udp-echo", &fs::read_to_string(echo).unwrap());
    let programs =
        [("udp-echo", echo), ("waker", program("waker", WAKER)), ("crasher", program("crasher", CRASHER))];
    // A busy machine takes its time to start an interpreter.
    programs
        .map(|(name, path)| format!("[responder.{name}]\nprogram = {path:?}\ntimeout = \"30s\"\n"))
        .concat()
}

#[test]
fn a_sleeper_serves_asks_programs_and_heeds_its_rules() {
    let lab = Lab::new("services").unwrap();
    let daemon = Daemon::start_with(&lab, &config(&lab), &[]).unwrap();
    let scene = Scene::with(lab, daemon, guest());
    scene.lab.client_namespace().ip(&format!("addr add {STRANGER}/24 dev eth0\n")).unwrap();
    scene.start(&[]);
    assert!(scene.pings(scene.guest.ip()) && scene.pings(scene.guest.ip6()));

    let mark = scene.mark();
    scene.sleep();
    scene.wait_no_qemu();
    for ip in [IpAddr::from(scene.guest.ip()), scene.guest.ip6().into()] {
        services_that_do_not_wake(&scene, ip);
    }
    a_program_answers(&scene);
    a_stranger_does_not_wake(&scene);
    scene.slept_on(mark);

    the_waking_page(&scene);
    a_connection_to_another_port_waits(&scene);
    a_program_wakes(&scene);
    a_crashed_program_leaves_it_to_the_rules(&scene);
}

/// What the other side says until it closes.
#[track_caller]
fn said_at(scene: &Scene, ip: IpAddr, port: u16) -> String {
    let mut stream = scene.client.tcp_connect(SocketAddr::new(ip, port), 10 * SECOND).unwrap().stream;
    stream.set_read_timeout(Some(10 * SECOND)).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    said
}

#[track_caller]
fn services_that_do_not_wake(scene: &Scene, ip: IpAddr) {
    assert_eq!(said_at(scene, ip, 8080), "");
    assert_eq!(said_at(scene, ip, 2525), BANNER);
    let mut stream = scene.client.tcp_connect(SocketAddr::new(ip, 9), 10 * SECOND).unwrap().stream;
    stream.set_read_timeout(Some(10 * SECOND)).unwrap();
    let mut back = [0; 5];
    stream.write_all(b"hello").unwrap();
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}

fn datagram(scene: &Scene, from: impl Into<IpAddr>, port: u16) -> UdpSocket {
    let to = SocketAddr::new(scene.guest.ip().into(), port);
    let from = SocketAddr::new(from.into(), 0);
    let send = || {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        socket.send(b"hello").map(|_| socket)
    };
    scene.client.namespace().run(send).unwrap().unwrap()
}

const CLIENT: [u8; 4] = [10, 9, 0, 1];

#[track_caller]
fn a_program_answers(scene: &Scene) {
    let socket = datagram(scene, CLIENT, 7);
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut back = [0; 64];
    let len = socket.recv(&mut back).unwrap();
    assert_eq!(&back[..len], b"hello");
}

#[track_caller]
fn held(scene: &Scene, at_least: u64) {
    let is_so = |why: Why| why.held.frames >= at_least;
    wait_until("frames to be held", LONG, || scene.daemon.why(scene.name()).map(is_so)).unwrap();
}

/// A SYN from elsewhere than the rule for its port allows: it is held, as is the one sent after it.
#[track_caller]
fn a_stranger_does_not_wake(scene: &Scene) {
    let mut curl = scene.client.namespace().command("curl");
    curl.args(["--silent", "--interface", &STRANGER.to_string(), "--max-time", "3"]);
    let out = curl.arg(format!("telnet://{}:22", scene.guest.ip())).output().unwrap();
    assert_eq!(out.status.code(), Some(28), "not a timeout: {out:?}");
    held(scene, 2);
}

#[track_caller]
fn curl(scene: &Scene) -> (u16, String) {
    let mut curl = scene.client.namespace().command("curl");
    curl.args([
        "--silent",
        "--max-time",
        "30",
        "--header",
        "Accept: text/html",
        "--write-out",
        "\n%{http_code}",
    ]);
    let out = curl.arg(format!("http://{}/", scene.web())).output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    let (body, status) = said.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// A browser's first request gets a page that tells it to wait, and the next the machine's own.
#[track_caller]
fn the_waking_page(scene: &Scene) {
    let mark = scene.mark();
    let first = curl(scene);
    assert!(first.0 == 503 && first.1.contains("web") && first.1.contains("<html"), "{first:?}");
    scene.entered(mark, MachineState::Active);
    let second = curl(scene);
    assert!(second.0 == 200 && second.1.contains("Awake."), "{second:?}");
}

/// No page is spoken at port 22: the SYN itself reaches the guest.
#[track_caller]
fn a_connection_to_another_port_waits(scene: &Scene) {
    scene.sleep();
    scene.wait_no_qemu();
    let mark = scene.mark();
    let mut shell = scene.client.ssh(&scene.image, scene.guest.ip()).unwrap();
    assert_eq!(shell.run("echo here").unwrap(), "here\n");
    let awake = scene.entered(mark, MachineState::Active);
    assert!(awake.figures["replayed_frames"] >= 1.0, "{awake:?}");
}

#[track_caller]
fn a_program_wakes(scene: &Scene) {
    scene.sleep();
    scene.wait_no_qemu();
    let mark = scene.mark();
    datagram(scene, CLIENT, 4001);
    let waking = scene.entered(mark, MachineState::Waking);
    assert!(waking.cause.as_ref().is_some_and(|cause| cause.contains("4001")), "{waking:?}");
    scene.entered(mark, MachineState::Active);
}

/// What its program did not answer is judged by the rules: the third datagram wakes.
#[track_caller]
fn a_crashed_program_leaves_it_to_the_rules(scene: &Scene) {
    scene.sleep();
    scene.wait_no_qemu();
    let mark = scene.mark();
    for sent in 1..=2 {
        datagram(scene, CLIENT, 4100);
        held(scene, sent);
    }
    scene.slept_on(mark);
    datagram(scene, CLIENT, 4100);
    scene.entered(mark, MachineState::Active);
    scene.logged(&["crasher"]);
}
