//! The eBPF handover on a real bridge, in a network namespace of its own. Needs root.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use dormouse_net::{FdbState, FdbTarget, Net, PortFlags};
use dormouse_sys::{Batch, PacketSocket, SendError, VnetHdr, membarrier_global, packet, tap};

use super::*;
use crate::testing::{filters, in_namespace, until};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
const MIB: u32 = 1 << 20;

/// A bridge `br` with a client behind `c0`, the surrogate behind `s0`, a guest behind `t0`.
struct Lab {
    runtime: tokio::runtime::Runtime,
    net: Net,
    s0: u32,
    t0: u32,
    queue: Option<OwnedFd>,
}

impl Lab {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (net, s0, t0, queue) = runtime.block_on(async {
            let net = Net::connect().unwrap();
            net.create_bridge("br").await.unwrap();
            let bridge = net.index("br").await.unwrap();
            for (port, far_end) in [("c0", "c1"), ("s0", "s1")] {
                net.create_veth(port, far_end).await.unwrap();
                net.set_master(net.index(port).await.unwrap(), bridge).await.unwrap();
            }
            let queue = net.ensure_tap("t0", "br").await.unwrap();
            for link in ["br", "c0", "c1", "s0", "s1"] {
                net.disable_ipv6(link).unwrap();
                net.set_up(net.index(link).await.unwrap()).await.unwrap();
            }
            let (s0, t0) = (net.index("s0").await.unwrap(), net.index("t0").await.unwrap());
            net.set_port_flags(s0, PortFlags::SURROGATE).await.unwrap();
            net.set_txqlen(t0, 20_000).await.unwrap();
            for link in ["c0", "c1", "s0", "s1", "t0"] {
                let index = net.index(link).await.unwrap();
                assert!(net.wait_running(index, Duration::from_secs(10)).await.unwrap(), "{link} is not up");
            }
            (net, s0, t0, queue)
        });
        Self { runtime, net, s0, t0, queue: Some(queue) }
    }

    fn point_to(&self, port: u32, state: FdbState) {
        let target = FdbTarget { port, mac: MAC, vlan: None };
        self.runtime.block_on(self.net.fdb_replace(target, state)).unwrap();
    }
}

/// The n-th frame of the stream.
fn numbered(n: u32) -> Vec<u8> {
    let mut frame = MAC.0.to_vec();
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.extend(n.to_be_bytes());
    frame.resize(200, 0);
    frame
}

fn number(frame: &[u8]) -> Option<u32> {
    (frame.get(12..14)? == [0x88, 0xb5]).then_some(())?;
    frame.get(14..18)?.try_into().ok().map(u32::from_be_bytes)
}

/// Sends the stream at `rate` per second until told to stop; gives back how many it sent.
fn client(rate: u32, stop: Arc<AtomicBool>) -> JoinHandle<u32> {
    let socket = PacketSocket::open_inject("c1", false, 8 * MIB).unwrap();
    thread::spawn(move || {
        let (mut last, mut sent) = (Instant::now(), 0);
        while !stop.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_micros(500));
            let now = Instant::now();
            // On a busy machine the rate sinks; what was missed is not made up for by a flood.
            let pause = now.duration_since(last).min(Duration::from_millis(5));
            last = now;
            for _ in 0..u128::from(rate) * pause.as_micros() / 1_000_000 {
                socket.send(&VnetHdr::PLAIN, &numbered(sent)).unwrap();
                sent += 1;
            }
        }
        sent
    })
}

/// A guest that reads its tap: the numbers in the order in which they came. It ends when it has
/// as many as `sent` says in the end, or has waited for the rest in vain.
fn guest(queue: OwnedFd, sent: Arc<OnceLock<u32>>) -> JoinHandle<Vec<u32>> {
    thread::spawn(move || {
        let (mut buffer, mut numbers) = (vec![0; Batch::LONGEST + 12], Vec::new());
        let mut last = Instant::now();
        loop {
            while let Some((_, frame)) = tap::read_frame(&queue, &mut buffer).unwrap() {
                numbers.extend(number(frame));
                last = Instant::now();
            }
            let all = sent.get().is_some_and(|sent| numbers.len() >= *sent as usize);
            let in_vain = sent.get().is_some() && last.elapsed() > Duration::from_secs(5);
            if all || in_vain {
                return numbers;
            }
            thread::sleep(Duration::from_micros(200));
        }
    })
}

