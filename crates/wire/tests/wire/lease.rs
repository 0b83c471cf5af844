//! Leases: learned from real exchanges, renewed as RFC 2131 §4.4.5 says.

use std::{net::Ipv4Addr, time::Duration};

use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{
    Deed, Frame, Identity, Lease, LeasePolicy, Outcome, Persona, Policy, Proxy, Renewal, Way,
};
use proptest::prelude::*;
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, Ipv4Packet, UdpPacket};

use crate::{
    MAC_1, MAC_2, MAC_3, build, captures as c,
    packets::{self, Packet},
};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 101);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

fn at(seconds: u64) -> Timestamp {
    Timestamp(0) + Duration::from_secs(1_000_000 + seconds)
}

fn guest() -> Identity {
    Identity { mac: MAC_2, addresses: vec![ADDRESS.into()], configured: false }
}

fn learn(persona: &mut Persona, packet: &Packet, way: Way, now: Timestamp) -> bool {
    persona.learn(&Frame::new(&packet.bytes()).unwrap(), way, MAC_2, now)
}

/// What the recorded exchange teaches: 120 s, T1 60 s, T2 105 s.
fn learned() -> Persona {
    let mut persona = Persona::default();
    learn(&mut persona, &c::DHCP_REQUEST, Way::Sent, at(0));
    assert!(learn(&mut persona, &c::DHCP_ACK, Way::Received, at(1)));
    persona
}

fn lease() -> Lease {
    learned().lease.unwrap()
}

