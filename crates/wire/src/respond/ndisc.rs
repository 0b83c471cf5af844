//! Who has a sleeper's IPv6 address (RFC 4861).

use alloc::vec::Vec;
use core::net::Ipv6Addr;

use dormouse_types::MacAddr;
use smoltcp::wire::{
    IPV6_LINK_LOCAL_ALL_NODES as ALL_NODES, Icmpv6Repr, NdiscNeighborFlags as Flags, NdiscRepr,
    RawHardwareAddress,
};

use super::{Context, Identity, Responder, Response, build};
use crate::{
    frame::Frame,
    ndisc::Neighbor,
    network::{IpPacket, Network, protocol},
};

/// Answers neighbour solicitations for the sleeper's IPv6 addresses (RFC 4861 §7.2.3 and §7.2.4).
///
/// - The advertisement is solicited, overrides, and has the target link-layer address option. It
///   does not say that the machine is a router.
/// - A solicitation from `::` checks for a duplicate address (RFC 4862 §5.4): the answer goes to
///   all nodes and is not "solicited".
/// - A solicitation that the sleeper itself sent is passed on.
#[derive(Clone, Copy, Debug, Default)]
pub struct NeighborSolicitation;

/// The Ethernet address of [`ALL_NODES`] (RFC 2464 §7).
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

impl Responder for NeighborSolicitation {
    fn name(&self) -> &'static str {
        "neighbor-solicitation"
    }

    fn respond(&self, frame: &Frame<'_>, context: &mut Context<'_>) -> Response {
        Response::reply_or_pass(reply(frame, context.who))
    }
}

fn reply(frame: &Frame<'_>, who: &Identity) -> Option<Vec<u8>> {
    let Network::Ipv6(ip) = frame.network() else { return None };
    let Neighbor::Solicitation { target, source_mac } = Neighbor::parse(&ip)? else { return None };
    let for_us = frame.dst() == who.mac || frame.is_group();
    if !(for_us && who.is_foreign(frame.src()) && who.has(target) && is_for(&ip, who)) {
        return None;
    }
    let (dst, dst_mac, flags) = if ip.src.is_unspecified() {
        (ALL_NODES, ALL_NODES_MAC, Flags::OVERRIDE)
    } else {
        // What the option says is what the asker's neighbours keep for it; not every asker sends it.
        let asker = source_mac.filter(|mac| who.is_foreign(*mac)).unwrap_or(frame.src());
        (ip.src, asker, Flags::SOLICITED | Flags::OVERRIDE)
    };
    Some(advertisement(frame, (who.mac, dst_mac), target, dst, flags))
}

/// Tells all nodes that `target` is where `mac` is, whatever they know (RFC 4861 §7.2.6).
pub(super) fn unsolicited(frame: &Frame<'_>, mac: MacAddr, target: Ipv6Addr) -> Vec<u8> {
    advertisement(frame, (mac, ALL_NODES_MAC), target, ALL_NODES, Flags::OVERRIDE)
}

fn advertisement(
    frame: &Frame<'_>,
    macs: (MacAddr, MacAddr),
    target: Ipv6Addr,
    dst: Ipv6Addr,
    flags: Flags,
) -> Vec<u8> {
    let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags,
        target_addr: target,
        lladdr: Some(RawHardwareAddress::from_bytes(&macs.0.0)),
    });
    let header =
        build::Header { src: target, dst, hop_limit: 255, traffic_class: 0, protocol: protocol::ICMPV6 };
    build::icmpv6(frame, macs, &header, &message)
}

/// Would the sleeper's own network stack take this packet, and can its source be answered?
fn is_for(ip: &IpPacket<'_, Ipv6Addr>, who: &Identity) -> bool {
    let source_ok = !ip.src.is_multicast() && !ip.src.is_loopback() && !who.has(ip.src);
    source_ok && (ip.dst.is_multicast() || who.has(ip.dst))
}
