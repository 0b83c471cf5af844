//! One connection: its stack, its talk, and how long all may take.

use std::time::Duration;

use dormouse_types::{Service, Timestamp};
use smoltcp::socket::tcp::State;

use crate::{
    Out, Settings,
    segment::{Segment, Tuple},
    stack::Stack,
    talk::Talk,
};

/// How long a handshake may take: the SYN-ACK is sent four times in it.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may be silent.
const IDLE: Duration = Duration::from_secs(30);
/// How long a connection may last, whatever its client does.
const LIFE: Duration = Duration::from_secs(120);
/// How long the machine's waking waits for the client to acknowledge what was said. A wake that
/// comes earlier would cut it off.
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(1);
/// The soonest that it is called again: nothing here is in a greater hurry.
const TICK: Duration = Duration::from_millis(1);

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The client has not acknowledged our SYN.
    HalfOpen,
    /// In use.
    Open,
    /// TIME-WAIT: kept for late segments only.
    Over,
    /// There is no connection any more.
    Finished,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Connection {
    tuple: Tuple,
    stack: Stack,
    talk: Talk,
    /// Why the machine will be wanted, until it is told.
    wakes: bool,
    since: Timestamp,
    /// When the client's last segment came.
    heard: Timestamp,
    deadline: Timestamp,
}

impl Connection {
    /// A connection that is ready to take the SYN in `segment`.
    pub(crate) fn new(
        segment: &Segment<'_>,
        service: &Service,
        settings: &Settings,
        now: Timestamp,
    ) -> Option<Self> {
        Some(Self {
            tuple: segment.tuple,
            stack: Stack::new(segment, settings, now)?,
            talk: Talk::new(service, settings),
            wakes: service.wakes,
            since: now,
            heard: now,
            deadline: now,
        })
    }

    pub(crate) const fn tuple(&self) -> Tuple {
        self.tuple
    }

    /// When [`Connection::step`] is to be called next.
    pub(crate) const fn deadline(&self) -> Timestamp {
        self.deadline
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stack.state() {
            State::SynReceived | State::SynSent => Stage::HalfOpen,
            State::TimeWait => Stage::Over,
            // It listens again when the client takes back its SYN by a reset.
            State::Closed | State::Listen => Stage::Finished,
            _ => Stage::Open,
        }
    }

    /// Takes one of its segments.
    pub(crate) fn take(&mut self, segment: &Segment<'_>, now: Timestamp, out: &mut Out) {
        self.heard = now;
        self.stack.take(segment);
        self.step(now, out);
    }

    /// Does all that there is to do now.
    pub(crate) fn step(&mut self, now: Timestamp, out: &mut Out) {
        self.stack.poll(now);
        if self.stage() == Stage::Open {
            self.talk.go_on(self.stack.socket(), now);
            self.stack.poll(now);
        }
        self.give_up(now);
        out.frames.append(&mut self.stack.sent());
        if let Some(why) = self.wanted(now) {
            out.wake = Some(why);
        }
        self.deadline = self.next(now);
    }

    /// Ends it, with a reset if the client has not been told all.
    pub(crate) fn end(&mut self, now: Timestamp, out: &mut Out) {
        if self.stage() == Stage::Open && !self.is_settled() {
            self.reset(now);
            out.frames.append(&mut self.stack.sent());
        }
    }

    fn reset(&mut self, now: Timestamp) {
        self.stack.socket().abort();
        self.stack.poll(now);
    }

    /// Ends it if it took too long. A half-open one ends without a word: its sender may be invented.
    fn give_up(&mut self, now: Timestamp) {
        match self.stage() {
            Stage::HalfOpen if now >= self.expiry(Stage::HalfOpen) => {
                self.stack.socket().abort();
            }
            Stage::Open if now >= self.expiry(Stage::Open) => self.reset(now),
            _ => {}
        }
    }

    fn expiry(&self, stage: Stage) -> Timestamp {
        match stage {
            Stage::HalfOpen => self.since + HANDSHAKE,
            _ => (self.heard + IDLE).min(self.since + LIFE),
        }
    }

    /// Why the machine is wanted, if it is from now on. Told once.
    fn wanted(&mut self, now: Timestamp) -> Option<String> {
        let used = self.talk.used().filter(|_| self.wakes)?;
        let ripe = now >= used.at + ACKNOWLEDGEMENT || self.is_settled();
        ripe.then(|| {
            self.wakes = false;
            used.why.clone()
        })
    }

    /// Has the client acknowledged all that there was to say, or does it not care any more?
    fn is_settled(&self) -> bool {
        match self.stack.state() {
            // Our FIN is acknowledged.
            State::FinWait2 | State::TimeWait | State::Closed | State::Listen => true,
            _ => self.talk.is_open_ended() && self.stack.unacknowledged() == 0,
        }
    }

    fn next(&mut self, now: Timestamp) -> Timestamp {
        let stage = self.stage();
        let mut next = self.expiry(stage);
        let wake = self.talk.used().filter(|_| self.wakes).map(|used| used.at + ACKNOWLEDGEMENT);
        let talk = self.talk.deadline().filter(|_| stage == Stage::Open);
        for at in [self.stack.deadline(now), wake, talk].into_iter().flatten() {
            next = next.min(at);
        }
        next.max(now + TICK)
    }
}
