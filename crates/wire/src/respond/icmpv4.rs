//! Ping over IPv4 (RFC 792).

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{Icmpv4Packet, Icmpv4Repr, Ipv4Packet},
};

use super::{Context, Identity, Responder, Response, build};
use crate::{
    frame::Frame,
    network::{Fragment, IpPacket, Network, is_host, protocol},
};

/// Answers echo requests to the sleeper (RFC 792, "Echo"; RFC 1122 §3.2.2.6).
///
/// Only what is sent to the sleeper's Ethernet address and one of its IPv4 addresses, in one
/// piece and without IPv4 options (which an answer would have to follow): all else is passed on,
/// pings to groups too. A request whose IPv4 header is damaged is consumed (RFC 1122 §3.2.1.2).
/// Identifier, sequence number, data and traffic class come back as they were.
#[derive(Clone, Copy, Debug, Default)]
pub struct IcmpEcho;

impl Responder for IcmpEcho {
    fn name(&self) -> &'static str {
        "icmp-echo"
    }

    fn respond(&self, frame: &Frame<'_>, context: &mut Context<'_>) -> Response {
        let who = context.who;
        let Some((ip, ident, seq_no, data)) = request(frame, who) else { return Response::Pass };
        if !Ipv4Packet::new_unchecked(frame.payload()).verify_checksum() {
            return Response::Consume("the IPv4 header's checksum is wrong");
        }
        Response::Reply(reply(frame, who, &ip, &Icmpv4Repr::EchoReply { ident, seq_no, data }))
    }
}

/// The packet, identifier, sequence number and data of an echo request that is to be answered.
fn request<'a>(frame: &Frame<'a>, who: &Identity) -> Option<(IpPacket<'a, Ipv4Addr>, u16, u16, &'a [u8])> {
    let Network::Ipv4(ip) = frame.network() else { return None };
    let whole = ip.protocol == protocol::ICMP && ip.fragment == Fragment::Whole && ip.plain && ip.complete;
    let addressed = who.is_addressed_by(frame) && who.has(ip.dst);
    let answerable = is_host(ip.src.into()) && !who.has(ip.src) && ip.payload.len() <= build::MAX_ECHO;
    if !(whole && addressed && answerable) {
        return None;
    }
    let message = Icmpv4Packet::new_checked(ip.payload).ok()?;
    match Icmpv4Repr::parse(&message, &ChecksumCapabilities::ignored()).ok()? {
        Icmpv4Repr::EchoRequest { ident, seq_no, data } => Some((ip, ident, seq_no, data)),
        _ => None,
    }
}

fn reply(
    frame: &Frame<'_>,
    who: &Identity,
    ip: &IpPacket<'_, Ipv4Addr>,
    message: &Icmpv4Repr<'_>,
) -> Vec<u8> {
    let header = build::Header {
        src: ip.dst,
        dst: ip.src,
        hop_limit: build::HOP_LIMIT,
        traffic_class: ip.traffic_class,
        protocol: protocol::ICMP,
    };
    build::ipv4(frame, (who.mac, frame.src()), &header, &[], message.buffer_len(), |bytes| {
        message.emit(&mut Icmpv4Packet::new_unchecked(bytes), &ChecksumCapabilities::default());
    })
}
