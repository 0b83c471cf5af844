//! Learning groups, and answering queries for them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{Deed, Frame, Identity, Outcome, Persona, Policy, Proxy, Way};
use proptest::prelude::*;
use smoltcp::wire::{Icmpv6Packet, IgmpPacket, Ipv4Packet, Ipv6Packet};

use crate::{
    MAC_1, MAC_2,
    build::{ethernet, ipv6, tag, tagged},
    host_2, ip, packets,
};

const ALL_SYSTEMS: MacAddr = MacAddr([1, 0, 0x5e, 0, 0, 1]);
const ALL_NODES: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
const ROUTER: &str = "fe80::5054:ff:fe00:1";

/// An IGMP message in IPv4 without options.
fn igmp(macs: (MacAddr, MacAddr), message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    IgmpPacket::new_unchecked(&mut message).fill_checksum();
    let dst = Ipv4Addr::new(224, 0, 0, 1);
    let mut packet = crate::build::ipv4(Ipv4Addr::new(10, 9, 0, 1), dst, 2, &message);
    packet[8] = 1;
    Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
    ethernet(macs.1, macs.0, &[], 0x0800, &packet)
}

/// An MLD message in IPv6 without options.
fn mld(macs: (MacAddr, MacAddr), message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let (src, dst): (Ipv6Addr, Ipv6Addr) = (ROUTER.parse().unwrap(), "ff02::1".parse().unwrap());
    Icmpv6Packet::new_unchecked(&mut message).fill_checksum(&src, &dst);
    ethernet(macs.1, macs.0, &[], 0x86dd, &ipv6(src, dst, 1, 58, &message))
}

fn v4(group: &str) -> [u8; 4] {
    group.parse::<Ipv4Addr>().unwrap().octets()
}

fn v6(group: &str) -> [u8; 16] {
    group.parse::<Ipv6Addr>().unwrap().octets()
}

fn igmp_query(code: u8, group: &str, more: &[u8]) -> Vec<u8> {
    igmp((MAC_1, ALL_SYSTEMS), &[&[0x11, code, 0, 0][..], &v4(group), more].concat())
}

fn mld_query(code: u16, group: &str, more: &[u8]) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    mld((MAC_1, ALL_NODES), &[&[130, 0, 0, 0, high, low, 0, 0][..], &v6(group), more].concat())
}

/// What version 3 of IGMP and version 2 of MLD have behind the group.
const NEWER: [u8; 4] = [2, 125, 0, 0];

fn member(groups: &[&str]) -> Persona {
    Persona { groups: groups.iter().map(|group| ip(group)).collect(), ..Persona::default() }
}

/// The frames that a sleeper sends for a query, with the time that each one takes.
fn answers_of(who: Identity, persona: Persona, query: &[u8]) -> (Outcome, Vec<(Duration, Vec<u8>)>) {
    let start = Timestamp(1_000);
    let mut proxy = Proxy::new(who, persona, Policy::default(), start);
    let (_, outcome) = proxy.take(&Frame::new(query).unwrap(), start);
    let mut sent = Vec::new();
    while let Some(deadline) = proxy.deadline() {
        assert!(proxy.due(Timestamp(deadline.0 - 1)).is_empty(), "before its time");
        for deed in proxy.due(deadline) {
            let Deed::Send(_, frame) = deed else { panic!("{deed:?}") };
            sent.push((deadline.since(start), frame));
        }
    }
    (outcome, sent)
}

fn answers(groups: &[&str], query: &[u8]) -> Vec<(Duration, Vec<u8>)> {
    let (outcome, sent) = answers_of(host_2(), member(groups), query);
    assert!(matches!(outcome, Outcome::Consume(_)), "{outcome:?}");
    sent
}

/// Checks all that a report of IGMP is wrapped in, and gives the message.
fn igmp_report(bytes: &[u8], dst: &str, dst_mac: [u8; 6]) -> Vec<u8> {
    let frame = Frame::new(bytes).unwrap();
    assert_eq!((frame.src(), frame.dst()), (MAC_2, MacAddr(dst_mac)));
    let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
    assert!(packet.verify_checksum());
    assert_eq!((packet.hop_limit(), packet.header_len()), (1, 24));
    assert_eq!(usize::from(packet.total_len()), frame.payload().len());
    assert_eq!(frame.payload()[20..24], [0x94, 4, 0, 0]);
    assert_eq!((IpAddr::from(packet.src_addr()), IpAddr::from(packet.dst_addr())), (ip("10.9.0.2"), ip(dst)));
    assert!(IgmpPacket::new_checked(packet.payload()).unwrap().verify_checksum());
    packet.payload().to_vec()
}

