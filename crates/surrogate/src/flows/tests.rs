//! Both ways of following, on the same conversations of real TCP stacks. Needs root.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Sender, channel},
    thread,
    time::{Duration, Instant},
};

use dormouse_sys::{
    Batch, PacketSocket, VnetHdr,
    packet::{Direction, Filter},
    tap,
};
use dormouse_wire::{FlowTable, Frame, Network};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::*;
use crate::testing::{filters, in_namespace, until};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
const HOST: [&str; 2] = ["10.0.0.1", "fd77::1"];
const GUEST: [&str; 2] = ["10.0.0.2", "fd77::2"];

/// The guest's end of a connection, and the other.
type Ends = (SocketAddr, SocketAddr);

fn sh(command: &str) {
    let status = std::process::Command::new("sh").args(["-ec", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

/// A TCP/IP stack in a namespace of its own, behind the link `t0` of this one.
struct Stack {
    jobs: Sender<Box<dyn FnOnce() + Send>>,
}

impl Stack {
    /// Both ends have their addresses, and send TCP timestamps or not.
    fn new(timestamps: bool) -> Self {
        let (jobs, queue) = channel::<Box<dyn FnOnce() + Send>>();
        let stack = Self { jobs };
        thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            queue.into_iter().for_each(|job| job());
        });
        let id = stack.run(|| rustix::thread::gettid().as_raw_nonzero());
        sh(&format!("ip link add t0 type veth peer name t1; ip link set t1 netns {id}"));
        set_up("t0", HOST);
        stack.run(|| {
            sh(&format!("ip link set t1 address {MAC}; ip link set lo up"));
            set_up("t1", GUEST);
        });
        let set = move || {
            std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", u8::from(timestamps).to_string()).unwrap();
        };
        set();
        stack.run(set);
        stack
    }

    fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (answer, result) = channel();
        self.jobs.send(Box::new(move || answer.send(job()).unwrap())).unwrap();
        result.recv().unwrap()
    }
}

fn set_up(link: &str, [ipv4, ipv6]: [&str; 2]) {
    sh(&format!(
        "ip link set {link} up; ip addr add {ipv4}/24 dev {link}; ip addr add {ipv6}/64 dev {link} nodad"
    ));
}

/// Everything by TCP at `t0`, and what it says of the guest's connections.
struct Witness {
    socket: PacketSocket,
    batch: Batch,
    /// By the guest's and the other end: what the guest was last told to have sent, and what it was sent.
    told: BTreeMap<Ends, (u32, u32)>,
    model: FlowTable,
}

impl Witness {
    fn new() -> Self {
        let socket = PacketSocket::open_sniff("t0", &Filter::all(Direction::Both, 256), 8 << 20).unwrap();
        Self { socket, batch: Batch::new(64, 256), told: BTreeMap::new(), model: FlowTable::default() }
    }

    fn read(&mut self) {
        while self.socket.receive(&mut self.batch).unwrap() > 0 {
            for frame in self.batch.frames() {
                let Some(frame) = Frame::new(frame.bytes) else { continue };
                // As both followers, which see nothing of what a guest gets.
                if frame.src() == MAC {
                    self.model.note(&frame, frame.bytes().len(), MAC, now());
                }
                let told = match frame.network() {
                    Network::Ipv4(ip) if ip.protocol == 6 && frame.dst() == MAC => {
                        Self::note(ip.dst.into(), ip.src.into(), ip.payload, ip.payload_len)
                    }
                    Network::Ipv6(ip) if ip.protocol == 6 && frame.dst() == MAC => {
                        Self::note(ip.dst.into(), ip.src.into(), ip.payload, ip.payload_len)
                    }
                    _ => None,
                };
                self.told.extend(told);
            }
        }
        assert_eq!(self.socket.statistics().unwrap().dropped, 0);
    }

    fn note(guest: IpAddr, other: IpAddr, tcp: &[u8], octets: usize) -> Option<(Ends, (u32, u32))> {
        let half = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
        let payload = octets - usize::from(tcp[12] >> 4) * 4;
        let end = word(4).wrapping_add(u32::try_from(payload).unwrap());
        let ends = (SocketAddr::new(guest, half(2)), SocketAddr::new(other, half(0)));
        (tcp[13] & 0x16 == 0x10).then_some((ends, (word(8), end)))
    }
}

