//! The thread of one bridge: reads its `s1`, answers, holds and injects.
//!
//! Everything that a frame can change belongs to this thread, so that nothing is locked. Other
//! code asks it to run a job between two batches of frames ([`crate::thread`]).

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use dormouse_net::Vlans;
use dormouse_sys::{
    Batch, PacketSocket, VnetHdr,
    packet::{Direction, Error as SocketError, Filter},
};
use dormouse_types::{MacAddr, MachineName, Timestamp};
use dormouse_wire::digest;
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};
use tokio::sync::oneshot;

use crate::{
    Error, HandoverKind, Mode, Notice, Status,
    handover::Progress,
    judge::WireJudge,
    late::Late,
    losses::Losses,
    packet::Packet,
    presence::{Presence, Waker},
    queue::ReplayQueue,
    reaper::Reaper,
    release::{PortReplay, Release, Target, open_injector},
    table::{Entry, Table},
    thread::{Closed, Jobs},
    watch::Watch,
};

/// Frames read in one call.
const BATCH: usize = 64;
/// Batches read before other work has its turn.
const TURN: usize = 16;
/// Batches that can be waiting in a socket's buffer: the bound of "until it is empty".
const BACKLOG: usize = 1 << 14;
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
    pub(crate) mac: MacAddr,
    pub(crate) vlans: Option<Vlans>,
    pub(crate) judge: WireJudge,
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
    /// What the socket did not give out.
    losses: Losses,
    table: Table,
    watches: HashMap<u64, Watch>,
    next_watch: u64,
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
    pub(crate) fn new(bridge: &str, socket: PacketSocket, table: Table, jobs: Jobs) -> Result<Self, Error> {
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
            losses: Losses::default(),
            table,
            watches: HashMap::new(),
            next_watch: FIRST_WATCH,
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
            self.pump(read);
        }
        self.tell_held();
    }

    /// What is held ends with the thread: with its bridge, or with the daemon.
    fn tell_held(&self) {
        for entry in self.table.entries.values() {
            let frames = entry.presence.held().len();
            if frames > 0 {
                tracing::warn!(machine = %entry.name, bridge = self.bridge, frames, "held frames are dropped");
            }
        }
    }

    fn wait(&mut self, events: &mut Vec<epoll::Event>) {
        let now = Instant::now();
        let patience = self.table.entries.values().filter_map(|entry| {
            entry.release.as_ref().and_then(|release| release.patience(entry.presence.held(), now))
        });
        let lateness = self.table.late.values().map(|late| late.until().saturating_duration_since(now));
        let timeout = patience.chain(lateness).min().and_then(|span| Timespec::try_from(span).ok());
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
                self.table.deliver(&frame, now, &mut self.replies);
            }
            self.send_replies();
            if !full {
                return Read::All;
            }
        }
        Read::Some
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
        for entry in self.table.entries.values_mut() {
            let Some(sniff) = &entry.sniff else { continue };
            for _ in 0..BACKLOG {
                match sniff.receive(&mut self.sniffed) {
                    Ok(0) => break,
                    Ok(_) => {}
                    // The tap is down, or gone with its guest: it gets no frames.
                    Err(error) => {
                        tracing::debug!(machine = %entry.name, %error, "cannot listen in on a tap");
                        break;
                    }
                }
                for packet in self.sniffed.frames().filter_map(|frame| Packet::received(&frame)) {
                    entry.presence.queue().seen_at_tap(digest(packet.ethernet()));
                }
            }
        }
    }

    fn read_watch(&mut self, token: u64) {
        let Some(watch) = self.watches.get_mut(&token) else { return };
        let table = &self.table;
        match watch.read(&mut self.sniffed, |notice| table.tell(notice)) {
            Ok(Some(old)) => {
                let _ = listen(&self.epoll, watch.socket(), token);
                self.reaper.close([old]);
            }
            Ok(None) | Err(SocketError::LinkDown) => {}
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
        for (mac, entry) in &mut self.table.entries {
            let Some(release) = &mut entry.release else { continue };
            release.pump(entry.presence.queue(), now);
            if read != Read::Some {
                let (held, handover) = (entry.presence.held(), &mut *self.table.handover);
                release.hand_over(*mac, held, &entry.progress, handover, (read == Read::Nothing, now));
            }
            if let Some((finished, replay)) = release.take_finished(entry.presence.held()) {
                done.push((*mac, finished, replay));
            }
        }
        for (mac, finished, replay) in done {
            self.give_back(mac, now);
            let _ = finished.send(replay);
        }
        let late = self.table.late.extract_if(|_, late| late.until() <= now);
        self.reaper.close(late.map(|(mac, late)| late.end(mac)));
    }

    /// Decides on group frames that wait for a guest which is being given back its port.
    fn look(&mut self, now: Instant) {
        if now < self.look_at || self.table.entries.values().all(|entry| entry.release.is_none()) {
            return;
        }
        self.look_at = now + LOOK;
        self.read_sniffs();
        for entry in self.table.entries.values_mut().filter(|entry| entry.release.is_some()) {
            entry.presence.queue().look(|packet| digest(packet.ethernet()));
        }
    }

    /// Forgets a port whose guest runs. Frames that were not counted may still be on their way.
    fn give_back(&mut self, mac: MacAddr, now: Instant) {
        let counted = self.table.handover.counted(mac).is_some();
        let entry = self.table.entries.get_mut(&mac);
        let (vlans, release) = entry.map_or((None, None), |entry| (entry.vlans.take(), entry.release.take()));
        let mut sockets = release.into_iter().flat_map(Release::into_sockets);
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
        if let Some(entry) = self.table.entries.remove(&mac) {
            self.reaper.close(entry.into_sockets());
        }
    }

    fn drop_watches(&mut self, mut which: impl FnMut(u64, &Watch) -> bool) {
        let dropped = self.watches.extract_if(|token, watch| which(*token, watch));
        let sockets: Vec<_> = dropped.map(|(_, watch)| watch.into_socket()).collect();
        self.reaper.close(sockets);
    }

    fn open_sniff(&self, tap: &str) -> Result<PacketSocket, SocketError> {
        let sniff =
            PacketSocket::open_sniff(tap, &Filter::group(Direction::Outgoing, SNIFF_SNAP), SNIFF_BUFFER)?;
        // Without the event its frames are read when the boundary is closed.
        let _ = listen(&self.epoll, &sniff, SNIFFED);
        Ok(sniff)
    }

    fn close_boundary(entry: &mut Entry, reaper: &Reaper) {
        let unnoticed = entry.sniff.take().map_or(0, |sniff| {
            // An open socket has its counters.
            let dropped = sniff.statistics().map_or(0, |counters| counters.dropped);
            reaper.close([sniff]);
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

/// The jobs that the asynchronous side asks for.
impl Worker {
    /// Holds every frame for a port whose guest still runs and reads `tap`.
    pub(crate) fn capture(&mut self, capture: Capture, tap: &str) -> Result<(), SocketError> {
        let sniff = self.open_sniff(tap)?;
        // What waits now was delivered to the guest as well.
        self.receive(BACKLOG);
        let entry = self.entry(capture, Mode::Holding);
        entry.presence.capture();
        entry.presence.queue().open_boundary();
        let old = entry.sniff.replace(sniff);
        self.reaper.close(old);
        Ok(())
    }

    /// Answers for a port whose guest stands still; `older` is what it left unread.
    pub(crate) fn stand_in(&mut self, capture: Capture, older: Vec<Packet>) {
        self.receive(BACKLOG);
        self.read_sniffs();
        self.unwatch(capture.mac);
        let mac = capture.mac;
        let reaper = self.reaper.clone();
        let entry = self.entry(capture, Mode::Standing);
        Self::close_boundary(entry, &reaper);
        reaper.close(entry.release.take().into_iter().flat_map(Release::into_sockets));
        reaper.close(entry.injector.take());
        let effect = entry.presence.stand_in(older, clock());
        let mut replies = Vec::new();
        self.table.apply(mac, effect, &mut replies);
        self.replies.append(&mut replies);
        self.send_replies();
    }

    /// Makes ready for a guest that will read `tap` soon, and puts `first` into it; still answers.
    pub(crate) fn prepare(&mut self, mac: MacAddr, tap: &str, first: &[u8]) -> Result<(), SocketError> {
        let sniff = self.open_sniff(tap)?;
        let injector = open_injector(tap)?;
        if let Err(error) = injector.send(&VnetHdr::PLAIN, first) {
            tracing::debug!(tap, %error, "the first frame was not injected");
        }
        let Some(entry) = self.table.entries.get_mut(&mac) else { return Ok(()) };
        entry.presence.prepare();
        entry.presence.queue().open_boundary();
        let old = [entry.sniff.replace(sniff), entry.injector.replace(injector)];
        self.reaper.close(old.into_iter().flatten());
        Ok(())
    }

    /// Starts to give a port back to its guest, which runs. `None`: it was not captured.
    pub(crate) fn release(
        &mut self,
        mac: MacAddr,
        target: Target,
        patience: Duration,
    ) -> Result<Option<oneshot::Receiver<HandoverKind>>, SocketError> {
        let (sniff, injector) = match self.table.entries.get_mut(&mac) {
            None => return Ok(None),
            Some(entry) => (entry.sniff.take(), entry.injector.take()),
        };
        let sniff = sniff.map_or_else(|| self.open_sniff(&target.tap), Ok)?;
        let injector = injector.map_or_else(|| open_injector(&target.tap), Ok)?;
        let (caught_up, told) = oneshot::channel();
        let release = Release::new(target, injector, Instant::now() + patience, caught_up);
        if let Some(entry) = self.table.entries.get_mut(&mac) {
            entry.presence.release();
            entry.sniff = Some(sniff);
            let old = entry.release.replace(release);
            self.reaper.close(old.into_iter().flat_map(Release::into_sockets));
        }
        Ok(Some(told))
    }

    /// Frames that left the bridge for the port and have not come yet, where they are counted.
    pub(crate) fn under_way(&mut self, mac: MacAddr) -> Option<u64> {
        self.receive(BACKLOG);
        let counted = self.table.handover.counted(mac)?;
        self.table.entries.get(&mac).map(|entry| entry.progress.behind(counted))
    }

    /// The bridge sends nothing for the port here any more: gives the rest and forgets it.
    pub(crate) fn finish(&mut self, mac: MacAddr) -> oneshot::Receiver<PortReplay> {
        self.receive(BACKLOG);
        self.read_sniffs();
        self.count_lost();
        let (finished, told) = oneshot::channel();
        if let Some(entry) = self.table.entries.get_mut(&mac) {
            let behind = self.table.handover.counted(mac).map(|counted| entry.progress.behind(counted));
            let lost = self.losses.since(entry.lost_before).of_port(behind);
            entry.presence.queue().merge_drops(&lost);
            Self::close_boundary(entry, &self.reaper);
            if let Some(release) = &mut entry.release {
                release.finish(finished);
            }
        }
        told
    }

    /// Forgets a port; what it held is dropped. Says how many frames.
    pub(crate) fn dismiss(&mut self, mac: MacAddr) -> u64 {
        self.receive(BACKLOG);
        let entry = self.table.entries.get_mut(&mac);
        let dropped = entry.map_or(0, |entry| entry.presence.queue().clear());
        self.forget(mac);
        dropped
    }

    /// A captured port's numbers; those of the whole machine are left at zero.
    pub(crate) fn status(&self, mac: MacAddr) -> Option<Status> {
        self.table.entries.get(&mac).map(|entry| Status {
            mode: entry.presence.mode(),
            answered: entry.presence.answered().clone(),
            held_frames: 0,
            held_bytes: 0,
            dropped: entry.presence.held().drops().clone(),
            last_wake: None,
            ignored: BTreeMap::new(),
        })
    }

    /// Listens to a running guest; if it is listened to already, only `afresh` starts anew.
    pub(crate) fn watch(
        &mut self,
        name: MachineName,
        mac: MacAddr,
        tap: &str,
        afresh: bool,
    ) -> Result<(), SocketError> {
        if !afresh && self.watches.values().any(|watch| watch.mac == mac) {
            return Ok(());
        }
        let watch = Watch::open(name, mac, tap)?;
        self.unwatch(mac);
        let token = self.next_watch;
        self.next_watch += 1;
        let _ = listen(&self.epoll, watch.socket(), token);
        self.watches.insert(token, watch);
        Ok(())
    }

    /// Listens no longer.
    pub(crate) fn unwatch(&mut self, mac: MacAddr) {
        self.drop_watches(|_, watch| watch.mac == mac);
    }

    /// Listens to none of a machine's ports.
    pub(crate) fn unwatch_all(&mut self, name: &MachineName) {
        self.drop_watches(|_, watch| watch.name == *name);
    }

    /// The captured addresses.
    pub(crate) fn captured(&self) -> Vec<MacAddr> {
        self.table.entries.keys().copied().collect()
    }

    fn entry(&mut self, capture: Capture, mode: Mode) -> &mut Entry {
        let Capture { name, mac, vlans, judge, queue, waker } = capture;
        self.reaper.close(self.table.late.remove(&mac).map(|late| late.end(mac)));
        self.count_lost();
        let lost_before = self.losses;
        let handover = &mut self.table.handover;
        self.table.entries.entry(mac).or_insert_with(|| {
            // The program would redirect frames with their tags, which the tap must not get.
            if vlans.is_none()
                && let Err(error) = handover.begin(mac)
            {
                tracing::warn!(machine = %name, %error, "this machine is handed over the plain way");
            }
            let presence = Presence::new(mode, judge, queue, waker);
            Entry {
                name,
                presence,
                vlans,
                progress: Progress::default(),
                lost_before,
                sniff: None,
                injector: None,
                release: None,
            }
        })
    }
}

/// What was read from a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// Nothing waited.
    Nothing,
    /// All that waited.
    All,
    /// Part of what waits.
    Some,
}

fn listen(epoll: &OwnedFd, source: impl AsFd, token: u64) -> rustix::io::Result<()> {
    epoll::add(epoll, source, epoll::EventData::new_u64(token), epoll::EventFlags::IN)
}

fn clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
