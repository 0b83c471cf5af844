//! Which frames a matcher names.

use core::net::{IpAddr, SocketAddr};

use dormouse_types::{Matcher, Ports, What};
use smoltcp::wire::TcpPacket;

use crate::{
    frame::{Frame, ethertype},
    magic::is_magic,
    ndisc,
    network::{Fragment, IpPacket, Network, protocol},
    persona::Persona,
    respond::Identity,
};

/// Does `matcher` name `frame`, which came for `who` or for a group?
///
/// Words for IP protocols take frames to groups too, which in a wake rule they do not:
/// [`Rules`](crate::Rules) looks to that.
#[must_use]
pub fn fits(matcher: &Matcher, frame: &Frame<'_>, who: &Identity, persona: &Persona) -> bool {
    Subject::new(frame, who, persona).fits(matcher)
}

/// A frame that is held against many matchers: read once.
pub(crate) struct Subject<'a> {
    frame: &'a Frame<'a>,
    who: &'a Identity,
    persona: &'a Persona,
    source: Option<IpAddr>,
    carried: Option<Carried<'a>>,
}

/// What an IP packet carries.
struct Carried<'a> {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    /// `None` in later fragments, and without ports.
    ports: Option<(u16, u16)>,
    icmpv6_type: Option<u8>,
    /// `None` for all but TCP, and in later fragments.
    segment: Option<TcpPacket<&'a [u8]>>,
}

impl<'a> Subject<'a> {
    pub(crate) fn new(frame: &'a Frame<'a>, who: &'a Identity, persona: &'a Persona) -> Self {
        let carried = match frame.network() {
            Network::Ipv4(ip) => Some(Carried::new(&ip)),
            Network::Ipv6(ip) => Some(Carried::new(&ip)),
            Network::Arp(_) | Network::Other(_) => None,
        };
        let source = source(frame);
        Self { frame, who, persona, source, carried }
    }

    /// As [`fits`].
    pub(crate) fn fits(&self, matcher: &Matcher) -> bool {
        let reaches = self.is_own() || self.frame.is_group();
        reaches && self.carries(&matcher.what) && matcher.is_from(self.source)
    }

    /// As [`fits`], for a rule that wakes: a group is enough only for magic packets and EtherTypes, and the
    /// mere closing of a connection never is.
    pub(crate) fn wakes(&self, matcher: &Matcher) -> bool {
        let by_group = matches!(matcher.what, What::Magic | What::EtherType(_));
        (by_group || self.is_own() && !self.is_closing()) && self.fits(matcher)
    }

    /// Is it addressed to the machine alone?
    fn is_own(&self) -> bool {
        self.frame.dst() == self.who.mac
    }

    fn carries(&self, what: &What) -> bool {
        match what {
            What::Any => true,
            What::AnyUnicast => self.is_own() && !self.is_link_upkeep() && !self.is_closing(),
            What::Magic => is_magic(self.frame, self.who.mac),
            What::EtherType(number) => self.frame.ethertype() == *number,
            What::Established => self.is_established(),
            What::Icmp => self.is_icmp(),
            What::Tcp(ports) => self.is_to(protocol::TCP, ports),
            What::Udp(ports) => self.is_to(protocol::UDP, ports),
            What::Sctp(ports) => self.is_to(protocol::SCTP, ports),
            What::Ip(number) => self.carried.as_ref().is_some_and(|ip| ip.protocol == *number),
        }
    }

    fn is_to(&self, protocol: u8, ports: &Ports) -> bool {
        let Some(ip) = self.carried.as_ref().filter(|ip| ip.protocol == protocol) else { return false };
        ports.is_all() || ip.ports.is_some_and(|(_, destination)| ports.has(destination))
    }

    fn is_icmp(&self) -> bool {
        let Some(ip) = &self.carried else { return false };
        let upkeep = ip.icmpv6_type.is_some_and(|kind| ndisc::MESSAGE_TYPES.contains(&kind));
        matches!(ip.protocol, protocol::ICMP | protocol::ICMPV6) && !upkeep
    }

