//! A lease of an IPv4 address (RFC 2131).

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use dormouse_types::{MacAddr, Timestamp};
use serde::{Deserialize, Serialize};

use super::Way;
use crate::frame::Frame;

/// What a machine was leased by DHCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The server that gave it (option 54).
    pub server: Ipv4Addr,
    /// Where frames to the server go: itself, or the relay.
    pub server_mac: MacAddr,
    /// When the server's acknowledgement came.
    pub since: Timestamp,
    /// How long it lasts (option 51), in seconds; `u32::MAX` is for ever.
    pub seconds: u32,
    /// When to renew (option 58), in seconds since `since`.
    pub renew: u32,
    /// When to ask anybody (option 59), in seconds since `since`.
    pub rebind: u32,
    /// The machine's client identifier (option 61), if it sent one.
    pub client_id: Option<Vec<u8>>,
    /// The host name that it sent (option 12).
    pub host_name: Option<Vec<u8>>,
}

pub(super) fn learn(
    _lease: &mut Option<Lease>,
    _frame: &Frame<'_>,
    _way: Way,
    _mac: MacAddr,
    _now: Timestamp,
) -> bool {
    false
}
