//! The frames held for one port of a sleeper, in the order they came.
//!
//! Theory of operation: a frame enters once and leaves once: taken for injection, answered,
//! dropped for a counted reason, or recognised as one that the guest got directly. While the
//! bridge is being turned (the *boundary* is open) a group frame may reach both the guest and the
//! surrogate. Such frames wait apart, in doubt, and the octets that the guest's tap was seen to
//! get are remembered as a multiset of digests; each digest removes one frame in doubt. What has
//! been in doubt from one look to the next, and at the latest when the boundary closes, is held
//! like any other: were all to wait for the end, what comes directly would overtake them.
//!
//! Memory is bounded: frames by the machine's [`Budget`], digests by [`MAX_SEEN`]. At the limit
//! the newest frame is dropped, as by any queue, but not in favour of *stale* ones: what came
//! while nobody wanted the machine gives way, oldest first. Otherwise the noise of a long
//! night would fill the queue, and the frame that wakes the machine would find no room. Group
//! frames give way first and to all; what is for the machine to no group frame; and what ends one of
//! its connections to nothing stale but its like. Of stale group frames only the last few are kept.

mod budget;
mod stale;

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

pub(crate) use self::budget::{Budget, HostBudget};
use self::stale::{Rank, Stale};
use crate::{Drops, Reason, packet::Packet};

/// Most digests remembered while a boundary is open; a frame beyond may be delivered twice.
const MAX_SEEN: usize = 65_536;

/// See the module's description.
#[derive(Debug)]
pub(crate) struct ReplayQueue {
    /// Older than all of `held`, and the first to give way.
    stale: Stale,
    held: VecDeque<Held>,
    doubtful: VecDeque<Held>,
    /// How many of them, from the front, were there at the last look.
    looked_at: usize,
    /// `Some` while the boundary is open: how often each digest was seen at the tap.
    seen: Option<HashMap<u64, u32>>,
    suppressed: u64,
    drops: Drops,
    budget: Arc<Budget>,
}

/// Names a frame that is held until more is known about it; of all queues, and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(NonZeroU64);

impl Ticket {
    /// One that was never given out.
    pub(crate) fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // Saturating at the end of some centuries.
        Self(NonZeroU64::MIN.saturating_add(LAST.fetch_add(1, Relaxed)))
    }
}

/// A frame in the queue.
#[derive(Debug)]
struct Held {
    packet: Packet,
    ticket: Option<Ticket>,
}

/// How much a frame matters when there is no room for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worth {
    /// It came while nobody wanted the machine.
    Stale,
    /// So did this, and it ends one of its connections.
    Close,
    /// The machine is awake or about to be.
    Fresh,
}

/// What became of a frame that was to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It is held.
    Held,
    /// It is held, and others had to give way.
    InPlace,
    /// It is dropped.
    Dropped,
}

impl Pushed {
    /// Is the frame held?
    pub(crate) const fn is_held(self) -> bool {
        matches!(self, Self::Held | Self::InPlace)
    }
}

