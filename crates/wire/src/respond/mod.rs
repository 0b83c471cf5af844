//! Answers given for a sleeping machine.

mod arp;
mod build;
mod conflict;
mod icmpv4;
mod icmpv6;
mod keepalive;
pub(crate) mod llmnr;
mod mdns;
mod membership;
mod ndisc;
mod netbios;

use alloc::vec::Vec;
use core::{cmp::Reverse, net::IpAddr, time::Duration};

use dormouse_types::{MacAddr, Timestamp};

pub use arp::ArpResponder;
pub use conflict::{ArpDefence, NeighborDefence};
pub use icmpv4::IcmpEcho;
pub use icmpv6::Icmpv6Echo;
pub use keepalive::Keepalive;
pub use llmnr::Llmnr;
pub use mdns::Mdns;
pub use membership::{IgmpMember, MldMember};
pub use ndisc::NeighborSolicitation;
pub use netbios::Netbios;

use crate::{frame::Frame, persona::Persona};

/// What a sleeper answers for on one of its interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The interface's Ethernet address.
    pub mac: MacAddr,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
    /// They were given to it by whoever runs it, who says that nobody else may have them. Those
    /// that were only learned it gives up to another who claims them.
    pub configured: bool,
}

impl Identity {
    /// Is `address` one of this interface's?
    #[must_use]
    pub fn has(&self, address: impl Into<IpAddr>) -> bool {
        self.addresses.contains(&address.into())
    }

    /// Its address that is nearest to `peer`: of the same family, with the longest common prefix
    /// (RFC 6724 §5, rule 8), so that a link-local address answers a link-local one.
    fn on_link(&self, peer: IpAddr) -> Option<IpAddr> {
        let of_family = self.addresses.iter().filter(|own| own.is_ipv4() == peer.is_ipv4());
        of_family.copied().min_by_key(|own| Reverse(common_prefix(*own, peer)))
    }

    /// Did another station send `frame`, to this interface alone?
    fn is_addressed_by(&self, frame: &Frame<'_>) -> bool {
        frame.dst() == self.mac && self.is_foreign(frame.src())
    }

    /// Can `mac` be that of another station?
    fn is_foreign(&self, mac: MacAddr) -> bool {
        mac != self.mac && !mac.is_multicast() && mac != MacAddr([0; 6])
    }
}

/// How many bits two addresses of one family begin with that are the same.
fn common_prefix(one: IpAddr, other: IpAddr) -> u32 {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => 0,
    }
}

/// What becomes of a frame that was shown to a responder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// It is answered with this frame, to be sent where the frame came from.
    Reply(Vec<u8>),
    /// It is answered with each of these frames after its time, if the machine still sleeps then
    /// (as reports to a querier, which all hosts would otherwise send at once). None: no answer.
    Later(Vec<(Duration, Vec<u8>)>),
    /// It needs no answer, and the machine would do nothing with it; the reason.
    Consume(&'static str),
    /// The machine is to see it some time, and is not wanted for it, whatever its wake rules say.
    Hold,
    /// This address is another's now, and not to be answered for any more. The frame is passed on.
    Lose(IpAddr),
    /// The machine is wanted, whatever its wake rules say; why, in a few words.
    Wake(&'static str),
    /// The responder has nothing to say about it.
    Pass,
}

impl Response {
    fn reply_or_pass(reply: Option<Vec<u8>>) -> Self {
        reply.map_or(Self::Pass, Self::Reply)
    }
}

/// What a responder knows.
#[derive(Debug)]
pub struct Context<'a> {
    /// For whom it answers.
    pub who: &'a Identity,
    /// What the machine was on its network.
    pub persona: &'a Persona,
    /// The time.
    pub now: Timestamp,
    /// What must be remembered from one frame to the next.
    pub memory: &'a mut Memory,
}

/// What the responders of one sleeper remember. A few words: there is one for each of thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// When each of its addresses was last defended against another claimant (RFC 5227 §2.4).
    pub defended: Vec<(IpAddr, Timestamp)>,
    /// What was told to the group of mDNS last.
    mdns: mdns::Told,
}

/// Answers one kind of frame for a sleeper.
pub trait Responder: Send + Sync {
    /// A short name, for counters and logs.
    fn name(&self) -> &'static str;

    /// What to do about `frame`, which arrived where the machine sleeps.
    ///
    /// Replies bear the sleeper's Ethernet address and the frame's VLAN tags, are not padded to
    /// the 60 octets of Ethernet, and have full checksums.
    fn respond(&self, frame: &Frame<'_>, context: &mut Context<'_>) -> Response;
}

/// All responders of this crate, in the order in which they are asked.
#[must_use]
pub fn standard() -> &'static [&'static dyn Responder] {
    &[
        &ArpResponder,
        &NeighborSolicitation,
        &IcmpEcho,
        &Icmpv6Echo,
        &Keepalive,
        &IgmpMember,
        &MldMember,
        &ArpDefence,
        &NeighborDefence,
        &Mdns,
        &Llmnr,
        &Netbios,
    ]
}