/// Sends so many octets one way, then so many the other.
fn exchange(a: &TcpStream, b: &TcpStream, there: usize, back: usize) {
    send(a, b, there);
    send(b, a, back);
}

fn send(from: &TcpStream, mut to: &TcpStream, octets: usize) {
    let mut from = from.try_clone().unwrap();
    let sending = thread::spawn(move || from.write_all(&vec![7; octets]).unwrap());
    to.read_exact(&mut vec![0; octets]).unwrap();
    sending.join().unwrap();
}

/// Connections in both directions by both protocols; the guest's ends first.
fn connections(stack: &Stack) -> Vec<(TcpStream, TcpStream)> {
    let mut all = Vec::new();
    for (host, guest) in HOST.into_iter().zip(GUEST) {
        let ([host, guest], address) = ([host, guest].map(|ip| ip.parse::<IpAddr>().unwrap()), 7000);
        let theirs = stack.run(move || TcpListener::bind((guest, address)).unwrap());
        let ours = TcpListener::bind((host, address)).unwrap();
        for _ in 0..5 {
            let client = TcpStream::connect((guest, address)).unwrap();
            all.push((theirs.accept().unwrap().0, client));
            let client = stack.run(move || TcpStream::connect((host, address)).unwrap());
            all.push((client, ours.accept().unwrap().0));
        }
    }
    all
}

fn ends(pair: &(TcpStream, TcpStream)) -> Ends {
    (pair.0.local_addr().unwrap(), pair.0.peer_addr().unwrap())
}

/// All but the time, in an order that does not depend on it.
fn timeless(flows: &[Flow]) -> BTreeMap<Ends, Flow> {
    let flows = flows.iter().map(|flow| Flow { heard: Timestamp(0), ..*flow });
    flows.map(|flow| ((flow.local, flow.remote), flow)).collect()
}

/// Follows, and waits until it does; is it by eBPF?
fn follow(flows: &mut Flows, mac: MacAddr, tap: &str, known: &[Flow]) -> bool {
    flows.follow(mac, tap, known);
    let source = |flows: &Flows| lock(&flows.shared.guests)[&mac].source.clone();
    until(|| !matches!(source(flows), Source::Known(_)));
    matches!(source(flows), Source::Ebpf(_))
}

fn follows_real_conversations(kind: FollowKind, timestamps: bool) {
    in_namespace(move || {
        let stack = Stack::new(timestamps);
        let (mut flows, mut witness) = (Flows::new(kind), Witness::new());
        assert_eq!(follow(&mut flows, MAC, "t0", &[]), kind == FollowKind::Ebpf);
        let mut pairs = connections(&stack);
        let lengths = [1, 100, 1448, 70_000, 1_000_000];
        for (n, (guest, other)) in pairs.iter().enumerate() {
            exchange(other, guest, lengths[n % 5], lengths[(n + 2) % 5]);
        }
        // Some are closed by the guest, some by the other, and a reset ends some.
        let closed: Vec<_> = pairs.drain(..4).collect();
        for (guest, other) in &closed {
            guest.shutdown(Shutdown::Write).unwrap();
            other.shutdown(Shutdown::Write).unwrap();
        }
        let (guest, mut other) = pairs.pop().unwrap();
        other.write_all(b"never read").unwrap();
        until(|| guest.peek(&mut [0]).unwrap() > 0);
        drop(guest);
        let open: Vec<_> = pairs.iter().map(ends).collect();
        // Until all is acknowledged, which takes its time.
        let deadline = Instant::now() + Duration::from_secs(10);
        let (last, found) = loop {
            witness.read();
            let last = flows.of(MAC);
            let found = timeless(&last);
            let all = found.len() == open.len()
                && open.iter().all(|ends| {
                    let numbers = found.get(ends).map(|flow| (flow.snd_nxt, flow.rcv_nxt));
                    numbers.is_some() && numbers == witness.told.get(ends).copied()
                });
            if all && found == timeless(&witness.model.established()) {
                break (last, found);
            }
            assert!(
                Instant::now() < deadline,
                "{found:#?}\n{:#?}\n{:#?}",
                witness.told,
                witness.model.established()
            );
            thread::sleep(Duration::from_millis(5));
        };
        assert!(found.values().all(|flow| flow.tsval.is_some() == timestamps), "{found:?}");
        assert!(last.is_sorted_by_key(|flow| std::cmp::Reverse(flow.heard)));
        let Timestamp(now) = now();
        assert!(last.iter().all(|flow| now.abs_diff(flow.heard.0) < 20_000_000_000), "{now} {last:?}");
        flows.stop(MAC);
        assert_eq!(flows.of(MAC), []);
    });
}

