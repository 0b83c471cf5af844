//! Leases kept for a sleeper against real DHCP servers and clients: dnsmasq and udhcpc, in network
//! namespaces of their own. Needs root, and the Debian packages dnsmasq-base and udhcpc.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::{
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    process::{Child, ChildStderr, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dormouse_sys::{
    Batch, PacketSocket, VnetHdr,
    packet::{Direction, Filter},
};
use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{Deed, Frame, Identity, Lease, Outcome, Persona, Policy, Proxy, Way};

const GUEST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const T0: Timestamp = Timestamp(1_700_000_000_000_000_000);

/// Runs a test in a new network namespace, which ends with its thread and what it started.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let body = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("run the tests as root");
        ip("link add g0 address 52:54:00:00:00:02 type veth peer name s0 address 52:54:00:00:00:01");
        for link in ["g0", "s0"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6"), "1").unwrap();
            ip(&format!("link set {link} up"));
        }
        ip("address add 10.9.0.1/24 dev s0");
        // Nobody but the stand-in shall answer on the guest's side.
        std::fs::write("/proc/sys/net/ipv4/conf/g0/arp_ignore", "8").unwrap();
        test();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// dnsmasq on `s0`, and what it says.
struct Server {
    _process: Process,
    log: BufReader<ChildStderr>,
}

impl Server {
    /// Gives out the addresses from 10.9.0.`first` to 10.9.0.`last` for an hour.
    fn start(first: u8, last: u8) -> Self {
        let range = format!("--dhcp-range=10.9.0.{first},10.9.0.{last},1h");
        let mut child = Command::new("dnsmasq")
            .args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=s0", "--bind-interfaces"])
            .args([
                &range,
                "--leasefile-ro",
                "--dhcp-authoritative",
                "--no-ping",
                "--user=root",
                "--log-dhcp",
            ])
            .stderr(Stdio::piped())
            .spawn()
            .expect("dnsmasq is installed (dnsmasq-base)");
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self { _process: Process(child), log };
        server.says("DHCP, sockets bound");
        server
    }

    /// Reads on until it says `text`; the line.
    fn says(&mut self, text: &str) -> String {
        let mut line = String::new();
        while self.log.read_line(&mut line).unwrap() > 0 {
            if line.contains(text) {
                return line;
            }
            line.clear();
        }
        panic!("dnsmasq ended without saying {text:?}");
    }
}

/// The guest's end of the wire.
struct Wire {
    socket: PacketSocket,
    batch: Batch,
}

impl Wire {
    fn open() -> Self {
        let socket = PacketSocket::open_receive("g0", 1 << 20).unwrap();
        Self { socket, batch: Batch::new(16, 2048) }
    }

    /// Shows the proxy what comes, and sends its answers, until `done`.
    fn serve(&mut self, proxy: &mut Proxy, now: Timestamp, mut done: impl FnMut(&Outcome, &Proxy) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < deadline, "waited in vain");
            self.socket.receive(&mut self.batch).unwrap();
            for frame in self.batch.frames() {
                let (_, response) = proxy.take(&Frame::new(frame.bytes).unwrap(), now);
                if let Outcome::Reply(reply) = &response {
                    self.socket.send(&VnetHdr::PLAIN, reply).unwrap();
                }
                if done(&response, proxy) {
                    return;
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Does what is due; the word for it.
    fn due(&self, proxy: &mut Proxy, now: Timestamp) -> &'static str {
        match &proxy.due(now)[..] {
            [Deed::Send(word, frame)] => {
                self.socket.send(&VnetHdr::PLAIN, frame).unwrap();
                word
            }
            other => panic!("not one frame: {other:?}"),
        }
    }
}

/// What a real client's exchange with the server shows of it: it is then stopped without a word.
fn persona_of_udhcpc() -> Persona {
    let filter = Filter::all(Direction::Both, 2048);
    let sniffer = PacketSocket::open_sniff("g0", &filter, 1 << 20).unwrap();
    let status = Command::new("busybox")
        .args(["udhcpc", "-i", "g0", "-n", "-q", "-s", "/bin/true", "-x", "hostname:guest"])
        .stderr(Stdio::null())
        .status()
        .expect("busybox is installed");
    assert!(status.success(), "udhcpc got no lease");
    let (mut persona, mut batch) = (Persona::default(), Batch::new(64, 2048));
    while sniffer.receive(&mut batch).unwrap() > 0 {
        for frame in batch.frames() {
            let way = if frame.outgoing { Way::Sent } else { Way::Received };
            persona.learn(&Frame::new(frame.bytes).unwrap(), way, GUEST, T0);
        }
    }
    persona
}

fn stand_in(persona: Persona, now: Timestamp) -> Proxy {
    let address = persona.lease.as_ref().expect("a lease was seen").address;
    let who = Identity { mac: GUEST, addresses: vec![address.into()], configured: false };
    Proxy::new(who, persona, Policy::default(), now)
}

fn lease(proxy: &Proxy) -> &Lease {
    proxy.persona().lease.as_ref().unwrap()
}

#[test]
fn dnsmasq_renews_for_the_stand_in() {
    in_namespace(|| {
        let mut server = Server::start(100, 150);
        let persona = persona_of_udhcpc();
        let learned = persona.lease.clone().expect("a lease was seen");
        assert_eq!((learned.server, learned.since, learned.seconds), (SERVER, T0, 3600));
        assert_eq!(learned.client_id, Some([&[1], &GUEST.0[..]].concat()));
        assert_eq!(learned.host_name.as_deref(), Some(&b"guest"[..]));
        server.says("DHCPACK(s0)");

        let mut wire = Wire::open();
        let mut proxy = stand_in(persona, T0);
        // Twice alone, and once, late, by broadcast.
        for (expected, late) in [("dhcp-renew", false), ("dhcp-renew", false), ("dhcp-rebind", true)] {
            let before = lease(&proxy).clone();
            let t2 = before.since + Duration::from_secs(before.rebind.into());
            let now = if late { t2 } else { proxy.deadline().unwrap() };
            assert_eq!(wire.due(&mut proxy, now), expected);
            wire.serve(&mut proxy, now, |response, _| matches!(response, Outcome::Consume(_)));
            let renewed = lease(&proxy);
            assert_eq!((renewed.since, renewed.seconds), (now, 3600));
            assert_eq!(
                Lease { since: T0, renew: 0, rebind: 0, ..renewed.clone() },
                Lease { renew: 0, rebind: 0, ..learned.clone() }
            );
            assert!(proxy.deadline().unwrap() > now + Duration::from_secs(1000));
            // The server saw a client that it knows: by its identifier and its name.
            let line = server.says("DHCPACK(s0)");
            assert!(line.contains(&format!("{} {GUEST} guest", learned.address)), "{line}");
        }
    });
}

#[test]
fn a_server_that_refuses_wakes_the_machine() {
    in_namespace(|| {
        let server = Server::start(100, 150);
        let persona = persona_of_udhcpc();
        drop(server);
        // Another network plan: the address is no longer any of the server's.
        let _server = Server::start(200, 220);
        let mut proxy = stand_in(persona, T0);
        let mut wire = Wire::open();
        let now = proxy.deadline().unwrap();
        assert_eq!(wire.due(&mut proxy, now), "dhcp-renew");
        wire.serve(&mut proxy, now, |response, _| {
            *response == Outcome::Wake("dhcp: the server refused to renew the lease")
        });
        // It asks no more; its address goes with its lease, if it has not woken by then.
        let lease = lease(&proxy);
        assert_eq!(proxy.deadline(), Some(lease.since + Duration::from_secs(lease.seconds.into())));
    });
}
