//! A TCP connection, as far as answering its keepalive probes needs it.

use alloc::{collections::BTreeMap, vec::Vec};
use core::{cmp::Reverse, net::SocketAddr};

use dormouse_types::{MacAddr, Timestamp};
use serde::{Deserialize, Serialize};

use super::Persona;
use crate::{
    frame::Frame,
    tcp::{Segment, at_or_after},
};

/// The last state that a machine showed of one of its TCP connections (RFC 9293 §3.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// The machine's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The next sequence number that the machine will send (SND.NXT).
    pub snd_nxt: u32,
    /// The next one that it expects: what it last acknowledged (RCV.NXT).
    pub rcv_nxt: u32,
    /// The window that it last advertised, as on the wire, not scaled.
    pub window: u16,
    /// Its last timestamp value (TSval, RFC 7323); `None` without the option.
    pub tsval: Option<u32>,
    /// When it was last heard of.
    pub heard: Timestamp,
}

/// The largest distance of a segment from what is expected: the largest window (RFC 7323 §2.3).
const MAX_WINDOW: u32 = 1 << 30;

impl Flow {
    /// Follows a segment that the machine sent. Repeated and overtaken ones change only what they
    /// are newer in.
    fn follow(&mut self, sent: &Segment, ack: u32, now: Timestamp) {
        let end = end(sent);
        if at_or_after(end, self.snd_nxt) {
            self.snd_nxt = end;
        }
        if at_or_after(ack, self.rcv_nxt) {
            self.rcv_nxt = ack;
            self.window = sent.window;
        }
        // RFC 7323 §3.2: in use by both or by none, and never less than before (§4.1).
        if let (Some(tsval), Some(before)) = (sent.tsval, self.tsval)
            && at_or_after(tsval, before)
        {
            self.tsval = Some(tsval);
        }
        self.heard = now;
    }

    /// Can the machine believe a segment of the other side with this sequence number?
    const fn is_in_window(&self, seq: u32) -> bool {
        seq.wrapping_sub(self.rcv_nxt) < MAX_WINDOW
    }
}

impl Persona {
    /// Does the frame end one of the machine's connections: is it a FIN or an RST of the other side's,
    /// with a sequence number that the machine can believe?
    #[must_use]
    pub fn is_closed_by(&self, frame: &Frame<'_>) -> bool {
        if self.flows.is_empty() {
            return false;
        }
        let closing = Segment::of(frame, 0).filter(|segment| (segment.fin || segment.rst) && !segment.syn);
        closing.is_some_and(|segment| {
            let mut flows = self.flows.iter();
            let flow = flows.find(|flow| flow.remote == segment.src && flow.local == segment.dst);
            flow.is_some_and(|flow| flow.is_in_window(segment.seq))
        })
    }
}

/// The sequence number after the data of a segment without SYN and FIN.
fn end(segment: &Segment) -> u32 {
    // No segment is longer than an IP packet, jumbograms included.
    segment.seq.wrapping_add(u32::try_from(segment.len).unwrap_or(u32::MAX))
}

/// The TCP connections of one running machine, followed by its frames: at most
/// [`Persona::MAX_FLOWS`] of them.
///
/// - A connection is established when the machine sends a segment with ACK and without SYN on it;
///   so connections older than the watching are known by their next segment, and one on which the
///   machine has sent a SYN and nothing else is not known.
/// - A FIN of either side begins its closing: it is not told of any more. An RST ends it, and so
///   does a SYN of the machine's, with which another begins.
/// - The numbers are the machine's own; of what it receives only FIN and RST are looked at. Who
///   shows nothing of what it receives finds out when the machine closes, too.
/// - Beyond the limit, those that are closing and those heard longest ago give way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowTable {
    flows: BTreeMap<(SocketAddr, SocketAddr), Followed>,
}

/// A connection of a [`FlowTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Its last state.
    pub flow: Flow,
    /// One side has begun to close it. It is kept for a while: its last segments would else look like those
    /// of a connection not known yet.
    pub closing: bool,
}

impl FlowTable {
    /// Takes note of a frame that the machine at `mac` sent or got; others change nothing.
    ///
    /// `octets` is its length on the wire, of which a capture of headers shows less.
    pub fn note(&mut self, frame: &Frame<'_>, octets: usize, mac: MacAddr, now: Timestamp) {
        let Some(segment) = Segment::of(frame, octets.saturating_sub(frame.bytes().len())) else { return };
        if frame.src() == mac {
            self.sent(&segment, now);
        } else if frame.dst() == mac {
            self.received(&segment);
        }
    }

    /// Enters connections that are known from before, if nothing is known of them.
    pub fn enter(&mut self, known: &[Flow]) {
        for flow in known.iter().take(Persona::MAX_FLOWS.saturating_sub(self.flows.len())) {
            let followed = Followed { flow: *flow, closing: false };
            self.flows.entry((flow.local, flow.remote)).or_insert(followed);
        }
    }

    /// Those that are established and that neither side has begun to close, those heard last first.
    #[must_use]
    pub fn established(&self) -> Vec<Flow> {
        let all = self.followed().into_iter();
        all.filter(|followed| !followed.closing).map(|followed| followed.flow).collect()
    }

    /// The same, and those that are being closed, as far as there is room.
    #[must_use]
    pub fn followed(&self) -> Vec<Followed> {
        let mut all: Vec<_> = self.flows.values().copied().collect();
        all.sort_by_key(|followed| Reverse(followed.flow.heard));
        all
    }

    fn sent(&mut self, segment: &Segment, now: Timestamp) {
        let key = (segment.src, segment.dst);
        if segment.syn || segment.rst {
            self.flows.remove(&key);
            return;
        }
        let Some(ack) = segment.ack else { return };
        if !self.flows.contains_key(&key) {
            self.make_room();
        }
        let followed = self.flows.entry(key).or_insert_with(|| {
            let flow = Flow {
                local: segment.src,
                remote: segment.dst,
                snd_nxt: end(segment),
                rcv_nxt: ack,
                window: segment.window,
                tsval: segment.tsval,
                heard: now,
            };
            Followed { flow, closing: false }
        });
        followed.flow.follow(segment, ack, now);
        followed.closing |= segment.fin;
    }

    fn received(&mut self, segment: &Segment) {
        let key = (segment.dst, segment.src);
        let Some(followed) = self.flows.get_mut(&key) else { return };
        if !followed.flow.is_in_window(segment.seq) {
            return;
        }
        if segment.rst {
            self.flows.remove(&key);
        } else if segment.fin {
            followed.closing = true;
        }
    }

    fn make_room(&mut self) {
        while self.flows.len() >= Persona::MAX_FLOWS {
            let worth = |followed: &Followed| (!followed.closing, followed.flow.heard);
            let least = self.flows.iter().min_by_key(|(_, followed)| worth(followed)).map(|(key, _)| *key);
            match least {
                Some(key) => self.flows.remove(&key),
                None => return,
            };
        }
    }
}
