//! TCP segments for a sleeper, told from all other frames.

use std::net::IpAddr;

use dormouse_types::MacAddr;
use dormouse_wire::{Fragment, Frame, IpPacket, Network, protocol};
use smoltcp::wire::TcpPacket;

use crate::Settings;

/// What makes a connection this one and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tuple {
    /// The client's address and port.
    pub(crate) client: (IpAddr, u16),
    /// The sleeper's.
    pub(crate) local: (IpAddr, u16),
    /// The identifiers of the frame's VLAN tags, the outermost first.
    vlans: [Option<u16>; 2],
}

/// A segment from a client to the sleeper.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'a> {
    pub(crate) tuple: Tuple,
    /// Where answers go to.
    pub(crate) client: MacAddr,
    /// VLAN tags, for answers too.
    pub(crate) tags: &'a [u8],
    pub(crate) ethertype: u16,
    /// The IP packet, padding of the frame included.
    pub(crate) packet: &'a [u8],
    /// It begins a connection: a SYN, without an ACK or anything else.
    pub(crate) opens: bool,
}

impl<'a> Segment<'a> {
    /// The segment in `frame`, if there is one that smoltcp may see: whole, from a host, to the
    /// sleeper, without IP options or extension headers.
    pub(crate) fn parse(frame: &Frame<'a>, to: &Settings) -> Option<Self> {
        let foreign = !frame.src().is_multicast() && frame.src() != to.mac && frame.src() != MacAddr([0; 6]);
        if frame.dst() != to.mac || !foreign {
            return None;
        }
        let (client, local, tcp) = match frame.network() {
            Network::Ipv4(packet) => addressed(&packet)?,
            Network::Ipv6(packet) => addressed(&packet)?,
            _ => return None,
        };
        if !to.addresses.contains(&local) || to.addresses.contains(&client) {
            return None;
        }
        let tcp = TcpPacket::new_checked(tcp).ok().filter(|tcp| tcp.src_port() != 0)?;
        let mut vlans = frame.tags().chunks_exact(4).map(|tag| match tag {
            [_, _, high, low] => u16::from_be_bytes([*high & 0x0f, *low]),
            _ => 0,
        });
        Some(Self {
            tuple: Tuple {
                client: (client, tcp.src_port()),
                local: (local, tcp.dst_port()),
                vlans: [vlans.next(), vlans.next()],
            },
            client: frame.src(),
            tags: frame.tags(),
            ethertype: frame.ethertype(),
            packet: frame.payload(),
            opens: tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin(),
        })
    }
}

/// Source, destination and payload of a packet that carries a whole TCP segment between hosts.
fn addressed<'a, A: Into<IpAddr> + Copy>(packet: &IpPacket<'a, A>) -> Option<(IpAddr, IpAddr, &'a [u8])> {
    let whole = packet.fragment == Fragment::Whole && packet.plain && packet.complete;
    let (src, dst) = (packet.src.into(), packet.dst.into());
    let fit = whole && packet.protocol == protocol::TCP && is_host(src) && is_host(dst);
    fit.then_some((src, dst, packet.payload))
}

/// Can it be one end of a connection (RFC 9293 §3.9.2.3)?
fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast)
}
