//! Frames put together from a description, to ask what would become of them.

use alloc::{
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dormouse_types::MacAddr;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet,
        Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpPacket, TcpSeqNumber,
        UdpPacket,
    },
};

use crate::{
    frame::{Frame, ethertype},
    network::protocol,
    respond::Identity,
};

/// Why a description is no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SynthError {
    /// It does not begin as one of the kinds.
    #[error(
        "{0:?} is no kind of frame: write tcp, udp, sctp, icmp, arp, magic or hex, \
         as \"tcp 10.0.0.9:5555 > :22\", \"icmp 10.0.0.9\", \"arp who-has 10.0.0.2 tell 10.0.0.9\""
    )]
    Kind(String),
    /// A part is missing or is not what belongs there.
    #[error("{found:?} stands where {wanted} belongs, as in {example:?}")]
    Part {
        /// What was found; empty if nothing was.
        found: String,
        /// What belongs there.
        wanted: &'static str,
        /// A whole description.
        example: &'static str,
    },
    /// The two addresses are of different families.
    #[error("{0} and {1} are of different families: write two IPv4 or two IPv6 addresses")]
    Families(IpAddr, IpAddr),
    /// The machine has no known address of the source's family.
    #[error(
        "no {0} address of the machine is known: write one after >, as \"> 10.0.0.2:22\" or \"> [fd77::2]:22\""
    )]
    Unaddressed(&'static str),
    /// No or too few octets, or not hexadecimal.
    #[error("hex takes an Ethernet frame of 14 to {most} octets, two digits each, as \"hex 5254...\"", most = MAX_HEX)]
    Hex,
}

/// The longest frame that is taken as it is, octets: a jumbo frame's worth.
const MAX_HEX: usize = 9216;
/// Who sends, on the wire: a locally administered address.
const SENDER: MacAddr = MacAddr([0x02, 0x64, 0x6d, 0x74, 0x73, 0x74]);
/// Where a client's port is not given.
const CLIENT_PORT: u16 = 40_000;
const TCP_EXAMPLE: &str = "tcp 10.0.0.9:5555 > :22 flags SYN";
const ICMP_EXAMPLE: &str = "icmp 10.0.0.9 > 10.0.0.2";
const ARP_EXAMPLE: &str = "arp who-has 10.0.0.2 tell 10.0.0.9";
const VLAN_EXAMPLE: &str = "vlan 5 tcp 10.0.0.9 > :22";

/// Puts an Ethernet frame to the machine `who` together:
///
/// ```text
/// tcp|udp|sctp SRC[:PORT] > [DST]:PORT [flags SYN|FIN|RST|ACK|data,...]    the machine's own address if
/// icmp SRC [> DST]                              an echo request            DST is not written
/// arp who-has ADDR tell ADDR
/// magic                                         EtherType 0x0842, broadcast
/// hex 5254...                                   a whole frame
/// ```
///
/// IPv6 addresses with a port stand in brackets; `vlan N` may come first. TCP is a SYN unless its flags are
/// written; `data` is a few octets. Flags may also be written as [`summary`](crate::summary) does: `[P.]`.
///
/// # Errors
/// [`SynthError`]: what is wrong, with an example.
pub fn frame_from_text(text: &str, who: &Identity) -> Result<Vec<u8>, SynthError> {
    let mut words = text.split_whitespace();
    let mut kind = words.next().unwrap_or_default();
    let mut tags = Vec::new();
    if kind == "vlan" {
        let number = words.next().unwrap_or_default();
        let vlan = number.parse::<u16>().ok().filter(|vlan| (1..=4094).contains(vlan));
        let vlan = vlan.ok_or_else(|| part(number, "a VLAN from 1 to 4094", VLAN_EXAMPLE))?;
        tags.extend(ethertype::VLAN.to_be_bytes());
        tags.extend(vlan.to_be_bytes());
        kind = words.next().unwrap_or_default();
    }
    let rest: Vec<&str> = words.collect();
    let frame = |dst, ethertype, payload: &[u8]| ethernet(dst, &tags, ethertype, payload);
    match kind {
        "tcp" => transport(protocol::TCP, &rest, who).map(|(kind, packet)| frame(who.mac, kind, &packet)),
        "udp" => transport(protocol::UDP, &rest, who).map(|(kind, packet)| frame(who.mac, kind, &packet)),
        "sctp" => transport(protocol::SCTP, &rest, who).map(|(kind, packet)| frame(who.mac, kind, &packet)),
        "icmp" => ping(&rest, who).map(|(kind, packet)| frame(who.mac, kind, &packet)),
        "arp" => arp(&rest).map(|packet| frame(MacAddr::BROADCAST, ethertype::ARP, &packet)),
        "magic" => {
            end(&rest, "magic")?;
            let pattern = [[0xff; 6].as_slice(), &who.mac.0.repeat(16)].concat();
            Ok(frame(MacAddr::BROADCAST, ethertype::WAKE_ON_LAN, &pattern))
        }
        "hex" => hex(&rest.concat()),
        other => Err(SynthError::Kind(other.to_string())),
    }
}

