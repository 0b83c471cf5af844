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
    Batch, PacketSocket,
    packet::{Direction, Filter},
};
use dormouse_wire::{FlowTable, Frame, Network};

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
        let end = word(4).wrapping_add(payload as u32);
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

fn is_by_ebpf(flows: &Flows) -> bool {
    flows.ebpf.as_ref().is_some_and(|taps| taps.of(MAC).is_some())
}

fn follows_real_conversations(kind: FollowKind, timestamps: bool) {
    in_namespace(move || {
        let stack = Stack::new(timestamps);
        let (mut flows, mut witness) = (Flows::new(kind), Witness::new());
        flows.follow(MAC, "t0", &[]);
        assert_eq!(is_by_ebpf(&flows), kind == FollowKind::Ebpf);
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

#[test]
fn the_program_of_a_killed_daemon_is_replaced_and_ours_goes_with_us() {
    in_namespace(|| {
        let _stack = Stack::new(true);
        // A filter of the queueing discipline outlives its process, as on kernels before 6.6.
        ebpf::tests_leave_stale("t0");
        assert_eq!(filters("t0", "ingress", "follow"), 1);
        let mut flows = Flows::new(FollowKind::Ebpf);
        flows.follow(MAC, "t0", &[]);
        // Before Linux 6.6 there is one again, which is ours.
        assert!(is_by_ebpf(&flows) && filters("t0", "ingress", "follow") <= 1);
        drop(flows);
        assert_eq!(filters("t0", "ingress", "follow"), 0);
    });
}
