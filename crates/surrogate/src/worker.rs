//! The thread of one bridge: reads its `s1`, answers, holds and injects.
//!
//! Everything that a frame can change belongs to this thread, so that nothing is locked. Other
//! code asks it to run a job between two batches of frames ([`crate::thread`]).

mod jobs;

use std::{
    collections::HashMap,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use dormouse_net::Vlans;
use dormouse_sys::{
    Batch, Frame, PacketSocket, VnetHdr,
    packet::{Direction, Error as SocketError, Filter},
};
use dormouse_types::{MacAddr, MachineName};
use dormouse_wire::{Flow, Identity, Persona, digest};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};

use crate::{
    Error, Notice,
    clock::clock,
    judge::Manners,
    late::Late,
    losses::Losses,
    packet::Packet,
    presence::Waker,
    queue::ReplayQueue,
    reaper::Reaper,
    release::open_injector,
    table::Table,
    thread::{Closed, Jobs},
    watch::Watch,
};

/// Frames read in one call.
const BATCH: usize = 64;
/// Batches read before other work has its turn.
const TURN: usize = 16;
/// The time between two looks at the frames in doubt: long for the kernel, which hands a tap its copy
/// before this thread gets its own, and short for what comes directly meanwhile.
const LOOK: Duration = Duration::from_millis(1);
/// Receive buffer of a socket that listens for group frames, in octets: some 10,000 frames, which a
/// broadcast storm needs some 10 ms for. What it loses is delivered twice.
const SNIFF_BUFFER: u32 = 8 << 20;
/// Octets of a group frame that are compared.
const SNIFF_SNAP: u32 = 1 << 18;

const BELL: u64 = 0;
const FRAMES: u64 = 1;
const SNIFFED: u64 = 2;
const FIRST_WATCH: u64 = 3;

/// What the thread needs to know to capture a port.
pub(crate) struct Capture {
    pub(crate) name: MachineName,
    pub(crate) who: Identity,
    pub(crate) vlans: Option<Vlans>,
    /// What it was, if nothing better is known here.
    pub(crate) persona: Persona,
    /// It is nothing any more of what it was, but for its addresses.
    pub(crate) anew: bool,
    /// Its connections, if they were followed.
    pub(crate) flows: Option<Vec<Flow>>,
    pub(crate) manners: Arc<Manners>,
    pub(crate) queue: ReplayQueue,
    pub(crate) waker: Waker,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Worker {
    bridge: String,
    socket: PacketSocket,
    batch: Batch,
    sniffed: Batch,
    replies: Vec<Vec<u8>>,
    /// Of all frames so far, as [`occupied`] says.
    octets: u64,
    /// What the socket did not give out.
    losses: Losses,
    table: Table,
    watches: HashMap<u64, Watch>,
    watched: HashMap<MacAddr, u64>,
    next_watch: u64,
    /// The bridge's, in octets.
    mtu: u16,
    epoll: Arc<OwnedFd>,
    reaper: Reaper,
    jobs: Jobs,
    /// When to look again at the frames in doubt.
    look_at: Instant,
    /// It was told that the socket is of no use any more.
    lost: bool,
    ended: bool,
}

impl Worker {
    /// A worker for `bridge` that reads `socket` and has no sleepers.
    pub(crate) fn new(
        (bridge, mtu): (&str, u16),
        socket: PacketSocket,
        table: Table,
        jobs: Jobs,
    ) -> Result<Self, Error> {
        let failed =
            |errno: rustix::io::Errno| Error::Start { bridge: bridge.to_owned(), source: errno.into() };
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?);
        let reaper = Reaper::start(epoll.clone())
            .map_err(|source| Error::Start { bridge: bridge.to_owned(), source })?;
        listen(&epoll, jobs.bell(), BELL).map_err(failed)?;
        listen(&epoll, &socket, FRAMES).map_err(failed)?;
        Ok(Self {
            bridge: bridge.to_owned(),
            socket,
            batch: Batch::new(BATCH, Batch::LONGEST),
            sniffed: Batch::new(BATCH, Batch::LONGEST),
            replies: Vec::new(),
            octets: 0,
            losses: Losses::default(),
            table,
            watches: HashMap::new(),
            watched: HashMap::new(),
            next_watch: FIRST_WATCH,
            mtu,
            epoll,
            reaper,
            jobs,
            look_at: Instant::now(),
            lost: false,
            ended: false,
        })
    }

    /// Serves the bridge until there can be no more jobs.
    pub(crate) fn run(mut self) {
        let mut events = Vec::with_capacity(BATCH);
        while !self.ended {
            self.wait(&mut events);
            for event in events.drain(..) {
                match event.data.u64() {
                    BELL => self.do_jobs(),
                    FRAMES => {}
                    SNIFFED => self.read_sniffs(),
                    watch => self.read_watch(watch),
                }
            }
            let read = self.receive(TURN);
            self.table.due(clock(), &mut self.replies);
            self.send_replies();
            self.pump(read);
        }
        self.tell_held();
    }

