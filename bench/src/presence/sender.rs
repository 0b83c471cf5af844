//! Frames sent by one core, as fast as it can or at a rate.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use dormouse_lab::{Lab, Namespace};
use dormouse_sys::{PacketSocket, VnetHdr};
use dormouse_types::MacAddr;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

/// Frames handed to the kernel at once.
const CHUNK: usize = 64;
/// The sender's core; what answers has the other ones.
pub(super) const CORE: usize = 0;
const SEND_BUFFER: u32 = 4 << 20;

/// What was sent, and what came back meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traffic {
    pub(super) sent: u64,
    /// Frames that the sender's link received.
    pub(super) received: u64,
    pub(super) elapsed: Duration,
}

impl std::ops::Add for Traffic {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            sent: self.sent + more.sent,
            received: self.received + more.received,
            elapsed: self.elapsed + more.elapsed,
        }
    }
}

impl Traffic {
    /// Frames sent a second.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn rate(&self) -> f64 {
        self.sent as f64 / self.elapsed.as_secs_f64()
    }

    /// Answers a second.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn answers(&self) -> f64 {
        self.received as f64 / self.elapsed.as_secs_f64()
    }
}

/// The client's own Ethernet address.
pub(super) fn own_mac(client: &Namespace) -> Result<[u8; 6]> {
    let out = client.command("ip").args(["-j", "link", "show", Lab::CLIENT_INTERFACE]).output()?;
    let links: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let text = links[0]["address"].as_str().context("the client has no Ethernet address")?;
    text.parse::<MacAddr>().map(|mac| mac.0).map_err(Into::into)
}

/// Sends the frames round and round for some time: `rate` a second, or all that the core can.
pub(super) fn send(
    client: &Namespace,
    frames: &[Vec<u8>],
    rate: Option<u32>,
    duration: Duration,
) -> Result<Traffic> {
    client.run(|| {
        let mut core = CpuSet::new();
        core.set(CORE)?;
        sched_setaffinity(Pid::from_raw(0), &core)?;
        let socket = PacketSocket::open_inject(Lab::CLIENT_INTERFACE, true, SEND_BUFFER)?;
        let mut round: Vec<_> = frames.iter().map(|frame| (VnetHdr::PLAIN, frame.as_slice())).collect();
        // So that every chunk is whole.
        while round.len() < CHUNK {
            round.extend_from_within(..);
        }
        let before = received()?;
        let start = Instant::now();
        let mut sent = 0_u64;
        'sending: loop {
            for chunk in round.chunks(CHUNK) {
                let elapsed = start.elapsed();
                if elapsed >= duration {
                    break 'sending;
                }
                if let Some(rate) = rate {
                    let due = Duration::from_nanos(sent * 1_000_000_000 / u64::from(rate));
                    std::thread::sleep(due.saturating_sub(elapsed));
                }
                sent += socket.send_many(chunk).unwrap_or(0) as u64;
            }
        }
        let elapsed = start.elapsed();
        // What is still on its way: the answers to the last chunk.
        std::thread::sleep(Duration::from_millis(20));
        anyhow::Ok(Traffic { sent, received: received()? - before, elapsed })
    })?
}

/// Waits until nothing comes in any more: what a blast left in buffers was answered, or is not.
pub(super) fn quiet(client: &Namespace) -> Result<()> {
    client.run(|| {
        let mut last = received()?;
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(300));
            let now = received()?;
            if now.saturating_sub(last) < 10 {
                return anyhow::Ok(());
            }
            last = now;
        }
        anyhow::bail!("the client's link does not come to rest")
    })?
}

/// Frames that the link received, in the calling thread's namespace.
fn received() -> Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line =
        text.lines().find_map(|line| line.trim().strip_prefix(Lab::CLIENT_INTERFACE)?.strip_prefix(':'));
    let packets = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(packets.context("the client has no link")?.parse()?)
}
