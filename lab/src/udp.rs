//! A stream of numbered datagrams: the measure of loss, order and duplication.

use crate::{Error, Namespace, Result};
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What a stream has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams the kernel took: numbers 0 to `datagrams` - 1.
    pub datagrams: u64,
    /// Times that the kernel did not take one; it was sent again under the same number.
    pub refused: u64,
    /// How long it ran.
    pub elapsed: Duration,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    datagrams: AtomicU64,
    refused: AtomicU64,
}

/// A sender in the background. Dropping it stops it.
#[derive(Debug)]
pub struct UdpStream {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    start: Instant,
}

impl UdpStream {
    pub(crate) fn start(namespace: &Namespace, to: SocketAddr, rate: u32, size: usize) -> Result<Self> {
        let socket = namespace.run(|| open(to))?.map_err(Error::net(format!("send datagrams to {to}")))?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let start = Instant::now();
        let thread = Some(thread::spawn(move || send(&socket, &theirs, start, rate, size.max(4))));
        Ok(Self { shared, thread, start })
    }

    /// How many were sent up to now.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.datagrams.load(Ordering::Relaxed)
    }

    /// Stops, and says what was sent.
    #[must_use]
    pub fn stop(mut self) -> Sent {
        self.finish();
        Sent {
            datagrams: self.sent(),
            refused: self.shared.refused.load(Ordering::Relaxed),
            elapsed: self.start.elapsed(),
        }
    }

    fn finish(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic; and if it did, the counts would show it.
            let _ = thread.join();
        }
    }
}

impl Drop for UdpStream {
    fn drop(&mut self) {
        self.finish();
    }
}

fn open(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.set_broadcast(true)?;
    socket.connect(to)?;
    Ok(socket)
}

/// Keeps the calling thread on the processor that it is on.
///
/// A veth hands each frame to the backlog of its sender's processor, so that a sender who is moved
/// to another overtakes itself on a busy host. That is nothing that a test wants to measure.
fn stay_on_this_processor() {
    let mut this = CpuSet::new();
    let pinned = sched_getcpu().and_then(|cpu| this.set(cpu)).and_then(|()| {
        // 0: the calling thread.
        sched_setaffinity(Pid::from_raw(0), &this)
    });
    if let Err(e) = pinned {
        eprintln!("lab: datagrams may overtake each other before they reach the bridge: {e}");
    }
}

fn send(socket: &UdpSocket, shared: &Shared, start: Instant, rate: u32, size: usize) {
    stay_on_this_processor();
    let mut datagram = vec![0; size];
    let mut number: u32 = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let due = start.elapsed().as_secs_f64() * f64::from(rate);
        while f64::from(number) < due && !shared.stop.load(Ordering::Relaxed) {
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            if socket.send(&datagram).is_err() {
                shared.refused.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(100));
                continue;
            }
            number += 1;
            shared.datagrams.store(number.into(), Ordering::Relaxed);
        }
        // Short enough that even 100,000 a second come in bursts of a dozen or two.
        thread::sleep(Duration::from_micros(100));
    }
}
