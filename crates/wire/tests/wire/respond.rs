//! What is answered, and how.

use std::net::{Ipv4Addr, Ipv6Addr};

use dormouse_types::MacAddr;
use dormouse_wire::{Frame, Identity, Response};
use proptest::prelude::*;
use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, Ipv4Packet, Ipv6Packet, NdiscNeighborFlags as Flags};

use crate::{
    MAC_1, MAC_2, MAC_3,
    build::{self, arp, echo, ethernet, ip_frame, solicitation, solicited_node, tag, tagged},
    check::{replies, reply, responses},
    host_1, host_2, ip,
    packets::{self as p, Packet},
    rival_of_host_2,
};

/// Nobody answers, and nobody consumes.
fn passes(bytes: &[u8], who: &Identity) -> bool {
    let frame = Frame::new(bytes).unwrap();
    responses(&frame, who).iter().all(|response| *response == Response::Pass)
}

/// `packet` with the octets at `offset` replaced.
fn patched(packet: &Packet, offset: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = packet.bytes();
    bytes[offset..offset + with.len()].copy_from_slice(with);
    bytes
}

#[test]
fn answers_arp_as_linux_does() {
    assert_eq!(reply(&p::ARP_REQUEST.bytes(), &host_2()), p::ARP_REPLY.bytes());
    assert_eq!(reply(&p::ARP_PROBE.bytes(), &host_2()), p::ARP_PROBE_REPLY.bytes());
    assert_eq!(reply(&p::ARP_STILL_THERE.bytes(), &host_1()), p::ARP_STILL_THERE_REPLY.bytes());
}

#[test]
fn answers_a_padded_arp_request() {
    let mut padded = p::ARP_REQUEST.bytes();
    padded.resize(60, 0);
    assert_eq!(reply(&padded, &host_2()), p::ARP_REPLY.bytes());
}

#[test]
fn answers_a_solicitation_as_linux_does() {
    assert_eq!(reply(&p::NS.bytes(), &host_2()), p::NA.bytes());
}

#[test]
fn answers_a_unicast_solicitation() {
    let answer = reply(&p::NS_UNICAST.bytes(), &host_1());
    let packet = Ipv6Packet::new_checked(&answer[14..]).unwrap();
    assert_eq!(&answer[..6], MAC_2.0);
    assert_eq!(
        (ip("fd77::1"), ip("fe80::5054:ff:fe00:2")),
        (packet.src_addr().into(), packet.dst_addr().into())
    );
    let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
    assert_eq!(message.neighbor_flags(), Flags::SOLICITED | Flags::OVERRIDE);
}

#[test]
fn tells_all_nodes_of_a_duplicate() {
    let answer = reply(&p::DAD.bytes(), &rival_of_host_2());
    let packet = Ipv6Packet::new_checked(&answer[14..]).unwrap();
    assert_eq!(&answer[..6], [0x33, 0x33, 0, 0, 0, 1]);
    assert_eq!(packet.dst_addr(), "ff02::1".parse::<Ipv6Addr>().unwrap());
    assert_eq!(Icmpv6Packet::new_checked(packet.payload()).unwrap().neighbor_flags(), Flags::OVERRIDE);
}

#[test]
fn answers_ping_as_linux_does() {
    let answer = reply(&p::PING.bytes(), &host_2());
    let mut linux = p::PONG.bytes();
    // Linux numbers its packets and lets routers cut them; we do neither (RFC 6864 §4.1).
    let mut packet = Ipv4Packet::new_unchecked(&mut linux[14..]);
    packet.set_ident(0);
    packet.set_dont_frag(true);
    packet.fill_checksum();
    assert_eq!(answer, linux);
}

#[test]
fn answers_ping6_as_linux_does() {
    let answer = reply(&p::PING6.bytes(), &host_2());
    let mut linux = p::PONG6.bytes();
    Ipv6Packet::new_unchecked(&mut linux[14..]).set_flow_label(0);
    assert_eq!(answer, linux);
}