fn part(found: &str, wanted: &'static str, example: &'static str) -> SynthError {
    SynthError::Part { found: found.to_string(), wanted, example }
}

fn end(rest: &[&str], example: &'static str) -> Result<(), SynthError> {
    rest.first().map_or(Ok(()), |word| Err(part(word, "the end", example)))
}

fn ethernet(dst: MacAddr, tags: &[u8], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&dst.0, &SENDER.0, tags, &ethertype.to_be_bytes(), payload].concat()
}

/// An address with or without a port: `10.0.0.9`, `10.0.0.9:5555`, `fd77::1`, `[fd77::1]:5555`, `:22`.
fn endpoint(text: &str) -> Option<(Option<IpAddr>, Option<u16>)> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some((Some(address), None));
    }
    let (address, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|_| port.bytes().all(|octet| octet.is_ascii_digit()))?;
    let bracketed = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
    let address = match (address, bracketed) {
        ("", _) => None,
        (_, Some(v6)) => Some(v6.parse::<Ipv6Addr>().ok()?.into()),
        (v4, None) => Some(v4.parse::<Ipv4Addr>().ok()?.into()),
    };
    Some((address, Some(port)))
}

/// The addresses of a packet: that of the machine is taken from what is known, if it is not written.
fn pair(src: IpAddr, dst: Option<IpAddr>, who: &Identity) -> Result<(IpAddr, IpAddr), SynthError> {
    let own = || who.addresses.iter().copied().find(|own| own.is_ipv4() == src.is_ipv4());
    let family = if src.is_ipv4() { "IPv4" } else { "IPv6" };
    let dst = dst.or_else(own).ok_or(SynthError::Unaddressed(family))?;
    if src.is_ipv4() == dst.is_ipv4() { Ok((src, dst)) } else { Err(SynthError::Families(src, dst)) }
}

/// `SRC[:PORT] > [DST]:PORT`, and flags.
fn transport(protocol: u8, words: &[&str], who: &Identity) -> Result<(u16, Vec<u8>), SynthError> {
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let wrong = |at: usize, wanted| part(word(at), wanted, TCP_EXAMPLE);
    let (src, from) = endpoint(word(0)).ok_or_else(|| wrong(0, "the source's address"))?;
    let src = src.ok_or_else(|| wrong(0, "the source's address"))?;
    if word(1) != ">" {
        return Err(wrong(1, "a blank and >"));
    }
    let (dst, to) = endpoint(word(2)).ok_or_else(|| wrong(2, "the machine's address or port"))?;
    let to = to.ok_or_else(|| wrong(2, "an address with the machine's port"))?;
    let rest = words.get(3..).unwrap_or_default();
    let (src, dst) = pair(src, dst, who)?;
    let ports = (from.unwrap_or(CLIENT_PORT), to);
    let payload = match protocol {
        protocol::TCP => segment(ports, src, dst, &flags(rest)?),
        protocol::UDP => end(rest, "udp 10.0.0.9 > :53").map(|()| datagram(ports, src, dst))?,
        _ => end(rest, "sctp 10.0.0.9 > :36412").map(|()| init(ports))?,
    };
    Ok(packet(src, dst, protocol, &payload))
}