    /// What is held ends with the thread: with its bridge, or with the daemon.
    fn tell_held(&self) {
        for (_, entry) in self.table.iter() {
            let frames = entry.presence.held().len();
            if frames > 0 {
                tracing::warn!(machine = %entry.name, bridge = self.bridge, frames, "held frames are dropped");
            }
        }
    }

    fn wait(&mut self, events: &mut Vec<epoll::Event>) {
        let now = Instant::now();
        let patience = self.table.releasing.iter().filter_map(|mac| {
            let entry = self.table.get(*mac)?;
            entry.release.as_ref().and_then(|release| release.patience(entry.presence.held(), now))
        });
        let lateness = self.table.late.values().map(|late| late.until().saturating_duration_since(now));
        let due = self.table.deadline().map(|at| at.since(clock()));
        let timeout =
            patience.chain(lateness).chain(due).min().and_then(|span| Timespec::try_from(span).ok());
        // An interrupted wait is a wait that is over.
        let _ = epoll::wait(&self.epoll, spare_capacity(events), timeout.as_ref());
    }

    fn do_jobs(&mut self) {
        self.jobs.silence();
        loop {
            match self.jobs.next() {
                Ok(Some(job)) => job(self),
                Ok(None) => return,
                Err(Closed) => {
                    self.ended = true;
                    return;
                }
            }
        }
    }

    /// Reads at most `batches` batches.
    fn receive(&mut self, batches: usize) -> Read {
        for turn in 0..batches {
            let now = clock();
            match self.socket.receive(&mut self.batch) {
                Ok(0) if turn == 0 => return Read::Nothing,
                Ok(0) => return Read::All,
                Ok(_) => {}
                Err(error) => {
                    self.socket_failed(&error);
                    return Read::Nothing;
                }
            }
            let full = self.batch.frames().len() == BATCH;
            for frame in self.batch.frames() {
                self.octets += occupied(&frame);
                self.table.deliver(&frame, now, &mut self.replies);
            }
            self.send_replies();
            self.table.end_batch(full, now);
            if !full {
                return Read::All;
            }
        }
        Read::Some
    }

    /// Reads all that waits now, and little of what comes meanwhile. Does what is due between, so
    /// that nobody else waits for it, however much that is.
    fn catch_up(&mut self) {
        let until = self.octets.saturating_add(backlog(&self.socket));
        while self.octets < until {
            let read = self.receive(TURN);
            if read != Read::Some {
                return;
            }
            self.table.due(clock(), &mut self.replies);
            self.send_replies();
            self.pump(read);
        }
    }

    fn socket_failed(&mut self, error: &SocketError) {
        if !matches!(error, SocketError::LinkDown) && !std::mem::replace(&mut self.lost, true) {
            let why = error.to_string();
            self.table.tell(Notice::BridgeLost { bridge: self.bridge.clone(), why });
            let _ = epoll::delete(&self.epoll, &self.socket);
        }
    }

    fn send_replies(&mut self) {
        let frames: Vec<(VnetHdr, &[u8])> =
            self.replies.iter().map(|reply| (VnetHdr::PLAIN, reply.as_slice())).collect();
        let mut sent = 0;
        while let Some(left) = frames.get(sent..).filter(|left| !left.is_empty()) {
            match self.socket.send_many(left) {
                Ok(more) => sent += more,
                Err(error) => {
                    tracing::debug!(bridge = self.bridge, %error, "an answer was not sent");
                    sent += 1;
                }
            }
        }
        self.replies.clear();
    }

    /// Takes note of the group frames that taps got while their boundary is open.
    fn read_sniffs(&mut self) {
        for mac in self.table.sniffing.clone() {
            let Some(entry) = self.table.get_mut(mac) else { continue };
            let Some(sniff) = &entry.sniff else { continue };
            let (mut gone, mut left) = (false, backlog(sniff));
            while left > 0 {
                match sniff.receive(&mut self.sniffed) {
                    Ok(0) => break,
                    Ok(_) => {}
                    // The tap is down, or gone with its guest: it gets no frames.
                    Err(error) => {
                        tracing::debug!(machine = %entry.name, %error, "cannot listen in on a tap");
                        gone = matches!(error, SocketError::LinkGone);
                        break;
                    }
                }
                for frame in self.sniffed.frames() {
                    left = left.saturating_sub(occupied(&frame));
                    if let Some(packet) = Packet::received(&frame) {
                        entry.presence.queue().seen_at_tap(digest(packet.ethernet()));
                    }
                }
            }
            if gone {
                self.reaper.close(entry.sniff.take());
            }
        }
    }

    fn read_watch(&mut self, token: u64) {
        let Some(watch) = self.watches.get_mut(&token) else { return };
        let table = &self.table;
        match watch.read(&mut self.sniffed, clock(), |notice| table.tell(notice)) {
            Ok(()) | Err(SocketError::LinkDown) => {}
            Err(error) => {
                tracing::debug!(machine = %watch.name, %error, "no longer listening to a guest");
                self.drop_watches(|number, _| number == token);
            }
        }
    }

