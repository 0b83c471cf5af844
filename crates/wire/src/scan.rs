//! Telling scanners from clients: one source that tries many ports or many machines.
//!
//! A *try* is what begins something with one machine: a TCP segment without ACK and RST (SYN, and the odd
//! ones of port scanners), a UDP datagram, an SCTP packet with an INIT (RFC 9260 §8.5.1: its tag is zero), a
//! ping; and what ARP and neighbour discovery ask for. A try counts its port and its machine. What belongs
//! to something that began earlier, as the segments of a server that was connected to, is none; nor is what
//! is sent to a group, for a desktop announces itself at a dozen ports.

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

impl Default for ScanLimits {
    fn default() -> Self {
        Self { ports: 10, machines: 32, within: Duration::from_secs(10), trusted: Vec::new() }
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

    /// Takes note of a frame; is its source a scanner, this frame counted?
    ///
    /// A source is an IP address, or the Ethernet address of a frame without one. It becomes a scanner with
    /// the try that reaches a limit, and is none any more when it has tried nothing new for
    /// [`ScanLimits::within`]: the same thing tried again is nothing new.
    pub fn note(&mut self, frame: &Frame<'_>, now: Timestamp) -> bool {
        let source = source_of(frame);
        let attempt = Try::of(frame);
        if attempt == Try::default() {
            return self.suspect(source).is_some_and(|suspect| suspect.is_scanner(&self.limits, now));
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
        Self { port: None, machine }
    }

    fn of_packet<A: Copy + Into<IpAddr>>(ip: &IpPacket<'_, A>) -> Self {
        let machine = Some(ip.dst.into());
        let begins = ip.fragment != Fragment::Later && begins(ip.protocol, ip.payload);
        match ip.ports() {
            _ if !begins => Self::default(),
            Some((_, port)) => Self { port: Some((ip.protocol, port)), machine },
            None => Self::machine(machine),
        }
    }
}

/// Does a packet with this payload begin something?
fn begins(protocol: u8, payload: &[u8]) -> bool {
    const RST: u16 = 0x04;
    const ACK: u16 = 0x10;

    match protocol {
        protocol::TCP => u16_at(payload, 12).is_some_and(|flags| flags & (ACK | RST) == 0),
        protocol::UDP => true,
        protocol::SCTP => payload.get(4..8) == Some(&[0; 4]),
        protocol::ICMP => payload.first() == Some(&8),
        protocol::ICMPV6 => payload.first() == Some(&128),
        _ => false,
    }
}

impl Suspect {
    const fn new(source: Source) -> Self {
        let (heard, until) = (Timestamp(0), Timestamp(0));
        Self { source, heard, until, ports: Tried(Vec::new()), machines: Tried(Vec::new()) }
    }

    fn note(&mut self, attempt: Try, limits: &ScanLimits, now: Timestamp) -> bool {
        self.heard = now;
        let ports =
            attempt.port.is_some_and(|port| self.ports.exceeds(port, limits.ports, limits.within, now));
        let machine = attempt.machine;
        let machines = machine
            .is_some_and(|machine| self.machines.exceeds(machine, limits.machines, limits.within, now));
        if ports || machines {
            self.until = now + limits.within;
        }
        self.is_scanner(limits, now)
    }

    /// One that is a scanner for longer than can be was noted before the clock was set back.
    fn is_scanner(&self, limits: &ScanLimits, now: Timestamp) -> bool {
        now < self.until && self.until.since(now) <= limits.within
    }
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