#[test]
fn ebpf_follows_real_conversations() {
    follows_real_conversations(FollowKind::Ebpf, true);
}

#[test]
fn ebpf_follows_real_conversations_without_timestamps() {
    follows_real_conversations(FollowKind::Ebpf, false);
}

#[test]
fn packets_follow_real_conversations() {
    follows_real_conversations(FollowKind::Packets, true);
}

#[test]
fn packets_follow_real_conversations_without_timestamps() {
    follows_real_conversations(FollowKind::Packets, false);
}

/// A few random connections' worth of segments, most of them plausible.
fn segments() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let flags = prop_oneof![
        8 => Just(0x10_u8), 4 => Just(0x18), 1 => Just(0x02), 1 => Just(0x12), 1 => Just(0x11),
        1 => Just(0x14), 1 => Just(0x04), 1 => any::<u8>(),
    ];
    // Around the end of the sequence numbers.
    let number = prop_oneof![(0_u32..5000).prop_map(|n| n.wrapping_sub(2500)), any::<u32>()];
    let options = prop_oneof![
        3 => any::<u32>().prop_map(|tsval| [&[1, 1, 8, 10][..], &tsval.to_be_bytes(), &[0; 4]].concat()),
        1 => (0_u32..9).prop_map(|tsval| [&[8, 10][..], &tsval.to_be_bytes(), &[0; 4], &[0, 0]].concat()),
        1 => Just(vec![2, 4, 5, 180, 1, 3, 3, 7]),
        1 => Just(vec![]),
        1 => prop::collection::vec(any::<u8>(), 12),
    ];
    let headers = (any::<bool>(), 0_u16..4, flags, number.clone(), number, any::<u16>(), options);
    let frame = (headers, 0_usize..40, 0_u8..20).prop_map(|(headers, length, oddity)| {
        let (ipv6, port, flags, sequence, acknowledgement, window, options) = headers;
        let tcp = [
            &(1000 + port).to_be_bytes()[..],
            &80_u16.to_be_bytes(),
            &sequence.to_be_bytes(),
            &acknowledgement.to_be_bytes(),
            &[u8::try_from((20 + options.len()) * 4).unwrap(), flags],
            &window.to_be_bytes(),
            &[0; 4],
            &options,
            &vec![0; length],
        ]
        .concat();
        packet(ipv6, oddity, &tcp)
    });
    prop::collection::vec(frame, 1..300)
}

/// A frame of the guest's; some of them have an `oddity`.
fn packet(ipv6: bool, oddity: u8, tcp: &[u8]) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &MAC.0, if ipv6 { &[0x86, 0xdd] } else { &[8, 0] }].concat();
    let length = |more: usize| u16::try_from(tcp.len() + more).unwrap().to_be_bytes();
    if ipv6 {
        let extension: &[u8] = match oddity {
            0 => &[6, 0, 1, 4, 0, 0, 0, 0],
            1 => &[6, 0, 0, 1, 0, 0, 0, 9],
            2 => &[6, 0, 0, 0, 0, 0, 0, 9],
            _ => &[],
        };
        let next = [60, 44, 44].get(usize::from(oddity)).copied().unwrap_or(6);
        frame.extend([&[0x60, 0, 0, 0][..], &length(extension.len()), &[next, 64]].concat());
        frame.extend([[0xfd; 16], [0xfe; 16]].concat());
        frame.extend(extension);
    } else {
        let options: &[u8] = if oddity == 0 { &[1, 1, 1, 0] } else { &[] };
        frame.push(0x45 + u8::try_from(options.len() / 4).unwrap());
        frame.push(0);
        frame.extend(length(20 + options.len()));
        frame.extend([0, 1, if oddity == 1 { 0x20 } else { 0x40 }, u8::from(oddity == 2)]);
        frame.extend([64, if oddity == 3 { 17 } else { 6 }, 0, 0, 10, 0, 0, 2, 10, 0, 0, 9]);
        frame.extend(options);
    }
    frame.extend(tcp);
    if oddity == 4 {
        frame.truncate(50);
    }
    if oddity == 5 {
        // Of somebody else behind the same tap.
        frame[11] ^= 1;
    }
    frame
}