/// What became of a stream of which `sent` frames were sent.
#[derive(Debug, PartialEq, Eq)]
struct Fate {
    lost: usize,
    doubled: usize,
    overtaken: usize,
    /// Some of the places where two neighbours are not consecutive.
    breaks: Vec<(u32, u32)>,
}

impl Fate {
    const WHOLE: Self = Self { lost: 0, doubled: 0, overtaken: 0, breaks: Vec::new() };

    fn of(sent: u32, came: &[u32]) -> Self {
        let distinct: std::collections::BTreeSet<_> = came.iter().collect();
        let pairs = || came.windows(2).map(|pair| (pair[0], pair[1]));
        Self {
            lost: sent as usize - distinct.len(),
            doubled: came.len() - distinct.len(),
            overtaken: pairs().filter(|(a, b)| b < a).count(),
            breaks: pairs().filter(|(a, b)| *b != a + 1).take(10).collect(),
        }
    }
}

/// As much of a surrogate as a handover needs.
struct Holder {
    socket: PacketSocket,
    inject: PacketSocket,
    batch: Batch,
    held: VecDeque<(VnetHdr, Vec<u8>)>,
    progress: Progress,
}

impl Holder {
    fn new(buffer: u32) -> Self {
        Self {
            socket: PacketSocket::open_receive("s1", buffer).unwrap(),
            inject: PacketSocket::open_inject("t0", true, 8 * MIB).unwrap(),
            batch: Batch::new(64, 2048),
            held: VecDeque::new(),
            progress: Progress::default(),
        }
    }

    fn receive(&mut self) -> usize {
        let mut count = 0;
        // Bounded, so that a busy machine cannot keep it here.
        for _ in 0..100 {
            if self.socket.receive(&mut self.batch).unwrap() == 0 {
                break;
            }
            for frame in self.batch.frames().filter(|frame| frame.bytes.starts_with(&MAC.0)) {
                self.progress.note(frame.mark);
                self.held.push_back(frame.restored());
                count += 1;
            }
        }
        count
    }