/// What a segment has, as it is written.
#[derive(Default)]
struct Flags {
    syn: bool,
    fin: bool,
    rst: bool,
    ack: bool,
    psh: bool,
    data: usize,
}

/// `flags SYN,ACK`, or `[S.]` with `, 5 octets` after it.
fn flags(words: &[&str]) -> Result<Flags, SynthError> {
    let mut flags = Flags::default();
    let list = match words {
        [] => {
            flags.syn = true;
            return Ok(flags);
        }
        ["flags", list @ ..] if !list.is_empty() => list.concat(),
        [letters, octets @ ..] if letters.starts_with('[') => return letter_flags(letters, octets),
        [word, ..] => return Err(part(word, "flags and SYN, FIN, RST, ACK or data", TCP_EXAMPLE)),
    };
    for name in list.split([',', '|']) {
        match name {
            "SYN" => flags.syn = true,
            "FIN" => flags.fin = true,
            "RST" => flags.rst = true,
            "ACK" => flags.ack = true,
            "data" => (flags.psh, flags.ack, flags.data) = (true, true, 5),
            _ => return Err(part(name, "one of SYN, FIN, RST, ACK and data", TCP_EXAMPLE)),
        }
    }
    Ok(flags)
}

fn letter_flags(letters: &str, octets: &[&str]) -> Result<Flags, SynthError> {
    const EXAMPLE: &str = "tcp 10.0.0.9:5555 > :22 [P.], 5 octets";
    let wrong = |found, wanted| part(found, wanted, EXAMPLE);
    let set = letters.trim_end_matches(',').strip_prefix('[').and_then(|set| set.strip_suffix(']'));
    let set = set.ok_or_else(|| wrong(letters, "flags in brackets"))?;
    let mut flags = Flags::default();
    for letter in set.chars().filter(|_| set != "none") {
        match letter {
            'S' => flags.syn = true,
            'F' => flags.fin = true,
            'R' => flags.rst = true,
            '.' => flags.ack = true,
            'P' => flags.psh = true,
            // Of no meaning to a rule.
            'U' | 'E' | 'W' => {}
            _ => return Err(wrong(letters, "flags of S, F, R, P and .")),
        }
    }
    flags.data = match octets {
        [] => 0,
        [number, "octets"] => {
            let number = number.parse().ok().filter(|number| *number <= MAX_HEX);
            number.ok_or_else(|| wrong(octets.first().copied().unwrap_or_default(), "a number of octets"))?
        }
        [word, ..] => return Err(wrong(word, "a number of octets or the end")),
    };
    Ok(flags)
}

fn segment((from, to): (u16, u16), src: IpAddr, dst: IpAddr, flags: &Flags) -> Vec<u8> {
    let mut bytes = vec![0; 20 + flags.data];
    let mut tcp = TcpPacket::new_unchecked(&mut bytes);
    tcp.set_src_port(from);
    tcp.set_dst_port(to);
    tcp.set_seq_number(TcpSeqNumber(1));
    tcp.set_ack_number(TcpSeqNumber(i32::from(flags.ack)));
    tcp.set_header_len(20);
    tcp.set_window_len(u16::MAX);
    tcp.set_syn(flags.syn);
    tcp.set_fin(flags.fin);
    tcp.set_rst(flags.rst);
    tcp.set_ack(flags.ack);
    tcp.set_psh(flags.psh);
    tcp.fill_checksum(&src.into(), &dst.into());
    bytes
}

fn datagram((from, to): (u16, u16), src: IpAddr, dst: IpAddr) -> Vec<u8> {
    let mut bytes = vec![0; 13];
    let mut udp = UdpPacket::new_unchecked(&mut bytes);
    udp.set_src_port(from);
    udp.set_dst_port(to);
    udp.set_len(13);
    udp.fill_checksum(&src.into(), &dst.into());
    bytes
}

