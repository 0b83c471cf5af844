//! No bytes make anything panic, and no reply is unsound whatever it answers.

use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{Frame, Identity, Persona, Rules, Verdict, digest, is_magic, learned, summary};
use proptest::prelude::*;

use crate::{MAC_1, MAC_2, MAC_3, build::tag, check, host_1, host_2, packets, rival_of_host_2};

/// Everything that takes a frame.
fn everything(bytes: &[u8]) {
    let _ = (summary(bytes), digest(bytes));
    for who in [host_1(), host_2(), rival_of_host_2(), nearest(bytes)] {
        check::replies(bytes, &who);
    }
    let Some(frame) = Frame::new(bytes) else { return };
    let wake =
        ["established", "icmp rate 2/1s", "any-unicast", "magic", "sctp", "udp:53", "ethertype:0x88b8"];
    let wake: Vec<_> = wake.iter().map(|rule| rule.parse().unwrap()).collect();
    let mut rules = Rules::new(wake.into(), ["tcp:5666".parse().unwrap()].into());
    for mac in [MAC_1, MAC_2, MAC_3, frame.dst(), frame.src()] {
        let who = Identity { mac, addresses: Vec::new(), configured: true };
        let verdict = rules.judge(&frame, &who, &Persona::default(), Timestamp(1));
        let woken = matches!(verdict, Verdict::Wake(_));
        assert!(!(woken && mac == frame.src()), "woken by itself");
        assert!(!is_magic(&frame, mac) || woken || mac == frame.src());
        let claims: Vec<_> = learned(&frame, mac).collect();
        assert!(claims.is_empty() || mac == frame.src());
        assert!(claims.iter().all(|ip| !ip.is_multicast() && !ip.is_unspecified() && !ip.is_loopback()));
    }
    let _ = (format!("{frame:?}"), frame.network());
}

/// A sleeper to whom the frame is addressed, and who has every address that can be read in it.
fn nearest(bytes: &[u8]) -> Identity {
    let v4 = bytes.windows(4).take(60).map(|w| <[u8; 4]>::try_from(w).unwrap().into());
    let v6 = bytes.windows(16).take(80).map(|w| <[u8; 16]>::try_from(w).unwrap().into());
    let mac = MacAddr::from_slice(bytes).filter(|mac| !mac.is_multicast()).unwrap_or(MAC_2);
    Identity { mac, addresses: v4.chain(v6).collect(), configured: false }
}

#[test]
fn recorded_packets_cut_anywhere() {
    for packet in packets::ALL {
        let bytes = packet.bytes();
        (0..=bytes.len()).for_each(|len| everything(&bytes[..len]));
    }
}

#[test]
fn recorded_packets_with_every_octet_at_its_extremes() {
    for packet in packets::ALL {
        let bytes = packet.bytes();
        for at in 0..bytes.len().min(100) {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                everything(&changed);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        everything(&bytes);
    }

    #[test]
    fn random_payloads_of_known_types(
        ethertype in prop::sample::select(vec![0x0800u16, 0x0806, 0x86dd, 0x0842, 0x8100, 0x88a8]),
        to_us: bool,
        mut payload in prop::collection::vec(any::<u8>(), 0..300),
        first in prop::sample::select(vec![0x45u8, 0x46, 0x4f, 0x60, 0x6f, 0]),
        protocol in prop::sample::select(vec![0u8, 1, 6, 17, 43, 44, 51, 58, 60, 132]),
    ) {
        if let Some(octet) = payload.first_mut() {
            *octet = first;
        }
        let at = if ethertype == 0x0800 { 9 } else { 6 };
        if let Some(octet) = payload.get_mut(at) {
            *octet = protocol;
        }
        let dst = if to_us { MAC_2 } else { MacAddr::BROADCAST };
        everything(&crate::build::ethernet(dst, MAC_1, &[], ethertype, &payload));
    }

    #[test]
    fn recorded_packets_changed_at_random(
        which: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        more in prop::collection::vec(any::<u8>(), 0..40),
        tags in 0u16..4,
    ) {
        let mut bytes = which.get(packets::ALL).bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        bytes.extend(more);
        for vlan in 0..tags {
            bytes.splice(12..12, tag(vlan));
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        everything(&bytes);
    }
}
