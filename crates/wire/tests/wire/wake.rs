//! What wakes a sleeper.

use dormouse_types::{MacAddr, Timestamp, WakeRule};
use dormouse_wire::{Frame, Identity, Persona, Rules, Verdict, is_magic, junk_frame};
use proptest::prelude::*;

use crate::{
    MAC_1, MAC_2, MAC_3,
    build::{echo, ethernet, ip_frame, ipv6, ports, tag, tagged},
    host_1, host_2, ip,
    packets::{self as p, Packet},
};

/// Does one of `rules` wake host 2?
fn wakes(rules: &[&str], bytes: &[u8]) -> bool {
    wakes_whom(&host_2(), rules, bytes)
}

fn wakes_whom(who: &Identity, rules: &[&str], bytes: &[u8]) -> bool {
    let rules: Vec<WakeRule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    let (mut rules, persona) = (Rules::new(rules.into(), [].into()), Persona::default());
    let verdict = rules.judge(&Frame::new(bytes).unwrap(), who, &persona, Timestamp(1));
    matches!(verdict, Verdict::Wake(_))
}

fn wakes_by(rule: &str, packets: &[&Packet]) {
    packets.iter().for_each(|packet| assert!(wakes(&[rule], &packet.bytes()), "{} by {rule}", packet.name));
}

fn sleeps_on(rule: &str, packets: &[&Packet]) {
    packets.iter().for_each(|packet| assert!(!wakes(&[rule], &packet.bytes()), "{} by {rule}", packet.name));
}

#[test]
fn any_unicast_is_all_but_link_upkeep() {
    wakes_by("any-unicast", &[&p::SYN, &p::SYN6, &p::UDP, &p::UDP6, &p::PING, &p::PING6]);
    wakes_by("any-unicast", &[&p::FIRST_FRAGMENT, &p::LATER_FRAGMENT]);
    sleeps_on("any-unicast", &[&p::ARP_REQUEST, &p::ARP_PROBE, &p::NS, &p::DAD, &p::MLD_REPORT, &p::MAGIC]);
    assert!(!wakes(&["any-unicast"], &junk_frame(MAC_2)));
    assert!(!wakes(&["any-unicast"], &p::ARP_STILL_THERE_REPLY.bytes()));
    let host_1_wakes = |packet: &Packet| wakes_whom(&host_1(), &["any-unicast"], &packet.bytes());
    assert!(!host_1_wakes(&p::ARP_STILL_THERE) && !host_1_wakes(&p::NS_UNICAST) && !host_1_wakes(&p::NA));
    assert!(host_1_wakes(&p::PORT_UNREACHABLE) && host_1_wakes(&p::PONG6) && !host_1_wakes(&p::RST));
}

#[test]
fn any_unicast_knows_link_local_protocols() {
    let upkeep = [
        0x0806, 0x8808, 0x8809, 0x888e, 0x88b5, 0x88b6, 0x88cc, 0x88e5, 0x88f5, 0x88f6, 0x88f7, 0x8902,
        0x9000,
    ];
    for ethertype in upkeep {
        let frame = ethernet(MAC_2, MAC_1, &[], ethertype, &[0; 46]);
        assert!(!wakes(&["any-unicast"], &frame), "{ethertype:#x}");
        assert!(!wakes(&["any-unicast"], &tagged(&frame, &tag(5))), "{ethertype:#x} in a VLAN");
    }
    for ethertype in [0x0026, 0x0800, 0x86dd, 0x8847, 0x8864, 0x0842] {
        assert!(wakes(&["any-unicast"], &ethernet(MAC_2, MAC_1, &[], ethertype, &[0; 46])), "{ethertype:#x}");
    }
}

#[test]
fn router_discovery_does_not_wake() {
    for kind in 132..=138 {
        let message = [kind, 0, 0, 0, 0, 0, 0, 0];
        let frame = ip_frame((MAC_1, MAC_2), ip("fe80::1"), ip("fd77::2"), 58, &message);
        assert_eq!(wakes(&["any-unicast"], &frame), !(133..=137).contains(&kind), "type {kind}");
        let later = [&[58, 0, 0, 8, 0, 0, 0, 7][..], &message].concat();
        let later = ip_frame((MAC_1, MAC_2), ip("fe80::1"), ip("fd77::2"), 44, &later);
        assert!(wakes(&["any-unicast"], &later), "data that looks like type {kind}");
    }
}