impl ReplayQueue {
    /// An empty queue with its boundary closed.
    #[must_use]
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self {
            stale: Stale::default(),
            held: VecDeque::new(),
            doubtful: VecDeque::new(),
            looked_at: 0,
            seen: None,
            suppressed: 0,
            drops: Drops::default(),
            budget,
        }
    }

    /// Holds a frame at the end, and counts what had to be dropped.
    pub(crate) fn push(&mut self, packet: Packet, worth: Worth, ticket: Option<Ticket>) -> Pushed {
        let rank = match worth {
            _ if packet.is_group() => Rank::Group,
            Worth::Stale => Rank::Unicast,
            Worth::Close | Worth::Fresh => Rank::Close,
        };
        // Fresh ones are newer than this: what comes after them stays behind them.
        let is_stale = worth != Worth::Fresh && self.held.is_empty();
        let overfull = is_stale && rank == Rank::Group && self.trim_groups(&packet);
        let room = match self.make_room(&packet, rank) {
            Pushed::Held if overfull => Pushed::InPlace,
            Pushed::Dropped => return Pushed::Dropped,
            room => room,
        };
        let held = Held { packet, ticket };
        if is_stale {
            self.stale.push_back(held, rank);
        } else {
            self.held.push_back(held);
        }
        room
    }

    /// Holds a group frame that the guest may have got as well, if the boundary is open.
    pub(crate) fn push_group(&mut self, packet: Packet, worth: Worth, ticket: Option<Ticket>) -> Pushed {
        if self.seen.is_none() {
            return self.push(packet, worth, ticket);
        }
        let room = self.make_room(&packet, Rank::Group);
        if room.is_held() {
            self.doubtful.push_back(Held { packet, ticket });
        }
        room
    }

    /// The frame with this ticket, if it is still held.
    #[must_use]
    pub(crate) fn get(&self, ticket: Ticket) -> Option<&Packet> {
        let mut newer = self.held.iter().chain(&self.doubtful);
        let found = self.stale.get(ticket).or_else(|| newer.find(|held| held.ticket == Some(ticket)));
        found.map(|held| &held.packet)
    }

    /// Takes out the frame with this ticket, if it is still held: something else becomes of it.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Packet> {
        let at = |frames: &VecDeque<Held>| frames.iter().position(|held| held.ticket == Some(ticket));
        let removed = if let Some(held) = self.stale.remove(ticket) {
            Some(held)
        } else if let Some(at) = at(&self.held) {
            self.held.remove(at)
        } else {
            let at = at(&self.doubtful)?;
            // Those looked at are at the front.
            self.looked_at -= usize::from(at < self.looked_at);
            self.doubtful.remove(at)
        }?;
        self.budget.refund(&removed.packet);
        Some(removed.packet)
    }

    /// The machine is wanted for the frame with this ticket: neither it nor what came after it
    /// gives way to newer ones any more.
    pub(crate) fn freshen(&mut self, ticket: Ticket) {
        for held in self.stale.split_off(ticket).into_iter().rev() {
            self.held.push_front(held);
        }
    }

    /// Has stale group frames give way to one more. Was there any need?
    fn trim_groups(&mut self, packet: &Packet) -> bool {
        let mut any = false;
        while let Some(evicted) = self.stale.overfull(packet.cost()) {
            self.budget.refund(&evicted.packet);
            self.drops.add(Reason::FrameLimit, 1);
            any = true;
        }
        any
    }

    /// Charges for a frame, at the expense of stale ones that matter no more if need be.
    fn make_room(&mut self, packet: &Packet, rank: Rank) -> Pushed {
        let mut room = Pushed::Held;
        loop {
            let Err(limit) = self.budget.charge(packet) else { return room };
            self.drops.add(limit, 1);
            match self.stale.give_way(rank) {
                Some(evicted) => self.budget.refund(&evicted.packet),
                None => return Pushed::Dropped,
            }
            room = Pushed::InPlace;
        }
    }

    /// Puts frames that are older than all held ones in front, in their order.
    ///
    /// They were with the guest already, so that they are held even beyond the limits, until they
    /// are judged.
    pub(crate) fn push_older(&mut self, older: Vec<Packet>) {
        for packet in older.into_iter().rev() {
            self.budget.charge_anyway(&packet);
            let rank = if packet.is_group() { Rank::Group } else { Rank::Unicast };
            self.stale.push_front(Held { packet, ticket: None }, rank);
        }
    }

    /// The oldest frame about which there is no doubt.
    #[must_use]
    pub(crate) fn front(&self) -> Option<&Packet> {
        self.stale.front().or_else(|| self.held.front()).map(|held| &held.packet)
    }

    /// Takes the oldest frame about which there is no doubt.
    pub(crate) fn pop(&mut self) -> Option<Packet> {
        let Held { packet, .. } = self.stale.pop_front().or_else(|| self.held.pop_front())?;
        self.budget.refund(&packet);
        Some(packet)
    }

    /// Takes everything that is held, in order; what is in doubt stays.
    pub(crate) fn take_all(&mut self) -> Vec<Packet> {
        let all = std::iter::from_fn(|| self.pop()).collect();
        self.held = VecDeque::new();
        all
    }

    /// From now on group frames may reach the guest and the surrogate.
    pub(crate) fn open_boundary(&mut self) {
        self.seen.get_or_insert_default();
    }

    /// May group frames reach the guest and the surrogate?
    pub(crate) const fn boundary_is_open(&self) -> bool {
        self.seen.is_some()
    }

    /// Counts a group frame that never came in, since the guest got it.
    pub(crate) fn count_suppressed(&mut self) {
        self.suppressed += 1;
    }

    /// The guest's tap got a group frame with this digest. Ignored while the boundary is closed.
    pub(crate) fn seen_at_tap(&mut self, digest: u64) {
        if let Some(seen) = &mut self.seen
            && (seen.len() < MAX_SEEN || seen.contains_key(&digest))
        {
            let times = seen.entry(digest).or_default();
            *times = times.saturating_add(1);
        }
    }

    /// Decides on the frames that were in doubt at the last look already: the tap's copy of a frame,
    /// if there is one, was noticed by now.
    pub(crate) fn look(&mut self, digest: impl Fn(&Packet) -> u64) {
        self.decide(self.looked_at, digest);
        self.looked_at = self.doubtful.len();
    }

    /// No frame reaches both any more: drops what the guest got, holds the rest.
    /// Says how many were dropped.
    pub(crate) fn close_boundary(&mut self, digest: impl Fn(&Packet) -> u64) -> u64 {
        let before = self.suppressed;
        self.decide(self.doubtful.len(), digest);
        self.looked_at = 0;
        self.seen = None;
        self.suppressed - before
    }

    /// Drops those of the first `frames` in doubt that the guest got, and holds the others.
    fn decide(&mut self, frames: usize, digest: impl Fn(&Packet) -> u64) {
        let frames = frames.min(self.doubtful.len());
        for held in self.doubtful.drain(..frames) {
            let times = self.seen.as_mut().and_then(|seen| seen.get_mut(&digest(&held.packet)));
            match times.filter(|times| **times > 0) {
                Some(times) => {
                    *times -= 1;
                    self.suppressed += 1;
                    self.budget.refund(&held.packet);
                }
                None => self.held.push_back(held),
            }
        }
    }

    /// Frames in doubt.
    #[must_use]
    pub(crate) fn doubtful(&self) -> u64 {
        self.doubtful.len() as u64
    }

    /// Frames held or in doubt.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.stale.len() + self.held.len() + self.doubtful.len()
    }

    /// Frames recognised so far as ones that the guest got directly.
    #[must_use]
    pub(crate) const fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Frames dropped, by reason.
    #[must_use]
    pub(crate) const fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Counts frames that were taken out, or never came in, as dropped.
    pub(crate) fn count_drops(&mut self, reason: Reason, frames: u64) {
        self.drops.add(reason, frames);
    }

    /// The same for several reasons.
    pub(crate) fn merge_drops(&mut self, drops: &Drops) {
        self.drops.merge(drops);
    }

    /// Empties the queue and says how many frames that were.
    pub(crate) fn clear(&mut self) -> u64 {
        let frames = self.len() as u64;
        self.looked_at = 0;
        let stale = std::iter::from_fn(|| self.stale.pop_front());
        let all = stale.chain(self.held.drain(..)).chain(self.doubtful.drain(..));
        all.for_each(|held| self.budget.refund(&held.packet));
        frames
    }
}

impl Drop for ReplayQueue {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests;
