//! Names: learned from avahi and Samba, answered for as they do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{
    Audience, Cache, Context, Frame, Identity, Lease, Llmnr, Mdns, Memory, Names, Netbios, Persona,
    Responder, Response, Way,
};
use proptest::prelude::*;
use simple_dns::{
    CLASS, Name, Packet as Dns, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE,
    rdata::{A, PTR, RData},
};
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, UdpPacket};

use crate::{
    MAC_1, MAC_2,
    build::{self, ip_frame, tag, tagged},
    captures as c, ip,
    packets::{self, Packet},
};

const GROUP: &str = "224.0.0.251";
const GROUP_MAC: MacAddr = MacAddr([1, 0, 0x5e, 0, 0, 0xfb]);
const GROUP_MAC_6: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 0xfb]);
const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn guest() -> Identity {
    Identity {
        mac: MAC_2,
        addresses: vec![ip("10.9.0.101"), ip("fd77::2"), ip("fe80::5054:ff:fe00:2")],
        configured: true,
    }
}

fn learn(persona: &mut Persona, packets: &[&Packet]) -> bool {
    let learn =
        |packet: &&Packet| persona.learn(&Frame::new(&packet.bytes()).unwrap(), Way::Sent, MAC_2, NOW);
    packets.iter().map(learn).fold(false, |any, changed| any | changed)
}

/// What avahi's announcements teach: a host name, its addresses, and a service.
fn announced() -> Persona {
    let mut persona = Persona::default();
    assert!(learn(&mut persona, &[&c::MDNS_HOST, &c::MDNS_HOST6, &c::MDNS_SERVICE]));
    persona
}

/// What nmbd's registrations teach: three names of its own, and a group.
fn registered() -> Persona {
    let mut persona = Persona::default();
    let packets = [&c::NBNS_REGISTER, &c::NBNS_REGISTER_03, &c::NBNS_REGISTER_00, &c::NBNS_REGISTER_GROUP];
    assert!(learn(&mut persona, &packets));
    persona
}

fn respond(by: &dyn Responder, persona: &Persona, memory: &mut Memory, bytes: &[u8]) -> Response {
    let who = &guest();
    by.respond(&Frame::new(bytes).unwrap(), &mut Context { who, persona, now: NOW, memory })
}

/// What a responder says that remembers nothing.
fn once(by: &dyn Responder, persona: &Persona, bytes: &[u8]) -> Response {
    respond(by, persona, &mut Memory::default(), bytes)
}

#[track_caller]
fn reply(response: Response) -> Vec<u8> {
    match response {
        Response::Reply(reply) => reply,
        other => panic!("no answer at once: {other:?}"),
    }
}

#[track_caller]
fn later(response: Response) -> (u128, Vec<u8>) {
    match response {
        Response::Later(mut answers) => {
            assert_eq!(answers.len(), 1);
            answers.pop().map(|(delay, answer)| (delay.as_millis(), answer)).unwrap()
        }
        other => panic!("no answer later: {other:?}"),
    }
}

/// A UDP datagram of ours, with its headers and checksums verified.
struct Sent {
    to_mac: MacAddr,
    src: IpAddr,
    dst: IpAddr,
    ports: (u16, u16),
    hop_limit: u8,
    data: Vec<u8>,
}

fn sent(bytes: &[u8]) -> Sent {
    let frame = Frame::new(bytes).unwrap();
    assert_eq!(frame.src(), MAC_2);
    let (src, dst, hop_limit, payload): (IpAddr, IpAddr, u8, &[u8]) = if frame.ethertype() == 0x0800 {
        let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
        assert!(packet.verify_checksum());
        (packet.src_addr().into(), packet.dst_addr().into(), packet.hop_limit(), &frame.payload()[20..])
    } else {
        let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
        (packet.src_addr().into(), packet.dst_addr().into(), packet.hop_limit(), &frame.payload()[40..])
    };
    assert!(guest().has(src));
    let udp = UdpPacket::new_checked(payload).unwrap();
    assert!(udp.verify_checksum(&IpAddress::from(src), &IpAddress::from(dst)));
    let ports = (udp.src_port(), udp.dst_port());
    Sent { to_mac: frame.dst(), src, dst, ports, hop_limit, data: udp.payload().to_vec() }
}

