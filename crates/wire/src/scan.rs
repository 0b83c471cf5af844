//! Telling scanners from clients: one source that tries many ports or many machines.
//!
//! A *try* is an IP packet to one machine, and what ARP and neighbour discovery ask for. A try counts its
//! port, or its protocol if that has none, and its machine. None are what is sent to a group, for a
//! desktop announces itself at a dozen ports; later fragments; and ends of connections, which wake
//! nobody. What belongs to a connection that is known is not to be shown here.
//!
//! Many machines are also tried by honest sources: by a router that hides its clients, by who manages them
//! all. What tells these from scanners is that TCP sends the very same segment again until it is
//! answered (RFC 9293 §3.8.1), the first time after a second (RFC 6298 §2.1), and a scanner
//! that tries again sends another: so a source above the limits still wakes with its second SYN.

use alloc::{boxed::Box, vec::Vec};
use core::{net::IpAddr, time::Duration};

use dormouse_types::{MacAddr, Timestamp};
use ipnet::IpNet;

use crate::{
    digest,
    frame::{Frame, u16_at},
    matching::source,
    ndisc::Neighbor,
    network::{ArpOperation, Fragment, IpPacket, Network, protocol},
};

/// What makes a source a scanner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanLimits {
    /// As many different ports (TCP, UDP, SCTP; of one machine or of several) within `within`; 0 counts none.
    pub ports: u32,
    /// As many different addresses (asked for by ARP or NDP, or sent to) within `within`; 0 counts none.
    pub machines: u32,
    /// The time; and how long a scanner must try nothing new to be none any more.
    pub within: Duration,
    /// Sources that never are.
    pub trusted: Vec<IpNet>,
}

impl ScanLimits {
    /// The largest limits: so much is remembered of each source. What is above counts as this.
    pub const MOST: u32 = 256;
}

/// A try that comes again so long after its first time is its client's, who waits for an answer: a little
/// less than TCP's first retransmission timeout (RFC 6298 §2.1), for the clocks of others.
const PATIENCE_MILLIS: u32 = 900;
/// A try that comes again later than this is another: beyond the sixth retransmission of a SYN.
const FORGOTTEN_MILLIS: u32 = 130_000;
/// One that is waited for gives way to another after so long, if there is no room: it was seen again by
/// then, or is a scanner's.
const YOUNG_MILLIS: u32 = 4_000;
/// Tries of one scanner that are remembered to be known again.
const MAX_WAITING: usize = 512;

impl Default for ScanLimits {
    fn default() -> Self {
        Self { ports: 10, machines: 64, within: Duration::from_secs(10), trusted: Vec::new() }
    }
}

/// The sources of one network, and what each of them tried. Bounded, whatever comes: a table of [`SETS`]
/// times [`WAYS`] sources, in which a new source takes the place of the one heard longest ago.
#[derive(Debug)]
pub struct Scanners {
    limits: ScanLimits,
    /// Empty until the first try.
    sets: Box<[[Option<Box<Suspect>>; WAYS]]>,
}

const SETS: usize = 256;
const WAYS: usize = 4;

/// Who sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Ip(IpAddr),
    Mac(MacAddr),
}

/// What a frame tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Try {
    /// Protocol and port.
    port: Option<(u8, u16)>,
    machine: Option<IpAddr>,
    /// By which it is known when it is sent again: addresses, ports, and TCP's sequence number.
    same: Option<u32>,
}

/// One source.
#[derive(Debug)]
struct Suspect {
    source: Source,
    heard: Timestamp,
    /// It is a scanner until then.
    until: Timestamp,
    ports: Tried<(u8, u16)>,
    machines: Tried<IpAddr>,
    /// What it tried while it was a scanner.
    waiting: Waiting,
}

/// Tries that may come again.
#[derive(Debug, Default)]
struct Waiting(Vec<Attempt>);

/// One of them.
#[derive(Debug)]
struct Attempt {
    same: u32,
    /// Milliseconds of the clock, modulo 2^32, when it came first.
    first: u32,
    /// It came again in time.
    again: bool,
}

/// The last different things that were tried, and when each was tried last.
#[derive(Debug)]
struct Tried<T>(Vec<(T, Timestamp)>);

impl Scanners {
    /// Knows nobody yet.
    #[must_use]
    pub fn new(limits: ScanLimits) -> Self {
        Self { limits, sets: Box::default() }
    }

