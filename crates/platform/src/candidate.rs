//! Machines that a platform has of its own, and that Dormouse may take under its care.

use std::net::IpAddr;

use dormouse_types::{Depth, MacAddr};

use crate::Obstacle;

/// A machine that others have defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The platform's name of it.
    pub name: String,
    /// Its UUID, in the canonical form.
    pub uuid: Option<String>,
    /// What it does now.
    pub activity: Activity,
    /// Bytes of memory that its guest may have at most.
    pub memory: u64,
    /// Its interfaces that somebody can stand in for; the others are among the obstacles.
    pub interfaces: Vec<Joined>,
    /// Interfaces whose bridge cannot be told now, as of a network that is not started.
    pub unjoined: Vec<MacAddr>,
    /// What stands in the way of its sleep, and what its user should know of.
    pub obstacles: Vec<Obstacle>,
}

/// What a machine does, that others look after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Its guest runs.
    Running,
    /// Its processors stand still, or its guest has suspended itself.
    Suspended,
    /// It is off, and its state is on disk: its next start goes on from there.
    Saved,
    /// It is off.
    Off,
}

/// An interface, and the bridge it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The guest's Ethernet address.
    pub mac: MacAddr,
    /// The bridge.
    pub bridge: String,
    /// IP addresses that the guest seems to have: a hint, until its traffic tells.
    pub addresses: Vec<IpAddr>,
}

/// A machine that was looked for, by the name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The name.
    pub name: String,
    /// What was found.
    pub found: Result<Candidate, NotFound>,
}

/// Why nothing was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// The platform does not have it.
    #[error("there is no domain of this name")]
    Missing,
    /// The platform could not be asked about it, or its answer is not understood.
    #[error("{0}")]
    Unreadable(String),
}

impl Candidate {
    /// Can it sleep this deep?
    #[must_use]
    pub fn reaches(&self, depth: Depth) -> bool {
        !self.obstacles.iter().any(|obstacle| obstacle.bars(depth))
    }
}
