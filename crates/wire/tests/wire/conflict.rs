//! Others that claim a sleeper's addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use dormouse_types::{LeasePolicy, MacAddr, Timestamp};
use dormouse_wire::{Frame, Identity, Lease, Outcome, Persona, Policy, Proxy};
use smoltcp::wire::{Icmpv6Packet, Ipv6Packet, NdiscNeighborFlags as Flags};

use crate::{
    MAC_1, MAC_2, MAC_3,
    build::{arp, ethernet, ipv6},
    check::{replies, sound},
    host_2,
};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 9);
const NOBODY: MacAddr = MacAddr([0; 6]);
const SECOND: u64 = 1_000_000_000;

fn broadcast(operation: u16, sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    ethernet(MacAddr::BROADCAST, sender.0, &[], 0x0806, &arp(operation, sender, target))
}

/// An advertisement to all nodes that host 2's address is at `mac`.
fn advertisement(mac: MacAddr, option: Option<MacAddr>) -> Vec<u8> {
    let (target, all): (Ipv6Addr, Ipv6Addr) = ("fd77::2".parse().unwrap(), "ff02::1".parse().unwrap());
    let mut message = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets()].concat();
    if let Some(option) = option {
        message.extend([2, 1]);
        message.extend(option.0);
    }
    Icmpv6Packet::new_unchecked(&mut message).fill_checksum(&target, &all);
    ethernet(MacAddr([0x33, 0x33, 0, 0, 0, 1]), mac, &[], 0x86dd, &ipv6(target, all, 255, 58, &message))
}

fn proxy() -> Proxy {
    Proxy::new(host_2(), Persona::default(), Policy::default(), Timestamp(0))
}

fn take(proxy: &mut Proxy, bytes: &[u8], seconds: u64) -> (&'static str, Outcome) {
    proxy.take(&Frame::new(bytes).unwrap(), Timestamp(seconds * SECOND))
}

#[test]
fn any_arp_of_a_rival_is_answered_by_an_announcement() {
    let own = broadcast(1, (MAC_2, OWN), (NOBODY, OWN));
    let claims = [
        broadcast(1, (MAC_3, OWN), (NOBODY, OWN)),
        broadcast(2, (MAC_3, OWN), (MAC_3, OWN)),
        broadcast(1, (MAC_3, OWN), (NOBODY, OTHER)),
        ethernet(MAC_2, MAC_3, &[], 0x0806, &arp(2, (MAC_3, OWN), (MAC_2, OTHER))),
    ];
    for claim in claims {
        assert_eq!(take(&mut proxy(), &claim, 1), ("arp-defence", Outcome::Reply(own.clone())));
        assert_eq!(replies(&claim, &host_2()), std::slice::from_ref(&own));
    }
}

