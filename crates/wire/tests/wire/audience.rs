//! Whom group frames concern.

use dormouse_types::MacAddr;
use dormouse_wire::{Audience, Frame};

use crate::{
    MAC_1,
    build::ip_frame,
    ip,
    packets::{self as p, Packet},
};

fn of(bytes: &[u8]) -> Audience {
    Audience::of(&Frame::new(bytes).unwrap())
}

fn owners(asked: Option<&str>, claimed: Option<&str>) -> Audience {
    Audience::Owners { asked: asked.map(ip), claimed: claimed.map(ip) }
}

#[test]
fn who_is_asked_for_and_who_is_claimed() {
    let cases: [(&Packet, Audience); 7] = [
        (&p::ARP_REQUEST, owners(Some("10.9.0.2"), Some("10.9.0.1"))),
        (&p::ARP_PROBE, owners(Some("10.9.0.2"), None)),
        (&p::ARP_REPLY, owners(None, Some("10.9.0.2"))),
        (&p::NS, owners(Some("fd77::2"), None)),
        (&p::DAD, owners(Some("fd77::2"), None)),
        (&p::NA, owners(None, Some("fd77::2"))),
        (&p::ROUTER_SOLICITATION, Audience::Nobody),
    ];
    for (packet, expected) in cases {
        assert_eq!(of(&packet.bytes()), expected, "{}", packet.name);
    }
    let mut announcement = p::ARP_REQUEST.bytes();
    announcement.copy_within(28..32, 38);
    assert_eq!(of(&announcement), owners(None, Some("10.9.0.1")));
}

#[test]
fn questions_to_everyone() {
    let group = MacAddr([1, 0, 0x5e, 0, 0, 1]);
    let packet = |protocol, payload: &[u8]| {
        ip_frame((MAC_1, group), ip("10.9.0.1"), ip("224.0.0.1"), protocol, payload)
    };
    let udp = |port: u16| packet(17, &[&[0, 9], &port.to_be_bytes()[..], &[0, 8, 0, 0]].concat());
    assert_eq!(of(&packet(2, &[0x11, 100, 0, 0, 0, 0, 0, 0])), Audience::Everyone);
    assert_eq!(of(&packet(2, &[0x16, 0, 0, 0, 0, 0, 0, 0])), Audience::Nobody);
    assert_eq!(of(&udp(68)), Audience::Everyone);
    // Those of names are too short to say that they ask.
    for port in [9, 137, 138, 1900, 5353, 5355] {
        assert_eq!(of(&udp(port)), Audience::Nobody, "{port}");
    }
}
