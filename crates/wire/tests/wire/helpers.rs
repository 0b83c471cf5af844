//! Summaries, digests and the junk frame.

use dormouse_wire::{Frame, Network, digest, junk_frame, summary};
use proptest::prelude::*;

use crate::{
    MAC_1, MAC_2,
    build::{ethernet, ip_frame, tag, tagged},
    ip,
    packets::{self as p, Packet},
};

#[test]
fn summaries_of_recorded_packets() {
    let cases: [(&Packet, &str); 20] = [
        (&p::ARP_REQUEST, "arp who-has 10.9.0.2 tell 10.9.0.1"),
        (&p::ARP_REPLY, "arp 10.9.0.2 is-at 52:54:00:00:00:02"),
        (&p::ARP_PROBE, "arp who-has 10.9.0.2 tell 0.0.0.0"),
        (&p::NS, "icmp6 who-has fd77::2 tell fd77::1"),
        (&p::NA, "icmp6 fd77::2 is advertised, fd77::2 > fd77::1"),
        (&p::DAD, "icmp6 who-has fd77::2 tell ::"),
        (&p::ROUTER_SOLICITATION, "icmp6 fe80::5054:ff:fe00:2 > ff02::2 type 133"),
        (&p::MLD_REPORT, "mld report of 1 groups, fe80::5054:ff:fe00:2 > ff02::16"),
        (&p::PING, "icmp echo request 10.9.0.1 > 10.9.0.2 id 10995 seq 1"),
        (&p::PONG, "icmp echo reply 10.9.0.2 > 10.9.0.1 id 10995 seq 1"),
        (&p::PING6, "icmp6 echo request fd77::1 > fd77::2 id 10996 seq 1"),
        (&p::PONG6, "icmp6 echo reply fd77::2 > fd77::1 id 10996 seq 1"),
        (&p::UDP, "udp 10.9.0.1:33054 > 10.9.0.2:53, 5 octets"),
        (&p::UDP6, "udp [fd77::1]:57743 > [fd77::2]:53, 5 octets"),
        (&p::SYN, "tcp 10.9.0.1:33698 > 10.9.0.2:22 [S]"),
        (&p::RST, "tcp 10.9.0.2:22 > 10.9.0.1:33698 [R.]"),
        (&p::SYN6, "tcp [fd77::1]:44642 > [fd77::2]:22 [S]"),
        (&p::MAGIC, "udp 10.9.0.1:43907 > 10.9.0.255:9, 102 octets"),
        (&p::LATER_FRAGMENT, "udp fd77::1 > fd77::2, later fragment, 8 octets"),
        (&p::PORT_UNREACHABLE, "icmp 10.9.0.2 > 10.9.0.1 type 3"),
    ];
    for (packet, expected) in cases {
        assert_eq!(summary(&packet.bytes()), expected, "{}", packet.name);
    }
}

#[test]
fn summaries_of_other_frames() {
    let gre = ip_frame((MAC_1, MAC_2), ip("10.9.0.1"), ip("10.9.0.2"), 47, &[0; 12]);
    assert_eq!(summary(&gre), "ip protocol 47 10.9.0.1 > 10.9.0.2, 12 octets");
    assert_eq!(summary(&tagged(&p::SYN.bytes(), &tag(5))), "vlan 5 tcp 10.9.0.1:33698 > 10.9.0.2:22 [S]");
    let raw = ethernet(MAC_2, MAC_1, &[], 0x0842, &[0; 46]);
    assert_eq!(summary(&raw), "0x0842 52:54:00:00:00:01 > 52:54:00:00:00:02, 60 octets");
    assert_eq!(summary(&[0; 9]), "no Ethernet frame, 9 octets");
}

#[test]
fn summaries_of_protocols_over_udp() {
    let udp = |from: u16, to: u16, data: &[u8]| {
        let segment = crate::build::ports(17, from, to, data);
        summary(&ip_frame((MAC_1, MAC_2), ip("10.9.0.1"), ip("10.9.0.2"), 17, &segment))
    };
    let question =
        [&[0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3][..], b"web", &[5], b"local", &[0, 0, 1, 0, 1]].concat();
    assert_eq!(udp(5353, 5353, &question), "udp 10.9.0.1:5353 > 10.9.0.2:5353, mdns query web.local");
    assert_eq!(udp(5000, 5355, &question), "udp 10.9.0.1:5000 > 10.9.0.2:5355, llmnr query web.local");
    assert_eq!(udp(5353, 5353, b"x"), "udp 10.9.0.1:5353 > 10.9.0.2:5353, 1 octets");
    let mut dhcp = vec![0; 244];
    (dhcp[0], dhcp[1], dhcp[2]) = (1, 1, 6);
    dhcp[236..].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, 3, 255]);
    assert_eq!(udp(68, 67, &dhcp), "dhcp request 10.9.0.1 > 10.9.0.2");
}

#[test]
fn junk_is_a_minimal_frame_for_the_machine() {
    let bytes = junk_frame(MAC_2);
    let frame = Frame::new(&bytes).unwrap();
    assert_eq!((bytes.len(), frame.dst(), frame.ethertype()), (60, MAC_2, 0x88b5));
    assert_eq!(frame.src().0[0] & 3, 2, "locally administered, one station");
    assert_eq!(frame.network(), Network::Other(0x88b5));
    assert!(frame.payload().iter().all(|octet| *octet == 0));
}

proptest! {
    #[test]
    fn one_changed_octet_changes_the_digest(mut bytes in prop::collection::vec(any::<u8>(), 1..300),
                                            at: prop::sample::Index, flip in 1u8..) {
        let before = digest(&bytes);
        prop_assert_eq!(before, digest(&bytes.clone()));
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert_ne!(before, digest(&bytes));
    }
}