    fn pump(&mut self, read: Read) {
        let now = Instant::now();
        self.look(now);
        let mut done = Vec::new();
        for mac in self.table.releasing.clone() {
            let Some((entry, handover)) = self.table.with_handover(mac) else { continue };
            let Some(release) = &mut entry.release else { continue };
            release.pump(entry.presence.queue(), now);
            let held = entry.presence.held();
            release.hand_over(mac, held, &entry.progress, handover, (read, now));
            if let Some((finished, replay)) = release.take_finished(entry.presence.held()) {
                done.push((mac, finished, replay));
            }
        }
        for (mac, finished, mut replay) in done {
            replay.dropped = self.table.drops(mac);
            self.give_back(mac, now);
            let _ = finished.send(replay);
        }
        let late = self.table.late.extract_if(|_, late| late.until() <= now);
        self.reaper.close(late.map(|(mac, late)| late.end(mac)));
    }

    /// Decides on group frames that wait for a guest which is being given back its port.
    fn look(&mut self, now: Instant) {
        if now < self.look_at || self.table.releasing.is_empty() {
            return;
        }
        self.look_at = now + LOOK;
        self.read_sniffs();
        for mac in self.table.releasing.clone() {
            if let Some(entry) = self.table.get_mut(mac) {
                entry.presence.queue().look(|packet| digest(packet.ethernet()));
            }
        }
    }

    /// Forgets a port whose guest runs. Frames that were not counted may still be on their way.
    fn give_back(&mut self, mac: MacAddr, now: Instant) {
        let counted = self.table.handover.counted(mac).is_some();
        let entry = self.table.get_mut(mac);
        let (vlans, release) = entry.map_or((None, None), |entry| (entry.vlans.take(), entry.release.take()));
        let mut sockets = release.into_iter().flat_map(|release| release.into_sockets());
        if !counted && let Some(injector) = sockets.next() {
            self.table.late.insert(mac, Late::new(injector, vlans, now));
        }
        self.reaper.close(sockets);
        self.forget(mac);
    }

    fn count_lost(&mut self) {
        // An open socket has its counters.
        self.losses.overrun += self.socket.statistics().map_or(0, |counters| counters.dropped);
        self.losses.unreadable = self.batch.unreadable();
    }

    fn forget(&mut self, mac: MacAddr) {
        self.table.handover.end(mac);
        if let Some(entry) = self.table.remove(mac) {
            self.reaper.close(entry.into_sockets());
        }
    }

    fn drop_watches(&mut self, mut which: impl FnMut(u64, &Watch) -> bool) {
        let dropped: Vec<_> = self.watches.extract_if(|token, watch| which(*token, watch)).collect();
        for (_, watch) in dropped {
            self.watched.remove(&watch.mac);
            self.reaper.close([watch.into_socket()]);
        }
    }

    fn open_sniff(&self, tap: &str) -> Result<PacketSocket, SocketError> {
        let sniff =
            PacketSocket::open_sniff(tap, &Filter::group(Direction::Outgoing, SNIFF_SNAP), SNIFF_BUFFER)?;
        // Without the event its frames are read when the boundary is closed.
        let _ = listen(&self.epoll, &sniff, SNIFFED);
        Ok(sniff)
    }

    /// Opens a socket to inject into `tap`; if that fails, `sniff` is of no use.
    fn open_injector(
        &self,
        tap: &str,
        sniff: &mut Option<PacketSocket>,
    ) -> Result<PacketSocket, SocketError> {
        open_injector(tap).inspect_err(|_| self.reaper.close(sniff.take()))
    }

    fn close_boundary(&mut self, mac: MacAddr) {
        self.table.sniffing.remove(&mac);
        let Some(entry) = self.table.get_mut(mac) else { return };
        let unnoticed = entry.sniff.take().map_or(0, |sniff| {
            // An open socket has its counters.
            let dropped = sniff.statistics().map_or(0, |counters| counters.dropped);
            self.reaper.close([sniff]);
            dropped
        });
        let queue = entry.presence.queue();
        let doubtful = queue.doubtful();
        let suppressed = queue.close_boundary(|packet| digest(packet.ethernet()));
        let twice = unnoticed.min(doubtful.saturating_sub(suppressed));
        if twice > 0 {
            tracing::warn!(machine = %entry.name, twice, "up to so many group frames are delivered twice");
        }
    }
}

/// What was read from a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Nothing waited.
    Nothing,
    /// All that waited.
    All,
    /// Part of what waits.
    Some,
}

/// Octets that wait in a socket, with what the kernel needs for each frame. An open socket knows.
fn backlog(socket: &PacketSocket) -> u64 {
    socket.waiting().unwrap_or(0)
}

/// What a frame occupied of a socket's buffer, at least.
fn occupied(frame: &Frame<'_>) -> u64 {
    PacketSocket::OVERHEAD + frame.bytes.len() as u64
}

fn listen(epoll: &OwnedFd, source: impl AsFd, token: u64) -> rustix::io::Result<()> {
    epoll::add(epoll, source, epoll::EventData::new_u64(token), epoll::EventFlags::IN)
}