#[test]
fn ports_are_those_of_the_rule() {
    wakes_by("tcp:22,80", &[&p::SYN, &p::SYN6]);
    wakes_by("udp:53", &[&p::UDP, &p::UDP6, &p::FIRST_FRAGMENT]);
    sleeps_on("tcp:80,443", &[&p::SYN, &p::SYN6]);
    sleeps_on("tcp:53", &[&p::UDP, &p::UDP6]);
    sleeps_on("udp:22", &[&p::SYN, &p::SYN6]);
    sleeps_on("udp:53", &[&p::LATER_FRAGMENT, &p::PING, &p::ARP_REQUEST]);
}

#[test]
fn ports_need_the_machine_s_own_address() {
    let mut syn = p::SYN.bytes();
    syn[..6].copy_from_slice(&MAC_3.0);
    assert!(!wakes(&["tcp:22"], &syn));
    syn[..6].copy_from_slice(&[0xff; 6]);
    assert!(!wakes(&["tcp:22", "any-unicast"], &syn));
    let mut udp = p::UDP.bytes();
    udp[..6].copy_from_slice(&[0xff; 6]);
    assert!(!wakes(&["udp:53", "any-unicast"], &udp));
}

#[test]
fn its_own_frames_never_wake_it() {
    let mut syn = p::SYN.bytes();
    syn[6..12].copy_from_slice(&MAC_2.0);
    assert!(!wakes(&["tcp:22", "any-unicast"], &syn));
    let mut magic = p::MAGIC.bytes();
    magic[6..12].copy_from_slice(&MAC_2.0);
    assert!(!wakes(&["magic"], &magic));
}

#[test]
fn without_rules_nothing_wakes() {
    assert!(p::ALL.iter().all(|packet| !wakes(&[], &packet.bytes())));
}

#[test]
fn one_rule_of_several_is_enough() {
    assert!(wakes(&["magic", "udp:9999", "tcp:22"], &p::SYN.bytes()));
}

#[test]
fn a_segment_too_long_for_the_length_field_wakes() {
    // BIG TCP: the length is zero, and the kernel cuts the segment later.
    let mut syn = p::SYN.bytes();
    syn[16..18].copy_from_slice(&[0, 0]);
    syn.resize(70_000, 0);
    assert!(wakes(&["tcp:22"], &syn));
    let mut syn6 = p::SYN6.bytes();
    syn6[18..20].copy_from_slice(&[0, 0]);
    syn6.resize(70_000, 0);
    assert!(wakes(&["tcp:22"], &syn6));
}

#[test]
fn recorded_magic_packet_wakes_its_machine_only() {
    wakes_by("magic", &[&p::MAGIC]);
    let bytes = p::MAGIC.bytes();
    let frame = Frame::new(&bytes).unwrap();
    assert!(is_magic(&frame, MAC_2) && !is_magic(&frame, MAC_1));
    sleeps_on("magic", &[&p::SYN, &p::UDP, &p::ARP_REQUEST, &p::NS]);
}

fn pattern(mac: MacAddr) -> Vec<u8> {
    [[0xff; 6].to_vec(), mac.0.repeat(16)].concat()
}

#[test]
fn magic_needs_its_port_and_address() {
    for (port, expected) in [(0, true), (7, true), (9, true), (8, false), (40_000, false)] {
        let datagram = ports(17, 1, port, &pattern(MAC_2));
        let frame =
            ip_frame((MAC_1, MacAddr::BROADCAST), ip("10.9.0.1"), ip("255.255.255.255"), 17, &datagram);
        assert_eq!(wakes(&["magic"], &frame), expected, "port {port}");
        let segment =
            ip_frame((MAC_1, MAC_2), ip("10.9.0.1"), ip("10.9.0.2"), 6, &ports(6, 1, port, &pattern(MAC_2)));
        assert!(!wakes(&["magic"], &segment), "TCP port {port}");
    }
    for (dst, expected) in [(MAC_2, true), (MacAddr([1, 0, 0x5e, 0, 0, 1]), true), (MAC_3, false)] {
        assert_eq!(
            wakes(&["magic"], &ethernet(dst, MAC_1, &[], 0x0842, &pattern(MAC_2))),
            expected,
            "to {dst}"
        );
    }
    assert!(!wakes(&["magic"], &ethernet(MAC_2, MAC_1, &[], 0x0843, &pattern(MAC_2))));
}

