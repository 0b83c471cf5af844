//! A sleeper's names and services by multicast DNS (RFC 6762, RFC 6763).

use alloc::{borrow::Cow, vec::Vec};
use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use dormouse_types::{MacAddr, Timestamp};

use super::{Context, Identity, Responder, Response};
use crate::{
    digest,
    dns::{self, Message, Question, Record, Writer, flag, kind, same_name},
    frame::Frame,
    network::is_host,
    persona::{MdnsRecord, mdns::PORT},
    udp::{self, Datagram, Route},
};

/// The groups (RFC 6762 §3), and their Ethernet addresses (RFC 1112 §6.4, RFC 2464 §7).
const GROUP_V4: (Ipv4Addr, MacAddr) =
    (Ipv4Addr::new(224, 0, 0, 251), MacAddr([0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb]));
const GROUP_V6: (Ipv6Addr, MacAddr) =
    (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb), MacAddr([0x33, 0x33, 0, 0, 0, 0xfb]));

/// The longest answer, in octets of DNS: it fits a frame over IPv6 (RFC 6762 §17).
const MAX_MESSAGE: usize = 1452;
/// The longest time that one who is no responder may keep an answer, in seconds (RFC 6762 §6.7).
const LEGACY_TTL: u32 = 10;
/// How long a record is not sent to the group again, unless a name is defended (RFC 6762 §6).
const QUIET: Duration = Duration::from_secs(1);

/// Answers questions about the records that the sleeper announced while it was awake.
///
/// - To the group (§6), or to the asker if it wants that (§5.4) or is no responder itself (§6.7).
/// - At once if all that is said is the sleeper's alone, else 20 to 120 ms later, and 400 to 500 ms
///   later if more known answers are to come (§6, §7.2).
/// - What the asker knows already is left out (§7.1).
/// - A probe for one of its names is answered at once, so that nobody takes the name (§8.1).
/// - With a PTR record go the SRV, TXT and address records of what it points to, with an SRV record the
///   addresses (RFC 6763 §12). Who asks for the one address family that a name does not have is told so by
///   NSEC (§6.1).
///
/// Only questions to the groups are answered. Others' answers are passed on, conflicting ones too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mdns;

/// A set of the sleeper's records, by their place in its persona.
type Set = u64;
const _: () = assert!(crate::persona::Names::MAX_MDNS <= Set::BITS as usize);

/// Answers by their places in the persona: records, and that an address record has no other of its
/// name and the other family (NSEC, §6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Answers {
    records: Set,
    lone: Set,
}

impl Answers {
    const fn is_empty(self) -> bool {
        self.records == 0 && self.lone == 0
    }

    const fn without(self, other: Self) -> Self {
        Self { records: self.records & !other.records, lone: self.lone & !other.lone }
    }
}

/// What was sent to the group within the last second: each answer once, so that the list is bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told(Vec<(Timestamp, Answers)>);

impl Told {
    /// What of `answers` was not sent within the second before `now`.
    fn new_of(&mut self, answers: Answers, now: Timestamp) -> Answers {
        self.0.retain(|(at, _)| now.since(*at) < QUIET);
        self.0.iter().fold(answers, |left, (_, told)| left.without(*told))
    }

    fn add(&mut self, answers: Answers, now: Timestamp) {
        self.0.iter_mut().for_each(|(_, told)| *told = told.without(answers));
        self.0.retain(|(_, told)| !told.is_empty());
        self.0.reserve_exact(1);
        self.0.push((now, answers));
    }
}

impl Responder for Mdns {
    fn name(&self) -> &'static str {
        "mdns"
    }

    fn respond(&self, frame: &Frame<'_>, context: &mut Context<'_>) -> Response {
        let records = &context.persona.names.mdns;
        if records.is_empty() {
            return Response::Pass;
        }
        respond(frame, context, records).unwrap_or(Response::Pass)
    }
}

