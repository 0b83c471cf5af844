//! A frame in one line, for people.

use alloc::{format, string::String};
use core::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use smoltcp::wire::TcpPacket;

use crate::{
    frame::{Frame, u16_at},
    ndisc::Neighbor,
    network::{Arp, ArpOperation, Fragment, IpPacket, Network, protocol},
};

/// `bytes` in one line, much as tcpdump would say it. Any bytes will do.
///
/// ```
/// use dormouse_wire::{junk_frame, summary};
/// let mac = "52:54:00:00:00:02".parse()?;
/// assert_eq!(summary(&junk_frame(mac)), "0x88b5 02:6d:6f:75:73:65 > 52:54:00:00:00:02, 60 octets");
/// # Ok::<_, dormouse_types::MacError>(())
/// ```
#[must_use]
pub fn summary(bytes: &[u8]) -> String {
    let Some(frame) = Frame::new(bytes) else {
        return format!("no Ethernet frame, {} octets", bytes.len());
    };
    let mut line = frame.vlan().map_or_else(String::new, |vlan| format!("vlan {vlan} "));
    // Writing into a String cannot fail.
    let _ = match frame.network() {
        Network::Arp(arp) => write_arp(&mut line, &arp),
        Network::Ipv4(ip) => write_ipv4(&mut line, &ip),
        Network::Ipv6(ip) => write_ipv6(&mut line, &ip),
        Network::Other(number) => {
            write!(line, "{number:#06x} {} > {}, {} octets", frame.src(), frame.dst(), bytes.len())
        }
    };
    line
}

fn write_arp(line: &mut String, arp: &Arp) -> core::fmt::Result {
    match arp.operation {
        ArpOperation::Request => write!(line, "arp who-has {} tell {}", arp.target, arp.sender),
        ArpOperation::Reply => write!(line, "arp {} is-at {}", arp.sender, arp.sender_mac),
        ArpOperation::Other(number) => {
            write!(line, "arp operation {number}, {} > {}", arp.sender, arp.target)
        }
    }
}

fn write_ipv4(line: &mut String, ip: &IpPacket<'_, Ipv4Addr>) -> core::fmt::Result {
    let echo = match (ip.protocol, ip.fragment, ip.payload.first()) {
        (protocol::ICMP, Fragment::Whole | Fragment::First, Some(8)) => Some("request"),
        (protocol::ICMP, Fragment::Whole | Fragment::First, Some(0)) => Some("reply"),
        _ => None,
    };
    match echo {
        Some(kind) => write_echo(line, "icmp", kind, ip),
        None => write_transport(line, ip),
    }
}

fn write_ipv6(line: &mut String, ip: &IpPacket<'_, Ipv6Addr>) -> core::fmt::Result {
    match (Neighbor::parse(ip), ip.icmpv6_type()) {
        (Some(Neighbor::Solicitation { target, .. }), _) => {
            write!(line, "icmp6 who-has {target} tell {}", ip.src)
        }
        (Some(Neighbor::Advertisement { target, .. }), _) => {
            write!(line, "icmp6 {target} is advertised, {} > {}", ip.src, ip.dst)
        }
        (None, Some(128)) => write_echo(line, "icmp6", "request", ip),
        (None, Some(129)) => write_echo(line, "icmp6", "reply", ip),
        (None, _) => write_transport(line, ip),
    }
}

/// `icmp echo request 10.9.0.1 > 10.9.0.2 id 7 seq 1`
fn write_echo<A: Copy + Into<IpAddr>>(
    line: &mut String,
    name: &str,
    kind: &str,
    ip: &IpPacket<'_, A>,
) -> core::fmt::Result {
    write!(line, "{name} echo {kind} {} > {}", ip.src.into(), ip.dst.into())?;
    match (u16_at(ip.payload, 4), u16_at(ip.payload, 6)) {
        (Some(ident), Some(seq)) => write!(line, " id {ident} seq {seq}"),
        _ => Ok(()),
    }
}

/// `tcp 10.9.0.1:5555 > 10.9.0.2:22 [S]`, or the protocol and addresses when there are no ports.
fn write_transport<A: Copy + Into<IpAddr>>(line: &mut String, ip: &IpPacket<'_, A>) -> core::fmt::Result {
    match ip.protocol {
        protocol::ICMP => line.push_str("icmp"),
        protocol::ICMPV6 => line.push_str("icmp6"),
        protocol::TCP => line.push_str("tcp"),
        protocol::UDP => line.push_str("udp"),
        protocol::SCTP => line.push_str("sctp"),
        number => write!(line, "ip protocol {number}")?,
    }
    let (src, dst) = (ip.src.into(), ip.dst.into());
    match ip.ports() {
        Some((from, to)) => write!(line, " {} > {}", SocketAddr::new(src, from), SocketAddr::new(dst, to))?,
        None => write!(line, " {src} > {dst}")?,
    }
    match (ip.protocol, ip.fragment) {
        (_, Fragment::Later) => write!(line, ", later fragment, {} octets", ip.payload.len()),
        (protocol::TCP, _) => write_flags(line, ip.payload),
        (protocol::UDP, _) => write!(line, ", {} octets", ip.payload.len().saturating_sub(8)),
        (protocol::ICMP | protocol::ICMPV6, _) => match ip.payload.first() {
            Some(kind) => write!(line, " type {kind}"),
            None => Ok(()),
        },
        _ => write!(line, ", {} octets", ip.payload.len()),
    }
}

/// The flags of a TCP header, as tcpdump writes them: `[S.]` is SYN and ACK.
fn write_flags(line: &mut String, segment: &[u8]) -> core::fmt::Result {
    let Ok(tcp) = TcpPacket::new_checked(segment) else { return Ok(()) };
    let flags = [
        (tcp.fin(), 'F'),
        (tcp.syn(), 'S'),
        (tcp.rst(), 'R'),
        (tcp.psh(), 'P'),
        (tcp.ack(), '.'),
        (tcp.urg(), 'U'),
        (tcp.ece(), 'E'),
        (tcp.cwr(), 'W'),
    ];
    let set: String = flags.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter).collect();
    write!(line, " [{}]", if set.is_empty() { "none" } else { &set })?;
    match tcp.payload().len() {
        0 => Ok(()),
        len => write!(line, ", {len} octets"),
    }
}