    /// Takes note of a frame; is it a scanner's, this frame counted?
    ///
    /// A source is an IP address, or the Ethernet address of a frame without one. It becomes a scanner with
    /// the try that reaches a limit, and is none any more when it has tried nothing new for
    /// [`ScanLimits::within`]: the same thing tried again is nothing new. What a scanner tries
    /// again as TCP does, the same packet after 0.9 s or more, is taken for a client's.
    pub fn note(&mut self, frame: &Frame<'_>, now: Timestamp) -> bool {
        let source = source_of(frame);
        let attempt = Try::of(frame);
        if attempt == Try::default() {
            return self.knows(frame, now);
        }
        if self.is_trusted(source) {
            return false;
        }
        let (limits, sets) = (&self.limits, &mut self.sets);
        if sets.is_empty() {
            *sets = (0..SETS).map(|_| [const { None }; WAYS]).collect();
        }
        let set = sets.get_mut(set_of(source));
        set.is_some_and(|set| place(set, source).note(attempt, limits, now))
    }

    /// Is the source of a frame, which was noted when it came, a scanner now?
    #[must_use]
    pub fn knows(&self, frame: &Frame<'_>, now: Timestamp) -> bool {
        self.suspect(source_of(frame)).is_some_and(|suspect| suspect.is_scanner(&self.limits, now))
    }

    fn is_trusted(&self, source: Source) -> bool {
        let Source::Ip(address) = source else { return false };
        self.limits.trusted.iter().any(|net| net.contains(&address))
    }

    fn suspect(&self, source: Source) -> Option<&Suspect> {
        let set = self.sets.get(set_of(source))?;
        set.iter().flatten().find(|suspect| suspect.source == source).map(Box::as_ref)
    }
}

/// The entry of `source` in its set; a new one in place of the one heard longest ago if it has none.
fn place(set: &mut [Option<Box<Suspect>>; WAYS], source: Source) -> &mut Suspect {
    let is_its = |way: &Option<Box<Suspect>>| way.as_ref().is_some_and(|suspect| suspect.source == source);
    let known = set.iter().position(is_its);
    let [first, others @ ..] = set;
    let way = match known {
        Some(0) => first,
        Some(at) => others.get_mut(at - 1).unwrap_or(first),
        // An empty one is as if it had been heard before all others.
        None => {
            others.iter_mut().fold(first, |oldest, way| if heard(way) < heard(oldest) { way } else { oldest })
        }
    };
    if known.is_none() {
        *way = None;
    }
    way.get_or_insert_with(|| Box::new(Suspect::new(source)))
}

fn heard(way: &Option<Box<Suspect>>) -> Option<Timestamp> {
    way.as_ref().map(|suspect| suspect.heard)
}

fn set_of(source: Source) -> usize {
    let hash = match source {
        Source::Ip(IpAddr::V4(address)) => digest(&address.octets()),
        Source::Ip(IpAddr::V6(address)) => digest(&address.octets()),
        Source::Mac(mac) => digest(&mac.0),
    };
    // The last octets alone hardly reach the upper bits of FNV, and only these mix all of the first ones.
    usize::try_from((hash ^ hash >> 32) % (SETS as u64)).unwrap_or_default()
}

fn source_of(frame: &Frame<'_>) -> Source {
    let address = source(frame).filter(|address| !address.is_unspecified());
    address.map_or(Source::Mac(frame.src()), Source::Ip)
}

impl Try {
    fn of(frame: &Frame<'_>) -> Self {
        match frame.network() {
            Network::Arp(arp) => {
                let asks = arp.operation == ArpOperation::Request && !arp.is_announcement();
                Self::machine(Some(arp.target.into()).filter(|_| asks))
            }
            Network::Ipv4(ip) if !frame.is_group() => Self::of_packet(&ip),
            Network::Ipv6(ip) => match Neighbor::parse(&ip) {
                // A host that checks its own address (source `::`) asks for nobody.
                Some(Neighbor::Solicitation { target, .. }) if !ip.src.is_unspecified() => {
                    Self::machine(Some(target.into()))
                }
                None if !frame.is_group() => Self::of_packet(&ip),
                _ => Self::default(),
            },
            Network::Ipv4(_) | Network::Other(_) => Self::default(),
        }
    }

    const fn machine(machine: Option<IpAddr>) -> Self {
        Self { port: None, machine, same: None }
    }

    fn of_packet<A: Copy + Into<IpAddr>>(ip: &IpPacket<'_, A>) -> Self {
        if ip.fragment == Fragment::Later || is_end(ip.protocol, ip.payload) {
            return Self::default();
        }
        let (ports, machine) = (ip.ports(), ip.dst.into());
        Self {
            port: Some((ip.protocol, ports.map_or(0, |(_, port)| port))),
            machine: Some(machine),
            same: ports.map(|ports| same(machine, ip.protocol, ports, ip.payload)),
        }
    }
}

/// Does a packet with this payload end a connection, and nothing else? A FIN without ACK ends none.
fn is_end(protocol: u8, payload: &[u8]) -> bool {
    const FIN: u16 = 0x01;
    const RST: u16 = 0x04;
    const ACK: u16 = 0x10;

    let flags = u16_at(payload, 12).filter(|_| protocol == protocol::TCP).unwrap_or_default();
    flags & RST != 0 || flags & (FIN | ACK) == FIN | ACK
}

