//! Everything that is answered for one sleeping interface, composed: a state machine without I/O.
//!
//! ```text
//!   Proxy::new(identity, persona, policy, now)
//!     take(frame, now)   -> Outcome      what to do about a frame that came for it, or for a group
//!     deadline()         -> when `due` is to be called next
//!     due(now)           -> what it would send by itself now, as the renewal of a lease
//!     persona()          -> what to keep, with the lease as it is now
//! ```

use alloc::{boxed::Box, vec::Vec};
use core::{cmp::Reverse, net::IpAddr, time::Duration};

use dormouse_types::{LeasePolicy, Timestamp};

use crate::{
    frame::Frame,
    persona::Persona,
    renewal::Renewal,
    respond::{Context, Identity, Memory, Response, standard},
};

/// What a sleeper's stand-in may do without the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of its lease.
    pub lease: LeasePolicy,
}

/// What becomes of a frame that was shown to a [`Proxy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is answered with this frame, to be sent at once where the frame came from.
    Reply(Vec<u8>),
    /// The machine would do nothing with it, or it is answered by [`Proxy::due`] when the time has
    /// come; the reason.
    Consume(&'static str),
    /// The machine is to see it some time, and is not wanted for it, whatever its wake rules say.
    Hold,
    /// The machine is wanted, whatever its wake rules say; why, in a few words.
    Wake(&'static str),
    /// The wake rules are to be asked.
    Pass,
}

/// What a sleeper would do without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Send this frame; the word says what for, for counters: the responder's name, or `dhcp-renew`.
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
    /// Answers that are not due yet, those due first at the end.
    pending: Vec<Pending>,
    /// Keeps the persona's lease.
    renewal: Option<Renewal>,
    /// It stands in from then on.
    since: Timestamp,
}

/// An answer that is not due yet.
#[derive(Debug)]
struct Pending {
    due: Timestamp,
    by: &'static str,
    frame: Vec<u8>,
}

/// The most answers that one sleeper owes: a report for each of its groups, and a few more.
const MAX_PENDING: usize = Persona::MAX_GROUPS + 16;

impl Proxy {
    /// Stands in from `now` on.
    #[must_use]
    pub fn new(who: Identity, persona: Persona, policy: Policy, now: Timestamp) -> Self {
        let renewal = persona.lease.as_ref().and_then(|lease| Renewal::new(lease, policy.lease, &who, now));
        let (persona, memory) = (Box::new(persona), Memory::default());
        Self { who, persona, memory, pending: Vec::new(), renewal, since: now }
    }

    /// When the sleeper may not use its leased address any more (RFC 2131 §4.4.5). A lease that had ended before
    /// was renewed unseen: the machine used the address after that.
    fn lapses(&self) -> Option<Timestamp> {
        let lease = self.persona.lease.as_ref().filter(|lease| lease.seconds != u32::MAX)?;
        let is_used = !self.who.configured && self.who.has(lease.address);
        Some(lease.after(lease.seconds)).filter(|end| is_used && self.since < *end)
    }

    /// Answers for an address no longer.
    fn lose(&mut self, address: IpAddr) {
        self.who.addresses.retain(|own| *own != address);
    }

    /// What to do about a frame that came for it, or for a group; and by which responder.
    pub fn take(&mut self, frame: &Frame<'_>, now: Timestamp) -> (&'static str, Outcome) {
        if let (Some(renewal), Some(lease)) = (&mut self.renewal, &mut self.persona.lease)
            && let Some(outcome) = renewal.take(lease, frame, &self.who)
        {
            return (Renewal::NAME, outcome);
        }
        for responder in standard() {
            let mut context =
                Context { who: &self.who, persona: &self.persona, now, memory: &mut self.memory };
            let by = responder.name();
            let outcome = match responder.respond(frame, &mut context) {
                Response::Reply(reply) => Outcome::Reply(reply),
                Response::Later(frames) => self.owe(by, frames, now),
                Response::Consume(reason) => Outcome::Consume(reason),
                Response::Hold => Outcome::Hold,
                Response::Wake(reason) => Outcome::Wake(reason),
                Response::Lose(address) => {
                    self.lose(address);
                    continue;
                }
                Response::Pass => continue,
            };
            return (by, outcome);
        }
        ("", Outcome::Pass)
    }

    /// Puts answers off. One that is owed already is given once, at the earlier time (as RFC 3376
    /// §5.2 and RFC 3810 §6.2 have it for reports); what exceeds [`MAX_PENDING`] is left to the
    /// asker's next question.
    fn owe(&mut self, by: &'static str, frames: Vec<(Duration, Vec<u8>)>, now: Timestamp) -> Outcome {
        for (delay, frame) in frames {
            let due = now + delay;
            if let Some(same) = self.pending.iter_mut().find(|pending| pending.frame == frame) {
                same.due = same.due.min(due);
            } else if self.pending.len() < MAX_PENDING {
                self.pending.push(Pending { due, by, frame });
            }
        }
        self.pending.sort_by_key(|pending| Reverse(pending.due));
        Outcome::Consume("it is answered a little later")
    }

    /// When [`Proxy::due`] is to be called next; `None`: never, unless a frame changes that.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let owed = self.pending.last().map(|pending| pending.due);
        let renewal = self.renewal.as_ref().and_then(Renewal::deadline);
        owed.into_iter().chain(renewal).chain(self.lapses()).min()
    }

    /// What it would send by itself, now that a deadline has come.
    pub fn due(&mut self, now: Timestamp) -> Vec<Deed> {
        let mut deeds = Vec::new();
        while let Some(Pending { by, frame, .. }) = self.pending.pop_if(|pending| pending.due <= now) {
            deeds.push(Deed::Send(by, frame));
        }
        if let (Some(renewal), Some(lease)) = (&mut self.renewal, &self.persona.lease) {
            deeds.extend(renewal.due(lease, &self.who, now));
        }
        if self.lapses().is_some_and(|end| end <= now)
            && let Some(address) = self.persona.lease.as_ref().map(|lease| lease.address)
        {
            self.lose(address.into());
        }
        deeds
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
