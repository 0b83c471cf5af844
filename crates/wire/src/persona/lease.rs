//! A lease of an IPv4 address (RFC 2131).

use alloc::{boxed::Box, vec::Vec};
use core::{net::Ipv4Addr, time::Duration};

use dormouse_types::{MacAddr, Timestamp};
use serde::{Deserialize, Serialize};
use smoltcp::wire::DhcpMessageType as Kind;

use super::Way;
use crate::{dhcp::Message, frame::Frame};

/// What a machine was leased by DHCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The server that gave it (option 54).
    pub server: Ipv4Addr,
    /// Where frames to the server go: itself, or the relay.
    pub server_mac: MacAddr,
    /// When it was asked for (RFC 2131 §4.4.5), or acknowledged, if the request was not seen.
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

/// A request for a lease that was not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    xid: u32,
    at: Timestamp,
    client_id: Option<Vec<u8>>,
    host_name: Option<Vec<u8>>,
}

impl Lease {
    /// The instant that is `seconds` after its beginning.
    pub(crate) fn after(&self, seconds: u32) -> Timestamp {
        self.since + Duration::from_secs(seconds.into())
    }
}

/// Learns from one DHCP message; was there anything to be kept?
pub(super) fn learn(
    lease: &mut Option<Lease>,
    request: &mut Option<Box<LeaseRequest>>,
    frame: &Frame<'_>,
    way: Way,
    mac: MacAddr,
    now: Timestamp,
) -> bool {
    match way {
        Way::Sent => Message::from_client(frame, mac).is_some_and(|sent| says(lease, request, &sent, now)),
        Way::Received => Message::from_server(frame, mac)
            // A server that answers somebody else's question under this address is not heard.
            .filter(|answer| request.as_ref().is_none_or(|request| request.xid == answer.xid()))
            .is_some_and(|answer| is_told(lease, request, &answer, frame.src(), now)),
    }
}

/// The machine says something to servers.
fn says(
    lease: &mut Option<Lease>,
    request: &mut Option<Box<LeaseRequest>>,
    sent: &Message<'_>,
    now: Timestamp,
) -> bool {
    match sent.kind {
        Kind::Request => {
            let (client_id, host_name) = (sent.client_id(), sent.host_name());
            *request = Some(Box::new(LeaseRequest { xid: sent.xid(), at: now, client_id, host_name }));
            false
        }
        // Who looks for a lease has none (RFC 2131 §4.4.1).
        Kind::Discover | Kind::Decline | Kind::Release => {
            *request = None;
            lease.take().is_some()
        }
        _ => false,
    }
}

/// A server tells the machine something.
fn is_told(
    lease: &mut Option<Lease>,
    request: &mut Option<Box<LeaseRequest>>,
    answer: &Message<'_>,
    server_mac: MacAddr,
    now: Timestamp,
) -> bool {
    if answer.kind == Kind::Nak {
        *request = None;
        return lease.take().is_some();
    }
    let Some(grant) = answer.grant() else { return false };
    let known = lease.take().filter(|known| known.address == grant.address);
    let (since, client_id, host_name) = match request.take() {
        Some(request) => (request.at, request.client_id, request.host_name),
        // RFC 6842: servers repeat the identifier.
        None => known
            .map_or_else(|| (now, answer.client_id(), None), |known| (now, known.client_id, known.host_name)),
    };
    let (seconds, renew, rebind) = (grant.seconds, grant.renew, grant.rebind);
    let (address, server) = (grant.address, grant.server);
    *lease = Some(Lease { address, server, server_mac, since, seconds, renew, rebind, client_id, host_name });
    true
}