fn respond(frame: &Frame<'_>, context: &mut Context<'_>, records: &[MdnsRecord]) -> Option<Response> {
    let query = Query::parse(frame, context.who)?;
    let mut answer = Answer::to(&query, records);
    if answer.answers.is_empty() {
        return None;
    }
    answer.answers.records = without_known(records, answer.answers.records, &query.message.answers);
    if answer.answers.is_empty() {
        return Some(Response::Consume("the asker knows the answer"));
    }
    let to_group = !query.legacy() && !answer.unicast;
    if to_group {
        let new = context.memory.mdns.new_of(answer.answers, context.now);
        if !query.is_probe() {
            answer.answers = new;
        }
        if answer.answers.is_empty() {
            return Some(Response::Consume("it was answered within this second"));
        }
        context.memory.mdns.add(answer.answers, context.now);
    }
    let shared = of_set(records, answer.answers.records).any(|record| !record.unique);
    let reply = answer.frame(frame, &query, context.who, to_group)?;
    let spread =
        |from: u64, width: u64| Duration::from_millis(from + (digest(&reply) ^ context.now.0) % width);
    Some(if query.is_probe() {
        Response::Reply(reply)
    } else if query.message.flags & flag::TRUNCATED != 0 {
        Response::Later([(spread(400, 101), reply)].into())
    } else if shared {
        Response::Later([(spread(20, 101), reply)].into())
    } else {
        Response::Reply(reply)
    })
}

/// A question to the group, from another host.
struct Query<'a> {
    message: Cow<'a, Message>,
    asker: SocketAddr,
    /// The sleeper's address that answers, of the family in which it was asked.
    own: IpAddr,
    group: (IpAddr, MacAddr),
}

impl<'a> Query<'a> {
    fn parse(frame: &Frame<'a>, who: &Identity) -> Option<Self> {
        let datagram = Datagram::parse(frame)?;
        let asker = datagram.src;
        let group = match datagram.dst.ip() {
            IpAddr::V4(v4) if v4 == GROUP_V4.0 => (GROUP_V4.0.into(), GROUP_V4.1),
            IpAddr::V6(v6) if v6 == GROUP_V6.0 => (GROUP_V6.0.into(), GROUP_V6.1),
            _ => return None,
        };
        let from_others = who.is_foreign(frame.src()) && is_host(asker.ip()) && !who.has(asker.ip());
        if datagram.dst.port() != PORT || !frame.is_group() || !from_others || asker.port() == 0 {
            return None;
        }
        let message = frame.dns().filter(|message| message.is_query())?;
        Some(Self { message, asker, own: who.on_link(asker.ip())?, group })
    }

    /// Does a plain resolver ask, which knows nothing of multicast (§6.7)?
    fn legacy(&self) -> bool {
        self.asker.port() != PORT
    }

    /// Does it ask whether a name is free (§8.1)?
    fn is_probe(&self) -> bool {
        !self.message.authority.is_empty()
    }
}

/// What is answered.
struct Answer<'a> {
    known: &'a [MdnsRecord],
    answers: Answers,
    /// Every question that is answered wants a unicast answer.
    unicast: bool,
}

impl<'a> Answer<'a> {
    fn to(query: &Query<'_>, known: &'a [MdnsRecord]) -> Self {
        let mut answer = Self { known, answers: Answers::default(), unicast: true };
        for question in &query.message.questions {
            let class = question.class & !dns::TOP_BIT;
            if class != dns::IN && class != dns::ANY_CLASS {
                continue;
            }
            let found = set(known, |record| {
                (question.kind == record.kind || question.kind == kind::ANY)
                    && same_name(&question.name, &record.name)
            });
            let lone = if found == 0 { lone_address(known, question) } else { 0 };
            if found != 0 || lone != 0 {
                answer.unicast &= question.class & dns::TOP_BIT != 0;
            }
            answer.answers.records |= found;
            answer.answers.lone |= lone;
        }
        answer
    }

