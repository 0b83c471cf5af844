//! TCP services that the stand-in speaks for a sleeper, on smoltcp's TCP.
//!
//! A state machine without I/O: frames and the time go in, frames and wakes come out. Memory is
//! taken when a client connects, bounded per interface, and given back when the last one has gone.
//!
//! - `segment` tells what is for a service from all else, which smoltcp never sees;
//! - `stack` is smoltcp for one connection, with an IP link in place of an Ethernet one: it has no
//!   neighbours to ask for, and replies go back to where the client's frames came from;
//! - `connection` has the limits of time; `talk` is what is said over it;
//! - `gone` remembers for a while the connections that were, for what still comes of them is
//!   theirs and wakes nobody.
#![forbid(unsafe_code)]

mod connection;
mod gone;
mod segment;
mod settings;
mod stack;
mod talk;

use dormouse_types::{Service, Timestamp};
use dormouse_wire::Frame;

use connection::{Connection, Stage};
use gone::Gone;
use segment::Segment;
use stack::Stack;

pub use settings::Settings;

/// Connections of one interface.
pub const MAX_CONNECTIONS: usize = 16;
/// Those of them that may be half open (SYN-RECEIVED, RFC 9293 §3.3.2): the oldest gives way to a
/// newer one, so that a flood of SYNs keeps nobody out who answers quickly (RFC 4987 §3.4).
pub const MAX_HALF_OPEN: usize = 8;

/// The services of one interface of a sleeper.
#[derive(Debug)]
pub struct Standin {
    settings: Settings,
    /// The latest time that was told: a clock set back stands still here until it has caught up.
    clock: Timestamp,
    open: Vec<Connection>,
    gone: Gone,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Out {
    /// Frames to send, with full checksums.
    pub frames: Vec<Vec<u8>>,
    /// The machine is wanted; why, as `tcp:80 GET / (waking-page)`. May be told many times.
    pub wake: Option<String>,
    /// The frame was taken. Else the stand-in has nothing to do with it.
    pub taken: bool,
}

impl Standin {
    /// Speaks for a sleeper. Takes no memory for connections before there are any.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self { settings, clock: Timestamp(0), open: Vec::new(), gone: Gone::new() }
    }

    /// Takes a frame, if it is of a service or of a connection here.
    ///
    /// Connections that the machine itself has at the port of a service are not touched: only one
    /// that begins now is taken.
    pub fn take(&mut self, frame: &Frame<'_>, now: Timestamp) -> Out {
        if self.settings.services.is_empty() {
            return Out::default();
        }
        let Some(segment) = Segment::parse(frame, &self.settings) else { return Out::default() };
        self.advance(now);
        let mut out = Out::default();
        let known = self.open.iter().position(|connection| connection.tuple() == segment.tuple);
        match known {
            Some(at) if segment.opens && self.is_over(at) => {
                self.close(at);
                out.taken = self.accept(&segment, &mut out);
            }
            Some(at) => {
                if let Some(connection) = self.open.get_mut(at) {
                    connection.take(&segment, self.clock, &mut out);
                }
                self.drop_finished();
                out.taken = true;
            }
            None if segment.opens => out.taken = self.accept(&segment, &mut out),
            None if self.gone.has(&segment.tuple) => {
                out.frames = Stack::refuse(&segment, &self.settings, self.clock);
                out.taken = true;
            }
            None => {}
        }
        out
    }

    /// When [`Standin::due`] is to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.open.iter().map(Connection::deadline).chain(self.gone.deadline()).min()
    }

    /// What the passing of time brings: segments sent again, connections closed.
    pub fn due(&mut self, now: Timestamp) -> Out {
        self.advance(now);
        let mut out = Out::default();
        for connection in &mut self.open {
            if connection.deadline() <= self.clock {
                connection.step(self.clock, &mut out);
            }
        }
        self.drop_finished();
        out
    }

    /// The machine runs, or the stand-in ends: what is to be sent to those still connected.
    ///
    /// They get a reset, so that they come again at once and reach the machine; but not those who
    /// have been told all, nor those half open, whose next SYN the machine itself will answer.
    /// Nothing is left open.
    pub fn end(&mut self, now: Timestamp) -> Out {
        self.advance(now);
        let mut out = Out::default();
        for mut connection in self.open.drain(..) {
            connection.end(self.clock, &mut out);
        }
        self.open.shrink_to_fit();
        self.gone = Gone::new();
        out
    }

    fn advance(&mut self, now: Timestamp) {
        self.clock = self.clock.max(now);
        self.gone.forget(self.clock);
    }

    /// Opens a connection for a SYN to a service. A SYN for which there is no room is taken and not
    /// answered: its client sends it again (RFC 9293 §3.8.1), when there may be room.
    fn accept(&mut self, segment: &Segment<'_>, out: &mut Out) -> bool {
        let port = segment.tuple.local.1;
        let Some(service) = self.settings.services.iter().find(|service| service.port == port) else {
            return false;
        };
        let service: Service = service.clone();
        if self.make_room()
            && let Some(mut connection) = Connection::new(segment, &service, &self.settings, self.clock)
        {
            self.gone.remove(&segment.tuple);
            connection.take(segment, self.clock, out);
            self.open.push(connection);
            self.drop_finished();
        }
        true
    }

    /// Makes room for one more half-open connection; `false` if there is none to be made.
    fn make_room(&mut self) -> bool {
        let half_open = self.open.iter().filter(|c| c.stage() == Stage::HalfOpen).count();
        if half_open >= MAX_HALF_OPEN {
            return self.evict(Stage::HalfOpen);
        }
        self.open.len() < MAX_CONNECTIONS || self.evict(Stage::Over) || self.evict(Stage::HalfOpen)
    }

    /// Closes the oldest connection of a stage, without a word.
    fn evict(&mut self, stage: Stage) -> bool {
        // They stand in the order in which they came.
        let oldest = self.open.iter().position(|connection| connection.stage() == stage);
        oldest.inspect(|at| self.close(*at)).is_some()
    }

    fn is_over(&self, at: usize) -> bool {
        self.open.get(at).is_some_and(|connection| connection.stage() == Stage::Over)
    }

    fn close(&mut self, at: usize) {
        self.gone.add(self.open.remove(at).tuple(), self.clock);
    }

    /// Gives back the memory of those that have ended.
    fn drop_finished(&mut self) {
        let (gone, clock) = (&mut self.gone, self.clock);
        self.open.retain(|connection| {
            let finished = connection.stage() == Stage::Finished;
            if finished {
                gone.add(connection.tuple(), clock);
            }
            !finished
        });
        if self.open.is_empty() {
            self.open.shrink_to_fit();
        }
    }
}
