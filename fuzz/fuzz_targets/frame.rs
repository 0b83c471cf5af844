//! All that takes one frame and remembers nothing.
#![no_main]

use dormouse_fuzz::{MAC, PEER};
use dormouse_wire::{Audience, Frame, Network, digest, is_magic, learned, summary};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = (summary(bytes), digest(bytes));
    let Some(frame) = Frame::new(bytes) else { return };
    assert!(frame.payload().len() < bytes.len());
    match frame.network() {
        Network::Ipv4(ip) => assert!(ip.payload.len() <= ip.payload_len),
        Network::Ipv6(ip) => assert!(ip.payload.len() <= ip.payload_len),
        Network::Arp(_) | Network::Other(_) => {}
    }
    let _ = (Audience::of(&frame), format!("{frame:?}"), frame.vlan());
    for mac in [MAC, PEER, frame.src(), frame.dst()] {
        let _ = is_magic(&frame, mac);
        assert!(learned(&frame, mac).all(|address| !address.is_multicast() && !address.is_unspecified()));
    }
});
