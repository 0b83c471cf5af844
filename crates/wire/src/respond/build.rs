//! Putting replies together.

use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use dormouse_types::MacAddr;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr},
};

use crate::{
    frame::{Frame, ethertype},
    network::{IpPacket, Network},
};

/// The longest echo message that is answered, in octets of ICMP: a jumbo frame's worth. It bounds
/// what one frame can make us allocate; longer ones come in fragments from a real network.
pub(super) const MAX_ECHO: usize = 9216;

/// The hop limit of our echo replies: the default of most systems (IANA IP parameters).
pub(super) const HOP_LIMIT: u8 = 64;

/// An Ethernet frame from `src` to `dst` with the VLAN tags of `request` and a payload of `len`
/// octets that `fill` writes into zeros.
pub(super) fn ethernet(
    request: &Frame<'_>,
    (src, dst): (MacAddr, MacAddr),
    ethertype: u16,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(14 + request.tags().len() + len);
    bytes.extend_from_slice(&dst.0);
    bytes.extend_from_slice(&src.0);
    bytes.extend_from_slice(request.tags());
    bytes.extend_from_slice(&ethertype.to_be_bytes());
    let header_len = bytes.len();
    bytes.resize(header_len + len, 0);
    if let Some(payload) = bytes.get_mut(header_len..) {
        fill(payload);
    }
    bytes
}

/// Addresses and fields of an IP header.
pub(super) struct Header<A> {
    pub(super) src: A,
    pub(super) dst: A,
    pub(super) hop_limit: u8,
    pub(super) traffic_class: u8,
    /// What follows the header and its options or extension headers.
    pub(super) protocol: u8,
}

/// An Ethernet frame with an IPv4 packet: `options` (whole words of them), and `len` octets that
/// `fill` writes into zeros.
pub(super) fn ipv4(
    request: &Frame<'_>,
    macs: (MacAddr, MacAddr),
    header: &Header<Ipv4Addr>,
    options: &[u8],
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: header.src,
        dst_addr: header.dst,
        next_header: header.protocol.into(),
        payload_len: options.len() + len,
        hop_limit: header.hop_limit,
    };
    let header_len = repr.buffer_len() + options.len();
    ethernet(request, macs, ethertype::IPV4, header_len + len, |bytes| {
        if let Some(place) = bytes.get_mut(repr.buffer_len()..header_len) {
            place.copy_from_slice(options);
        }
        let mut packet = Ipv4Packet::new_unchecked(bytes);
        repr.emit(&mut packet, &ChecksumCapabilities::ignored());
        packet.set_header_len(u8::try_from(header_len).unwrap_or_default());
        packet.set_dscp(header.traffic_class >> 2);
        packet.set_ecn(header.traffic_class & 3);
        packet.fill_checksum();
        fill(packet.payload_mut());
    })
}

/// An Ethernet frame with an IPv6 packet: `options` in a hop-by-hop options header, if there are
/// any (six octets, or eight more each time), and `len` octets that `fill` writes into zeros.
pub(super) fn ipv6(
    request: &Frame<'_>,
    macs: (MacAddr, MacAddr),
    header: &Header<Ipv6Addr>,
    options: &[u8],
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let extension_len = if options.is_empty() { 0 } else { 2 + options.len() };
    let next_header = if options.is_empty() { header.protocol } else { IpProtocol::HopByHop.into() };
    let repr = Ipv6Repr {
        src_addr: header.src,
        dst_addr: header.dst,
        next_header: next_header.into(),
        payload_len: extension_len + len,
        hop_limit: header.hop_limit,
    };
    ethernet(request, macs, ethertype::IPV6, repr.buffer_len() + extension_len + len, |bytes| {
        let mut packet = Ipv6Packet::new_unchecked(bytes);
        repr.emit(&mut packet);
        packet.set_traffic_class(header.traffic_class);
        let Some((extension, payload)) = packet.payload_mut().split_at_mut_checked(extension_len) else {
            return;
        };
        if let [next, words, place @ ..] = extension {
            (*next, *words) = (header.protocol, u8::try_from(options.len() / 8).unwrap_or_default());
            place.copy_from_slice(options);
        }
        fill(payload);
    })
}

/// An Ethernet frame with an ICMPv6 message in IPv6; `header.protocol` is ICMPv6's.
pub(super) fn icmpv6(
    request: &Frame<'_>,
    macs: (MacAddr, MacAddr),
    header: &Header<Ipv6Addr>,
    message: &Icmpv6Repr<'_>,
) -> Vec<u8> {
    ipv6(request, macs, header, &[], message.buffer_len(), |bytes| {
        let mut icmp = Icmpv6Packet::new_unchecked(bytes);
        message.emit(&header.src, &header.dst, &mut icmp, &ChecksumCapabilities::default());
    })
}

/// An IP packet back to whom `request` is from, with a payload of `len` octets that `fill` writes
/// into zeros, given the source and the destination for its checksum; `None` if it is not IP.
pub(super) fn answer(
    request: &Frame<'_>,
    protocol: u8,
    len: usize,
    fill: impl FnOnce(&mut [u8], IpAddress, IpAddress),
) -> Option<Vec<u8>> {
    let macs = (request.dst(), request.src());
    match request.network() {
        Network::Ipv4(ip) => {
            let header = Header::back(&ip, protocol);
            Some(ipv4(request, macs, &header, &[], len, |bytes| fill(bytes, ip.dst.into(), ip.src.into())))
        }
        Network::Ipv6(ip) => {
            let header = Header::back(&ip, protocol);
            Some(ipv6(request, macs, &header, &[], len, |bytes| fill(bytes, ip.dst.into(), ip.src.into())))
        }
        Network::Arp(_) | Network::Other(_) => None,
    }
}

impl<A: Copy> Header<A> {
    fn back(request: &IpPacket<'_, A>, protocol: u8) -> Self {
        Self { src: request.dst, dst: request.src, hop_limit: HOP_LIMIT, traffic_class: 0, protocol }
    }
}