/// What is the same in all that is sent again of one try, and differs in others.
fn same(machine: IpAddr, protocol: u8, (from, to): (u16, u16), payload: &[u8]) -> u32 {
    let mut key = [0; 25];
    let sequence = payload.get(4..8).filter(|_| protocol == protocol::TCP).unwrap_or_default();
    let machine = match machine {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let [from, to] = [from.to_be_bytes(), to.to_be_bytes()];
    let parts = machine.octets().into_iter().chain([protocol]).chain(from).chain(to);
    key.iter_mut().zip(parts.chain(sequence.iter().copied())).for_each(|(octet, part)| *octet = part);
    let hash = digest(&key);
    u32::try_from((hash ^ hash >> 32) & 0xffff_ffff).unwrap_or_default()
}

impl Suspect {
    fn new(source: Source) -> Self {
        let (heard, until) = (Timestamp(0), Timestamp(0));
        let (ports, machines) = (Tried(Vec::new()), Tried(Vec::new()));
        Self { source, heard, until, ports, machines, waiting: Waiting(Vec::new()) }
    }

    fn note(&mut self, attempt: Try, limits: &ScanLimits, now: Timestamp) -> bool {
        self.heard = now;
        if let Some(again) = attempt.same.and_then(|same| self.waiting.again(same, now)) {
            return !again && self.is_scanner(limits, now);
        }
        let ports =
            attempt.port.is_some_and(|port| self.ports.exceeds(port, limits.ports, limits.within, now));
        let machine = attempt.machine;
        let machines = machine
            .is_some_and(|machine| self.machines.exceeds(machine, limits.machines, limits.within, now));
        if ports || machines {
            self.until = now + limits.within;
        }
        let is_scanner = self.is_scanner(limits, now);
        if let Some(same) = attempt.same.filter(|_| is_scanner) {
            self.waiting.remember(same, now);
        }
        is_scanner
    }

    /// One that is a scanner for longer than can be was noted before the clock was set back.
    fn is_scanner(&self, limits: &ScanLimits, now: Timestamp) -> bool {
        now < self.until && self.until.since(now) <= limits.within
    }
}

impl Waiting {
    /// Was this tried before, and long enough before? `None`: it is new.
    fn again(&mut self, same: u32, now: Timestamp) -> Option<bool> {
        let known = self.0.iter_mut().find(|attempt| attempt.same == same)?;
        // If the clock was set back it is new as well.
        let age = known.age(now);
        if age > FORGOTTEN_MILLIS {
            return None;
        }
        known.again |= age >= PATIENCE_MILLIS;
        Some(known.again)
    }

    /// Remembers what was tried, if there is room: those that wait keep theirs for a while, or none would
    /// of more than there is room for.
    fn remember(&mut self, same: u32, now: Timestamp) {
        let attempt = Attempt { same, first: millis(now), again: false };
        if let Some(known) = self.0.iter_mut().find(|known| known.same == same) {
            *known = attempt;
        } else if self.0.len() < MAX_WAITING {
            self.0.push(attempt);
        } else if let Some(old) = self.0.iter_mut().find(|old| old.again || old.age(now) > YOUNG_MILLIS) {
            *old = attempt;
        }
    }
}

impl Attempt {
    /// In milliseconds.
    fn age(&self, now: Timestamp) -> u32 {
        millis(now).wrapping_sub(self.first)
    }
}

/// Milliseconds of the clock, modulo 2^32.
fn millis(now: Timestamp) -> u32 {
    u32::try_from(now.0 / 1_000_000 % (1 << 32)).unwrap_or_default()
}

impl<T: PartialEq> Tried<T> {
    /// Takes note of `what`; is it new, and the last one that `limit` allows within `within`, or more?
    fn exceeds(&mut self, what: T, limit: u32, within: Duration, now: Timestamp) -> bool {
        let Ok(limit) = usize::try_from(limit.min(ScanLimits::MOST)) else { return false };
        if limit == 0 {
            return false;
        }
        let is_fresh = |at: Timestamp| at <= now && now.since(at) < within;
        if let Some((_, at)) = self.0.iter_mut().find(|(known, _)| *known == what) {
            let was_fresh = is_fresh(core::mem::replace(at, now));
            return !was_fresh && self.count(is_fresh) >= limit;
        }
        if self.0.len() < limit {
            self.0.push((what, now));
        } else if let Some(oldest) = self.0.iter_mut().min_by_key(|(_, at)| *at) {
            *oldest = (what, now);
        }
        self.count(is_fresh) >= limit
    }

    fn count(&self, is_fresh: impl Fn(Timestamp) -> bool) -> usize {
        self.0.iter().filter(|(_, at)| is_fresh(*at)).count()
    }
}