proptest! {
    #[test]
    fn magic_stands_anywhere(before in prop::collection::vec(any::<u8>(), 0..200),
                             after in prop::collection::vec(any::<u8>(), 0..200), v6: bool, vlan in 0u16..4096) {
        let payload = [before, pattern(MAC_2), after].concat();
        let raw = ethernet(MacAddr::BROADCAST, MAC_1, &[], 0x0842, &payload);
        prop_assert!(wakes(&["magic"], &raw));
        let (src, dst) = if v6 { (ip("fd77::1"), ip("ff02::1")) } else { (ip("10.9.0.1"), ip("10.9.0.255")) };
        let datagram = ports(17, 40_000, 9, &payload);
        let udp = ip_frame((MAC_1, MacAddr([0x33, 0x33, 0, 0, 0, 1])), src, dst, 17, &datagram);
        prop_assert!(wakes(&["magic"], &udp));
        prop_assert!(wakes(&["magic"], &tagged(&udp, &tag(vlan))));
    }

    #[test]
    fn one_wrong_octet_is_no_magic(at in 0usize..102, flip in 1u8..) {
        let mut payload = pattern(MAC_2);
        payload[at] ^= flip;
        prop_assert!(!wakes(&["magic"], &ethernet(MAC_2, MAC_1, &[], 0x0842, &payload)));
        payload.truncate(101);
        prop_assert!(!wakes(&["magic"], &ethernet(MAC_2, MAC_1, &[], 0x0842, &payload)));
    }

    #[test]
    fn ports_match_exactly(tcp: bool, v6: bool, port in 1u16.., other in 1u16.., source: u16,
                           data in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assume!(port != other);
        let (name, number) = if tcp { ("tcp", 6) } else { ("udp", 17) };
        let (src, dst) = if v6 { (ip("fd77::1"), ip("fd77::2")) } else { (ip("10.9.0.1"), ip("10.9.0.2")) };
        let frame = ip_frame((MAC_1, MAC_2), src, dst, number, &ports(number, source, port, &data));
        let rule = |name: &str, port: u16| format!("{name}:{port}");
        prop_assert!(wakes(&[&rule(name, port)], &frame));
        prop_assert!(!wakes(&[&rule(name, other)], &frame));
        let wrong = if tcp { "udp" } else { "tcp" };
        prop_assert!(!wakes(&[&rule(wrong, port)], &frame));
    }

    #[test]
    fn ports_are_found_behind_extension_headers(headers in prop::collection::vec((0usize..4, 0u8..4), 0..6)) {
        // Each header is 8 * (length + 1) octets of zeros behind its two first ones; the kind of the
        // next one stands in its first. A fragment header of zeros is that of a whole datagram.
        let kinds = [0u8, 43, 60, 44];
        let first = headers.first().map_or(6, |(kind, _)| kinds[*kind]);
        prop_assume!(headers.iter().filter(|(kind, _)| *kind == 3).count() <= 1);
        let mut payload = Vec::new();
        for (i, (kind, length)) in headers.iter().enumerate() {
            let length = if *kind == 3 { 0 } else { *length };
            let next = headers.get(i + 1).map_or(6, |(kind, _)| kinds[*kind]);
            payload.extend([next, length]);
            payload.extend(vec![0; 6 + 8 * usize::from(length)]);
        }
        payload.extend(ports(6, 1, 22, b""));
        let packet = ipv6("fd77::1".parse().unwrap(), "fd77::2".parse().unwrap(), 64, first, &payload);
        let frame = ethernet(MAC_2, MAC_1, &[], 0x86dd, &packet);
        prop_assert!(wakes(&["tcp:22"], &frame));
        prop_assert!(!wakes(&["tcp:23"], &frame));
    }

    #[test]
    fn pings_wake_only_by_any_unicast(v6: bool, data in prop::collection::vec(any::<u8>(), 0..300)) {
        let frame = if v6 {
            ip_frame((MAC_1, MAC_2), ip("fd77::1"), ip("fd77::2"), 58, &echo(128, 22, 22, &data))
        } else {
            ip_frame((MAC_1, MAC_2), ip("10.9.0.1"), ip("10.9.0.2"), 1, &echo(8, 22, 22, &data))
        };
        prop_assert!(wakes(&["any-unicast"], &frame));
        prop_assert!(!wakes(&["tcp:1-65535", "udp:1-65535"], &frame));
    }
}