/// The DHCP message in `bytes`, with everything about its frame checked.
fn message(bytes: &[u8]) -> (MacAddr, Ipv4Addr, Vec<u8>) {
    let frame = Frame::new(bytes).unwrap();
    assert_eq!(frame.src(), MAC_2);
    let ip = Ipv4Packet::new_checked(frame.payload()).unwrap();
    assert!(ip.verify_checksum());
    assert_eq!(ip.src_addr(), ADDRESS);
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert!(udp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
    assert_eq!((udp.src_port(), udp.dst_port()), (68, 67));
    (frame.dst(), ip.dst_addr(), udp.payload().to_vec())
}

/// `answer` (a recorded one) with the transaction number of `request`, and changed by `change`.
fn answer_to(request: &[u8], answer: &Packet, change: impl FnOnce(&mut DhcpPacket<&mut [u8]>)) -> Vec<u8> {
    let xid = DhcpPacket::new_checked(&message(request).2[..]).unwrap().transaction_id();
    let mut bytes = answer.bytes();
    let mut packet = DhcpPacket::new_checked(&mut bytes[42..]).unwrap();
    packet.set_transaction_id(xid);
    change(&mut packet);
    bytes
}

#[track_caller]
fn sent(deed: Option<Deed>) -> (&'static str, Vec<u8>) {
    match deed {
        Some(Deed::Send(word, bytes)) => (word, bytes),
        other => panic!("sends nothing: {other:?}"),
    }
}

#[test]
fn a_lease_is_learned_from_a_real_exchange() {
    let lease = lease();
    assert_eq!((lease.address, lease.server, lease.server_mac), (ADDRESS, SERVER, MAC_1));
    assert_eq!((lease.since, lease.seconds, lease.renew, lease.rebind), (at(0), 120, 60, 105));
    // This dhclient was told neither.
    assert_eq!((lease.client_id, lease.host_name), (None, None));
}

#[test]
fn a_renewal_of_the_guest_moves_its_beginning() {
    let mut persona = learned();
    learn(&mut persona, &c::DHCP_RENEW, Way::Sent, at(49));
    assert!(learn(&mut persona, &c::DHCP_RENEWED, Way::Received, at(50)));
    // The server put T1 and T2 a little earlier this time.
    assert_eq!(persona.lease.unwrap(), Lease { since: at(49), renew: 53, rebind: 98, ..lease() });
}

#[test]
fn an_acknowledgement_alone_will_do() {
    let mut persona = Persona::default();
    assert!(learn(&mut persona, &c::DHCP_ACK, Way::Received, at(1)));
    assert_eq!(persona.lease.unwrap(), Lease { since: at(1), ..lease() });
}

#[test]
fn what_is_for_others_teaches_nothing() {
    let mut persona = Persona::default();
    let ack = c::DHCP_ACK.bytes();
    let cases: [(Vec<u8>, Way, MacAddr); 3] = [
        (ack.clone(), Way::Sent, MAC_2),
        (ack.clone(), Way::Received, MAC_3),
        (build::tagged(&ack, &build::tag(5)), Way::Received, MAC_2),
    ];
    for (bytes, way, mac) in cases {
        assert!(!persona.learn(&Frame::new(&bytes).unwrap(), way, mac, at(1)));
        assert_eq!(persona, Persona::default());
    }
    // An answer to another question than the guest's last.
    learn(&mut persona, &c::DHCP_REQUEST, Way::Sent, at(0));
    let mut other = ack;
    DhcpPacket::new_checked(&mut other[42..]).unwrap().set_transaction_id(1);
    assert!(!persona.learn(&Frame::new(&other).unwrap(), Way::Received, MAC_2, at(1)));
    assert_eq!(persona.lease, None);
}

#[test]
fn a_lease_ends_when_it_is_given_back_or_refused() {
    let mut persona = learned();
    assert!(learn(&mut persona, &c::DHCP_RELEASE, Way::Sent, at(9)));
    assert_eq!(persona, Persona::default());

    let mut persona = learned();
    learn(&mut persona, &c::DHCP_RENEW, Way::Sent, at(60));
    let nak = kind_changed(c::DHCP_RENEWED.bytes(), DhcpMessageType::Nak);
    assert!(persona.learn(&Frame::new(&nak).unwrap(), Way::Received, MAC_2, at(61)));
    assert_eq!(persona, Persona::default());
}

/// A recorded message as one of another kind: the option of the type is the first.
fn kind_changed(mut bytes: Vec<u8>, kind: DhcpMessageType) -> Vec<u8> {
    assert_eq!(bytes[42 + 240..42 + 242], [53, 1]);
    bytes[42 + 242] = kind.into();
    bytes
}

#[test]
fn the_request_is_as_the_rfc_wants_it() {
    let lease = Lease { client_id: Some(vec![1, 2, 3, 4]), host_name: Some(b"guest".to_vec()), ..lease() };
    let mut renewal = Renewal::new(&lease, LeasePolicy::Renew, &guest(), at(10)).unwrap();
    assert_eq!(renewal.deadline(), Some(at(60)));
    assert_eq!(renewal.due(&lease, &guest(), at(59)), None);
    let (word, bytes) = sent(renewal.due(&lease, &guest(), at(60)));
    let (dst_mac, dst, data) = message(&bytes);
    assert_eq!((word, dst_mac, dst), ("dhcp-renew", MAC_1, SERVER));
    assert!(data.len() >= 300, "shorter than a BOOTP message");
    let packet = DhcpPacket::new_checked(&data[..]).unwrap();
    let repr = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(repr.message_type, DhcpMessageType::Request);
    assert_eq!((repr.client_ip, repr.client_hardware_address.0, repr.broadcast), (ADDRESS, MAC_2.0, false));
    assert_eq!((repr.requested_ip, repr.server_identifier), (None, None), "RFC 2131 §4.3.2");
    let option =
        |kind| packet.options().find(|option| option.kind == kind).map(|option| option.data.to_vec());
    assert_eq!((option(61), option(12)), (lease.client_id, lease.host_name));
}

#[test]
fn an_acknowledgement_renews() {
    let mut lease = lease();
    let mut renewal = Renewal::new(&lease, LeasePolicy::Renew, &guest(), at(0)).unwrap();
    let (_, request) = sent(renewal.due(&lease, &guest(), at(60)));
    // For nobody, another client, another transaction: not taken.
    let good = answer_to(&request, &c::DHCP_RENEWED, |_| {});
    let mut stray = answer_to(&request, &c::DHCP_RENEWED, |packet| packet.set_transaction_id(7));
    assert_eq!(renewal.take(&mut lease, &Frame::new(&stray).unwrap(), &guest()), None);
    stray = good.clone();
    stray[..6].copy_from_slice(&MAC_3.0);
    assert_eq!(renewal.take(&mut lease, &Frame::new(&stray).unwrap(), &guest()), None);
    let response = renewal.take(&mut lease, &Frame::new(&good).unwrap(), &guest());
    assert!(matches!(response, Some(Outcome::Consume(_))), "{response:?}");
    assert_eq!((lease.since, renewal.deadline()), (at(60), Some(at(60 + 53))));
    // It is done: a copy is nobody's.
    assert_eq!(renewal.take(&mut lease, &Frame::new(&good).unwrap(), &guest()), None);
}

#[test]
fn a_server_does_not_set_the_pace() {
    // One second, T1 and T2 at once: octets of options 51, 58 and 59.
    let hurry = |mut bytes: Vec<u8>| {
        for kind in [51, 58, 59] {
            let at = bytes.windows(2).position(|pair| pair == [kind, 4]).unwrap();
            bytes[at + 2..at + 6].copy_from_slice(&u32::from(kind == 51).to_be_bytes());
        }
        bytes
    };
    let mut lease = lease();
    let mut renewal = Renewal::new(&lease, LeasePolicy::Renew, &guest(), at(0)).unwrap();
    let (_, request) = sent(renewal.due(&lease, &guest(), at(60)));
    let answer = hurry(answer_to(&request, &c::DHCP_RENEWED, |_| {}));
    assert!(matches!(
        renewal.take(&mut lease, &Frame::new(&answer).unwrap(), &guest()),
        Some(Outcome::Consume(_))
    ));
    assert_eq!((lease.seconds, renewal.deadline()), (1, Some(at(65))));
}

#[test]
fn a_refusal_or_another_address_wakes() {
    for other_address in [false, true] {
        let mut lease = lease();
        let mut renewal = Renewal::new(&lease, LeasePolicy::Renew, &guest(), at(0)).unwrap();
        let (_, request) = sent(renewal.due(&lease, &guest(), at(60)));
        let mut bytes = answer_to(&request, &c::DHCP_RENEWED, |packet| {
            if other_address {
                packet.set_your_ip(Ipv4Addr::new(10, 9, 0, 7));
            }
        });
        if !other_address {
            bytes = kind_changed(bytes, DhcpMessageType::Nak);
            bytes[..6].copy_from_slice(&MacAddr::BROADCAST.0);
        }
        let response = renewal.take(&mut lease, &Frame::new(&bytes).unwrap(), &guest());
        assert!(matches!(response, Some(Outcome::Wake(_))), "{response:?}");
        assert_eq!(renewal.deadline(), None);
    }
}

#[test]
fn silence_is_asked_again_then_of_anybody_then_wakes() {
    // A day: T1 12 h, T2 21 h, woken half way between T2 and the end.
    let lease = Lease { seconds: 86_400, renew: 43_200, rebind: 75_600, ..lease() };
    let mut renewal = Renewal::new(&lease, LeasePolicy::Renew, &guest(), at(0)).unwrap();
    let (mut asked, mut xids) = (Vec::new(), Vec::new());
    let woken = loop {
        let now = renewal.deadline().expect("it ends by waking");
        match renewal.due(&lease, &guest(), now).expect("a deadline is not for nothing") {
            Deed::Send(word, bytes) => {
                let (mac, _, data) = message(&bytes);
                assert_eq!(mac == MacAddr::BROADCAST, word == "dhcp-rebind");
                xids.push(DhcpPacket::new_checked(&data[..]).unwrap().transaction_id());
                asked.push((word, now.since(at(0)).as_secs()));
            }
            Deed::Wake(_) => break now,
        }
    };
    assert_eq!(woken, at(75_600 + 5_400));
    assert_eq!(renewal.deadline(), None);
    assert_eq!(asked[..3], [("dhcp-renew", 43_200), ("dhcp-renew", 59_400), ("dhcp-renew", 67_500)]);
    assert_eq!(asked.last(), Some(&("dhcp-rebind", 75_600)));
    assert!(asked.windows(2).all(|pair| pair[0].1 + 60 <= pair[1].1 || pair[1].1 == 75_600), "{asked:?}");
    assert!(xids.windows(2).all(|pair| pair[0] == pair[1]), "one transaction");
}

#[test]
fn policies() {
    let lease = lease();
    assert_eq!(Renewal::new(&lease, LeasePolicy::Ignore, &guest(), at(0)), None);
    let forever = Lease { seconds: u32::MAX, ..lease.clone() };
    assert_eq!(Renewal::new(&forever, LeasePolicy::Renew, &guest(), at(0)), None);
    let moved = Identity { addresses: Vec::new(), ..guest() };
    assert_eq!(Renewal::new(&lease, LeasePolicy::Renew, &moved, at(0)), None);
    let mut renewal = Renewal::new(&lease, LeasePolicy::Wake, &guest(), at(0)).unwrap();
    assert_eq!(renewal.due(&lease, &guest(), at(59)), None);
    assert!(matches!(renewal.due(&lease, &guest(), at(60)), Some(Deed::Wake(_))));
    assert_eq!(renewal.deadline(), None);
}

#[test]
fn a_restarted_daemon_goes_on_where_the_time_says() {
    let lease = lease();
    for (now, expected) in [(70, Some("dhcp-renew")), (106, Some("dhcp-rebind")), (113, None), (500, None)] {
        let mut renewal = Renewal::new(&lease, LeasePolicy::Renew, &guest(), at(now)).unwrap();
        assert_eq!(renewal.deadline(), Some(at(now)), "at once");
        match (renewal.due(&lease, &guest(), at(now)), expected) {
            (Some(Deed::Send(word, _)), Some(expected)) => assert_eq!(word, expected),
            (Some(Deed::Wake(_)), None) => {}
            (other, _) => panic!("after {now} s: {other:?}"),
        }
    }
}

#[test]
fn the_proxy_keeps_the_lease_in_the_persona() {
    let mut proxy = Proxy::new(guest(), learned(), Policy::default(), at(5));
    assert_eq!(proxy.deadline(), Some(at(60)));
    let request = sent(proxy.due(at(60)).pop()).1;
    let ack = answer_to(&request, &c::DHCP_RENEWED, |_| {});
    assert!(matches!(proxy.take(&Frame::new(&ack).unwrap(), at(61)), ("dhcp", Outcome::Consume(_))));
    assert_eq!(proxy.persona().lease.as_ref().unwrap().since, at(60));
    assert_eq!(proxy.deadline(), Some(at(60 + 53)));
}

proptest! {
    /// Whatever a server grants and however late it is called: it ends, never asks sooner than RFC 2131
    /// §4.4.5 allows unless T2 came, and never lets a lease end without a word.
    #[test]
    fn silence_always_ends_in_a_wake_before_the_end(
        seconds in 8u32..3_000_000, renew in 0u32..3_000_000, rebind in 0u32..3_000_000, late in 0u64..50,
    ) {
        let rebind = rebind % seconds;
        let lease = Lease { seconds, renew: renew.min(rebind), rebind, ..lease() };
        let mut renewal = Renewal::new(&lease, LeasePolicy::Renew, &guest(), at(0)).unwrap();
        let mut last: Option<Timestamp> = None;
        for _ in 0..200 {
            let due = renewal.deadline().unwrap();
            prop_assert!(due <= at(seconds.into()).max(last.unwrap_or_default() + Duration::from_secs(late)));
            let now = due + Duration::from_secs(late);
            match renewal.due(&lease, &guest(), now) {
                Some(Deed::Wake(_)) => return Ok(()),
                Some(Deed::Send(..)) => {
                    if let Some(last) = last {
                        let short = now.since(last) < Duration::from_secs(60);
                        prop_assert!(!short || last < at(rebind.into()));
                    }
                    last = Some(now);
                }
                None => prop_assert!(false, "a deadline for nothing"),
            }
        }
        prop_assert!(false, "asks for ever");
    }

    #[test]
    fn no_message_makes_it_panic_or_keep_much(
        which: prop::sample::Index, sent: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = which.get(&c::ALL[..5]).bytes();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let Some(frame) = Frame::new(&bytes) else { return Ok(()) };
        let mut persona = learned();
        persona.learn(&frame, if sent { Way::Sent } else { Way::Received }, MAC_2, at(2));
        if let Some(lease) = &persona.lease {
            prop_assert!(lease.renew <= lease.rebind && lease.rebind <= lease.seconds);
            prop_assert!(lease.client_id.as_ref().map_or(0, Vec::len) <= 255);
        }
        let mut proxy = Proxy::new(guest(), persona, Policy::default(), at(2));
        for _ in 0..4 {
            let Some(deadline) = proxy.deadline() else { break };
            proxy.due(deadline);
            proxy.take(&frame, deadline);
        }
    }
}

#[test]
fn other_frames_are_not_its() {
    let mut proxy = Proxy::new(guest(), learned(), Policy::default(), at(0));
    assert_eq!(proxy.due(at(60)).len(), 1);
    for packet in packets::ALL {
        let (by, _) = proxy.take(&Frame::new(&packet.bytes()).unwrap(), at(61));
        assert_ne!(by, Renewal::NAME, "{}", packet.name);
    }
}