#[test]
fn keeps_the_traffic_class() {
    let mut ping = patched(&p::PING, 15, &[0xb9]);
    Ipv4Packet::new_unchecked(&mut ping[14..]).fill_checksum();
    assert_eq!(reply(&ping, &host_2())[15], 0xb9);
    let ping6 = patched(&p::PING6, 14, &[0x6b, 0x90]);
    assert_eq!(reply(&ping6, &host_2())[14..16], [0x6b, 0x90]);
}

#[test]
fn consumes_a_ping_with_a_damaged_header() {
    let ping = patched(&p::PING, 24, &[0xde, 0xad]);
    let frame = Frame::new(&ping).unwrap();
    let all = responses(&frame, &host_2());
    let consumed: Vec<_> = all.into_iter().filter(|response| *response != Response::Pass).collect();
    assert!(matches!(consumed[..], [Response::Consume(_)]), "{consumed:?}");
}

#[test]
fn passes_on_what_the_sleeper_sent_itself() {
    for packet in [&p::DAD, &p::DAD_LINK_LOCAL, &p::ARP_STILL_THERE, &p::NS_UNICAST, &p::PONG] {
        assert!(passes(&packet.bytes(), &host_2()), "{}", packet.name);
    }
    for packet in [&p::PING, &p::PING6, &p::ARP_REQUEST, &p::NS] {
        assert!(passes(&patched(packet, 6, &MAC_2.0), &host_2()), "{}", packet.name);
    }
}

#[test]
fn passes_on_what_asks_nothing() {
    let announcement = arp(1, (MAC_3, Ipv4Addr::new(10, 9, 0, 3)), (MAC_3, Ipv4Addr::new(10, 9, 0, 3)));
    let announcement = ethernet(MacAddr::BROADCAST, MAC_3, &[], 0x0806, &announcement);
    assert!(passes(&announcement, &host_2()));
    for packet in [&p::ARP_REPLY, &p::NA, &p::PONG, &p::PONG6, &p::PORT_UNREACHABLE] {
        assert!(passes(&packet.bytes(), &host_1()), "{}", packet.name);
    }
    for packet in [&p::SYN, &p::SYN6, &p::UDP, &p::UDP6, &p::MAGIC, &p::FIRST_FRAGMENT, &p::LATER_FRAGMENT] {
        assert!(passes(&packet.bytes(), &host_2()), "{}", packet.name);
    }
}

#[test]
fn passes_on_what_is_for_another_station() {
    for packet in [&p::ARP_STILL_THERE, &p::NS_UNICAST, &p::PING, &p::PING6] {
        let elsewhere = patched(packet, 0, &MAC_3.0);
        assert!(passes(&elsewhere, &host_1()) && passes(&elsewhere, &host_2()), "{}", packet.name);
    }
}

#[test]
fn passes_on_pings_to_groups() {
    for group in [MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1]), MacAddr([0x33, 0x33, 0, 0, 0, 1])] {
        for packet in [&p::PING, &p::PING6] {
            assert!(passes(&patched(packet, 0, &group.0), &host_2()), "{} to {group}", packet.name);
        }
    }
    let broadcast = ip_frame((MAC_1, MAC_2), ip("10.9.0.1"), ip("10.9.0.255"), 1, &echo(8, 1, 1, b"x"));
    assert!(passes(&broadcast, &host_2()));
}

