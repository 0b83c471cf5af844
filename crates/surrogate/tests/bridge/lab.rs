//! A namespace with a bridge, a client and guests.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use dormouse_net::Net;
use dormouse_surrogate::{Limits, Notice, Port, Settings, Sleeper, Surrogate};
use dormouse_sys::{Batch, PacketSocket, SendError, VnetHdr, tap};
use dormouse_types::{MacAddr, WakeRule, What};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::frames::{self, GUEST_IP, GUEST_IP6};

pub(crate) const BRIDGE: &str = "br0";
/// Set in the kernel lab (lab/kernel).
pub(crate) const KERNEL_LAB: &str = "DORMOUSE_KERNEL_LAB";
pub(crate) const LIMITS: Limits = Limits { frames: 100_000, bytes: 64 << 20 };

/// Runs a test in a namespace of its own.
pub(crate) fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("run the tests as root");
    run_here(test);
}

/// Runs a test in the calling thread's namespaces.
pub(crate) fn run_here<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let lab = tokio::time::timeout(Duration::from_secs(100), test());
        lab.await.expect("the test hangs");
    });
}

/// Makes the bridge and the client's link; the client's end is `c1`.
pub(crate) async fn network() -> Net {
    let net = Net::connect().unwrap();
    net.create_bridge(BRIDGE).await.unwrap();
    connect_client(&net).await;
    net
}

/// Makes the client's link, with one end in the bridge that is there.
pub(crate) async fn connect_client(net: &Net) {
    // The host itself shall not multicast on the bridge: frames are counted.
    std::fs::write("/proc/sys/net/ipv4/igmp_link_local_mcast_reports", "0").unwrap();
    net.create_veth("c0", "c1").await.unwrap();
    net.disable_ipv6(BRIDGE).unwrap();
    for end in ["c0", "c1"] {
        net.disable_ipv6(end).unwrap();
        net.set_up(net.index(end).await.unwrap()).await.unwrap();
    }
    let switch = net.switch(BRIDGE).await.unwrap();
    switch.join(net.index("c0").await.unwrap()).await.unwrap();
    net.set_up(switch.index()).await.unwrap();
}

/// What a test that needs more than this kernel has is to do: to be skipped, but not in the kernel
/// lab, which is there for it.
pub(crate) fn lacks(what: &str) -> bool {
    assert!(std::env::var_os(KERNEL_LAB).is_none(), "the kernel lab has no {what}");
    println!("skipped: this host has no {what}; the kernel lab runs this test");
    true
}

/// Frames a second where `ordinary` is too much: under emulation.
pub(crate) fn rate(ordinary: u32) -> u32 {
    if std::env::var_os(KERNEL_LAB).is_some() { ordinary / 10 } else { ordinary }
}

pub(crate) async fn surrogate(plain: bool) -> (Surrogate, UnboundedReceiver<Notice>) {
    surrogate_with(Settings { plain_handover: plain, ..Settings::default() }).await
}

pub(crate) async fn surrogate_with(settings: Settings) -> (Surrogate, UnboundedReceiver<Notice>) {
    Surrogate::start(Settings { patience: Duration::from_secs(2), ..settings }).await.unwrap()
}

/// Runs a command in the test's namespace.
pub(crate) fn run(command: &str) {
    let mut words = command.split(' ');
    let status = std::process::Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}");
}

/// The client: raw frames on `c1`.
pub(crate) struct Client {
    socket: PacketSocket,
}