    fn frame(
        &self,
        request: &Frame<'_>,
        query: &Query<'_>,
        who: &Identity,
        to_group: bool,
    ) -> Option<Vec<u8>> {
        let legacy = query.legacy();
        let id = if legacy { query.message.id } else { 0 };
        let mut writer = Writer::new(id, flag::RESPONSE | flag::AUTHORITATIVE);
        if legacy {
            query.message.questions.iter().for_each(|question| writer.question(question));
        }
        let class = |unique: bool| if unique && !legacy { dns::IN | dns::TOP_BIT } else { dns::IN };
        let ttl = |ttl: u32| if legacy { ttl.min(LEGACY_TTL) } else { ttl };
        let fits = |writer: &Writer, name: &[u8], data: &[u8]| {
            writer.len() + name.len() + 10 + data.len() <= MAX_MESSAGE
        };
        let empty = writer.len();
        for record in of_set(self.known, self.answers.records) {
            if fits(&writer, &record.name, &record.data) {
                writer.answer(&record.name, record.kind, class(record.unique), ttl(record.ttl), &record.data);
            }
        }
        for address in of_set(self.known, self.answers.lone) {
            if let Some(data) = types_of(self.known, &address.name)
                && fits(&writer, &address.name, &data)
            {
                writer.answer(&address.name, kind::NSEC, class(true), ttl(address.ttl), &data);
            }
        }
        if writer.len() == empty {
            return None;
        }
        let more =
            without_known(self.known, related(self.known, self.answers.records), &query.message.answers);
        for record in of_set(self.known, more) {
            if fits(&writer, &record.name, &record.data) {
                let (class, ttl) = (class(record.unique), ttl(record.ttl));
                writer.additional(&record.name, record.kind, class, ttl, &record.data);
            }
        }
        let (to, to_mac) = match to_group {
            true => (SocketAddr::new(query.group.0, PORT), query.group.1),
            false => (query.asker, request.src()),
        };
        let ends = (SocketAddr::new(query.own, PORT), to);
        let route = Route { tags: request.tags(), macs: (who.mac, to_mac), ends, hop_limit: 255 };
        udp::build(&route, &writer.finish())
    }
}

fn set(records: &[MdnsRecord], wanted: impl Fn(&MdnsRecord) -> bool) -> Set {
    let places = records.iter().take(Set::BITS as usize).enumerate();
    places.filter(|(_, record)| wanted(record)).fold(0, |set, (place, _)| set | 1 << place)
}

fn of_set(records: &[MdnsRecord], set: Set) -> impl Iterator<Item = &MdnsRecord> {
    let places = records.iter().take(Set::BITS as usize).enumerate();
    places.filter(move |(place, _)| set >> place & 1 == 1).map(|(_, record)| record)
}

/// Without what the asker says that it knows, for at least half of its time (§7.1).
fn without_known(records: &[MdnsRecord], set: Set, told: &[Record]) -> Set {
    let knows = |record: &MdnsRecord, told: &Record| {
        record.kind == told.kind
            && record.data == told.data
            && same_name(&record.name, &told.name)
            && told.ttl >= record.ttl / 2
    };
    set & !self::set(records, |record| told.iter().any(|told| knows(record, told)))
}

/// The records that who gets those of `answers` will ask for next (RFC 6763 §12).
fn related(records: &[MdnsRecord], answers: Set) -> Set {
    let mut all = answers;
    // From PTR to SRV, and from SRV to addresses.
    for _ in 0..2 {
        for record in of_set(records, all) {
            let (target, kinds) = match record.kind {
                kind::PTR => (&record.data[..], [kind::SRV, kind::TXT]),
                kind::SRV => (record.data.get(6..).unwrap_or_default(), [kind::A, kind::AAAA]),
                _ => continue,
            };
            all |= set(records, |other| kinds.contains(&other.kind) && same_name(&other.name, target));
        }
    }
    all & !answers
}

/// The address record, one at most, by whose NSEC record somebody learns that its name has no address of
/// the family that is asked for (§6.1).
fn lone_address(records: &[MdnsRecord], question: &Question) -> Set {
    let other = match question.kind {
        kind::A => kind::AAAA,
        kind::AAAA => kind::A,
        _ => return 0,
    };
    let addresses = set(records, |record| {
        record.unique && record.kind == other && same_name(&record.name, &question.name)
    });
    // The lowest bit alone.
    addresses & addresses.wrapping_neg()
}

/// The data of a name's NSEC record: all types that it is known to have, in the restricted form of §6.1,
/// which has types up to 255.
fn types_of(records: &[MdnsRecord], name: &[u8]) -> Option<Vec<u8>> {
    let mut types = [0; 32];
    for record in records.iter().filter(|record| record.unique && same_name(&record.name, name)) {
        if let Some(octet) = types.get_mut(usize::from(record.kind / 8)) {
            *octet |= 0x80 >> (record.kind % 8);
        }
    }
    let len = types.iter().rposition(|octet| *octet != 0)? + 1;
    let mut data = name.to_vec();
    data.extend_from_slice(&[0, u8::try_from(len).ok()?]);
    data.extend_from_slice(types.get(..len)?);
    Some(data)
}