    fn receive_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.receive();
            thread::sleep(Duration::from_micros(500));
        }
    }

    fn inject(&mut self) {
        while let Some((header, frame)) = self.held.front() {
            match self.inject.send(header, frame) {
                Ok(()) => drop(self.held.pop_front()),
                Err(SendError::Full) => thread::sleep(Duration::from_micros(50)),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Injects until the kernel says that nothing is under way; how often it said otherwise.
    fn hand_over(&mut self, ebpf: &mut Ebpf, tap: u32) -> u32 {
        for failed in 0..10_000 {
            self.receive();
            self.inject();
            if ebpf.switch(MAC, self.progress.highest(), tap) {
                return failed;
            }
        }
        panic!("no end: counted {:?}, got {:?}", ebpf.counted(MAC), self.progress);
    }
}

#[test]
fn nothing_is_lost_doubled_or_overtaken_over_many_sleeps() {
    in_namespace(|| {
        let mut lab = Lab::new();
        let mut holder = Holder::new(64 * MIB);
        let mut ebpf = Ebpf::load("s0", holder.socket.has_marks()).unwrap();
        lab.point_to(lab.t0, FdbState::Reachable);
        let total = Arc::new(OnceLock::new());
        let guest = guest(lab.queue.take().unwrap(), Arc::clone(&total));
        let stop_client = Arc::new(AtomicBool::new(false));
        let client = client(20_000, Arc::clone(&stop_client));
        let (mut through_surrogate, mut redirected) = (0, 0);
        for _ in 0..8 {
            thread::sleep(Duration::from_millis(40));
            ebpf.begin(MAC).unwrap();
            holder.progress = Progress::default();
            lab.point_to(lab.s0, FdbState::Sticky);
            holder.receive_for(Duration::from_millis(80));
            holder.hand_over(&mut ebpf, lab.t0);
            thread::sleep(Duration::from_millis(5));
            lab.point_to(lab.t0, FdbState::Reachable);
            membarrier_global().unwrap();
            assert_eq!(holder.receive(), 0, "a frame came to the surrogate after the handover");
            assert_eq!(ebpf.counted(MAC), Some(holder.progress.highest()));
            through_surrogate += holder.progress.highest();
            redirected += ebpf.redirected(MAC).unwrap();
            ebpf.end(MAC);
        }
        stop_client.store(true, Ordering::SeqCst);
        let sent = client.join().unwrap();
        total.set(sent).unwrap();
        let numbers = guest.join().unwrap();
        println!(
            "{sent} sent, {through_surrogate} of them held, {redirected} redirected, rest by the bridge"
        );
        assert!(through_surrogate > 0 && redirected > 0, "{through_surrogate} {redirected}");
        assert_eq!(Fate::of(sent, &numbers), Fate::WHOLE);
    });
}

#[test]
fn an_address_that_already_has_traffic_can_be_taken_over() {
    in_namespace(|| {
        let mut lab = Lab::new();
        let mut holder = Holder::new(64 * MIB);
        lab.point_to(lab.s0, FdbState::Sticky);
        let total = Arc::new(OnceLock::new());
        let guest = guest(lab.queue.take().unwrap(), Arc::clone(&total));
        let stop_client = Arc::new(AtomicBool::new(false));
        let client = client(20_000, Arc::clone(&stop_client));
        until(|| holder.receive() > 0);
        // The daemon comes back while frames flow: some are in the socket that were not counted.
        let mut ebpf = Ebpf::load("s0", holder.socket.has_marks()).unwrap();
        thread::sleep(Duration::from_millis(20));
        ebpf.begin(MAC).unwrap();
        holder.receive_for(Duration::from_millis(20));
        until(|| holder.receive() > 0 && holder.progress.highest() > 0);
        holder.hand_over(&mut ebpf, lab.t0);
        lab.point_to(lab.t0, FdbState::Reachable);
        stop_client.store(true, Ordering::SeqCst);
        let sent = client.join().unwrap();
        total.set(sent).unwrap();
        assert_eq!(Fate::of(sent, &guest.join().unwrap()), Fate::WHOLE);
    });
}

#[test]
fn frames_lost_before_the_socket_are_known_by_number() {
    in_namespace(|| {
        let lab = Lab::new();
        let mut holder = Holder::new(64 * 1024);
        let mut ebpf = Ebpf::load("s0", holder.socket.has_marks()).unwrap();
        ebpf.begin(MAC).unwrap();
        lab.point_to(lab.s0, FdbState::Sticky);
        let socket = PacketSocket::open_inject("c1", false, MIB).unwrap();
        for n in 0..2000 {
            socket.send(&VnetHdr::PLAIN, &numbered(n)).unwrap();
        }
        let mut all = packet::Statistics::default();
        let mut come = |socket: &PacketSocket, frames| {
            until(|| {
                let more = socket.statistics().unwrap();
                all.frames += more.frames;
                all.dropped += more.dropped;
                all.frames >= frames
            });
            all
        };
        come(&holder.socket, 2000);
        holder.receive();
        assert!(!ebpf.switch(MAC, holder.progress.highest(), lab.t0), "switched with frames unaccounted for");
        assert_eq!(ebpf.counted(MAC), Some(2000));
        socket.send(&VnetHdr::PLAIN, &numbered(2000)).unwrap();
        let statistics = come(&holder.socket, 2001);
        until(|| holder.receive() > 0);
        let (missing, strangers) = (holder.progress.missing(), statistics.frames - 2001);
        assert_eq!(holder.progress.highest(), 2001);
        assert!(missing > 0 && missing <= statistics.dropped, "{missing} {statistics:?}");
        assert!(missing + strangers >= statistics.dropped, "{missing} {statistics:?}");
        assert!(ebpf.switch(MAC, holder.progress.highest(), lab.t0));
    });
}

#[test]
fn other_addresses_pass_unmarked() {
    in_namespace(|| {
        let lab = Lab::new();
        let holder = Holder::new(MIB);
        let _ebpf = Ebpf::load("s0", holder.socket.has_marks()).unwrap();
        lab.point_to(lab.s0, FdbState::Sticky);
        let socket = PacketSocket::open_inject("c1", false, MIB).unwrap();
        socket.send(&VnetHdr::PLAIN, &numbered(7)).unwrap();
        let mut batch = Batch::new(8, 2048);
        until(|| holder.socket.receive(&mut batch).unwrap() > 0);
        let marks: Vec<_> = batch.frames().filter_map(|f| Some((number(f.bytes)?, f.mark))).collect();
        assert_eq!(marks, [(7, 0)]);
    });
}

#[test]
fn each_frame_of_a_flood_is_passed_shed_or_direct() {
    in_namespace(|| {
        let lab = Lab::new();
        let mut holder = Holder::new(64 * MIB);
        let mut ebpf = Ebpf::load("s0", holder.socket.has_marks()).unwrap();
        ebpf.begin(MAC).unwrap();
        lab.point_to(lab.s0, FdbState::Sticky);
        let stop_client = Arc::new(AtomicBool::new(false));
        let client = client(150_000, Arc::clone(&stop_client));
        let (mut came, mut shed) = (0, 0);
        // Every way of shedding, and its end, while frames come.
        for turn in 0..200_u32 {
            match turn % 7 {
                0 => ebpf.admit(MAC, 0),
                2 => ebpf.admit(MAC, holder.progress.highest() + u64::from(turn % 5)),
                5 => ebpf.admit(MAC, u64::MAX),
                _ => thread::sleep(Duration::from_millis(2)),
            }
            came += holder.receive();
            shed += ebpf.take_shed(MAC);
        }
        // Some of the stream is direct as well: switched while it is shed, so that the count stands.
        ebpf.admit(MAC, 0);
        until(|| {
            came += holder.receive();
            ebpf.switch(MAC, holder.progress.highest(), lab.t0)
        });
        until(|| ebpf.redirected(MAC).unwrap() > 100);
        stop_client.store(true, Ordering::SeqCst);
        let sent = client.join().unwrap();
        membarrier_global().unwrap();
        until(|| {
            shed += ebpf.take_shed(MAC);
            came as u64 + shed + ebpf.redirected(MAC).unwrap() >= u64::from(sent)
        });
        let direct = ebpf.redirected(MAC).unwrap();
        println!("{sent} sent: {came} passed, {shed} shed, {direct} direct");
        assert!(came > 0 && shed > 0 && direct > 0, "{came} {shed} {direct}");
        assert_eq!(ebpf.counted(MAC), Some(came as u64));
        assert_eq!(holder.progress.missing(), 0);
        assert_eq!(came as u64 + shed + direct, u64::from(sent));
    });
}

#[test]
fn group_frames_are_counted_together_and_shed_above_a_limit() {
    in_namespace(|| {
        let _lab = Lab::new();
        let holder = Holder::new(MIB);
        let mut ebpf = Ebpf::load("s0", holder.socket.has_marks()).unwrap();
        let any_group = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
        ebpf.begin(any_group).unwrap();
        ebpf.admit(any_group, 10);
        let socket = PacketSocket::open_inject("c1", false, MIB).unwrap();
        for n in 0..50 {
            let mut frame = numbered(n);
            frame[..6].copy_from_slice(if n % 2 == 0 { &[0xff; 6] } else { &any_group.0 });
            socket.send(&VnetHdr::PLAIN, &frame).unwrap();
        }
        let (mut batch, mut marks, mut shed) = (Batch::new(64, 2048), Vec::new(), 0);
        // Frames of the kernel's own on the bridge are numbered and shed as well.
        let mut receive = |marks: &mut Vec<u32>| {
            holder.socket.receive(&mut batch).unwrap();
            let ours = batch.frames().filter(|frame| number(frame.bytes).is_some());
            marks.extend(ours.map(|frame| frame.mark));
        };
        until(|| {
            receive(&mut marks);
            shed += ebpf.take_shed(MacAddr::BROADCAST);
            marks.len() as u64 + shed >= 50
        });
        assert!(marks.iter().all(|mark| (1..=10).contains(mark)) && marks.is_sorted(), "{marks:?}");
        assert_eq!(ebpf.counted(any_group), Some(10));
        ebpf.admit(any_group, u64::MAX);
        let mut last = numbered(51);
        last[..6].copy_from_slice(&[0xff; 6]);
        socket.send(&VnetHdr::PLAIN, &last).unwrap();
        until(|| {
            receive(&mut marks);
            marks.iter().any(|mark| *mark > 10)
        });
    });
}

#[test]
fn the_program_of_a_killed_daemon_is_replaced_and_ours_goes_with_us() {
    in_namespace(|| {
        let _lab = Lab::new();
        // A filter of the queueing discipline outlives its process, as on kernels before 6.6.
        ebpf::tests_leave_stale("s0");
        assert_eq!(filters("s0", "egress", "steer"), 1);
        let ours = Ebpf::load("s0", true).unwrap();
        // Before Linux 6.6 there is one again, which is ours.
        assert!(filters("s0", "egress", "steer") <= 1);
        drop(ours);
        assert_eq!(filters("s0", "egress", "steer"), 0);
    });
}
