//! Which frames are meant: the common part of wake rules, ignore lists and responders.

use alloc::vec::Vec;

use ipnet::IpNet;

use crate::Ports;

/// Frames that a rule names, by what they carry and by who sent them.
///
/// Written as `WHAT`, or `WHAT from NET[,NET...]`: `tcp:22,80 from 10.0.0.0/8,fd00::/8`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matcher {
    /// What the frame carries.
    pub what: What,
    /// The networks of the source addresses; empty means any. A frame without an IP source (ARP
    /// has one, LLDP has not) matches only where this is empty.
    pub from: Vec<IpNet>,
}

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// `any-unicast`: sent to the machine's own Ethernet address, link upkeep (ARP, NDP, LLDP, ...)
    /// and the closing of a TCP connection (FIN, RST) left out.
    AnyUnicast,
    /// `magic`: a wake-on-LAN magic packet that names the machine.
    Magic,
    /// `established`: data on a TCP connection that the machine had when it fell asleep.
    Established,
    /// `icmp`: ICMP or ICMPv6 to the machine, neighbour discovery left out.
    Icmp,
    /// `tcp:PORTS` or `tcp`: a TCP segment to one of these ports, but for bare FIN and RST.
    Tcp(Ports),
    /// `udp:PORTS` or `udp`.
    Udp(Ports),
    /// `sctp:PORTS` or `sctp`.
    Sctp(Ports),
    /// `ip:NUMBER`: any other protocol over IPv4 or IPv6, by its number (IANA), as `ip:47`.
    Ip(u8),
    /// `ethertype:0xNNNN`: a frame of this EtherType, to the machine or to a group.
    EtherType(u16),
    /// `any`: every frame, to the machine or to a group. Not allowed in `wake.on`.
    Any,
}
