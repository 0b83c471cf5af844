//! A sleeper's names in the NetBIOS name service (RFC 1001, RFC 1002).

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use super::{Context, Identity, Responder, Response};
use crate::{
    dns::{self, Message, Question, Writer, flag, kind},
    frame::{Frame, u16_at},
    network::is_host,
    persona::{
        NetbiosName,
        netbios::{ANYBODY, GROUP, PORT, decode, operation},
    },
    udp::{self, Datagram, Route},
};

/// How long others may keep an answer, in seconds: three days, as Samba has it.
const TTL: u32 = 259_200;
/// Flags that answers have beside "response" and "authoritative" (RFC 1002 §4.2.1.1).
const RECURSION_DESIRED: u16 = 0x0100;
const RECURSION_AVAILABLE: u16 = 0x0080;
/// The result "active error": the name is owned by another node (RFC 1002 §4.2.6).
const ACT_ERR: u16 = 6;
/// The bit of NAME_FLAGS that says that the name is in use (RFC 1002 §4.2.18).
const ACTIVE: u16 = 0x0400;
/// The statistics of a node status after its Ethernet address; all zero (RFC 1002 §4.2.18).
const STATISTICS: usize = 40;

/// Answers and defends the sleeper's NetBIOS names, as a broadcast node does (RFC 1002 §5.1.1.5).
///
/// - A name query gets its IPv4 addresses, whether the name is its own or a group's (§4.2.13).
/// - A node status request gets its names and its Ethernet address (§4.2.18).
/// - Who registers a name that is the sleeper's own is refused (§4.2.6), and who wants one of its groups for
///   itself alone; to be one of a group is anybody's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Netbios;

impl Responder for Netbios {
    fn name(&self) -> &'static str {
        "netbios"
    }

    fn respond(&self, frame: &Frame<'_>, context: &mut Context<'_>) -> Response {
        let names = &context.persona.names.netbios;
        if names.is_empty() {
            return Response::Pass;
        }
        Response::reply_or_pass(reply(frame, context.who, names))
    }
}

fn reply(frame: &Frame<'_>, who: &Identity, names: &[NetbiosName]) -> Option<Vec<u8>> {
    let datagram = Datagram::parse(frame)?;
    let (SocketAddr::V4(asker), SocketAddr::V4(to)) = (datagram.src, datagram.dst) else { return None };
    let for_us = if frame.is_group() {
        !to.ip().is_multicast()
    } else {
        who.is_addressed_by(frame) && who.has(*to.ip())
    };
    let from_others = who.is_foreign(frame.src()) && is_host((*asker.ip()).into()) && !who.has(*asker.ip());
    if to.port() != PORT || asker.port() == 0 || !for_us || !from_others {
        return None;
    }
    let message = frame.dns().filter(|message| message.flags & flag::RESPONSE == 0)?;
    let [question] = &message.questions[..] else { return None };
    let own = || names.iter().find(|own| decode(&question.name) == Some(own.name));
    let answer = match (operation(&message), question.kind) {
        (operation::QUERY, kind::NB) => found(&message, question, own()?, who)?,
        (operation::QUERY, kind::NBSTAT) => {
            let asked = decode(&question.name)? == ANYBODY || own().is_some();
            asked.then(|| status(&message, question, names, who))?
        }
        (operation::REGISTRATION | operation::MULTI_HOMED, kind::NB) => {
            defence(&message, question, own()?, who)?
        }
        _ => return None,
    };
    let own = who.on_link((*asker.ip()).into())?;
    let ends = (SocketAddr::new(own, PORT), SocketAddr::V4(SocketAddrV4::new(*asker.ip(), asker.port())));
    let route =
        Route { tags: frame.tags(), macs: (who.mac, frame.src()), ends, hop_limit: super::build::HOP_LIMIT };
    udp::build(&route, &answer)
}

/// NB_FLAGS and each address of the sleeper; `None` if it has none.
fn addresses(name: &NetbiosName, who: &Identity) -> Option<Vec<u8>> {
    let v4 = who.addresses.iter().filter_map(|address| match address {
        IpAddr::V4(v4) => Some(v4.octets()),
        IpAddr::V6(_) => None,
    });
    let [high, low] = name.flags.to_be_bytes();
    let data: Vec<u8> = v4.flat_map(|[a, b, c, d]| [high, low, a, b, c, d]).collect();
    Some(data).filter(|data| !data.is_empty())
}

/// A positive name query response (RFC 1002 §4.2.13).
fn found(query: &Message, question: &Question, name: &NetbiosName, who: &Identity) -> Option<Vec<u8>> {
    let flags = flag::RESPONSE | flag::AUTHORITATIVE | (query.flags & RECURSION_DESIRED);
    let mut writer = Writer::new(query.id, flags | RECURSION_AVAILABLE);
    writer.answer(&question.name, kind::NB, dns::IN, TTL, &addresses(name, who)?);
    Some(writer.finish())
}

/// A node status response (RFC 1002 §4.2.18).
fn status(query: &Message, question: &Question, names: &[NetbiosName], who: &Identity) -> Vec<u8> {
    let count = u8::try_from(names.len()).unwrap_or(u8::MAX);
    let mut data = Vec::new();
    data.push(count);
    for name in names.iter().take(count.into()) {
        data.extend_from_slice(&name.name);
        data.extend_from_slice(&(name.flags | ACTIVE).to_be_bytes());
    }
    data.extend_from_slice(&who.mac.0);
    data.resize(data.len() + STATISTICS, 0);
    let mut writer = Writer::new(query.id, flag::RESPONSE | flag::AUTHORITATIVE);
    writer.answer(&question.name, kind::NBSTAT, dns::IN, 0, &data);
    writer.finish()
}

/// A negative name registration response (RFC 1002 §4.2.6), unless the sleeper itself is what
/// would be registered.
fn defence(query: &Message, question: &Question, name: &NetbiosName, who: &Identity) -> Option<Vec<u8>> {
    let claimed = query.additional.first().filter(|record| u16_at(&record.data, 0).is_some())?;
    let joins = u16_at(&claimed.data, 0).is_some_and(|flags| flags & GROUP != 0);
    if name.group && joins {
        return None;
    }
    let address: [u8; 4] = claimed.data.get(2..6)?.try_into().ok()?;
    if who.has(Ipv4Addr::from(address)) {
        return None;
    }
    let flags = flag::RESPONSE | operation::REGISTRATION << 11 | flag::AUTHORITATIVE | ACT_ERR;
    let mut writer = Writer::new(query.id, flags | RECURSION_DESIRED | RECURSION_AVAILABLE);
    writer.answer(&question.name, kind::NB, dns::IN, 0, addresses(name, who)?.get(..6)?);
    Some(writer.finish())
}
