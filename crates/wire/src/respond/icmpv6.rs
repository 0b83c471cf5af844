//! Ping over IPv6 (RFC 4443).

use alloc::vec::Vec;

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{Icmpv6Message, Icmpv6Packet, Icmpv6Repr},
};

use super::{Context, Identity, Responder, Response, build};
use crate::{
    frame::Frame,
    network::{Network, is_host, protocol},
};

/// Answers echo requests to the sleeper (RFC 4443 §4.2).
///
/// Only what is sent to the sleeper's Ethernet address and one of its IPv6 addresses, in one
/// piece and without extension headers; all else is passed on, pings to groups too. Identifier,
/// sequence number, data and traffic class come back as they were.
#[derive(Clone, Copy, Debug, Default)]
pub struct Icmpv6Echo;

impl Responder for Icmpv6Echo {
    fn name(&self) -> &'static str {
        "icmpv6-echo"
    }

    fn respond(&self, frame: &Frame<'_>, context: &mut Context<'_>) -> Response {
        Response::reply_or_pass(reply(frame, context.who))
    }
}

fn reply(frame: &Frame<'_>, who: &Identity) -> Option<Vec<u8>> {
    let Network::Ipv6(ip) = frame.network() else { return None };
    // Without extension headers it is no fragment.
    let whole = ip.protocol == protocol::ICMPV6 && ip.plain && ip.complete;
    let addressed = who.is_addressed_by(frame) && who.has(ip.dst);
    let answerable = is_host(ip.src.into()) && !who.has(ip.src) && ip.payload.len() <= build::MAX_ECHO;
    if !(whole && addressed && answerable) {
        return None;
    }
    let message = Icmpv6Packet::new_checked(ip.payload).ok()?;
    if message.msg_type() != Icmpv6Message::EchoRequest {
        return None;
    }
    let Ok(Icmpv6Repr::EchoRequest { ident, seq_no, data }) =
        Icmpv6Repr::parse(&ip.src, &ip.dst, &message, &ChecksumCapabilities::ignored())
    else {
        return None;
    };
    let header = build::Header {
        src: ip.dst,
        dst: ip.src,
        hop_limit: build::HOP_LIMIT,
        traffic_class: ip.traffic_class,
        protocol: protocol::ICMPV6,
    };
    let answer = Icmpv6Repr::EchoReply { ident, seq_no, data };
    Some(build::icmpv6(frame, (who.mac, frame.src()), &header, &answer))
}