/// A question as host 1 asks it.
struct Ask {
    name: &'static str,
    kind: QTYPE,
    unicast: bool,
    port: u16,
    six: bool,
    known: Vec<ResourceRecord<'static>>,
    flags: PacketFlag,
}

fn ask(name: &'static str, kind: TYPE) -> Ask {
    let (unicast, port, six) = (false, 5353, false);
    Ask { name, kind: kind.into(), unicast, port, six, known: Vec::new(), flags: PacketFlag::empty() }
}

impl Ask {
    fn data(&self) -> Vec<u8> {
        let mut query = Dns::new_query(0x1234);
        query.set_flags(self.flags);
        let name = Name::new(self.name).unwrap();
        query.questions.push(Question::new(name, self.kind, QCLASS::CLASS(CLASS::IN), self.unicast));
        query.answers.clone_from(&self.known);
        query.build_bytes_vec().unwrap()
    }

    fn frame(&self) -> Vec<u8> {
        let udp = build::ports(17, self.port, 5353, &self.data());
        if self.six {
            ip_frame((MAC_1, GROUP_MAC_6), ip("fe80::5054:ff:fe00:1"), ip("ff02::fb"), 17, &udp)
        } else {
            ip_frame((MAC_1, GROUP_MAC), ip("10.9.0.1"), ip(GROUP), 17, &udp)
        }
    }
}

