//! Who has a sleeper's IPv4 address (RFC 826).

use alloc::vec::Vec;

use smoltcp::wire::{ArpOperation as WireOperation, ArpPacket, ArpRepr, EthernetAddress};

use super::{Context, Identity, Responder, Response, build};
use crate::{
    frame::{Frame, ethertype},
    network::{ArpOperation, Network},
};

/// Answers ARP requests for the sleeper's IPv4 addresses (RFC 826, "Packet Reception").
///
/// - A request may be broadcast, or unicast to the sleeper, as hosts do that check whether a
///   neighbour is still there (RFC 1122 §2.3.2.1).
/// - A probe, whose sender is `0.0.0.0`, gets an answer too: the address is in use (RFC 5227 §2.1.1).
/// - An announcement (RFC 5227 §2.3: sender and target the same) asks nothing and is passed on,
///   and so is all that bears the sleeper's own Ethernet address.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArpResponder;

impl Responder for ArpResponder {
    fn name(&self) -> &'static str {
        "arp"
    }

    fn respond(&self, frame: &Frame<'_>, context: &mut Context<'_>) -> Response {
        Response::reply_or_pass(reply(frame, context.who))
    }
}

fn reply(frame: &Frame<'_>, who: &Identity) -> Option<Vec<u8>> {
    let Network::Arp(request) = frame.network() else { return None };
    let for_us = frame.dst() == who.mac || frame.is_group();
    let from_others = who.is_foreign(frame.src()) && who.is_foreign(request.sender_mac);
    let asks = request.operation == ArpOperation::Request && !request.is_announcement();
    // Who claims an address of the sleeper's is not answered, but fought: see `ArpDefence`.
    if !(for_us && from_others && asks && who.has(request.target)) || who.has(request.sender) {
        return None;
    }
    let answer = ArpRepr::EthernetIpv4 {
        operation: WireOperation::Reply,
        source_hardware_addr: EthernetAddress(who.mac.0),
        source_protocol_addr: request.target,
        target_hardware_addr: EthernetAddress(request.sender_mac.0),
        target_protocol_addr: request.sender,
    };
    let macs = (who.mac, request.sender_mac);
    Some(build::ethernet(frame, macs, ethertype::ARP, answer.buffer_len(), |bytes| {
        answer.emit(&mut ArpPacket::new_unchecked(bytes));
    }))
}
