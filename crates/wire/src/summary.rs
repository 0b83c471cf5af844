//! A frame in one line, for people.

use alloc::{format, string::String};
use core::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use smoltcp::wire::{DhcpPacket, TcpPacket};

use crate::{
    dns,
    frame::{Frame, u16_at},
    membership::{Membership, Version},
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
    let membership = Membership::parse(&frame);
    let _ = match (frame.network(), membership) {
        (Network::Ipv4(ip), Some(message)) => {
            write_membership(&mut line, (ip.src.into(), ip.dst.into()), message)
        }
        (Network::Ipv6(ip), Some(message)) => {
            write_membership(&mut line, (ip.src.into(), ip.dst.into()), message)
        }
        (Network::Arp(arp), _) => write_arp(&mut line, &arp),
        (Network::Ipv4(ip), None) => write_ipv4(&mut line, &ip),
        (Network::Ipv6(ip), None) => write_ipv6(&mut line, &ip),
        (Network::Other(number), _) => {
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

/// `igmp v3 query for 239.1.2.3, 10.9.0.1 > 224.0.0.1`, `mld report of ff02::fb, fe80::1 > ff02::fb`
fn write_membership(
    line: &mut String,
    (src, dst): (IpAddr, IpAddr),
    message: Membership<'_>,
) -> core::fmt::Result {
    let name = if src.is_ipv4() { "igmp" } else { "mld" };
    match message {
        Membership::Query(query) => {
            let version = match query.version {
                Version::Igmp1 | Version::Mld1 => 1,
                Version::Igmp2 | Version::Mld2 => 2,
                Version::Igmp3 => 3,
            };
            write!(line, "{name} v{version} query")?;
            query.group.map_or(Ok(()), |group| write!(line, " for {group}"))?;
        }
        Membership::Report(group) => write!(line, "{name} report of {group}")?,
        Membership::Leave(group) => write!(line, "{name} leave of {group}")?,
        Membership::Records(records) => write!(line, "{name} report of {} groups", records.count())?,
    }
    write!(line, ", {src} > {dst}")
}

/// `dhcp request 10.9.0.2 > 10.9.0.1`
fn write_dhcp(line: &mut String, ip: &IpPacket<'_, Ipv4Addr>) -> Option<core::fmt::Result> {
    let whole = ip.protocol == protocol::UDP && ip.fragment == Fragment::Whole;
    let ours = whole && matches!(ip.ports(), Some((67 | 68, 67 | 68)));
    let packet = DhcpPacket::new_checked(ip.payload.get(8..).filter(|_| ours)?).ok()?;
    let kind = packet.options().find(|option| option.kind == 53)?;
    let word = match *kind.data.first()? {
        1 => "discover",
        2 => "offer",
        3 => "request",
        4 => "decline",
        5 => "ack",
        6 => "nak",
        7 => "release",
        8 => "inform",
        _ => return None,
    };
    Some(write!(line, "dhcp {word} {} > {}", ip.src, ip.dst))
}

fn write_ipv4(line: &mut String, ip: &IpPacket<'_, Ipv4Addr>) -> core::fmt::Result {
    if let Some(written) = write_dhcp(line, ip) {
        return written;
    }
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
        (protocol::UDP, _) if write_name(line, ip) => Ok(()),
        (protocol::UDP, _) => write!(line, ", {} octets", ip.payload.len().saturating_sub(8)),
        (protocol::ICMP | protocol::ICMPV6, _) => match ip.payload.first() {
            Some(kind) => write!(line, " type {kind}"),
            None => Ok(()),
        },
        _ => write!(line, ", {} octets", ip.payload.len()),
    }
}

/// `, mdns query web.local`: what a message for names is about; was it one?
fn write_name<A>(line: &mut String, ip: &IpPacket<'_, A>) -> bool {
    let protocol = match ip.ports() {
        Some((_, 5353)) => "mdns",
        Some((5355, _) | (_, 5355)) => "llmnr",
        _ => return false,
    };
    let Some(message) = ip.payload.get(8..).and_then(dns::Message::parse) else { return false };
    let response = message.flags & dns::flag::RESPONSE != 0;
    let asked = message.questions.first().map(|question| &question.name);
    let said = message.answers.first().map(|record| &record.name);
    let name = if response { said.or(asked) } else { asked };
    let _ = write!(line, ", {protocol} {}", if response { "response" } else { "query" });
    if let Some(name) = name {
        line.push(' ');
        write_labels(line, name);
    }
    true
}

/// A name with dots; what is not printable in ASCII as question marks.
fn write_labels(line: &mut String, mut name: &[u8]) {
    while let [len @ 1..=63, rest @ ..] = name {
        let Some((label, rest)) = rest.split_at_checked(usize::from(*len)) else { return };
        line.extend(
            label.iter().map(|octet| if octet.is_ascii_graphic() { char::from(*octet) } else { '?' }),
        );
        if rest.first().is_some_and(|len| *len != 0) {
            line.push('.');
        }
        name = rest;
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