    /// A TCP segment without data that ends a connection: the guest needs it some time, not now.
    fn is_closing(&self) -> bool {
        let segment = self.carried.as_ref().and_then(|ip| ip.segment.as_ref());
        segment.is_some_and(|tcp| (tcp.fin() || tcp.rst()) && !tcp.syn() && tcp.payload().is_empty())
    }

    /// Something that the machine is to do on a TCP connection of its own: data for it, or an acknowledgment
    /// that no responder took, by which the other side lacks data or has room for more.
    fn is_established(&self) -> bool {
        let Some(ip) = &self.carried else { return false };
        let (Some(tcp), Some((from, to))) = (&ip.segment, ip.ports) else { return false };
        let (remote, local) = (SocketAddr::new(ip.src, from), SocketAddr::new(ip.dst, to));
        let asks = !(tcp.syn() || tcp.rst() || self.is_closing());
        asks && self.persona.flows.iter().any(|flow| flow.remote == remote && flow.local == local)
    }

    /// Is this what keeps a link going and asks nothing of the machine behind it?
    fn is_link_upkeep(&self) -> bool {
        match self.frame.network() {
            Network::Arp(_) => true,
            Network::Ipv4(_) => false,
            Network::Ipv6(ip) => ip.icmpv6_type().is_some_and(|kind| ndisc::MESSAGE_TYPES.contains(&kind)),
            Network::Other(ethertype) => is_link_local_protocol(ethertype),
        }
    }
}

impl<'a> Carried<'a> {
    fn new<A: Copy + Into<IpAddr>>(ip: &IpPacket<'a, A>) -> Self {
        let is_segment = ip.protocol == protocol::TCP && ip.fragment != Fragment::Later;
        let segment = is_segment.then(|| TcpPacket::new_checked(ip.payload).ok()).flatten();
        Self {
            src: ip.src.into(),
            dst: ip.dst.into(),
            protocol: ip.protocol,
            ports: ip.ports(),
            icmpv6_type: ip.icmpv6_type(),
            segment,
        }
    }
}

/// The IP address that sent a frame: the source of a packet, the sender of ARP.
pub(crate) fn source(frame: &Frame<'_>) -> Option<IpAddr> {
    match frame.network() {
        Network::Arp(arp) => Some(arp.sender.into()),
        Network::Ipv4(ip) => Some(ip.src.into()),
        Network::Ipv6(ip) => Some(ip.src.into()),
        Network::Other(_) => None,
    }
}

/// The destination port of a frame of `protocol`, over IPv4 or IPv6.
pub(crate) fn destination_port(frame: &Frame<'_>, protocol: u8) -> Option<u16> {
    let (carried, ports) = match frame.network() {
        Network::Ipv4(ip) => (ip.protocol, ip.ports()),
        Network::Ipv6(ip) => (ip.protocol, ip.ports()),
        Network::Arp(_) | Network::Other(_) => return None,
    };
    ports.filter(|_| carried == protocol).map(|(_, destination)| destination)
}

/// Protocols between the two ends of a link (IEEE 802 Numbers, IANA), and the numbers that are
/// free for experiments on a link.
const fn is_link_local_protocol(ethertype: u16) -> bool {
    matches!(
        ethertype,
        ethertype::ARP
            | ethertype::EXPERIMENTAL_1
            | 0x88b6 // local experimental 2
            | 0x8808 // MAC control: pause
            | 0x8809 // slow protocols: LACP, OAM
            | 0x888e // port authentication, 802.1X
            | 0x88cc // LLDP
            | 0x88e5 // MACsec
            | 0x88f5 // MVRP
            | 0x88f6 // MMRP
            | 0x88f7 // precision time, IEEE 1588
            | 0x8902 // connectivity fault management
            | 0x9000 // configuration test, "loopback"
    )
}
