//! Frames that came while nobody wanted the machine.

use std::collections::VecDeque;

use super::{Held, Ticket};

/// Most group frames that are kept of them, for they are what a network is never without,
const MAX_GROUPS: usize = 128;
/// and their octets.
const MAX_GROUP_BYTES: u64 = 256 << 10;

/// How much a frame matters when there is no room for all; what matters least gives way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// It is for a group.
    Group,
    /// It is for the machine.
    Unicast,
    /// It ends a connection of the machine's: nobody says so twice.
    Close,
}

const RANKS: usize = 3;

/// Frames in the order that they came, each of which may give way to others. No I/O.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// By [`Rank`]; each with its place among all.
    ranks: [VecDeque<(i64, Held)>; RANKS],
    /// The place of the next at the end, counted from when there was none.
    next: i64,
    /// The place of the first, if there is one.
    first: i64,
    group_bytes: u64,
}

impl Stale {
    /// Adds a frame at the end.
    pub(super) fn push_back(&mut self, held: Held, rank: Rank) {
        self.count(&held, rank);
        self.ranks[rank as usize].push_back((self.next, held));
        self.next += 1;
    }

    /// Adds a frame in front of all.
    pub(super) fn push_front(&mut self, held: Held, rank: Rank) {
        self.count(&held, rank);
        self.first -= 1;
        self.ranks[rank as usize].push_front((self.first, held));
    }

    /// Takes out the oldest of those that matter least and no more than `rank`.
    pub(super) fn give_way(&mut self, rank: Rank) -> Option<Held> {
        let of = [Rank::Group, Rank::Unicast, Rank::Close].into_iter().filter(|other| *other <= rank);
        of.into_iter().find_map(|rank| self.pop_rank(rank))
    }

    /// Takes out the oldest group frame if there is no room for one of so many octets.
    pub(super) fn overfull(&mut self, bytes: u64) -> Option<Held> {
        let groups = &self.ranks[Rank::Group as usize];
        let full = groups.len() >= MAX_GROUPS || self.group_bytes.saturating_add(bytes) > MAX_GROUP_BYTES;
        if full { self.pop_rank(Rank::Group) } else { None }
    }

    /// The oldest.
    pub(super) fn front(&self) -> Option<&Held> {
        let fronts = self.ranks.iter().filter_map(VecDeque::front);
        fronts.min_by_key(|(place, _)| *place).map(|(_, held)| held)
    }

    /// Takes out the oldest.
    pub(super) fn pop_front(&mut self) -> Option<Held> {
        let place = |rank: &Rank| self.ranks[*rank as usize].front().map(|(place, _)| *place);
        let ranks = [Rank::Group, Rank::Unicast, Rank::Close].into_iter();
        let rank = ranks.filter(|rank| place(rank).is_some()).min_by_key(place)?;
        self.pop_rank(rank)
    }

    /// The frame with this ticket.
    pub(super) fn get(&self, ticket: Ticket) -> Option<&Held> {
        let mut all = self.ranks.iter().flatten();
        all.find(|(_, held)| held.ticket == Some(ticket)).map(|(_, held)| held)
    }

    /// Takes out the frame with this ticket.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Held> {
        for rank in [Rank::Group, Rank::Unicast, Rank::Close] {
            let frames = &mut self.ranks[rank as usize];
            if let Some(at) = frames.iter().position(|(_, held)| held.ticket == Some(ticket)) {
                let (_, held) = frames.remove(at)?;
                self.uncount(&held, rank);
                return Some(held);
            }
        }
        None
    }

    /// Takes out the frame with this ticket and all that came after it, in order. None if there is
    /// no such frame.
    pub(super) fn split_off(&mut self, ticket: Ticket) -> Vec<Held> {
        let found = self.ranks.iter().flatten().find(|(_, held)| held.ticket == Some(ticket));
        let Some(from) = found.map(|(place, _)| *place) else { return Vec::new() };
        let mut off = Vec::new();
        for rank in [Rank::Group, Rank::Unicast, Rank::Close] {
            let frames = &mut self.ranks[rank as usize];
            let at = frames.partition_point(|(place, _)| *place < from);
            let newer = frames.split_off(at);
            newer.iter().for_each(|(_, held)| self.uncount(held, rank));
            off.extend(newer);
        }
        off.sort_unstable_by_key(|(place, _)| *place);
        off.into_iter().map(|(_, held)| held).collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ranks.iter().map(VecDeque::len).sum()
    }

    fn pop_rank(&mut self, rank: Rank) -> Option<Held> {
        let frames = &mut self.ranks[rank as usize];
        let (_, held) = frames.pop_front()?;
        if frames.is_empty() {
            // The memory of a long night is not kept.
            *frames = VecDeque::new();
        }
        self.uncount(&held, rank);
        Some(held)
    }

    fn count(&mut self, held: &Held, rank: Rank) {
        if rank == Rank::Group {
            self.group_bytes += held.packet.cost();
        }
    }

    fn uncount(&mut self, held: &Held, rank: Rank) {
        if rank == Rank::Group {
            self.group_bytes = self.group_bytes.saturating_sub(held.packet.cost());
        }
    }
}
