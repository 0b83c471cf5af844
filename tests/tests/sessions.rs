//! Connections that were open when a guest fell asleep: idle ones stay up by their keepalives, which do
//! not wake it.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{LONG, SECOND, Scene};
use dormouse_lab::{
    EchoSession, Guest, SshSession,
    api::{MachineState, Why},
    wait_until,
};
use std::{
    env,
    net::{IpAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// A client that gets no answers ends a connection after five idle seconds.
const KEEPALIVE: (u32, u32, u32) = (2, 1, 3);

/// How long the guest sleeps with its connections open; `DORMOUSE_LONG_SLEEP` has other seconds.
fn long_sleep() -> Duration {
    let seconds = env::var("DORMOUSE_LONG_SLEEP").map(|seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(20))
}

/// An ssh session, and echo sessions over both families, with TCP timestamps and without.
struct Sessions {
    ssh: SshSession,
    echo: Vec<EchoSession>,
}

impl Sessions {
    #[track_caller]
    fn open(scene: &Scene) -> Self {
        let (idle, interval, count) = KEEPALIVE;
        scene.client.keepalive(idle, interval, count).unwrap();
        let ssh = scene.client.ssh(&scene.image, scene.guest.ip()).unwrap();
        let mut echo = Vec::new();
        for timestamps in ["1", "0"] {
            scene.client.namespace().sysctl("net/ipv4/tcp_timestamps", timestamps).unwrap();
            echo.push(probed(scene, scene.guest.ip()));
            echo.push(probed(scene, scene.guest.ip6()));
        }
        scene.client.namespace().sysctl("net/ipv4/tcp_timestamps", "1").unwrap();
        let mut sessions = Self { ssh, echo };
        sessions.go_on();
        sessions
    }

    /// Data goes both ways on each of them.
    #[track_caller]
    fn go_on(&mut self) {
        assert_eq!(self.ssh.run("echo still here").unwrap(), "still here\n");
        for session in &mut self.echo {
            session.say("still here").unwrap();
        }
    }
}

#[track_caller]
fn probed(scene: &Scene, ip: impl Into<IpAddr>) -> EchoSession {
    let mut session = scene.client.echo(ip).unwrap();
    session.keep_alive().unwrap();
    session.say("hello").unwrap();
    session
}

fn probes_answered(why: &Why) -> u64 {
    why.answered.get("tcp-keepalive").copied().unwrap_or(0)
}

/// Sleeps for so long, and is seen asleep and answering all the while.
#[track_caller]
fn sleeps_on(scene: &Scene, mark: u64, how_long: Duration) {
    let start = Instant::now();
    let before = probes_answered(&scene.daemon.why(scene.name()).unwrap());
    while start.elapsed() < how_long {
        thread::sleep(SECOND / 2);
        assert_eq!(scene.state(), MachineState::Asleep, "{:?}", scene.daemon.why(scene.name()));
    }
    // Each of the five connections is probed some two seconds after its last answer.
    let answered = probes_answered(&scene.daemon.why(scene.name()).unwrap()) - before;
    println!("{answered} probes answered in {how_long:?}");
    assert!(answered >= 2 * how_long.as_secs(), "{answered} probes answered in {how_long:?}");
    scene.slept_on(mark);
}

#[test]
fn idle_connections_outlive_a_sleep_and_do_not_wake() {
    let mut scene = Scene::boot("sessions", "", Guest::new("web", 2).dirty(10));
    let before = scene.before();
    let mut sessions = Sessions::open(&scene);
    let mark = scene.mark();
    scene.sleep();
    scene.wait_no_qemu();
    sleeps_on(&scene, mark, long_sleep() / 2);

    // A killed daemon's successor knows the connections from the registry.
    scene.restart("");
    assert_eq!(scene.state(), MachineState::Asleep);
    sleeps_on(&scene, 0, long_sleep() / 2);

    // Data on one of them wakes it.
    sessions.echo[0].say("are you there?").unwrap();
    scene.wait(MachineState::Active);
    sessions.go_on();
    assert_eq!(scene.before(), before);
    closed_by_the_other_side(&scene, sessions);

    // The same without eBPF, in a daemon that finds the guest running.
    scene.daemon.configure("[network]\nhandover = \"plain\"\n").unwrap();
    scene.restart("");
    let mut sessions = Sessions::open(&scene);
    let mark = scene.mark();
    scene.sleep();
    scene.wait_no_qemu();
    sleeps_on(&scene, mark, 10 * SECOND);
    scene.daemon.wake(scene.name()).unwrap();
    sessions.go_on();
    assert_eq!(scene.before(), before);
}

/// The ends of connections wake nobody, and the guest learns of them when it wakes.
#[track_caller]
fn closed_by_the_other_side(scene: &Scene, mut sessions: Sessions) {
    let port = |session: &EchoSession| session.stream().local_addr().unwrap().port();
    let (by_fin, by_reset) = (sessions.echo.remove(0), sessions.echo.remove(0));
    let ports = [port(&by_fin), port(&by_reset)];
    let open = |ssh: &mut SshSession| {
        let table = ssh.run("netstat -tn").unwrap();
        ports.map(|port| table.lines().any(|line| line.contains(&format!(":{port} "))))
    };
    assert_eq!(open(&mut sessions.ssh), [true, true]);
    let mark = scene.mark();
    scene.sleep();
    scene.wait_no_qemu();
    drop(by_fin);
    reset(by_reset.stream());
    drop(by_reset);
    let held = || scene.daemon.why(scene.name()).map(|why| why.held.frames >= 2);
    wait_until("FIN and RST to be held", LONG, held).unwrap();
    scene.slept_on(mark);

    scene.daemon.wake(scene.name()).unwrap();
    let closed = || Ok(open(&mut sessions.ssh) == [false, false]);
    wait_until("the guest to close its ends", LONG, closed).unwrap();
    sessions.go_on();
}

/// What is closed next ends with a RST.
fn reset(stream: &TcpStream) {
    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(stream, nix::sys::socket::sockopt::Linger, &now).unwrap();
}