fn mld_report(bytes: &[u8], dst: &str, dst_mac: [u8; 6]) -> Vec<u8> {
    let frame = Frame::new(bytes).unwrap();
    assert_eq!((frame.src(), frame.dst()), (MAC_2, MacAddr(dst_mac)));
    let packet = Ipv6Packet::new_checked(frame.payload()).unwrap();
    assert_eq!(packet.hop_limit(), 1);
    assert_eq!(packet.total_len(), frame.payload().len());
    assert_eq!(packet.payload()[..8], [58, 0, 5, 2, 0, 0, 1, 0], "router alert");
    let (src, to) = (packet.src_addr(), packet.dst_addr());
    assert_eq!((IpAddr::from(src), IpAddr::from(to)), (ip("fe80::5054:ff:fe00:2"), ip(dst)));
    assert!(Icmpv6Packet::new_unchecked(&packet.payload()[8..]).verify_checksum(&src, &to));
    packet.payload()[8..].to_vec()
}

#[test]
fn igmp_v2_general_query_gets_a_report_for_each_group() {
    let sent = answers(&["239.1.2.3", "224.0.0.251", "ff02::fb"], &igmp_query(100, "0.0.0.0", &[]));
    assert_eq!(sent.len(), 2);
    for (delay, frame) in &sent {
        assert!(*delay < Duration::from_secs(10));
        let (group, mac) = match frame[5] {
            3 => ("239.1.2.3", [1, 0, 0x5e, 1, 2, 3]),
            _ => ("224.0.0.251", [1, 0, 0x5e, 0, 0, 0xfb]),
        };
        let message = igmp_report(frame, group, mac);
        let message = IgmpPacket::new_checked(&message[..]).unwrap();
        assert_eq!(u8::from(message.msg_type()), 0x16);
        assert_eq!(IpAddr::from(message.group_addr()), ip(group));
    }
    assert_ne!(sent[0].0, sent[1].0);
    assert_ne!(sent[0].1, sent[1].1);
}

#[test]
fn igmp_v1_query_gets_reports_of_version_1() {
    let [(delay, frame)] = &answers(&["239.1.2.3"], &igmp_query(0, "0.0.0.0", &[]))[..] else { panic!() };
    assert!(*delay < Duration::from_secs(10));
    assert_eq!(igmp_report(frame, "239.1.2.3", [1, 0, 0x5e, 1, 2, 3])[0], 0x12);
}

#[test]
fn igmp_v3_query_gets_one_report_of_all_groups() {
    let sent = answers(&["239.1.2.3", "239.4.5.6"], &igmp_query(10, "0.0.0.0", &NEWER));
    let [(delay, frame)] = &sent[..] else { panic!("{sent:?}") };
    assert!(*delay < Duration::from_secs(1));
    let message = igmp_report(frame, "224.0.0.22", [1, 0, 0x5e, 0, 0, 22]);
    let wanted = [0x22, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0, 0, 239, 1, 2, 3, 2, 0, 0, 0, 239, 4, 5, 6];
    assert_eq!(message[..2], wanted[..2]);
    assert_eq!(message[4..], wanted[4..]);
}

#[test]
fn queries_for_one_group_get_that_group() {
    for query in [igmp_query(10, "239.4.5.6", &[]), igmp_query(10, "239.4.5.6", &NEWER)] {
        let [(_, frame)] = &answers(&["239.1.2.3", "239.4.5.6"], &query)[..] else { panic!() };
        assert!(frame.ends_with(&[239, 4, 5, 6]));
        assert!(answers(&["239.1.2.3"], &query).is_empty());
    }
    let query = mld_query(1000, "ff15::7", &NEWER);
    let [(_, frame)] = &answers(&["ff15::7", "ff15::8"], &query)[..] else { panic!() };
    assert!(frame.ends_with(&v6("ff15::7")));
    assert!(answers(&["ff15::9"], &query).is_empty());
}

#[test]
fn mld_queries_that_are_not_of_the_link_are_passed_on() {
    let mut query = mld_query(1000, "::", &NEWER);
    assert_eq!(query[22..26], [0xfe, 0x80, 0, 0]);
    // The same sum, so that the checksum is right.
    query[22..26].copy_from_slice(&[0x20, 0x01, 0xde, 0x7f]);
    let mut proxy = Proxy::new(host_2(), member(&["ff02::fb"]), Policy::default(), Timestamp(0));
    assert_eq!(proxy.take(&Frame::new(&query).unwrap(), Timestamp(0)).1, Outcome::Pass);
}