fn types(records: &[ResourceRecord<'_>]) -> Vec<TYPE> {
    let mut types: Vec<_> = records.iter().map(|record| record.rdata.type_code()).collect();
    types.sort_by_key(|kind| u16::from(*kind));
    types
}

#[test]
fn avahi_s_records_are_learned_and_taken_back() {
    let mut persona = announced();
    let octets: usize = persona.names.mdns.iter().map(|r| r.name.len() + r.data.len()).sum();
    assert!(persona.names.mdns.len() >= 8 && octets < 700, "{octets} octets in {:?}", persona.names.mdns);
    assert!(persona.names.mdns.iter().any(|r| !r.unique) && persona.names.mdns.iter().any(|r| r.unique));
    // Said again, it is nothing new.
    assert!(!learn(&mut persona, &[&c::MDNS_HOST, &c::MDNS_HOST6, &c::MDNS_SERVICE]));
    // Probes claim nothing.
    assert!(!learn(&mut Persona::default(), &[&c::MDNS_PROBE]));
    assert!(learn(&mut persona, &[&c::MDNS_GOODBYE]));
    assert!(persona.names.mdns.len() < 8, "{:?}", persona.names.mdns);
    assert_eq!(once(&Mdns, &persona, &ask("guest.local", TYPE::A).frame()), Response::Pass);
}

#[test]
fn a_question_for_its_address_is_answered_to_the_group_at_once() {
    let answer = sent(&reply(once(&Mdns, &announced(), &ask("GUEST.local", TYPE::A).frame())));
    assert_eq!((answer.to_mac, answer.dst, answer.ports), (GROUP_MAC, ip(GROUP), (5353, 5353)));
    assert_eq!((answer.src, answer.hop_limit), (ip("10.9.0.101"), 255));
    let message = Dns::parse(&answer.data).unwrap();
    assert_eq!((message.id(), message.questions.len(), message.answers.len()), (0, 0, 1));
    assert!(message.has_flags(PacketFlag::RESPONSE | PacketFlag::AUTHORITATIVE_ANSWER));
    let record = &message.answers[0];
    assert!(record.cache_flush && record.ttl == 120);
    assert_eq!(record.rdata, RData::A(A { address: Ipv4Addr::new(10, 9, 0, 101).into() }));
}

#[test]
fn questions_come_by_ipv6_and_in_vlans_too() {
    let six = Ask { six: true, ..ask("guest.local", TYPE::AAAA) };
    let answer = sent(&reply(once(&Mdns, &announced(), &six.frame())));
    assert_eq!((answer.to_mac, answer.src), (GROUP_MAC_6, ip("fe80::5054:ff:fe00:2")));
    let message = Dns::parse(&answer.data).unwrap();
    let expected: Ipv6Addr = "fe80::5054:ff:fe00:2".parse().unwrap();
    assert!(matches!(&message.answers[0].rdata, RData::AAAA(aaaa) if aaaa.address == expected.into()));
    let tagged = reply(once(&Mdns, &announced(), &tagged(&six.frame(), &tag(5))));
    assert_eq!(Frame::new(&tagged).unwrap().tags(), tag(5));
}

#[test]
fn who_wants_a_unicast_answer_gets_one() {
    let qu = Ask { unicast: true, ..ask("guest.local", TYPE::A) };
    let answer = sent(&reply(once(&Mdns, &announced(), &qu.frame())));
    assert_eq!((answer.to_mac, answer.dst, answer.ports), (MAC_1, ip("10.9.0.1"), (5353, 5353)));
    // A plain resolver: RFC 6762 §6.7.
    let legacy = Ask { port: 40_000, ..ask("guest.local", TYPE::A) };
    let answer = sent(&reply(once(&Mdns, &announced(), &legacy.frame())));
    assert_eq!((answer.to_mac, answer.dst, answer.ports), (MAC_1, ip("10.9.0.1"), (5353, 40_000)));
    let message = Dns::parse(&answer.data).unwrap();
    assert_eq!((message.id(), message.questions.len()), (0x1234, 1));
    assert!(!message.answers[0].cache_flush && message.answers[0].ttl == 10);
}

#[test]
fn a_service_is_answered_later_with_all_that_is_needed_for_it() {
    let query = ask("_workstation._tcp.local", TYPE::PTR).frame();
    let (delay, answer) = later(once(&Mdns, &announced(), &query));
    assert!((20..=120).contains(&delay), "{delay} ms");
    let answer = sent(&answer);
    let message = Dns::parse(&answer.data).unwrap();
    assert_eq!(types(&message.answers), [TYPE::PTR]);
    assert_eq!(types(&message.additional_records), [TYPE::A, TYPE::TXT, TYPE::AAAA, TYPE::SRV]);
    assert!(!message.answers[0].cache_flush);
    // More known answers will follow: RFC 6762 §7.2.
    let flags = PacketFlag::TRUNCATION;
    let truncated = Ask { flags, ..ask("_workstation._tcp.local", TYPE::PTR) };
    let (delay, _) = later(once(&Mdns, &announced(), &truncated.frame()));
    assert!((400..=500).contains(&delay), "{delay} ms");
}

#[test]
fn what_is_known_is_not_said_again() {
    let ptr = |ttl| {
        let name = Name::new_unchecked("guest [52:54:00:00:00:02]._workstation._tcp.local");
        let owner = Name::new("_workstation._tcp.local").unwrap();
        ResourceRecord::new(owner, CLASS::IN, ttl, RData::PTR(PTR(name)))
    };
    let query = |ttl| Ask { known: vec![ptr(ttl)], ..ask("_workstation._tcp.local", TYPE::PTR) }.frame();
    assert!(matches!(once(&Mdns, &announced(), &query(4500)), Response::Consume(_)));
    assert!(matches!(once(&Mdns, &announced(), &query(2250)), Response::Consume(_)));
    later(once(&Mdns, &announced(), &query(2249)));
    // Nor twice within a second, whoever asks.
    let (mut memory, query) = (Memory::default(), ask("guest.local", TYPE::A).frame());
    reply(respond(&Mdns, &announced(), &mut memory, &query));
    assert!(matches!(respond(&Mdns, &announced(), &mut memory, &query), Response::Consume(_)));
    reply(respond(&Mdns, &announced(), &mut memory, &ask("guest.local", TYPE::AAAA).frame()));
}

#[test]
fn a_real_probe_by_another_is_answered_at_once_each_time() {
    let mut probe = c::MDNS_PROBE.bytes();
    probe[6..12].copy_from_slice(&MAC_1.0);
    probe[26..30].copy_from_slice(&[10, 9, 0, 1]);
    let (persona, mut memory) = (announced(), Memory::default());
    for _ in 0..2 {
        let answer = sent(&reply(respond(&Mdns, &persona, &mut memory, &probe)));
        let message = Dns::parse(&answer.data).unwrap();
        assert!(types(&message.answers).contains(&TYPE::A));
        assert!(message.answers.iter().all(|record| record.cache_flush));
    }
}

#[test]
fn who_asks_for_the_family_it_lacks_is_told_so() {
    let mut persona = Persona::default();
    assert!(learn(&mut persona, &[&c::MDNS_HOST]));
    persona.names.mdns.retain(|record| record.kind != 28);
    let answer = sent(&reply(once(&Mdns, &persona, &ask("guest.local", TYPE::AAAA).frame())));
    let message = Dns::parse(&answer.data).unwrap();
    let RData::NSEC(nsec) = &message.answers[0].rdata else { panic!("{message:?}") };
    assert_eq!(nsec.next_name, Name::new("guest.local").unwrap());
    assert_eq!(nsec.type_bit_maps.len(), 1);
    // A and HINFO (1 and 13).
    assert_eq!(
        (nsec.type_bit_maps[0].window_block, &nsec.type_bit_maps[0].bitmap[..]),
        (0, &[0x40, 0x04][..])
    );
}

#[test]
fn an_answer_goes_to_the_group_once_a_second() {
    let mut persona = Persona::default();
    assert!(learn(&mut persona, &[&c::MDNS_HOST]));
    persona.names.mdns.retain(|record| record.kind != 28);
    let who = &guest();
    let mut memory = Memory::default();
    let mut types_at = |millis: u64, kinds: &[TYPE]| {
        let mut query = Dns::new_query(0);
        for kind in kinds {
            let name = Name::new_unchecked("guest.local");
            query.questions.push(Question::new(name, (*kind).into(), CLASS::IN.into(), false));
        }
        let udp = build::ports(17, 5353, 5353, &query.build_bytes_vec().unwrap());
        let frame = ip_frame((MAC_1, GROUP_MAC), ip("10.9.0.1"), ip(GROUP), 17, &udp);
        let now = Timestamp(NOW.0 + millis * 1_000_000);
        let context = &mut Context { who, persona: &persona, now, memory: &mut memory };
        match Mdns.respond(&Frame::new(&frame).unwrap(), context) {
            Response::Reply(reply) => types(&Dns::parse(&sent(&reply).data).unwrap().answers),
            Response::Consume(_) => vec![],
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(types_at(0, &[TYPE::A]), [TYPE::A]);
    assert_eq!(types_at(500, &[TYPE::A, TYPE::AAAA]), [TYPE::NSEC]);
    for millis in 501..999 {
        assert_eq!(types_at(millis, &[TYPE::A, TYPE::AAAA]), []);
    }
    assert_eq!(types_at(1000, &[TYPE::A, TYPE::AAAA]), [TYPE::A]);
    assert_eq!(types_at(1499, &[TYPE::AAAA]), []);
    assert_eq!(types_at(1500, &[TYPE::AAAA]), [TYPE::NSEC]);
}

#[test]
fn what_is_not_asked_of_it_is_passed_on() {
    let persona = announced();
    let mut own = ask("guest.local", TYPE::A).frame();
    own[6..12].copy_from_slice(&MAC_2.0);
    let mut unicast = ask("guest.local", TYPE::A).frame();
    unicast[..6].copy_from_slice(&MAC_2.0);
    let cases = [
        ask("other.local", TYPE::A).frame(),
        ask("guest.local", TYPE::MX).frame(),
        c::MDNS_HOST.bytes(),
        own,
        unicast,
    ];
    for frame in cases {
        assert_eq!(once(&Mdns, &persona, &frame), Response::Pass, "{:?}", Frame::new(&frame));
    }
    assert_eq!(once(&Mdns, &Persona::default(), &ask("guest.local", TYPE::A).frame()), Response::Pass);
}

#[test]
fn nmbd_s_names_are_learned() {
    let persona = registered();
    let names: Vec<_> = persona.names.netbios.iter().map(|name| (name.name, name.group)).collect();
    let padded = |text: &[u8], suffix| {
        let mut name = [b' '; 16];
        name[..text.len()].copy_from_slice(text);
        name[15] = suffix;
        name
    };
    let expected = [(0x20, false), (0x03, false), (0x00, false)]
        .map(|(suffix, group)| (padded(b"GUEST", suffix), group));
    assert_eq!(names[..3], expected);
    assert_eq!(names[3..], [(padded(b"LAB", 0), true)]);
    // A role is not a name; a lost registration is none; an answer says that the name is had.
    let mut persona = registered();
    let mut defence = c::NBNS_DEFENCE.bytes();
    assert!(!persona.learn(&Frame::new(&defence).unwrap(), Way::Received, MAC_2, NOW), "it is for another");
    defence[..6].copy_from_slice(&MAC_2.0);
    assert!(persona.learn(&Frame::new(&defence).unwrap(), Way::Received, MAC_2, NOW));
    assert_eq!(persona.names.netbios.len(), 3);
    let mut persona = Persona::default();
    assert!(learn(&mut persona, &[&c::NBNS_ANSWER, &c::NBNS_ANSWER_GROUP]));
    assert_eq!(persona.names.netbios.len(), 2);
}

#[test]
fn netbios_names_are_answered_and_defended_as_nmbd_does() {
    let persona = registered();
    for (question, answer) in
        [(&c::NBNS_QUERY, &c::NBNS_ANSWER), (&c::NBNS_QUERY_GROUP, &c::NBNS_ANSWER_GROUP)]
    {
        let ours = sent(&reply(once(&Netbios, &persona, &question.bytes())));
        assert_eq!((ours.to_mac, ours.dst, ours.ports.0), (MAC_1, ip("10.9.0.1"), 137));
        assert_eq!(ours.data, answer.bytes()[42..], "{}", question.name);
    }
    let ours = sent(&reply(once(&Netbios, &persona, &c::NBNS_RIVAL.bytes())));
    let mut nmbd = c::NBNS_DEFENCE.bytes().split_off(42);
    // The address is the owner's (RFC 1002 §4.2.6); Samba repeats the rival's.
    let address = nmbd.len() - 4..;
    nmbd[address].copy_from_slice(&[10, 9, 0, 101]);
    assert_eq!(ours.data, nmbd);
    let mut rival = c::NBNS_RIVAL_GROUP.bytes();
    assert_eq!(once(&Netbios, &persona, &rival), Response::Pass);
    // Who wants the group's name for itself is refused (RFC 1002 §5.1.1.5).
    let flags = rival.len() - 6;
    rival[flags] &= 0x7f;
    assert!(matches!(once(&Netbios, &persona, &rival), Response::Reply(_)));
}

#[test]
fn the_status_of_the_node_has_its_names_and_address() {
    let ours = sent(&reply(once(&Netbios, &registered(), &c::NBNS_STATUS.bytes()))).data;
    let nmbd = c::NBNS_STATUS_ANSWER.bytes().split_off(42);
    // The header, the name, the type and class as Samba has them; then our four of its seven names.
    assert_eq!(ours[..50], nmbd[..50]);
    assert_eq!(ours[54..56], [0, 1 + 4 * 18 + 46]);
    assert_eq!(ours[56], 4);
    for name in ours[57..57 + 4 * 18].chunks(18) {
        assert!(nmbd[57..57 + 7 * 18].chunks(18).any(|other| other == name), "{name:x?}");
    }
    assert_eq!(ours[57 + 4 * 18..][..6], MAC_2.0);
    assert_eq!(ours.len(), 57 + 4 * 18 + 46);
}

fn llmnr(name: &'static str, kind: TYPE, flags: PacketFlag) -> Vec<u8> {
    let udp = build::ports(17, 50_000, 5355, &Ask { flags, ..ask(name, kind) }.data());
    ip_frame((MAC_1, MacAddr([1, 0, 0x5e, 0, 0, 0xfc])), ip("10.9.0.1"), ip("224.0.0.252"), 17, &udp)
}

/// A machine that answered to "guest" by LLMNR.
fn answered() -> Persona {
    let mut answer = Dns::new_reply(7);
    let name = Name::new("Guest").unwrap();
    answer.questions.push(Question::new(name.clone(), TYPE::A.into(), CLASS::IN.into(), false));
    let address = RData::A(A { address: Ipv4Addr::new(10, 9, 0, 101).into() });
    answer.answers.push(ResourceRecord::new(name, CLASS::IN, 30, address));
    let udp = build::ports(17, 5355, 50_000, &answer.build_bytes_vec().unwrap());
    let frame = ip_frame((MAC_2, MAC_1), ip("10.9.0.101"), ip("10.9.0.1"), 17, &udp);
    let mut persona = Persona::default();
    assert!(persona.learn(&Frame::new(&frame).unwrap(), Way::Sent, MAC_2, NOW));
    assert_eq!(persona.names.llmnr, ["guest"]);
    persona
}

#[test]
fn its_name_is_answered_by_llmnr() {
    let none = PacketFlag::empty();
    let answer = sent(&reply(once(&Llmnr, &answered(), &llmnr("gUest", TYPE::A, none))));
    assert_eq!((answer.to_mac, answer.dst, answer.ports), (MAC_1, ip("10.9.0.1"), (5355, 50_000)));
    let message = Dns::parse(&answer.data).unwrap();
    assert_eq!((message.id(), message.questions.len()), (0x1234, 1));
    assert!(message.has_flags(PacketFlag::RESPONSE) && !message.has_flags(PacketFlag::AUTHORITATIVE_ANSWER));
    assert_eq!(message.answers[0].rdata, RData::A(A { address: Ipv4Addr::new(10, 9, 0, 101).into() }));
    assert_eq!((message.answers.len(), message.answers[0].ttl), (1, 30));
    let answer = sent(&reply(once(&Llmnr, &answered(), &llmnr("guest", TYPE::AAAA, none))));
    assert_eq!(types(&Dns::parse(&answer.data).unwrap().answers), [TYPE::AAAA, TYPE::AAAA]);
    // It is authoritative for its name: it has no such record.
    let answer = sent(&reply(once(&Llmnr, &answered(), &llmnr("guest", TYPE::MX, none))));
    assert!(Dns::parse(&answer.data).unwrap().answers.is_empty());
    assert_eq!(once(&Llmnr, &answered(), &llmnr("other", TYPE::A, none)), Response::Pass);
    assert_eq!(once(&Llmnr, &Persona::default(), &llmnr("guest", TYPE::A, none)), Response::Pass);
    let conflict = llmnr("guest", TYPE::A, PacketFlag::AUTHORITATIVE_ANSWER);
    assert!(matches!(once(&Llmnr, &answered(), &conflict), Response::Consume(_)));
}

#[test]
fn who_only_listened_answers_to_its_host_name() {
    let lease = Lease {
        address: Ipv4Addr::new(10, 9, 0, 101),
        server: Ipv4Addr::new(10, 9, 0, 1),
        server_mac: MAC_1,
        since: NOW,
        seconds: 60,
        renew: 30,
        rebind: 50,
        client_id: None,
        host_name: Some(b"Guest.example.org".to_vec()),
    };
    let mut persona = Persona { lease: Some(lease), ..Persona::default() };
    let query = llmnr("guest", TYPE::A, PacketFlag::empty());
    assert_eq!(once(&Llmnr, &persona, &query), Response::Pass);
    persona.groups.push(ip("224.0.0.252"));
    reply(once(&Llmnr, &persona, &query));
}

#[test]
fn an_ordinary_persona_is_small() {
    let mut persona = announced();
    persona.names.netbios = registered().names.netbios;
    let names = &persona.names;
    let mdns: usize = names.mdns.iter().map(|r| r.name.capacity() + r.data.capacity() + size_of_val(r)).sum();
    let spare = names.mdns.capacity() - names.mdns.len();
    let total = size_of::<Persona>() + mdns + names.netbios.capacity() * size_of_val(&names.netbios[0]);
    assert!(total < 2560 && spare == 0, "{total} octets, room for {spare} more records");
}

/// Is the machine one of those that a frame is for?
fn concerns(persona: &Persona, frame: &Frame<'_>) -> bool {
    match Audience::of(frame) {
        Audience::Named(names) => names.iter().any(|name| persona.answers_to().contains(name)),
        _ => !frame.is_group(),
    }
}

#[test]
fn a_question_concerns_those_that_have_a_name_of_it() {
    let mut persona = announced();
    persona.names.netbios = registered().names.netbios;
    persona.names.llmnr.push("guest".into());
    let concerned = |frame: &[u8]| concerns(&persona, &Frame::new(frame).unwrap());
    let none = PacketFlag::empty();
    assert!(concerned(&ask("GUEST.local", TYPE::TXT).frame()));
    assert!(!concerned(&ask("other.local", TYPE::A).frame()));
    assert!(concerned(&llmnr("Guest", TYPE::A, none)));
    assert!(!concerned(&llmnr("guest.local", TYPE::A, none)));
    assert!(!concerned(&c::MDNS_HOST.bytes()));
    // More than anybody would ask.
    let mut query = Dns::new_query(0);
    let question =
        || Question::new(Name::new_unchecked("guest.local"), TYPE::A.into(), CLASS::IN.into(), false);
    query.questions.extend((0..33).map(|_| question()));
    let udp = build::ports(17, 5353, 5353, &query.build_bytes_vec_compressed().unwrap());
    let frame = ip_frame((MAC_1, GROUP_MAC), ip("10.9.0.1"), ip(GROUP), 17, &udp);
    assert_eq!(Audience::of(&Frame::new(&frame).unwrap()), Audience::Named(vec![]));
    // Each name once, however many records bear it.
    assert!(persona.answers_to().len() < persona.names.mdns.len() + 6);
}

/// Everything that reads names, on any bytes.
fn everything(bytes: &[u8]) {
    let Some(frame) = Frame::new(bytes) else { return };
    let mut persona = announced();
    persona.names.netbios = registered().names.netbios;
    persona.names.llmnr.push("guest".into());
    let (concerned, cache) = (concerns(&persona, &frame), Cache::default());
    for by in [&Mdns as &dyn Responder, &Llmnr, &Netbios] {
        let response = once(by, &persona, bytes);
        assert!(concerned || response == Response::Pass, "{response:?}");
        // Whoever looked at the frame before.
        let cached = Frame::cached(bytes, &cache).unwrap();
        let (who, memory) = (&guest(), &mut Memory::default());
        let context = &mut Context { who, persona: &persona, now: NOW, memory };
        assert_eq!(by.respond(&cached, context), response);
        match response {
            Response::Reply(reply) => drop(sent(&reply)),
            response @ Response::Later(_) => drop(sent(&later(response).1)),
            _ => {}
        }
    }
    for way in [Way::Sent, Way::Received] {
        persona.learn(&frame, way, frame.src(), NOW);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_octets_make_it_panic_or_answer_nonsense(
        which: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        others: bool,
    ) {
        let mut bytes = which.get(c::ALL).bytes();
        if others {
            bytes[6..12].copy_from_slice(&MAC_1.0);
        }
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        everything(&bytes);
    }

    #[test]
    fn any_message_in_a_right_datagram(
        data in prop::collection::vec(any::<u8>(), 0..200), port in prop::sample::select(vec![137u16, 5353, 5355]),
        counts in prop::array::uniform4(0u8..3), response: bool, to_group: bool,
    ) {
        let mut message = vec![0, 1, if response { 0x84 } else { 0 }, 0];
        message.extend(counts.iter().flat_map(|count| [0, *count]));
        message.extend(data);
        let udp = build::ports(17, port, port, &message);
        let (mac, group) = match (to_group, port) {
            (true, 5353) => (GROUP_MAC, GROUP),
            (true, 5355) => (GROUP_MAC, "224.0.0.252"),
            (true, _) => (MacAddr::BROADCAST, "10.9.0.255"),
            (false, _) => (MAC_2, "10.9.0.101"),
        };
        everything(&ip_frame((MAC_1, mac), ip("10.9.0.1"), ip(group), 17, &udp));
    }

    /// However many records a guest invents, what is kept stays within its bounds.
    #[test]
    fn learning_is_bounded(
        names in prop::collection::vec(("[a-z]{1,20}", any::<u8>(), 0usize..1200, any::<bool>(), 0u32..3), 1..200),
    ) {
        let mut persona = Persona::default();
        for (name, kind, len, unique, ttl) in names {
            let mut message = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
            message.push(u8::try_from(name.len()).unwrap());
            message.extend(name.bytes());
            message.extend([0, 0, kind, if unique { 0x80 } else { 0 }, 1]);
            message.extend(ttl.to_be_bytes());
            message.extend(u16::try_from(len).unwrap().to_be_bytes());
            message.extend(std::iter::repeat_n(0, len));
            let udp = build::ports(17, 5353, 5353, &message);
            let frame = ip_frame((MAC_2, GROUP_MAC), ip("10.9.0.101"), ip(GROUP), 17, &udp);
            persona.learn(&Frame::new(&frame).unwrap(), Way::Sent, MAC_2, NOW);
        }
        let kept = &persona.names.mdns;
        prop_assert!(kept.len() <= Names::MAX_MDNS);
        prop_assert!(kept.iter().map(|r| r.name.len() + r.data.len()).sum::<usize>() <= Names::MAX_MDNS_OCTETS);
        for (at, record) in kept.iter().enumerate() {
            prop_assert!(record.ttl > 0);
            prop_assert!(!kept[..at].contains(record));
        }
    }
}

#[test]
fn other_packets_are_passed_on() {
    let mut persona = announced();
    persona.names = Names { netbios: registered().names.netbios, ..persona.names };
    for packet in packets::ALL {
        for by in [&Mdns as &dyn Responder, &Llmnr, &Netbios] {
            assert_eq!(once(by, &persona, &packet.bytes()), Response::Pass, "{}", packet.name);
        }
    }
}
