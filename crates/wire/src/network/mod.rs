//! The layer above Ethernet, parsed as far as deciding about a frame needs it.

mod arp;
mod ipv4;
mod ipv6;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use arp::{Arp, ArpOperation};

use crate::frame::{ethertype, u16_at};

/// Numbers of the IPv4 protocol and IPv6 next-header fields that are told apart here (IANA).
pub mod protocol {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IGMP (RFC 3376).
    pub const IGMP: u8 = 2;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
}

/// What an Ethernet frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network<'a> {
    /// Address resolution for IPv4 over Ethernet.
    Arp(Arp),
    /// An IPv4 packet.
    Ipv4(IpPacket<'a, Ipv4Addr>),
    /// An IPv6 packet.
    Ipv6(IpPacket<'a, Ipv6Addr>),
    /// Anything else, by its EtherType; ARP and IP that make no sense, too.
    Other(u16),
}

impl<'a> Network<'a> {
    pub(crate) fn parse(ethertype: u16, payload: &'a [u8]) -> Self {
        let parsed = match ethertype {
            ethertype::ARP => Arp::parse(payload).map(Self::Arp),
            ethertype::IPV4 => ipv4::parse(payload).map(Self::Ipv4),
            ethertype::IPV6 => ipv6::parse(payload).map(Self::Ipv6),
            _ => None,
        };
        parsed.unwrap_or(Self::Other(ethertype))
    }
}

/// An IPv4 or IPv6 packet: its fields, and its payload behind options and extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket<'a, A> {
    /// The source address.
    pub src: A,
    /// The destination address.
    pub dst: A,
    /// The traffic class: DSCP in the upper six bits, ECN in the lower two.
    pub traffic_class: u8,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// What the payload is: the protocol, or the next header after the last extension header.
    pub protocol: u8,
    /// Which part of a datagram this is.
    pub fragment: Fragment,
    /// There are no IPv4 options and no IPv6 extension headers.
    pub plain: bool,
    /// The packet is as long as its header says: neither cut short nor longer than the header can say.
    pub complete: bool,
    /// What follows the headers, without the padding of the frame.
    pub payload: &'a [u8],
    /// Octets of the payload by the packet's header, of which a frame cut short has less; what is
    /// there, where the header leaves it open.
    pub payload_len: usize,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first part: the header of the transport layer is in it.
    First,
    /// A later part, which says nothing of ports.
    Later,
}

impl Fragment {
    const fn new(offset: u16, more: bool) -> Self {
        match (offset, more) {
            (0, false) => Self::Whole,
            (0, true) => Self::First,
            _ => Self::Later,
        }
    }
}

impl<A> IpPacket<'_, A> {
    /// The source and destination ports of TCP, UDP or SCTP; `None` in later fragments.
    #[must_use]
    pub fn ports(&self) -> Option<(u16, u16)> {
        let with_ports = matches!(self.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        if !with_ports || self.fragment == Fragment::Later {
            return None;
        }
        Some((u16_at(self.payload, 0)?, u16_at(self.payload, 2)?))
    }

    /// The type of an ICMPv6 message; `None` in later fragments and for all else.
    #[must_use]
    pub fn icmpv6_type(&self) -> Option<u8> {
        let icmp = self.protocol == protocol::ICMPV6 && self.fragment != Fragment::Later;
        self.payload.first().copied().filter(|_| icmp)
    }
}

/// Can `address` be that of one host on a network (RFC 6890: neither a group nor special)?
pub(crate) fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let reserved = v4.octets()[0] == 0 || v4.octets()[0] >= 240;
            !(reserved || v4.is_multicast() || v4.is_loopback())
        }
        IpAddr::V6(v6) => {
            let special = v6.is_unspecified() || v6.is_loopback() || v6.to_ipv4_mapped().is_some();
            !(special || v6.is_multicast())
        }
    }
}
