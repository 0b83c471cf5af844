//! Addresses learned from what a machine sends.

use std::net::IpAddr;

use dormouse_types::MacAddr;
use dormouse_wire::{Frame, learned};
use proptest::prelude::*;

use crate::{
    MAC_1, MAC_2, MAC_3,
    build::{arp, ethernet, ip_frame, ports, tag, tagged},
    ip,
    packets::{self as p, Packet},
};

const NOTHING: [IpAddr; 0] = [];

fn learn(bytes: &[u8], mac: MacAddr) -> Vec<IpAddr> {
    learned(&Frame::new(bytes).unwrap(), mac).collect()
}

#[test]
fn recorded_packets_tell_their_senders() {
    let cases: [(&Packet, MacAddr, &[&str]); 12] = [
        (&p::ARP_REQUEST, MAC_1, &["10.9.0.1"]),
        (&p::ARP_REPLY, MAC_2, &["10.9.0.2"]),
        (&p::ARP_PROBE, MAC_1, &[]),
        (&p::NS, MAC_1, &["fd77::1"]),
        (&p::NA, MAC_2, &["fd77::2"]),
        (&p::NS_UNICAST, MAC_2, &["fe80::5054:ff:fe00:2"]),
        (&p::DAD, MAC_2, &["fd77::2"]),
        (&p::DAD_LINK_LOCAL, MAC_2, &["fe80::5054:ff:fe00:2"]),
        (&p::ROUTER_SOLICITATION, MAC_2, &["fe80::5054:ff:fe00:2"]),
        (&p::MLD_REPORT, MAC_2, &["fe80::5054:ff:fe00:2"]),
        (&p::SYN, MAC_1, &["10.9.0.1"]),
        (&p::PONG6, MAC_2, &["fd77::2"]),
    ];
    for (packet, mac, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|text| ip(text)).collect();
        assert_eq!(learn(&packet.bytes(), mac), expected, "{}", packet.name);
        assert_eq!(learn(&tagged(&packet.bytes(), &tag(7)), mac), expected, "{} in a VLAN", packet.name);
    }
}

#[test]
fn advertisement_of_another_address_tells_both() {
    let mut na = p::NA.bytes();
    na[37] = 9;
    assert_eq!(learn(&na, MAC_2), [ip("fd77::9"), ip("fd77::2")]);
}

#[test]
fn invalid_advertisement_tells_its_source_only() {
    let mut na = p::NA.bytes();
    na[37] = 9;
    na[21] = 64;
    assert_eq!(learn(&na, MAC_2), [ip("fd77::9")]);
}

#[test]
fn arp_for_another_station_is_no_claim() {
    let claim = arp(2, (MAC_3, [10, 9, 0, 3].into()), (MAC_1, [10, 9, 0, 1].into()));
    assert_eq!(learn(&ethernet(MAC_1, MAC_2, &[], 0x0806, &claim), MAC_2), NOTHING);
}

#[test]
fn nothing_is_learned_from_others() {
    for packet in p::ALL {
        assert_eq!(learn(&packet.bytes(), MAC_3), NOTHING, "{}", packet.name);
    }
}

#[test]
fn implausible_sources_are_no_claims() {
    for source in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.251", "240.0.0.1", "255.255.255.255"] {
        let frame = ip_frame((MAC_2, MAC_1), ip(source), ip("10.9.0.1"), 17, &ports(17, 68, 67, b""));
        assert_eq!(learn(&frame, MAC_2), NOTHING, "{source}");
    }
    for source in ["::", "::1", "ff02::1", "::ffff:10.9.0.2"] {
        let frame = ip_frame((MAC_2, MAC_1), ip(source), ip("fd77::1"), 17, &ports(17, 1, 2, b""));
        assert_eq!(learn(&frame, MAC_2), NOTHING, "{source}");
    }
}

proptest! {
    #[test]
    fn sources_are_learned(source in any::<[u8; 4]>(), source6 in any::<[u8; 16]>()) {
        let plausible = (1..240).contains(&source[0]) && source[0] != 127 && !(224..240).contains(&source[0]);
        let frame = ip_frame((MAC_2, MAC_1), source.into(), ip("10.9.0.1"), 17, &ports(17, 1, 2, b""));
        prop_assert_eq!(learn(&frame, MAC_2), if plausible { vec![IpAddr::from(source)] } else { vec![] });
        prop_assume!(source6[0] != 0xff && source6[0] != 0);
        let frame = ip_frame((MAC_2, MAC_1), source6.into(), ip("fd77::1"), 17, &ports(17, 1, 2, b""));
        prop_assert_eq!(learn(&frame, MAC_2), vec![IpAddr::from(source6)]);
    }
}
