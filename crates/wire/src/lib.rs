//! What crosses a network: frames, the answers given for a sleeper, and what wakes it.
//!
//! Everything here works on bytes in memory and does no I/O. Nothing panics, whatever the bytes.
//!
//! - [`Frame`] is a checked view of an Ethernet frame; [`Frame::network`] looks one layer further.
//! - A [`Responder`] answers for a sleeper, described by an [`Identity`] and a [`Persona`]; a [`Proxy`]
//!   is all of ours together, for one sleeper.
//! - [`Audience`] tells which of many sleepers a group frame concerns.
//! - [`Rules`] judge a frame by wake rules and ignore lists, by [`fits`]; [`learned`] tells the addresses
//!   that a sender claims.
//! - [`frame_from_text`] puts frames together to ask what would become of them.
//! - [`summary`], [`digest()`] and [`junk_frame`] are small helpers for whoever moves frames.
//!
//! Frames are taken as a host captures them: segments larger than the MTU, checksums of the
//! transport layer that are still to be filled in by an interface (and so are never verified
//! here), IP length fields of zero where a segment is too long for them, and frames cut short.
//! Answers always carry full checksums.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod audience;
mod dhcp;
mod digest;
mod dns;
mod frame;
mod junk;
mod learn;
mod magic;
mod matching;
mod membership;
mod ndisc;
mod network;
mod persona;
mod proxy;
mod renewal;
mod respond;
mod rules;
mod scan;
mod summary;
mod synth;
mod tcp;
mod udp;

pub use audience::{Audience, NameDigest};
pub use digest::digest;
pub use dormouse_types::LeasePolicy;
pub use frame::{Cache, Frame, ethertype};
pub use junk::{JUNK_LEN, junk_frame};
pub use learn::learned;
pub use magic::is_magic;
pub use matching::fits;
pub use network::{Arp, ArpOperation, Fragment, IpPacket, Network, protocol};
pub use persona::{
    Flow, FlowTable, Followed, Lease, LeaseRequest, MdnsRecord, Names, NetbiosName, Persona, Way,
};
pub use proxy::{Deed, Outcome, Policy, Proxy};
pub use renewal::Renewal;
pub use respond::{
    ArpDefence, ArpResponder, Context, IcmpEcho, Icmpv6Echo, Identity, IgmpMember, Keepalive, Llmnr, Mdns,
    Memory, MldMember, NeighborDefence, NeighborSolicitation, Netbios, Responder, Response, standard,
};
pub use rules::{Rules, Verdict};
pub use scan::{ScanLimits, Scanners};
pub use summary::summary;
pub use synth::{SynthError, frame_from_text};