#[test]
fn mld_v2_query_gets_one_report_with_solicited_node_groups() {
    let sent = answers(&["ff02::fb", "239.1.2.3"], &mld_query(1000, "::", &NEWER));
    let [(delay, frame)] = &sent[..] else { panic!("{sent:?}") };
    assert!(*delay < Duration::from_secs(1));
    let message = mld_report(frame, "ff02::16", [0x33, 0x33, 0, 0, 0, 0x16]);
    let records: Vec<_> = message[8..].chunks(20).collect();
    assert_eq!((message[0], &message[4..8]), (143, &[0, 0, 0, 2][..]));
    // Both of its addresses have the same one.
    let groups = ["ff02::fb", "ff02::1:ff00:2"].map(v6);
    for group in groups {
        assert!(records.contains(&&[&[2, 0, 0, 0][..], &group].concat()[..]));
    }
}

#[test]
fn mld_v1_query_gets_a_report_for_each_group() {
    let sent = answers(&["ff02::fb"], &mld_query(10_000, "::", &[]));
    let mut groups: Vec<_> = sent
        .iter()
        .map(|(_, frame)| {
            let group = Ipv6Addr::from(<[u8; 16]>::try_from(&frame[frame.len() - 16..]).unwrap());
            let [.., a, b, c, d] = group.octets();
            assert_eq!(mld_report(frame, &group.to_string(), [0x33, 0x33, a, b, c, d])[0], 131);
            IpAddr::from(group)
        })
        .collect();
    groups.sort_unstable();
    assert_eq!(groups, [ip("ff02::fb"), ip("ff02::1:ff00:2")]);
}

#[test]
fn a_query_repeated_is_answered_once() {
    let query = igmp_query(100, "0.0.0.0", &NEWER);
    let mut proxy = Proxy::new(host_2(), member(&["239.1.2.3"]), Policy::default(), Timestamp(0));
    for at in 0..3 {
        proxy.take(&Frame::new(&query).unwrap(), Timestamp(at));
    }
    assert_eq!(proxy.due(Timestamp(u64::MAX)).len(), 1);
    assert_eq!(proxy.deadline(), None);
}

#[test]
fn reports_stay_in_the_vlan() {
    let query = tagged(&igmp_query(100, "0.0.0.0", &NEWER), &tag(9));
    let [(_, frame)] = &answers(&["239.1.2.3"], &query)[..] else { panic!() };
    assert_eq!(Frame::new(frame).unwrap().vlan(), Some(9));
}

#[test]
fn damaged_and_foreign_queries_are_passed_on() {
    let mut damaged = igmp_query(100, "0.0.0.0", &[]);
    *damaged.last_mut().unwrap() ^= 1;
    let mut far = mld_query(1000, "::", &NEWER);
    far[21] = 64;
    let mut own = igmp_query(100, "0.0.0.0", &[]);
    own[6..12].copy_from_slice(&MAC_2.0);
    for query in [damaged, far, own, igmp_query(100, "10.9.0.2", &[]), igmp_query(100, "0.0.0.0", &[0; 2])] {
        assert_eq!(answers_of(host_2(), member(&["239.1.2.3"]), &query), (Outcome::Pass, vec![]));
    }
}

/// Machines with addresses in a row do not answer at the same time.
#[test]
fn sleepers_spread_over_the_time() {
    let (query, mut tenths) = (igmp_query(100, "0.0.0.0", &NEWER), [0; 10]);
    for number in 0..10_000_u16 {
        let [high, low] = number.to_be_bytes();
        let who = Identity { mac: MacAddr([0x52, 0x54, 0, 1, high, low]), ..host_2() };
        let (_, sent) = answers_of(who, member(&["239.1.2.3"]), &query);
        tenths[usize::try_from(sent[0].0.as_secs()).unwrap()] += 1;
    }
    assert!(tenths.iter().all(|count| (700..1300).contains(count)), "{tenths:?}");
}

fn learn(persona: &mut Persona, bytes: &[u8]) -> bool {
    persona.learn(&Frame::new(bytes).unwrap(), Way::Sent, MAC_2, Timestamp(1))
}

