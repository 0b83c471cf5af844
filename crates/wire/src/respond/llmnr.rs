//! A sleeper's name by link-local multicast name resolution (RFC 4795).

use alloc::{string::String, vec::Vec};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Context, Identity, Responder, Response};
use crate::{
    dns::{self, Writer, flag, kind},
    frame::Frame,
    network::is_host,
    persona::{
        Persona,
        llmnr::{PORT, text},
    },
    udp::{self, Datagram, Route},
};

/// The groups (RFC 4795 §2.1).
const GROUP_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 252));
const GROUP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 3));
/// How long others may keep an answer, in seconds (RFC 4795 §2.8).
const TTL: u32 = 30;
/// The bit of the flags that tells of a conflict (RFC 4795 §2.1.1), in the place of AA.
const CONFLICT: u16 = flag::AUTHORITATIVE;

/// Answers questions for the sleeper's name, to the asker alone (RFC 4795 §2.3).
///
/// - Its names are those that it answered to itself. One that was only seen to listen, by joining one of
///   the groups, answers to the host name that it gave to its DHCP server.
/// - With its addresses of the asked family, or with none for other types (§2.3, rule b).
/// - What a responder must ignore (§2.1.1, §2.3) is passed on: other operations, more than one question,
///   with answers in it. One with the conflict bit is consumed: it must not be answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Llmnr;

impl Responder for Llmnr {
    fn name(&self) -> &'static str {
        "llmnr"
    }

    fn respond(&self, frame: &Frame<'_>, context: &mut Context<'_>) -> Response {
        if !speaks(context.persona) {
            return Response::Pass;
        }
        respond(frame, context.who, context.persona).unwrap_or(Response::Pass)
    }
}

fn respond(frame: &Frame<'_>, who: &Identity, persona: &Persona) -> Option<Response> {
    let datagram = Datagram::parse(frame)?;
    let (asker, to) = (datagram.src, datagram.dst);
    let to_group = frame.is_group() && (to.ip() == GROUP_V4 || to.ip() == GROUP_V6);
    let from_others = who.is_foreign(frame.src()) && is_host(asker.ip()) && !who.has(asker.ip());
    if to.port() != PORT || !to_group || !from_others || asker.port() == 0 {
        return None;
    }
    let query = frame.dns().filter(|message| message.is_query())?;
    let [question] = &query.questions[..] else { return None };
    let asked = text(&question.name)?.into_bytes();
    let plain = query.answers.is_empty() && query.authority.is_empty();
    if !plain || question.class != dns::IN || !names_of(persona).any(|own| own.eq_ignore_ascii_case(&asked)) {
        return None;
    }
    if query.flags & CONFLICT != 0 {
        return Some(Response::Consume("it tells of a conflict of names, and wants no answer"));
    }
    let mut writer = Writer::new(query.id, flag::RESPONSE);
    writer.question(question);
    for address in &who.addresses {
        let (kind, data): (u16, Vec<u8>) = match address {
            IpAddr::V4(v4) => (kind::A, v4.octets().into()),
            IpAddr::V6(v6) => (kind::AAAA, v6.octets().into()),
        };
        if question.kind == kind || question.kind == kind::ANY {
            writer.answer(&question.name, kind, dns::IN, TTL, &data);
        }
    }
    let ends = (SocketAddr::new(who.on_link(asker.ip())?, PORT), asker);
    let route = Route { tags: frame.tags(), macs: (who.mac, frame.src()), ends, hop_limit: 255 };
    udp::build(&route, &writer.finish()).map(Response::Reply)
}

/// Was the machine seen to answer or to listen?
fn speaks(persona: &Persona) -> bool {
    !persona.names.llmnr.is_empty() || listens(persona)
}

fn listens(persona: &Persona) -> bool {
    persona.groups.iter().any(|group| *group == GROUP_V4 || *group == GROUP_V6)
}

/// The names that the machine answers to, with letters of either case.
pub(crate) fn names_of(persona: &Persona) -> impl Iterator<Item = &[u8]> {
    let lease = persona.lease.as_ref().filter(|_| listens(persona));
    let host_name = lease.and_then(|lease| lease.host_name.as_deref());
    // What a DHCP client sends may be a fully qualified name; LLMNR is for its first label.
    let label = host_name.and_then(|name| name.split(|octet| *octet == b'.').next());
    persona.names.llmnr.iter().map(String::as_bytes).chain(label)
}