#[test]
fn both_say_the_same_of_any_segments() {
    in_namespace(|| {
        let stack = Stack::new(true);
        // The stack behind the link is to say nothing of its own.
        let inject = stack.run(|| {
            sh("ip addr flush dev t1; ip link set t1 arp off");
            PacketSocket::open_inject("t1", false, 8 << 20).unwrap()
        });
        let both = std::cell::RefCell::new([FollowKind::Ebpf, FollowKind::Packets].map(Flows::new));
        let mark = |sequence: u32| {
            let numbers = [&sequence.to_be_bytes()[..], &[0; 4], &[0x50, 0x10, 0, 0, 0, 0, 0, 0]].concat();
            packet(false, 20, &[&[0xff, 0xff, 0, 80][..], &numbers].concat())
        };
        let mut runner = TestRunner::new(Config { cases: 40, ..Config::default() });
        let result = runner.run(&segments(), |frames| {
            let mut flows = both.borrow_mut();
            let mut model = FlowTable::default();
            for kind in flows.iter_mut() {
                kind.stop(MAC);
                follow(kind, MAC, "t0", &[]);
            }
            let last = mark(u32::try_from(frames.len()).unwrap());
            for bytes in frames.iter().chain([&last]) {
                until(|| inject.send(&VnetHdr::PLAIN, bytes).is_ok());
                let frame = Frame::new(bytes).unwrap();
                if frame.src() == MAC {
                    model.note(&frame, bytes.len(), MAC, now());
                }
            }
            let model = timeless(&model.established());
            for kind in flows.iter_mut() {
                until(|| kind.of(MAC).iter().any(|flow| flow.local.port() == 0xffff));
                prop_assert_eq!(&timeless(&kind.of(MAC)), &model);
            }
            Ok(())
        });
        assert!(result.is_ok(), "{:.20000}", result.unwrap_err().to_string());
    });
}

#[test]
fn a_guest_with_very_many_connections_keeps_its_last_and_costs_others_nothing() {
    in_namespace(|| {
        let stack = Stack::new(true);
        let inject = stack.run(|| PacketSocket::open_inject("t1", false, 8 << 20).unwrap());
        sh("ip link add u0 type veth peer name u1; ip link set u0 up; ip link set u1 up");
        let quiet = MacAddr([0x52, 0x54, 0, 0, 0, 3]);
        let known = Flow {
            local: "10.0.0.3:22".parse().unwrap(),
            remote: "[fd77::9]:40000".parse().unwrap(),
            snd_nxt: 1,
            rcv_nxt: u32::MAX,
            window: 500,
            tsval: Some(7),
            heard: now(),
        };
        let mut flows = Flows::new(FollowKind::Ebpf);
        follow(&mut flows, quiet, "u0", &[known, known]);
        follow(&mut flows, MAC, "t0", &[]);
        for n in 0..20_000_u32 {
            let [_, _, a, b] = n.to_be_bytes();
            let segment =
                [&[a, b, 0, 80][..], &n.to_be_bytes(), &[0; 4], &[0x50, 0x10, 1, 0, 0, 0, 0, 0]].concat();
            until(|| inject.send(&VnetHdr::PLAIN, &packet(n % 2 == 0, 20, &segment)).is_ok());
        }
        until(|| flows.of(MAC).iter().any(|flow| flow.snd_nxt == 19_999));
        let kept = flows.of(MAC);
        assert_eq!(kept.len(), Persona::MAX_FLOWS);
        // Some sets got more than their share of the last.
        assert!(kept.iter().all(|flow| flow.snd_nxt > 18_000), "{kept:?}");
        let other = flows.of(quiet);
        assert_eq!(timeless(&other), timeless(&[known]));
        assert!(other[0].heard.0.abs_diff(known.heard.0) < 1_000_000, "{other:?}");
    });
}

