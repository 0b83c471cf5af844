//! Ways of calling libvirt that are in nobody's way in another.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

/// How a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// It is answered at once.
    Quick,
    /// So is this, and what it does must be done: it waits longer for a libvirt that is away.
    Deed,
    /// It may wait for what others do with the domain.
    Guest,
    /// It may wait for the guest's agent. libvirt has no limit for most of what it asks one, but a time that it
    /// keeps for all clients (`virDomainAgentSetResponseTimeout`): with it, a freeze of file systems that others
    /// ask for might fail and happen all the same. So that is left alone, and who waits here is in no other's way.
    Agent,
    /// It starts or saves.
    Work,
}

/// How many calls of a lane are made at a time: see [`super::Connection`]. Those of one lane that hang are in nobody's way
/// in another.
#[derive(Debug)]
pub(super) struct Lanes {
    quick: Arc<Semaphore>,
    deed: Arc<Semaphore>,
    guest: Arc<Semaphore>,
    agent: Arc<Semaphore>,
    work: Arc<Semaphore>,
}

impl Lane {
    /// How long a call may take.
    pub(super) const fn limit(self) -> Duration {
        match self {
            // libvirt itself gives up after 30 s where something else is done with the domain.
            Self::Quick | Self::Deed | Self::Guest | Self::Agent => Duration::from_secs(40),
            Self::Work => Duration::from_secs(1800),
        }
    }

    /// How long it waits for a connection. A restart of libvirtd takes a second or several.
    pub(super) const fn patience(self) -> Duration {
        match self {
            Self::Quick | Self::Guest | Self::Agent => Duration::from_secs(3),
            Self::Deed | Self::Work => Duration::from_secs(20),
        }
    }
}

impl Lanes {
    pub(super) fn new() -> Self {
        let room = |calls| Arc::new(Semaphore::new(calls));
        Self { quick: room(2), deed: room(2), guest: room(2), agent: room(2), work: room(4) }
    }

    pub(super) const fn room(&self, lane: Lane) -> &Arc<Semaphore> {
        match lane {
            Lane::Quick => &self.quick,
            Lane::Deed => &self.deed,
            Lane::Guest => &self.guest,
            Lane::Agent => &self.agent,
            Lane::Work => &self.work,
        }
    }
}