/// A common header without tag and checksum, and an INIT (RFC 9260 §3.1, §3.3.2).
fn init((from, to): (u16, u16)) -> Vec<u8> {
    let head = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let chunk = [1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
    [head.as_slice(), &[0; 8], &chunk].concat()
}

/// `SRC [> DST]`
fn ping(words: &[&str], who: &Identity) -> Result<(u16, Vec<u8>), SynthError> {
    let (src, dst) = match words {
        [src] | [src, ">"] => (*src, None),
        [src, ">", dst] => (*src, Some(*dst)),
        [_, word, ..] => return Err(part(word, "> and the machine's address", ICMP_EXAMPLE)),
        [] => ("", None),
    };
    let address = |text: &str, wanted| text.parse::<IpAddr>().map_err(|_| part(text, wanted, ICMP_EXAMPLE));
    let dst = dst.map(|dst| address(dst, "the machine's address")).transpose()?;
    let (src, dst) = pair(address(src, "the source's address")?, dst, who)?;
    let (ident, seq_no, data) = (1, 1, [0; 56].as_slice());
    let checksums = ChecksumCapabilities::default();
    let mut bytes = vec![0; 8 + data.len()];
    let number = match (src, dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let echo = Icmpv6Repr::EchoRequest { ident, seq_no, data };
            echo.emit(&src, &dst, &mut Icmpv6Packet::new_unchecked(&mut bytes), &checksums);
            protocol::ICMPV6
        }
        _ => {
            let echo = Icmpv4Repr::EchoRequest { ident, seq_no, data };
            echo.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes), &checksums);
            protocol::ICMP
        }
    };
    Ok(packet(src, dst, number, &bytes))
}

/// A whole packet and its EtherType. The two addresses are of one family.
fn packet(src: IpAddr, dst: IpAddr, number: u8, payload: &[u8]) -> (u16, Vec<u8>) {
    let (next_header, payload_len, hop_limit) = (IpProtocol::from(number), payload.len(), 64);
    match (src, dst) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let head = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit };
            let mut bytes = vec![0; head.buffer_len()];
            bytes.extend_from_slice(payload);
            head.emit(&mut Ipv4Packet::new_unchecked(&mut bytes), &ChecksumCapabilities::default());
            (ethertype::IPV4, bytes)
        }
        (src, dst) => {
            let v6 = |address| match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            let head = Ipv6Repr { src_addr: v6(src), dst_addr: v6(dst), next_header, payload_len, hop_limit };
            let mut bytes = vec![0; head.buffer_len()];
            bytes.extend_from_slice(payload);
            head.emit(&mut Ipv6Packet::new_unchecked(&mut bytes));
            (ethertype::IPV6, bytes)
        }
    }
}

/// `who-has ADDR tell ADDR`
fn arp(words: &[&str]) -> Result<Vec<u8>, SynthError> {
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let address =
        |at: usize| word(at).parse::<Ipv4Addr>().map_err(|_| part(word(at), "an IPv4 address", ARP_EXAMPLE));
    for (at, fixed) in [(0, "who-has"), (2, "tell")] {
        if word(at) != fixed {
            return Err(part(word(at), fixed, ARP_EXAMPLE));
        }
    }
    let request = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(SENDER.0),
        source_protocol_addr: address(3)?,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: address(1)?,
    };
    end(words.get(4..).unwrap_or_default(), ARP_EXAMPLE)?;
    let mut bytes = vec![0; request.buffer_len()];
    request.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    Ok(bytes)
}

fn hex(digits: &str) -> Result<Vec<u8>, SynthError> {
    let digits: Vec<u8> = digits.bytes().filter(|digit| *digit != b':').take(2 * MAX_HEX + 1).collect();
    let octet = |pair: &[u8]| match pair {
        [high, low] => {
            let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok());
            Some(digit(*high)? << 4 | digit(*low)?)
        }
        _ => None,
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(octet).collect();
    bytes.filter(|bytes| Frame::new(bytes).is_some()).ok_or(SynthError::Hex)
}