impl Client {
    pub(crate) fn new() -> Self {
        Self { socket: PacketSocket::open_receive("c1", 8 << 20).unwrap() }
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        while let Err(error) = self.socket.send(&VnetHdr::PLAIN, frame) {
            assert!(matches!(error, SendError::Full), "{error}");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// The first frame from `from` for which `wanted` says so, within a second.
    pub(crate) async fn expect(&self, from: MacAddr, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut batch = Batch::new(16, 2000);
        while Instant::now() < deadline {
            self.socket.receive(&mut batch).unwrap();
            let mut frames = batch.frames().map(|frame| frame.restored().1);
            if let Some(frame) = frames.find(|bytes| bytes[6..12] == from.0 && wanted(bytes)) {
                return frame;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("no such frame came");
    }
}

/// A guest: a thread that reads a tap and remembers what it got.
pub(crate) struct Guest {
    pub sleeper: Sleeper,
    queue: Arc<OwnedFd>,
    runs: Arc<AtomicBool>,
    got: Arc<Mutex<Vec<Vec<u8>>>>,
    reader: Option<JoinHandle<()>>,
}

impl Guest {
    pub(crate) async fn new(net: &Net, number: u8, limits: Limits) -> Self {
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, number]);
        let tap = format!("tap{number}");
        let queue = Arc::new(net.ensure_tap(&tap, BRIDGE).await.unwrap());
        let mut ip = GUEST_IP;
        ip[3] = number;
        let mut ip6 = GUEST_IP6;
        ip6[15] = number;
        let port = Port {
            mac,
            bridge: BRIDGE.into(),
            tap,
            queue: Some(queue.clone()),
            addresses: vec![ip.into(), ip6.into()],
            configured: true,
            persona: Default::default(),
        };
        let sleeper = Sleeper {
            name: format!("guest{number}").parse().unwrap(),
            ports: vec![port],
            wake: vec![WakeRule::of(What::AnyUnicast)],
            ignore: Vec::new(),
            services: Vec::new(),
            externals: Vec::new(),
            policy: Default::default(),
            will_boot: false,
            limits,
        };
        let mut guest = Self { sleeper, queue, runs: Arc::default(), got: Arc::default(), reader: None };
        guest.run();
        guest.say(&frames::announcement(mac, ip));
        guest
    }

    pub(crate) fn mac(&self) -> MacAddr {
        self.sleeper.ports[0].mac
    }

    /// Sends a frame.
    pub(crate) fn say(&self, frame: &[u8]) {
        tap::write_frame(&self.queue, &VnetHdr::PLAIN, frame).unwrap();
    }

    /// Reads the tap from now on.
    pub(crate) fn run(&mut self) {
        self.runs.store(true, SeqCst);
        let (queue, runs, got) = (self.queue.clone(), self.runs.clone(), self.got.clone());
        self.reader = Some(std::thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            while runs.load(SeqCst) {
                while let Some((_, frame)) = tap::read_frame(&queue, &mut buffer).unwrap() {
                    got.lock().unwrap().push(frame.to_vec());
                }
                std::thread::sleep(Duration::from_micros(100));
            }
        }));
    }

    /// Stands still: reads nothing more.
    pub(crate) fn pause(&mut self) {
        self.runs.store(false, SeqCst);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }

    /// All frames that it got, in order.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        self.got.lock().unwrap().clone()
    }

    /// The numbers of the numbered frames that it got, in order.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.got.lock().unwrap().iter().filter_map(|frame| frames::number(frame)).collect()
    }

    /// Waits until it got the frame with this number; gives all numbers.
    pub(crate) async fn numbers_up_to(&self, last: u32) -> Vec<u32> {
        for _ in 0..2000 {
            if self.numbers().contains(&last) {
                // What would come twice or late has its time to come.
                tokio::time::sleep(Duration::from_millis(50)).await;
                return self.numbers();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("frame {last} never came; got {} of them", self.numbers().len());
    }

    /// From running to standing still.
    pub(crate) async fn sleep(&mut self, surrogate: &Surrogate) {
        surrogate.capture(&self.sleeper).await.unwrap();
        surrogate.drain(&self.sleeper, Duration::from_secs(1)).await.unwrap();
        self.pause();
        surrogate.stand_in(&self.sleeper).await.unwrap();
    }

    /// From standing still to running.
    pub(crate) async fn wake(&mut self, surrogate: &Surrogate) -> dormouse_surrogate::Replay {
        surrogate.prepare(&self.sleeper).await.unwrap();
        self.run();
        surrogate.release(&self.sleeper).await.unwrap()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.pause();
    }
}

/// The next notice of a wake, within a second.
pub(crate) async fn woken(notices: &mut UnboundedReceiver<Notice>) -> String {
    let wait = async {
        loop {
            if let Notice::Wake { frame, .. } = notices.recv().await.unwrap() {
                return frame;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(1), wait).await.expect("nobody was told")
}
