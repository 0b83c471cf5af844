//! Another station claims a sleeper's address (RFC 5227 §2.4, RFC 4862 §5.4.4).

use alloc::vec::Vec;
use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use dormouse_types::MacAddr;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

use super::{Context, Responder, Response, build, ndisc};
use crate::{
    frame::{Frame, ethertype},
    ndisc::Neighbor,
    network::Network,
};

/// The least time between two defences (RFC 5227 §1.1, DEFEND_INTERVAL).
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Defends the sleeper's IPv4 addresses (RFC 5227 §2.4): an ARP packet whose sender claims one with
/// another Ethernet address is answered by a broadcast announcement. Which addresses:
///
/// - configured ones, for ever, but once in ten seconds, each for itself (c); a claim within that time is passed
///   on and held, so that the machine sees when it wakes that its address is disputed;
/// - the leased one once (b): if it is claimed again within ten seconds it is given up;
/// - others, that were learned, are given up at once (a): the machine may have had them for a while only, as
///   the address of a service that moves between two machines.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArpDefence;

/// The same for IPv6, without leases: another's neighbour advertisement of one of the sleeper's addresses is
/// answered by an unsolicited one to all nodes, which overrides it (RFC 4861 §7.2.6).
#[derive(Clone, Copy, Debug, Default)]
pub struct NeighborDefence;

impl Responder for ArpDefence {
    fn name(&self) -> &'static str {
        "arp-defence"
    }

    fn respond(&self, frame: &Frame<'_>, context: &mut Context<'_>) -> Response {
        let who = context.who;
        let Network::Arp(arp) = frame.network() else { return Response::Pass };
        let foreign = who.is_foreign(frame.src()) && who.is_foreign(arp.sender_mac);
        let reaches = frame.is_group() || frame.dst() == who.mac;
        if !(foreign && reaches && who.has(arp.sender)) {
            return Response::Pass;
        }
        defend(arp.sender.into(), context, || announcement(frame, who.mac, arp.sender))
    }
}

impl Responder for NeighborDefence {
    fn name(&self) -> &'static str {
        "neighbor-defence"
    }

    fn respond(&self, frame: &Frame<'_>, context: &mut Context<'_>) -> Response {
        let Some(target) = claimed(frame, context) else { return Response::Pass };
        let mac = context.who.mac;
        defend(target.into(), context, || ndisc::unsolicited(frame, mac, target))
    }
}

/// The sleeper's address that a neighbour advertisement claims for another station.
fn claimed(frame: &Frame<'_>, context: &Context<'_>) -> Option<Ipv6Addr> {
    let who = context.who;
    let Network::Ipv6(ip) = frame.network() else { return None };
    let Neighbor::Advertisement { target, target_mac } = Neighbor::parse(&ip)? else { return None };
    let reaches = frame.is_group() || frame.dst() == who.mac;
    // Somebody else may say that the address is where it is.
    let foreign = who.is_foreign(frame.src()) && target_mac != Some(who.mac);
    (foreign && reaches && who.has(target)).then_some(target)
}

/// Sends what defends an address, or gives it up: see [`ArpDefence`].
fn defend(address: IpAddr, context: &mut Context<'_>, defence: impl FnOnce() -> Vec<u8>) -> Response {
    let Context { who, persona, now, memory } = context;
    let known = memory.defended.iter_mut().find(|(defended, _)| *defended == address);
    // A clock set back must not leave the address without defence until it has caught up.
    let recent = known.as_ref().is_some_and(|(_, at)| at <= now && now.since(*at) < DEFEND_INTERVAL);
    let is_leased = || persona.lease.as_ref().is_some_and(|lease| address == lease.address);
    if !who.configured && (recent || !is_leased()) {
        return Response::Lose(address);
    }
    if recent {
        return Response::Pass;
    }
    match known {
        Some((_, at)) => *at = *now,
        None => memory.defended.push((address, *now)),
    }
    Response::Reply(defence())
}

/// An ARP announcement: a request whose sender and target are the same (RFC 5227 §3).
fn announcement(frame: &Frame<'_>, mac: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let packet = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(mac.0),
        source_protocol_addr: address,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: address,
    };
    build::ethernet(frame, (mac, MacAddr::BROADCAST), ethertype::ARP, packet.buffer_len(), |bytes| {
        packet.emit(&mut ArpPacket::new_unchecked(bytes));
    })
}
