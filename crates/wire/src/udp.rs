//! UDP over IPv4 and IPv6 (RFC 768): whole datagrams in, whole datagrams out.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use dormouse_types::MacAddr;
use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, UdpPacket},
};

use crate::{
    frame::{Frame, ethertype, u16_at},
    network::{Fragment, IpPacket, Network, protocol},
};

/// Octets of a UDP header.
const HEADER: usize = 8;

/// A datagram that came in one piece.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) data: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// The datagram in `frame`; `None` if there is none, or it is cut, or one of several fragments.
    pub(crate) fn parse(frame: &Frame<'a>) -> Option<Self> {
        match frame.network() {
            Network::Ipv4(ip) => Self::of(&ip),
            Network::Ipv6(ip) => Self::of(&ip),
            _ => None,
        }
    }

    fn of<A: Copy + Into<IpAddr>>(ip: &IpPacket<'a, A>) -> Option<Self> {
        if ip.protocol != protocol::UDP || ip.fragment != Fragment::Whole || !ip.complete {
            return None;
        }
        let (source, destination) = ip.ports()?;
        let len = usize::from(u16_at(ip.payload, 4)?);
        Some(Self {
            src: SocketAddr::new(ip.src.into(), source),
            dst: SocketAddr::new(ip.dst.into(), destination),
            data: ip.payload.get(HEADER..len)?,
        })
    }
}

/// Where a datagram of ours goes, and from where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route<'a> {
    /// VLAN tags that the frame gets.
    pub(crate) tags: &'a [u8],
    /// Source and destination on Ethernet.
    pub(crate) macs: (MacAddr, MacAddr),
    /// Source and destination, of one family.
    pub(crate) ends: (SocketAddr, SocketAddr),
    /// Time to live, or hop limit.
    pub(crate) hop_limit: u8,
}

/// A frame with `data` in one datagram; `None` if the families differ or it is too long for one.
pub(crate) fn build(route: &Route<'_>, data: &[u8]) -> Option<Vec<u8>> {
    let (src, dst) = route.ends;
    let len = u16::try_from(HEADER + data.len()).ok()?;
    let udp_len = usize::from(len);
    let mut bytes = Vec::with_capacity(14 + route.tags.len() + 40 + udp_len);
    bytes.extend_from_slice(&route.macs.1.0);
    bytes.extend_from_slice(&route.macs.0.0);
    bytes.extend_from_slice(route.tags);
    let (next_header, hop_limit) = (IpProtocol::Udp, route.hop_limit);
    match (src.ip(), dst.ip()) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            bytes.extend_from_slice(&ethertype::IPV4.to_be_bytes());
            let repr = Ipv4Repr { src_addr, dst_addr, next_header, payload_len: udp_len, hop_limit };
            let at = room(&mut bytes, repr.buffer_len());
            let mut packet = Ipv4Packet::new_unchecked(bytes.get_mut(at..)?);
            repr.emit(&mut packet, &ChecksumCapabilities::default());
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            bytes.extend_from_slice(&ethertype::IPV6.to_be_bytes());
            let repr = Ipv6Repr { src_addr, dst_addr, next_header, payload_len: udp_len, hop_limit };
            let at = room(&mut bytes, repr.buffer_len());
            repr.emit(&mut Ipv6Packet::new_unchecked(bytes.get_mut(at..)?));
        }
        _ => return None,
    }
    let at = room(&mut bytes, HEADER);
    bytes.extend_from_slice(data);
    let mut packet = UdpPacket::new_unchecked(bytes.get_mut(at..)?);
    packet.set_src_port(src.port());
    packet.set_dst_port(dst.port());
    packet.set_len(len);
    packet.fill_checksum(&IpAddress::from(src.ip()), &IpAddress::from(dst.ip()));
    Some(bytes)
}

/// Adds `len` zeros; where they begin.
fn room(bytes: &mut Vec<u8>, len: usize) -> usize {
    let at = bytes.len();
    bytes.resize(at + len, 0);
    at
}