#[test]
fn joins_and_leaves_are_learned() {
    let mut persona = Persona::default();
    let own = (MAC_2, ALL_SYSTEMS);
    assert!(learn(&mut persona, &packets::MLD_REPORT.bytes()));
    assert!(!learn(&mut persona, &packets::MLD_REPORT.bytes()));
    assert_eq!(persona.groups, [ip("ff02::1:ff00:2")]);
    for kind in [0x12, 0x16] {
        let report = igmp(own, &[&[kind, 0, 0, 0][..], &v4("239.1.2.3")].concat());
        assert!(learn(&mut persona, &report));
        assert!(persona.groups.contains(&ip("239.1.2.3")));
        assert!(!persona.learn(&Frame::new(&report).unwrap(), Way::Received, MAC_2, Timestamp(1)));
        assert!(learn(&mut persona, &igmp(own, &[&[0x17, 0, 0, 0][..], &v4("239.1.2.3")].concat())));
        assert!(!persona.groups.contains(&ip("239.1.2.3")));
    }
    let done = [&[132, 0, 0, 0, 0, 0, 0, 0][..], &v6("ff02::1:ff00:2")].concat();
    assert!(learn(&mut persona, &mld((MAC_2, ALL_NODES), &done)));
    let report = [&[131, 0, 0, 0, 0, 0, 0, 0][..], &v6("ff05::2")].concat();
    assert!(learn(&mut persona, &mld((MAC_2, ALL_NODES), &report)));
    assert_eq!(persona.groups, [ip("ff05::2")]);
}

#[test]
fn records_of_each_type_are_learned() {
    // The type, how many sources; is it a member then, if it was none and if it was one?
    let cases = [
        (1, 0, [false, false]),
        (1, 2, [true, true]),
        (2, 0, [true, true]),
        (2, 3, [true, true]),
        (3, 0, [false, false]),
        (3, 1, [true, true]),
        (4, 0, [true, true]),
        (5, 1, [true, true]),
        (5, 0, [false, true]),
        (6, 1, [false, true]),
        (9, 0, [false, true]),
    ];
    for (kind, sources, after) in cases {
        for (before, member_after) in [false, true].into_iter().zip(after) {
            let mut persona = if before { member(&["239.1.2.3"]) } else { Persona::default() };
            // A record with auxiliary data before it, and one behind it.
            let mut report =
                vec![0x22, 0, 0, 0, 0, 0, 0, 3, 4, 1, 0, 1, 239, 0, 0, 1, 1, 1, 1, 1, 9, 9, 9, 9];
            report.extend([kind, 0, 0, sources]);
            report.extend(v4("239.1.2.3"));
            report.extend(vec![7; 4 * usize::from(sources)]);
            report.extend([2, 0, 0, 0, 239, 0, 0, 2]);
            learn(&mut persona, &igmp((MAC_2, ALL_SYSTEMS), &report));
            assert_eq!(persona.groups.contains(&ip("239.1.2.3")), member_after, "{kind} {sources} {before}");
            assert!(persona.groups.contains(&ip("239.0.0.1")) && persona.groups.contains(&ip("239.0.0.2")));
        }
    }
}

#[test]
fn groups_of_everybody_are_not_learned() {
    let mut persona = Persona::default();
    learn(&mut persona, &igmp((MAC_2, ALL_SYSTEMS), &[&[0x16, 0, 0, 0][..], &v4("224.0.0.1")].concat()));
    for group in ["ff02::1", "ff01::5", "ff11::5", "ff00::5"] {
        learn(
            &mut persona,
            &mld((MAC_2, ALL_NODES), &[&[131, 0, 0, 0, 0, 0, 0, 0][..], &v6(group)].concat()),
        );
    }
    assert!(persona.groups.is_empty(), "{persona:?}");
}

proptest! {
    /// Whatever a guest reports: bounded, without repeats, groups only; and all of it is reported again.
    #[test]
    fn what_is_learned_is_bounded_and_reported(groups in prop::collection::vec((any::<bool>(), any::<u16>()), 0..120)) {
        let mut persona = Persona::default();
        let mut model = std::collections::BTreeSet::new();
        for (join, number) in groups {
            let [high, low] = (number % 100).to_be_bytes();
            let kind = if join { 4 } else { 3 };
            let report = [0x22, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, 0, 239, 7, high, low];
            learn(&mut persona, &igmp((MAC_2, ALL_SYSTEMS), &report));
            let group = IpAddr::from([239, 7, high, low]);
            if !join { model.remove(&group); } else if model.len() < Persona::MAX_GROUPS { model.insert(group); }
        }
        prop_assert_eq!(&persona.groups.iter().copied().collect::<std::collections::BTreeSet<_>>(), &model);
        prop_assert_eq!(persona.groups.len(), model.len());
        for query in [igmp_query(100, "0.0.0.0", &[]), igmp_query(100, "0.0.0.0", &NEWER)] {
            let (_, sent) = answers_of(host_2(), persona.clone(), &query);
            let mut heard = Persona::default();
            for (delay, frame) in sent {
                prop_assert!(delay < Duration::from_secs(10));
                learn(&mut heard, &frame);
            }
            prop_assert_eq!(heard.groups.into_iter().collect::<std::collections::BTreeSet<_>>(), model.clone());
        }
    }
}
