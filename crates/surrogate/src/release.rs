//! Giving a guest what was held for it.
//!
//! ```text
//!  backlog injected ──► caught up ──► (the bridge is turned) ──► finishing ──► done
//! ```
//!
//! *Caught up* means that nothing is held and nothing waits in the bridge's socket. If the kernel
//! helps, that is when the compare-and-swap redirects the address; if not, it is when this thread
//! moves the forwarding entry, between two looks at the socket: what is overtaken is what came
//! in these microseconds. In both cases frames that still come are injected as they come.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use dormouse_net::Turn;
use dormouse_sys::{PacketSocket, SendError, packet, tap};
use dormouse_types::MacAddr;
use tokio::sync::oneshot;

use crate::{
    Drops, HandoverKind, Reason,
    handover::{Handover, Progress},
    packet::Packet,
    queue::ReplayQueue,
    worker::Read,
};

/// Frames injected before the bridge's socket is read again.
const BURST: usize = 256;
/// How long to leave a guest alone whose ring is full.
const BACKOFF: Duration = Duration::from_micros(200);
/// After this time the compare-and-swap is given up. Frames are injected all the while.
const SWITCH_PATIENCE: Duration = Duration::from_secs(1);
/// How long the guest may take to read all that was injected before the bridge is turned anyway.
const READ_PATIENCE: Duration = Duration::from_secs(1);
/// After this time a counted frame that has not come is taken for lost on the way here.
const MISSING_PATIENCE: Duration = Duration::from_millis(10);
/// After this time the forwarding entry is moved even though frames keep coming.
const QUIET_PATIENCE: Duration = Duration::from_millis(5);
/// A segmented frame that does not go by the fast way for so long goes by the slow one.
const SEGMENTED_PATIENCE: Duration = Duration::from_millis(5);
/// Send buffer of an injecting socket, in octets.
const SEND_BUFFER: u32 = 16 << 20;

/// The tap that a guest reads.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) tap: String,
    /// Its index.
    pub(crate) index: u32,
    /// Its queue, if it can be had.
    pub(crate) queue: Option<Arc<OwnedFd>>,
    /// Turns the bridge to it.
    pub(crate) turn: Turn,
}

/// What was given back by one port.
#[derive(Clone, Debug)]
pub(crate) struct PortReplay {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped: Drops,
    pub(crate) suppressed: u64,
}

/// A port on its way back to its guest.
#[derive(Debug)]
pub(crate) struct Release {
    target: Target,
    fast: PacketSocket,
    slow: Option<PacketSocket>,
    deadline: Instant,
    /// Since when the frame in front has found no room, and when to try it again.
    full: Option<(Instant, Instant)>,
    /// Since when all is injected.
    injected_since: Option<Instant>,
    /// Since when the handover is tried.
    tried_since: Option<Instant>,
    frames: u64,
    bytes: u64,
    caught_up: Option<oneshot::Sender<HandoverKind>>,
    finished: Option<oneshot::Sender<PortReplay>>,
}

/// Opens a socket that tells when the tap is full.
pub(crate) fn open_injector(tap: &str) -> Result<PacketSocket, packet::Error> {
    PacketSocket::open_inject(tap, true, SEND_BUFFER)
}

/// What became of an attempt to inject a frame.
enum Outcome {
    Sent,
    Full,
    Refused,
}

impl Release {
    /// Makes ready to inject into `target` by `injector`; `caught_up` is told once, and how.
    pub(crate) fn new(
        target: Target,
        injector: PacketSocket,
        deadline: Instant,
        caught_up: oneshot::Sender<HandoverKind>,
    ) -> Self {
        Self {
            fast: injector,
            slow: None,
            target,
            deadline,
            full: None,
            injected_since: None,
            tried_since: None,
            frames: 0,
            bytes: 0,
            caught_up: Some(caught_up),
            finished: None,
        }
    }

    /// Frames may go straight to the guest.
    pub(crate) const fn is_turned(&self) -> bool {
        self.caught_up.is_none()
    }

    /// The sockets that it leaves.
    pub(crate) fn into_sockets(self) -> impl Iterator<Item = PacketSocket> {
        std::iter::once(self.fast).chain(self.slow)
    }

    /// From now on it ends as soon as nothing is held; `finished` is told the sum.
    pub(crate) fn finish(&mut self, finished: oneshot::Sender<PortReplay>) {
        self.finished = Some(finished);
    }

    /// Injects what can be injected at `now`.
    pub(crate) fn pump(&mut self, queue: &mut ReplayQueue, now: Instant) {
        if now >= self.deadline {
            self.give_up_full_guest(queue, now);
        }
        if self.full.is_some_and(|(_, again)| now < again) {
            return;
        }
        for _ in 0..BURST {
            let Some(packet) = queue.front() else { break };
            match self.inject(packet, now) {
                Outcome::Sent => {
                    self.frames += 1;
                    self.bytes += packet.ethernet().len() as u64;
                }
                Outcome::Refused => queue.count_drops(Reason::Refused, 1),
                Outcome::Full => {
                    let since = self.full.map_or(now, |(since, _)| since);
                    self.full = Some((since, now + BACKOFF));
                    return;
                }
            }
            self.full = None;
            queue.pop();
        }
    }