#[test]
fn connections_outlast_a_tap_and_more_taps_than_a_table_has_are_followed() {
    in_namespace(|| {
        let guests: Vec<_> = (0..40_u8).map(|n| (MacAddr([2, 0, 0, 0, 0, n]), format!("t{n}"))).collect();
        let flow = |n: usize| Flow {
            local: SocketAddr::new(GUEST[1].parse().unwrap(), 22),
            remote: SocketAddr::new(HOST[1].parse().unwrap(), 1000 + u16::try_from(n).unwrap()),
            snd_nxt: u32::try_from(n).unwrap(),
            rcv_nxt: 2,
            window: 3,
            tsval: None,
            heard: Timestamp(1),
        };
        for kind in [FollowKind::Ebpf, FollowKind::Packets] {
            let mut flows = Flows::new(kind);
            for (n, (mac, tap)) in guests.iter().enumerate() {
                sh(&format!("ip link add {tap} type veth peer name x{tap}"));
                follow(&mut flows, *mac, tap, &[flow(n)]);
            }
            let (mac, tap) = &guests[7];
            sh(&format!("ip link del {tap}; ip link add {tap} type veth peer name x{tap}"));
            follow(&mut flows, *mac, tap, &[]);
            follow(&mut flows, *mac, tap, &[flow(0)]);
            for (n, (mac, _)) in guests.iter().enumerate() {
                assert_eq!(timeless(&flows.of(*mac)), timeless(&[flow(n)]), "{n}");
            }
            flows.stop(*mac);
            assert_eq!(flows.of(*mac), []);
            // A region that is given out once more has nothing of who had it.
            follow(&mut flows, *mac, tap, &[]);
            assert_eq!(flows.of(*mac), []);
            guests.iter().for_each(|(_, tap)| sh(&format!("ip link del {tap}")));
        }
    });
}

#[test]
fn the_program_of_a_killed_daemon_is_replaced_and_ours_goes_with_us() {
    in_namespace(|| {
        let _stack = Stack::new(true);
        // A filter of the queueing discipline outlives its process, as on kernels before 6.6.
        ebpf::tests_leave_stale("t0");
        assert_eq!(filters("t0", "ingress", "follow"), 1);
        let mut flows = Flows::new(FollowKind::Ebpf);
        assert!(follow(&mut flows, MAC, "t0", &[]));
        // Before Linux 6.6 there is one again, which is ours.
        assert!(filters("t0", "ingress", "follow") <= 1);
        drop(flows);
        until(|| filters("t0", "ingress", "follow") == 0);
    });
}

/// Prints what following costs a guest that sends as fast as it can: `cargo test ... -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn what_following_costs() {
    in_namespace(|| {
        let guest = tap::open("t0").unwrap();
        sh("sysctl -q net.ipv6.conf.t0.disable_ipv6=1; ip link set t0 up");
        let segment =
            [&[3, 232, 0, 80][..], &[0; 8], &[0x80, 0x10, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10], &[0; 1456]];
        let frame = packet(false, 20, &segment.concat());
        let mut ways = [None, Some(FollowKind::Ebpf), Some(FollowKind::Packets)]
            .map(|kind| (kind, kind.map(Flows::new), Vec::new()));
        for _ in 0..9 {
            for (_, flows, took) in &mut ways {
                if let Some(flows) = flows {
                    follow(flows, MAC, "t0", &[]);
                }
                let start = Instant::now();
                for _ in 0..50_000 {
                    tap::write_frame(&guest, &VnetHdr::PLAIN, &frame).unwrap();
                }
                took.push(start.elapsed().as_nanos() / 50_000);
                if let Some(flows) = flows {
                    assert_eq!(flows.of(MAC).len(), 1);
                    flows.stop(MAC);
                }
            }
        }
        for (kind, _, mut took) in ways {
            took.sort_unstable();
            println!("{kind:?}: {} ns a frame ({} to {})", took[4], took[0], took[8]);
        }
        let mut flows = Flows::new(FollowKind::Ebpf);
        let start = Instant::now();
        follow(&mut flows, MAC, "t0", &[]);
        println!("first follow {:?}", start.elapsed());
        for n in 1..200_u8 {
            sh(&format!("ip link add u{n} type veth peer name v{n}"));
        }
        let start = Instant::now();
        (1..200_u8).for_each(|n| flows.follow(MacAddr([2, 0, 0, 0, 0, n]), &format!("u{n}"), &[]));
        println!("199 more ordered {:?}", start.elapsed());
        follow(&mut flows, MacAddr([2, 0, 0, 0, 0, 200]), "v1", &[]);
        println!("and done {:?}", start.elapsed());
        let start = Instant::now();
        (1..200_u8).for_each(|n| assert_eq!(flows.of(MacAddr([2, 0, 0, 0, 0, n])), []));
        println!("asked of each {:?}", start.elapsed());
    });
}
