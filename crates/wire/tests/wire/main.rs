//! Tests of the whole crate: on real packets, on generated ones, and on any bytes.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod any_bytes;
mod audience;
mod build;
mod captures;
mod check;
mod conflict;
mod helpers;
mod learn;
mod lease;
mod membership;
mod names;
mod network;
mod packets;
mod respond;
mod rules;
mod scan;
mod synth;
mod tcp;
mod wake;

use std::net::IpAddr;

use dormouse_types::MacAddr;
use dormouse_wire::Identity;

pub const MAC_1: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
pub const MAC_2: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
pub const MAC_3: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 3]);

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn identity(mac: MacAddr, addresses: &[&str]) -> Identity {
    Identity { mac, addresses: addresses.iter().map(|text| ip(text)).collect(), configured: true }
}

/// Host 1 of the recorded packets, asleep.
pub fn host_1() -> Identity {
    identity(MAC_1, &["10.9.0.1", "fd77::1", "fe80::5054:ff:fe00:1"])
}

/// Host 2 of the recorded packets, asleep.
pub fn host_2() -> Identity {
    identity(MAC_2, &["10.9.0.2", "fd77::2", "fe80::5054:ff:fe00:2"])
}

/// Another machine that claims host 2's addresses.
pub fn rival_of_host_2() -> Identity {
    Identity { mac: MAC_3, ..host_2() }
}