#[test]
fn an_advertisement_of_a_rival_is_overridden() {
    for claim in [advertisement(MAC_3, Some(MAC_3)), advertisement(MAC_3, None)] {
        let (by, Outcome::Reply(reply)) = take(&mut proxy(), &claim, 1) else { panic!() };
        assert_eq!(by, "neighbor-defence");
        sound(&Frame::new(&claim).unwrap(), &reply, &host_2());
        let packet = Ipv6Packet::new_checked(&reply[14..]).unwrap();
        assert_eq!(packet.dst_addr(), "ff02::1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(Icmpv6Packet::new_checked(packet.payload()).unwrap().neighbor_flags(), Flags::OVERRIDE);
    }
}

#[test]
fn once_in_ten_seconds_for_each_family_and_held_meanwhile() {
    let mut proxy = proxy();
    let (v4, v6) = (broadcast(1, (MAC_3, OWN), (NOBODY, OWN)), advertisement(MAC_3, Some(MAC_3)));
    let mut answered = |bytes: &[u8], at| match take(&mut proxy, bytes, at) {
        (_, Outcome::Reply(_)) => true,
        (_, Outcome::Pass) => false,
        other => panic!("{other:?}"),
    };
    assert!(answered(&v4, 100) && answered(&v6, 105));
    assert!(!answered(&v4, 109) && !answered(&v6, 114));
    assert!(answered(&v4, 110) && answered(&v6, 115));
    // The clock is set back.
    assert!(answered(&v4, 5) && answered(&v6, 5));
}

/// Host 2 with addresses that were learned, and perhaps a lease of the IPv4 one, for so many seconds.
fn learned(leased: Option<u32>) -> Proxy {
    let who = Identity { configured: false, ..host_2() };
    let lease = leased.map(|seconds| Lease {
        address: OWN,
        server: OTHER,
        server_mac: MAC_1,
        since: Timestamp(0),
        seconds,
        renew: seconds / 2,
        rebind: seconds / 2,
        client_id: None,
        host_name: None,
    });
    let persona = Persona { lease, ..Persona::default() };
    Proxy::new(who, persona, Policy { lease: LeasePolicy::Ignore }, Timestamp(SECOND))
}

fn is_answered(proxy: &mut Proxy, seconds: u64) -> bool {
    let request = broadcast(1, (MAC_1, OTHER), (NOBODY, OWN));
    matches!(take(proxy, &request, seconds), ("arp", Outcome::Reply(_)))
}

#[test]
fn a_learned_address_is_given_up_and_others_are_not() {
    let mut proxy = learned(None);
    assert!(is_answered(&mut proxy, 1));
    let claim = broadcast(1, (MAC_3, OWN), (NOBODY, OWN));
    for at in [2, 3, 60] {
        assert_eq!(take(&mut proxy, &claim, at).1, Outcome::Pass);
        assert!(!is_answered(&mut proxy, at));
    }
    assert_eq!(proxy.identity().addresses.len(), host_2().addresses.len() - 1);
    assert_eq!(take(&mut proxy, &advertisement(MAC_3, Some(MAC_3)), 61).1, Outcome::Pass);
    assert_eq!(proxy.identity().addresses.len(), host_2().addresses.len() - 2);
}

#[test]
fn a_leased_address_is_defended_once() {
    let mut proxy = learned(Some(u32::MAX));
    let claim = broadcast(1, (MAC_3, OWN), (NOBODY, OWN));
    for at in [10, 20] {
        assert_eq!(take(&mut proxy, &claim, at).0, "arp-defence");
    }
    assert_eq!(take(&mut proxy, &claim, 29).1, Outcome::Pass);
    assert!(!is_answered(&mut proxy, 30));
}

#[test]
fn a_lease_that_ends_takes_its_address_along() {
    let mut proxy = learned(Some(100));
    assert_eq!(proxy.deadline(), Some(Timestamp(100 * SECOND)));
    assert!(proxy.due(Timestamp(99 * SECOND)).is_empty() && is_answered(&mut proxy, 99));
    assert!(proxy.due(Timestamp(100 * SECOND)).is_empty() && !is_answered(&mut proxy, 100));
    assert_eq!(proxy.deadline(), None);
    // One that ended before the machine fell asleep was renewed unseen.
    let mut proxy = learned(Some(1));
    assert!(proxy.deadline().is_none() && is_answered(&mut proxy, 200));
}

/// Each address has its time: a claim for one takes nothing from the defence of another.
#[test]
fn addresses_are_defended_each_for_itself() {
    let mut who = host_2();
    who.addresses.push(OTHER.into());
    let mut proxy = Proxy::new(who, Persona::default(), Policy::default(), Timestamp(0));
    for address in [OWN, OTHER] {
        let claim = broadcast(1, (MAC_3, address), (NOBODY, address));
        assert_eq!(take(&mut proxy, &claim, 100).0, "arp-defence");
        assert_eq!(take(&mut proxy, &claim, 109).1, Outcome::Pass);
    }
}

#[test]
fn what_claims_nothing_is_passed_on() {
    let frames = [
        broadcast(1, (MAC_2, OWN), (NOBODY, OWN)),
        broadcast(1, (MAC_3, OTHER), (NOBODY, OTHER)),
        ethernet(MAC_1, MAC_3, &[], 0x0806, &arp(2, (MAC_3, OWN), (MAC_1, OTHER))),
        // A bridge that repeats what it has heard of the sleeper.
        ethernet(MacAddr::BROADCAST, MAC_3, &[], 0x0806, &arp(2, (MAC_2, OWN), (MAC_1, OTHER))),
        advertisement(MAC_2, Some(MAC_2)),
        advertisement(MAC_3, Some(MAC_2)),
    ];
    for frame in frames {
        assert_eq!(take(&mut proxy(), &frame, 1).1, Outcome::Pass);
    }
}

/// Two that probe for one address at once: the one who has it answers, whoever asks.
#[test]
fn probes_are_answered_however_often() {
    let probe = broadcast(1, (MAC_3, Ipv4Addr::UNSPECIFIED), (NOBODY, OWN));
    let mut proxy = proxy();
    for _ in 0..3 {
        let (by, Outcome::Reply(_)) = take(&mut proxy, &probe, 1) else { panic!() };
        assert_eq!(by, "arp");
    }
}