    /// Once all is injected: tries to hand over. `read`: what was read of the bridge's socket before.
    ///
    /// Frames of others may wait there all the time. Where frames are counted it is known that none
    /// of its own does; elsewhere that is taken for so if the socket was empty.
    pub(crate) fn hand_over(
        &mut self,
        mac: MacAddr,
        queue: &ReplayQueue,
        progress: &Progress,
        handover: &mut dyn Handover,
        (read, now): (Read, Instant),
    ) {
        if queue.front().is_some() || self.caught_up.is_none() || !self.is_read(now) {
            return;
        }
        let tried = now.duration_since(*self.tried_since.get_or_insert(now));
        let counted = handover.counted(mac).is_some();
        let drained = read != Read::Some;
        let come = progress.missing() == 0 || (drained && tried > MISSING_PATIENCE);
        if counted && come && handover.switch(mac, progress.highest(), self.target.index) {
            self.caught_up(HandoverKind::Ebpf);
        } else if tried > SWITCH_PATIENCE
            || (!counted && (read == Read::Nothing || (drained && tried > QUIET_PATIENCE)))
        {
            self.caught_up(HandoverKind::Plain);
        }
    }

    /// Has the guest read what was injected? What the bridge sends straight to a tap whose queue is
    /// full is lost without a word, whereas frames injected by this thread wait until there is room.
    fn is_read(&mut self, now: Instant) -> bool {
        let injected = now.duration_since(*self.injected_since.get_or_insert(now));
        let queue = self.target.queue.as_ref();
        injected > READ_PATIENCE || queue.is_none_or(|queue| tap::is_empty(queue).unwrap_or(true))
    }

    /// If it was told to finish and nothing is held: the sum, to be told when all is put away.
    /// What was dropped is for others to say.
    pub(crate) fn take_finished(
        &mut self,
        queue: &ReplayQueue,
    ) -> Option<(oneshot::Sender<PortReplay>, PortReplay)> {
        if queue.front().is_some() {
            return None;
        }
        let replay = PortReplay {
            frames: self.frames,
            bytes: self.bytes,
            dropped: Drops::default(),
            suppressed: queue.suppressed(),
        };
        self.finished.take().map(|finished| (finished, replay))
    }

    /// How long the thread may wait for other things before it pumps again.
    pub(crate) fn patience(&self, queue: &ReplayQueue, now: Instant) -> Option<Duration> {
        match (self.full, queue.front()) {
            (Some((_, again)), _) => Some(again.saturating_duration_since(now)),
            (None, Some(_)) => Some(Duration::ZERO),
            (None, None) if self.caught_up.is_some() || self.finished.is_some() => Some(BACKOFF),
            (None, None) => None,
        }
    }

    fn give_up_full_guest(&mut self, queue: &mut ReplayQueue, now: Instant) {
        if self.full.take().is_some_and(|(since, _)| now.duration_since(since) > Duration::ZERO) {
            let left = queue.take_all().len() as u64;
            queue.count_drops(Reason::GuestDoesNotRead, left);
        }
        self.caught_up(HandoverKind::Plain);
    }

    fn caught_up(&mut self, kind: HandoverKind) {
        // The asynchronous side turns it once more, and reports what is in the way.
        if let Err(error) = self.target.turn.make() {
            tracing::debug!(tap = self.target.tap, %error, "cannot turn the bridge yet");
        }
        if let Some(caught_up) = self.caught_up.take() {
            let _ = caught_up.send(kind);
        }
    }

    fn inject(&mut self, packet: &Packet, now: Instant) -> Outcome {
        match self.fast.send(packet.header(), packet.ethernet()) {
            Err(SendError::Full) if packet.header().is_gso() && self.must_be_slow(now) => {
                self.inject_slowly(packet)
            }
            result => outcome(result),
        }
    }

    /// A tap without offloads refuses segmented frames as if it were full. It is not full if
    /// nothing waits in it.
    fn must_be_slow(&self, now: Instant) -> bool {
        match &self.target.queue {
            Some(queue) => tap::is_empty(queue).unwrap_or(false),
            None => self.full.is_some_and(|(since, _)| now.duration_since(since) > SEGMENTED_PATIENCE),
        }
    }

    /// By the queueing discipline, before which the kernel cuts segments. What then finds no
    /// room is lost without a word; but the tap is empty.
    fn inject_slowly(&mut self, packet: &Packet) -> Outcome {
        if self.slow.is_none() {
            self.slow = PacketSocket::open_inject(&self.target.tap, false, SEND_BUFFER).ok();
        }
        let slow = self.slow.as_ref();
        slow.map_or(Outcome::Refused, |slow| outcome(slow.send(packet.header(), packet.ethernet())))
    }
}

fn outcome(result: Result<(), SendError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Sent,
        Err(SendError::Full) => Outcome::Full,
        Err(error) => {
            tracing::debug!(%error, "a frame was refused");
            Outcome::Refused
        }
    }
}