#[test]
fn passes_on_pings_that_cannot_be_answered_whole() {
    let (from, to) = (ip("10.9.0.1"), ip("10.9.0.2"));
    let mut fragment = ip_frame((MAC_1, MAC_2), from, to, 1, &echo(8, 1, 1, b"x"));
    Ipv4Packet::new_unchecked(&mut fragment[14..]).set_more_frags(true);
    let cut = &p::PING.bytes()[..50];
    let cut6 = &p::PING6.bytes()[..70];
    let giant = ip_frame((MAC_1, MAC_2), from, to, 1, &echo(8, 1, 1, &[0; 20_000]));
    let code = ip_frame((MAC_1, MAC_2), from, to, 1, &[8, 1, 0, 0, 0, 1, 0, 1]);
    let behind_options = [&[58, 0, 1, 4, 0, 0, 0, 0][..], &echo(128, 1, 1, b"x")].concat();
    let options = ip_frame((MAC_1, MAC_2), ip("fd77::1"), ip("fd77::2"), 60, &behind_options);
    let giant6 = ip_frame((MAC_1, MAC_2), ip("fd77::1"), ip("fd77::2"), 58, &echo(128, 1, 1, &[0; 20_000]));
    let ipv4_options = ping_with_ipv4_options();
    for bytes in [&fragment[..], cut, cut6, &giant, &giant6, &code, &options, &ipv4_options] {
        assert!(passes(bytes, &host_2()), "{}", dormouse_wire::summary(bytes));
    }
}

/// A ping with four octets of "no operation" in its IPv4 header.
fn ping_with_ipv4_options() -> Vec<u8> {
    let mut bytes = p::PING.bytes();
    bytes.splice(34..34, [1; 4]);
    let len = bytes[17] + 4;
    let mut packet = Ipv4Packet::new_unchecked(&mut bytes[14..]);
    packet.set_header_len(24);
    packet.set_total_len(len.into());
    packet.fill_checksum();
    bytes
}

#[test]
fn never_answers_impossible_sources() {
    for source in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.9.0.2"] {
        let ping = ip_frame((MAC_1, MAC_2), ip(source), ip("10.9.0.2"), 1, &echo(8, 1, 1, b"x"));
        assert!(passes(&ping, &host_2()), "{source}");
    }
    for source in ["::", "::1", "ff02::1", "fd77::2"] {
        let ping = ip_frame((MAC_1, MAC_2), ip(source), ip("fd77::2"), 58, &echo(128, 1, 1, b"x"));
        assert!(passes(&ping, &host_2()), "{source}");
    }
    for mac in [MacAddr::BROADCAST, MacAddr([0; 6]), MacAddr([1, 0, 0x5e, 0, 0, 1])] {
        assert!(passes(&patched(&p::PING, 6, &mac.0), &host_2()), "ping from {mac}");
        assert!(passes(&patched(&p::ARP_REQUEST, 22, &mac.0), &host_2()), "arp from {mac}");
    }
}

