//! What a machine was on its network while it was awake: what its stand-in must go on being.
//!
//! A [`Persona`] is learned from the machine's own traffic ([`Persona::learn`]), kept with the
//! machine over restarts of the daemon, and bounded: a guest that makes things up fills its own
//! limits and nothing else.

mod flow;
mod group;
mod lease;
pub(crate) mod llmnr;
pub(crate) mod mdns;
mod names;
pub(crate) mod netbios;

use alloc::{boxed::Box, vec::Vec};
use core::net::IpAddr;

use dormouse_types::{MacAddr, Timestamp};
use serde::{Deserialize, Serialize};

pub use flow::{Flow, FlowTable, Followed};
pub(crate) use group::is_reported;
pub use lease::{Lease, LeaseRequest};
pub use names::{MdnsRecord, Names, NetbiosName};

use crate::{frame::Frame, matching::source};

/// What one interface was seen to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Persona {
    /// Its established TCP connections, at most [`Persona::MAX_FLOWS`].
    pub flows: Vec<Flow>,
    /// The multicast groups that it joined (IGMP, MLD), at most [`Persona::MAX_GROUPS`].
    pub groups: Vec<IpAddr>,
    /// Its lease of an IPv4 address.
    pub lease: Option<Lease>,
    /// What it asked a server last, until that is answered.
    pub request: Option<Box<LeaseRequest>>,
    /// The names that it answers to.
    pub names: Names,
}

/// Which way a frame went, seen from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The guest sent it.
    Sent,
    /// The guest got it.
    Received,
}

impl Persona {
    /// Most connections that are kept.
    pub const MAX_FLOWS: usize = 256;
    /// Most groups that are kept.
    pub const MAX_GROUPS: usize = 64;

    /// Does a frame come from an address that it has a TCP connection with?
    #[must_use]
    pub fn is_connected_with(&self, frame: &Frame<'_>) -> bool {
        let Some(source) = source(frame).filter(|_| !self.flows.is_empty()) else { return false };
        self.flows.iter().any(|flow| flow.remote.ip() == source)
    }

    /// The leased address that it had when it was `before` and has no more, for it was given another.
    #[must_use]
    pub fn given_up_since(&self, before: &Self) -> Option<IpAddr> {
        let (old, new) = (before.lease.as_ref()?.address, self.lease.as_ref()?.address);
        (old != new).then_some(old.into())
    }

    /// Learns from a frame that the machine at `mac` sent or got; was there anything new?
    ///
    /// Connections are not learned here, since that takes every TCP frame: see [`FlowTable`].
    pub fn learn(&mut self, frame: &Frame<'_>, way: Way, mac: MacAddr, now: Timestamp) -> bool {
        let groups = group::learn(&mut self.groups, frame, way, mac);
        let lease = lease::learn(&mut self.lease, &mut self.request, frame, way, mac, now);
        let names = self.names.learn(frame, way, mac);
        groups || lease || names
    }
}
