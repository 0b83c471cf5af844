//! The layer above Ethernet.

use dormouse_wire::{ArpOperation, Fragment, Frame, Network};
use proptest::prelude::*;

use crate::{
    MAC_1, MAC_2,
    build::{ethernet, ip_frame, ipv4, ports},
    ip,
    packets::{self as p},
};

#[test]
fn reads_arp() {
    let bytes = p::ARP_REQUEST.bytes();
    let Network::Arp(arp) = Frame::new(&bytes).unwrap().network() else { panic!("no ARP") };
    assert_eq!((arp.operation, arp.sender_mac), (ArpOperation::Request, MAC_1));
    assert_eq!((arp.sender.into(), arp.target.into()), (ip("10.9.0.1"), ip("10.9.0.2")));
    assert!(!arp.is_announcement());
}

#[test]
fn unknown_and_senseless_are_other() {
    let ipv4 = ipv4([10, 9, 0, 1].into(), [10, 9, 0, 2].into(), 17, &ports(17, 1, 2, b""));
    let with = |at: usize, octet: u8| {
        let mut bytes = ipv4.clone();
        bytes[at] = octet;
        ethernet(MAC_2, MAC_1, &[], 0x0800, &bytes)
    };
    for bytes in [with(0, 0x65), with(0, 0x44), with(0, 0x4f), with(3, 19)] {
        assert_eq!(Frame::new(&bytes).unwrap().network(), Network::Other(0x0800));
    }
    for ethertype in [0x0806, 0x0800, 0x86dd] {
        let bytes = ethernet(MAC_2, MAC_1, &[], ethertype, &[0x11; 19]);
        assert_eq!(Frame::new(&bytes).unwrap().network(), Network::Other(ethertype));
    }
    let ipv4_in_ipv6 = ethernet(MAC_2, MAC_1, &[], 0x86dd, &[0x45; 60]);
    assert_eq!(Frame::new(&ipv4_in_ipv6).unwrap().network(), Network::Other(0x86dd));
    let token_ring_arp = [&[0, 6][..], &p::ARP_REQUEST.bytes()[16..]].concat();
    let bytes = ethernet(MAC_2, MAC_1, &[], 0x0806, &token_ring_arp);
    assert_eq!(Frame::new(&bytes).unwrap().network(), Network::Other(0x0806));
}

#[test]
fn tells_fragments_apart() {
    for (field, expected) in [
        ([0x40, 0x00], Fragment::Whole),
        ([0x20, 0x00], Fragment::First),
        ([0x20, 0x01], Fragment::Later),
        ([0x00, 0x01], Fragment::Later),
        ([0x1f, 0xff], Fragment::Later),
    ] {
        let mut bytes = p::UDP.bytes();
        bytes[20..22].copy_from_slice(&field);
        let Network::Ipv4(packet) = Frame::new(&bytes).unwrap().network() else { panic!("no IPv4") };
        assert_eq!(packet.fragment, expected, "{field:x?}");
        assert_eq!(packet.ports().is_none(), expected == Fragment::Later);
    }
    for (packet, expected) in [(&p::FIRST_FRAGMENT, Fragment::First), (&p::LATER_FRAGMENT, Fragment::Later)] {
        let bytes = packet.bytes();
        let Network::Ipv6(ip) = Frame::new(&bytes).unwrap().network() else { panic!("no IPv6") };
        assert_eq!((ip.fragment, ip.protocol, ip.plain, ip.complete), (expected, 17, false, false));
    }
}

#[test]
fn reads_behind_an_authentication_header() {
    // RFC 4302 §2.2: its length counts 32-bit words, less two.
    let payload = [&[6, 4][..], &[0; 22], &ports(6, 1, 22, b"")].concat();
    let bytes = ip_frame((MAC_1, MAC_2), ip("fd77::1"), ip("fd77::2"), 51, &payload);
    let Network::Ipv6(packet) = Frame::new(&bytes).unwrap().network() else { panic!("no IPv6") };
    assert_eq!((packet.protocol, packet.ports(), packet.plain), (6, Some((1, 22)), false));
}

#[test]
fn stops_at_a_cut_or_endless_chain() {
    let cut = ip_frame((MAC_1, MAC_2), ip("fd77::1"), ip("fd77::2"), 0, &[6, 9, 0, 0, 0, 0, 0, 0]);
    let Network::Ipv6(packet) = Frame::new(&cut).unwrap().network() else { panic!("no IPv6") };
    assert_eq!((packet.protocol, packet.payload.len()), (0, 8));
    let endless =
        ip_frame((MAC_1, MAC_2), ip("fd77::1"), ip("fd77::2"), 60, &[60, 0, 0, 0, 0, 0, 0, 0].repeat(1000));
    let Network::Ipv6(packet) = Frame::new(&endless).unwrap().network() else { panic!("no IPv6") };
    assert_eq!(packet.protocol, 60);
    assert!(packet.payload.len() > 7000);
}

#[test]
fn reads_no_headers_in_later_fragments_and_no_second_fragment_header() {
    let fragment = |next: u8, offset: u8| [next, 0, 0, offset, 0, 0, 0, 7];
    let chain = |first: [u8; 8], second: [u8; 8]| {
        let payload = [&first[..], &second, &ports(6, 1, 22, b"")].concat();
        ip_frame((MAC_1, MAC_2), ip("fd77::1"), ip("fd77::2"), 44, &payload)
    };
    for (bytes, expected) in [
        (chain(fragment(60, 8), fragment(6, 0)), (60, Fragment::Later)),
        (chain(fragment(44, 1), fragment(6, 0)), (44, Fragment::First)),
    ] {
        let Network::Ipv6(packet) = Frame::new(&bytes).unwrap().network() else { panic!("no IPv6") };
        assert_eq!((packet.protocol, packet.fragment), expected);
        assert_eq!(packet.payload.len(), 28);
    }
}

proptest! {
    #[test]
    fn a_frame_is_its_parts(bytes in prop::collection::vec(any::<u8>(), 0..200), tagged: bool) {
        let mut bytes = bytes;
        if tagged && bytes.len() > 14 {
            bytes[12..14].copy_from_slice(&[0x81, 0]);
        }
        if let Some(frame) = Frame::new(&bytes) {
            let ethertype = frame.ethertype().to_be_bytes();
            let parts = [&frame.dst().0[..], &frame.src().0, frame.tags(), &ethertype, frame.payload()].concat();
            prop_assert_eq!(&parts, &bytes);
            prop_assert_eq!(frame.vlan().is_some(), !frame.tags().is_empty());
        } else {
            prop_assert!(bytes.len() < 22);
        }
    }

    #[test]
    fn padding_is_no_payload(data in prop::collection::vec(any::<u8>(), 0..100), padding in 1usize..100) {
        for (src, dst) in [("10.9.0.1", "10.9.0.2"), ("fd77::1", "fd77::2")] {
            let datagram = ports(17, 1, 2, &data);
            let mut bytes = ip_frame((MAC_1, MAC_2), ip(src), ip(dst), 17, &datagram);
            bytes.extend(vec![0xaa; padding]);
            let (payload, complete) = match Frame::new(&bytes).unwrap().network() {
                Network::Ipv4(ip) => (ip.payload, ip.complete),
                Network::Ipv6(ip) => (ip.payload, ip.complete),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!((payload, complete), (&datagram[..], true));
        }
    }
}
