//! Everything that is answered for one sleeping interface, composed: a state machine without I/O.
//!
//! ```text
//!   Proxy::new(identity, persona, policy, now)
//!     take(frame, now)   -> Response     what to do about a frame that came for it, or for a group
//!     deadline()         -> when `due` is to be called next
//!     due(now)           -> what it would send by itself now, as the renewal of a lease
//!     persona()          -> what to keep, with the lease as it is now
//! ```

use alloc::{boxed::Box, vec::Vec};

use dormouse_types::Timestamp;

use crate::{
    frame::Frame,
    persona::Persona,
    respond::{Context, Identity, Memory, Response, standard},
};

/// What a sleeper's stand-in may do without the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of its lease.
    pub lease: LeasePolicy,
}

/// What becomes of a sleeper's DHCP lease when it is due for renewal (T1, RFC 2131 §4.4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeasePolicy {
    /// The stand-in renews it; if the server refuses or stays silent until T2, the machine is woken.
    #[default]
    Renew,
    /// The machine is woken at T1 and renews it itself.
    Wake,
    /// Nothing: the lease runs out.
    Ignore,
}

/// What a sleeper would do without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Send this frame; the word says what for, for counters, as `dhcp-renew`.
    Send(&'static str, Vec<u8>),
    /// It is wanted; why, in a few words.
    Wake(&'static str),
}

/// The stand-in of one interface. See the module's description.
#[derive(Debug)]
pub struct Proxy {
    who: Identity,
    persona: Box<Persona>,
    memory: Memory,
}

impl Proxy {
    /// Stands in from `now` on.
    #[must_use]
    pub fn new(who: Identity, persona: Persona, _policy: Policy, _now: Timestamp) -> Self {
        Self { who, persona: Box::new(persona), memory: Memory::default() }
    }

    /// What to do about a frame that came for it, or for a group; and by which responder.
    pub fn take(&mut self, frame: &Frame<'_>, now: Timestamp) -> (&'static str, Response) {
        for responder in standard() {
            let mut context =
                Context { who: &self.who, persona: &self.persona, now, memory: &mut self.memory };
            match responder.respond(frame, &mut context) {
                Response::Pass => {}
                response => return (responder.name(), response),
            }
        }
        ("", Response::Pass)
    }

    /// When [`Proxy::due`] is to be called next; `None`: never, unless a frame changes that.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        None
    }

    /// What it would send by itself, now that a deadline has come.
    pub fn due(&mut self, _now: Timestamp) -> Vec<Deed> {
        Vec::new()
    }

    /// Who it stands in for.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.who
    }

    /// What is to be kept of it.
    #[must_use]
    pub const fn persona(&self) -> &Persona {
        &self.persona
    }
}
