//! Putting replies together.

use alloc::vec::Vec;
use core::net::Ipv6Addr;

use dormouse_types::MacAddr;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr},
};

use crate::frame::{Frame, ethertype};

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

/// Addresses and fields of an ICMPv6 reply's IPv6 header.
pub(super) struct Ipv6Header {
    pub(super) src: Ipv6Addr,
    pub(super) dst: Ipv6Addr,
    pub(super) hop_limit: u8,
    pub(super) traffic_class: u8,
}

/// An Ethernet frame with an ICMPv6 message in IPv6.
pub(super) fn icmpv6(
    request: &Frame<'_>,
    macs: (MacAddr, MacAddr),
    header: &Ipv6Header,
    message: &Icmpv6Repr<'_>,
) -> Vec<u8> {
    let repr = Ipv6Repr {
        src_addr: header.src,
        dst_addr: header.dst,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: header.hop_limit,
    };
    ethernet(request, macs, ethertype::IPV6, repr.buffer_len() + message.buffer_len(), |bytes| {
        let mut packet = Ipv6Packet::new_unchecked(bytes);
        repr.emit(&mut packet);
        packet.set_traffic_class(header.traffic_class);
        let mut icmp = Icmpv6Packet::new_unchecked(packet.payload_mut());
        message.emit(&header.src, &header.dst, &mut icmp, &ChecksumCapabilities::default());
    })
}