#[test]
fn refuses_invalid_solicitations() {
    let hop_limit = patched(&p::NS, 21, &[254]);
    let code = patched(&p::NS, 55, &[1]);
    let option_of_no_length = patched(&p::NS, 79, &[0]);
    let group = patched(&p::NS, 62, &[0xff, 2]);
    let cut = p::NS.bytes()[..78].to_vec();
    let to_another_node = patched(&p::NS, 38, &[0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
    let from_our_address = patched(&p::NS, 37, &[2]);
    let check_with_option = patched(&p::DAD, 78, &[1, 1]);
    let check_to_one_node = patched(&p::DAD, 38, &[0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    let mut who = rival_of_host_2();
    who.addresses.push(ip("ff02::2"));
    for bytes in [
        hop_limit,
        code,
        option_of_no_length,
        group,
        cut,
        to_another_node,
        from_our_address,
        check_with_option,
        check_to_one_node,
        solicitation_in_a_fragment(),
    ] {
        assert!(passes(&bytes, &who), "{}", dormouse_wire::summary(&bytes));
    }
}

/// The recorded solicitation as a first fragment, which RFC 6980 §5 forbids.
fn solicitation_in_a_fragment() -> Vec<u8> {
    let mut bytes = p::NS.bytes();
    bytes.splice(54..54, [58, 0, 0, 1, 0, 0, 0, 7]);
    bytes[19] += 8;
    bytes[20] = 44;
    bytes
}

#[test]
fn replies_to_the_frame_s_source_without_a_usable_option() {
    let (from, target) = ("fd77::1".parse().unwrap(), "fd77::2".parse().unwrap());
    let (group, group_mac) = solicited_node(target);
    for (option, expected) in [(None, MAC_1), (Some(MacAddr::BROADCAST), MAC_1), (Some(MAC_3), MAC_3)] {
        let request = ethernet(group_mac, MAC_1, &[], 0x86dd, &solicitation(from, group, target, option));
        assert_eq!(reply(&request, &host_2())[..6], expected.0, "{option:?}");
    }
}

fn mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(|[first, rest @ ..]| {
        let [b, c, d, e, f] = rest;
        MacAddr([first & 0xfe | 2, b, c, d, e, f])
    })
}

fn host_v4() -> impl Strategy<Value = Ipv4Addr> {
    (1u8..=126, any::<[u8; 3]>()).prop_map(|(a, [b, c, d])| Ipv4Addr::new(a, b, c, d))
}

fn host_v6() -> impl Strategy<Value = Ipv6Addr> {
    any::<[u8; 15]>().prop_map(|rest| {
        let mut octets = [0xfd; 16];
        octets[1..].copy_from_slice(&rest);
        octets.into()
    })
}

fn tags() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u16..4096, 0..3).prop_map(|vlans| vlans.into_iter().flat_map(tag).collect())
}

proptest! {
    #[test]
    fn arp_fields_are_right(us in mac(), them in mac(), ours in host_v4(), theirs in host_v4(), tags in tags(),
                            to_us: bool, probe: bool, junk: [u8; 6]) {
        prop_assume!(us != them && ours != theirs);
        let who = Identity { mac: us, addresses: vec![ours.into()], configured: true };
        let theirs = if probe { Ipv4Addr::UNSPECIFIED } else { theirs };
        let request = arp(1, (them, theirs), (MacAddr(junk), ours));
        let dst = if to_us { us } else { MacAddr::BROADCAST };
        let expected = ethernet(them, us, &tags, 0x0806, &arp(2, (us, ours), (them, theirs)));
        prop_assert_eq!(reply(&ethernet(dst, them, &tags, 0x0806, &request), &who), expected);
    }

    #[test]
    fn advertisement_fields_are_right(us in mac(), them in mac(), ours in host_v6(), theirs in host_v6(),
                                      tags in tags(), to_us: bool, duplicate_check: bool) {
        prop_assume!(us != them && ours != theirs);
        let who = Identity { mac: us, addresses: vec![ours.into()], configured: true };
        let (group, group_mac) = solicited_node(ours);
        let (src, option) = if duplicate_check { (Ipv6Addr::UNSPECIFIED, None) } else { (theirs, Some(them)) };
        let (dst, dst_mac) = if to_us && !duplicate_check { (ours, us) } else { (group, group_mac) };
        let request = ethernet(dst_mac, them, &tags, 0x86dd, &solicitation(src, dst, ours, option));
        let answer = reply(&request, &who);
        let packet = Ipv6Packet::new_checked(&answer[14 + tags.len()..]).unwrap();
        let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
        prop_assert_eq!(message.target_addr(), ours);
        if duplicate_check {
            prop_assert_eq!(message.neighbor_flags(), Flags::OVERRIDE);
            prop_assert_eq!(packet.dst_addr(), "ff02::1".parse::<Ipv6Addr>().unwrap());
        } else {
            prop_assert_eq!(message.neighbor_flags(), Flags::OVERRIDE | Flags::SOLICITED);
            prop_assert_eq!((packet.dst_addr(), &answer[..6]), (theirs, &them.0[..]));
        }
    }

    #[test]
    fn echo_comes_back_as_it_was(us in mac(), them in mac(), ours in host_v4(), theirs in host_v4(), tags in tags(),
                                 ident: u16, seq: u16, data in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assume!(us != them && ours != theirs);
        let who = Identity { mac: us, addresses: vec![ours.into()], configured: true };
        let mut request = ip_frame((them, us), theirs.into(), ours.into(), 1, &echo(8, ident, seq, &data));
        // Padding of the frame is not part of the message.
        request.resize(request.len().max(60), 0xaa);
        let answer = reply(&tagged(&request, &tags), &who);
        prop_assert_eq!(&answer[..6], them.0);
        let packet = Ipv4Packet::new_checked(&answer[14 + tags.len()..]).unwrap();
        prop_assert_eq!((packet.src_addr(), packet.dst_addr()), (ours, theirs));
        let message = Icmpv4Packet::new_checked(packet.payload()).unwrap();
        prop_assert_eq!((message.echo_ident(), message.echo_seq_no(), message.data()), (ident, seq, &data[..]));
    }

    #[test]
    fn echo6_comes_back_as_it_was(us in mac(), them in mac(), ours in host_v6(), theirs in host_v6(), tags in tags(),
                                  ident: u16, seq: u16, data in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assume!(us != them && ours != theirs);
        let who = Identity { mac: us, addresses: vec![ours.into()], configured: true };
        let request = ip_frame((them, us), theirs.into(), ours.into(), 58, &echo(128, ident, seq, &data));
        let answer = reply(&tagged(&request, &tags), &who);
        prop_assert_eq!(&answer[..6], them.0);
        let packet = Ipv6Packet::new_checked(&answer[14 + tags.len()..]).unwrap();
        prop_assert_eq!((packet.src_addr(), packet.dst_addr()), (ours, theirs));
        let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
        prop_assert_eq!((message.echo_ident(), message.echo_seq_no(), message.payload()), (ident, seq, &data[..]));
    }

    #[test]
    fn never_answers_for_others(us in mac(), them in mac(), ours in host_v4(), ours6 in host_v6(),
                                asked in host_v4(), asked6 in host_v6()) {
        prop_assume!(us != them && ours != asked && ours6 != asked6);
        let who = Identity { mac: us, addresses: vec![ours.into(), ours6.into()], configured: true };
        let (from, from6) = (Ipv4Addr::new(10, 9, 0, 1), "fd77::1".parse().unwrap());
        let (group, group_mac) = solicited_node(asked6);
        let requests = [
            ethernet(us, them, &[], 0x0806, &arp(1, (them, from), (us, asked))),
            ethernet(MacAddr::BROADCAST, them, &[], 0x0806, &arp(1, (them, from), (us, asked))),
            ethernet(us, them, &[], 0x86dd, &solicitation(from6, asked6, asked6, Some(them))),
            ethernet(group_mac, them, &[], 0x86dd, &solicitation(from6, group, asked6, Some(them))),
            ethernet(group_mac, them, &[], 0x86dd, &solicitation(Ipv6Addr::UNSPECIFIED, group, asked6, None)),
            ip_frame((them, us), from.into(), asked.into(), 1, &echo(8, 1, 1, b"data")),
            ip_frame((them, us), from6.into(), asked6.into(), 58, &echo(128, 1, 1, b"data")),
        ];
        for request in requests {
            prop_assert!(replies(&request, &who).is_empty());
        }
    }
}

#[test]
fn builders_leave_checksums_to_the_interface() {
    // Else the tests would not show that partial checksums are taken.
    let udp = build::ports(17, 1, 53, b"hello");
    let (src, dst) = (Ipv4Addr::new(10, 9, 0, 1).into(), Ipv4Addr::new(10, 9, 0, 2).into());
    assert!(!build::checksum_is_full(6, &p::SYN.bytes()[34..], src, dst));
    assert!(!build::checksum_is_full(6, &build::ports(6, 1, 22, b""), src, dst));
    assert_eq!(udp[6..8], [0, 0]);
}
