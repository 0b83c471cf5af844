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
//! while nobody wanted the machine gives way, oldest first. Otherwise the broadcasts of a long
//! night would fill the queue, and the frame that wakes the machine would find no room.

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{Drops, Limits, Reason, packet::Packet};

/// Most digests remembered while a boundary is open; a frame beyond may be delivered twice.
const MAX_SEEN: usize = 65_536;

/// What one machine holds over all its ports, within its limits.
#[derive(Debug)]
pub(crate) struct Budget {
    limit_frames: AtomicU64,
    limit_bytes: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct ReplayQueue {
    /// Older than all of `held`, and the first to give way.
    stale: VecDeque<Held>,
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

impl Budget {
    /// Nothing is held yet.
    #[must_use]
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limit_frames: AtomicU64::new(limits.frames),
            limit_bytes: AtomicU64::new(limits.bytes),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    /// Other limits from now on; what is held beyond them stays.
    pub(crate) fn limit(&self, limits: Limits) {
        self.limit_frames.store(limits.frames, Relaxed);
        self.limit_bytes.store(limits.bytes, Relaxed);
    }

    /// Frames and octets held now.
    #[must_use]
    pub(crate) fn used(&self) -> (u64, u64) {
        (self.frames.load(Relaxed), self.bytes.load(Relaxed))
    }

    fn charge(&self, packet: &Packet) -> Result<(), Reason> {
        let within = |counter: &AtomicU64, more: u64, limit: u64| {
            counter
                .fetch_update(Relaxed, Relaxed, |n| n.checked_add(more).filter(|sum| *sum <= limit))
                .is_ok()
        };
        if !within(&self.frames, 1, self.limit_frames.load(Relaxed)) {
            return Err(Reason::FrameLimit);
        }
        if !within(&self.bytes, packet.cost(), self.limit_bytes.load(Relaxed)) {
            self.frames.fetch_sub(1, Relaxed);
            return Err(Reason::ByteLimit);
        }
        Ok(())
    }

    fn refund(&self, packet: &Packet) {
        self.frames.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(packet.cost(), Relaxed);
    }
}

impl ReplayQueue {
    /// An empty queue with its boundary closed.
    #[must_use]
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self {
            stale: VecDeque::new(),
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
        let room = self.make_room(&packet);
        if !room.is_held() {
            return room;
        }
        let held = Held { packet, ticket };
        match worth {
            // Fresh ones are newer than this: what comes after them stays behind them.
            Worth::Stale if self.held.is_empty() => self.stale.push_back(held),
            _ => self.held.push_back(held),
        }
        room
    }

    /// Holds a group frame that the guest may have got as well, if the boundary is open.
    pub(crate) fn push_group(&mut self, packet: Packet, worth: Worth, ticket: Option<Ticket>) -> Pushed {
        if self.seen.is_none() {
            return self.push(packet, worth, ticket);
        }
        let room = self.make_room(&packet);
        if room.is_held() {
            self.doubtful.push_back(Held { packet, ticket });
        }
        room
    }

    /// The frame with this ticket, if it is still held.
    #[must_use]
    pub(crate) fn get(&self, ticket: Ticket) -> Option<&Packet> {
        let mut all = self.stale.iter().chain(&self.held).chain(&self.doubtful);
        all.find(|held| held.ticket == Some(ticket)).map(|held| &held.packet)
    }

    /// Takes out the frame with this ticket, if it is still held: something else becomes of it.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Packet> {
        let at = |frames: &VecDeque<Held>| frames.iter().position(|held| held.ticket == Some(ticket));
        let removed = if let Some(at) = at(&self.stale) {
            self.stale.remove(at)
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
        if let Some(at) = self.stale.iter().position(|held| held.ticket == Some(ticket)) {
            let mut fresh = self.stale.split_off(at);
            fresh.append(&mut self.held);
            self.held = fresh;
        }
    }

    /// Charges for a frame, at the expense of stale ones if need be.
    fn make_room(&mut self, packet: &Packet) -> Pushed {
        let mut room = Pushed::Held;
        loop {
            let Err(limit) = self.budget.charge(packet) else { return room };
            self.drops.add(limit, 1);
            match self.stale.pop_front() {
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
            self.budget.frames.fetch_add(1, Relaxed);
            self.budget.bytes.fetch_add(packet.cost(), Relaxed);
            self.stale.push_front(Held { packet, ticket: None });
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
        std::iter::from_fn(|| self.pop()).collect()
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
        let all = self.stale.drain(..).chain(self.held.drain(..)).chain(self.doubtful.drain(..));
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame that carries its number and, at the front, whether it is a group frame.
    fn packet(number: u32, group: bool, len: usize) -> Packet {
        let mut frame = vec![u8::from(group); 14 + 4 + len];
        frame[14..18].copy_from_slice(&number.to_be_bytes());
        Packet::new(dormouse_sys::VnetHdr::PLAIN, &frame).unwrap()
    }

    fn number(packet: &Packet) -> u32 {
        u32::from_be_bytes(packet.ethernet()[14..18].try_into().unwrap())
    }

    fn digest(packet: &Packet) -> u64 {
        u64::from(number(packet))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Unicast(usize, Worth),
        Group {
            len: usize,
            also_at_tap: bool,
        },
        Open,
        Look,
        Close,
        Pop,
        Answer,
        /// Something is known of one of the frames that have tickets.
        Remove(prop::sample::Index),
        Freshen(prop::sample::Index),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..100, prop_oneof![Just(Worth::Stale), Just(Worth::Fresh)])
                .prop_map(|(len, worth)| Step::Unicast(len, worth)),
            4 => (0_usize..100, any::<bool>())
                .prop_map(|(len, also_at_tap)| Step::Group { len, also_at_tap }),
            1 => Just(Step::Open),
            2 => Just(Step::Look),
            1 => Just(Step::Close),
            2 => Just(Step::Pop),
            1 => Just(Step::Answer),
            1 => any::<prop::sample::Index>().prop_map(Step::Remove),
            1 => any::<prop::sample::Index>().prop_map(Step::Freshen),
        ]
    }

    /// What became of every frame.
    #[derive(Default)]
    struct Fates {
        out: Vec<u32>,
        answered: u64,
        at_tap: Vec<u32>,
    }

    fn run(queue: &mut ReplayQueue, steps: &[Step]) -> (Fates, u32) {
        let (mut fates, mut next, mut open) = (Fates::default(), 0, false);
        // Every third frame has one.
        let mut tickets: Vec<(u32, Ticket)> = Vec::new();
        let ticket = |number: u32, tickets: &mut Vec<(u32, Ticket)>| {
            let ticket = number.is_multiple_of(3).then(Ticket::new);
            tickets.extend(ticket.map(|ticket| (number, ticket)));
            ticket
        };
        for step in steps {
            match *step {
                Step::Unicast(len, worth) => {
                    queue.push(packet(next, false, len), worth, ticket(next, &mut tickets));
                    next += 1;
                }
                Step::Group { len, also_at_tap } => {
                    queue.push_group(packet(next, true, len), Worth::Fresh, ticket(next, &mut tickets));
                    if also_at_tap && open {
                        fates.at_tap.push(next);
                        queue.seen_at_tap(u64::from(next));
                    }
                    next += 1;
                }
                Step::Open => {
                    open = true;
                    queue.open_boundary();
                }
                Step::Look => queue.look(digest),
                Step::Close => {
                    open = false;
                    queue.close_boundary(digest);
                }
                Step::Remove(which) if !tickets.is_empty() => {
                    let (number_of, ticket) = tickets.swap_remove(which.index(tickets.len()));
                    let held = queue.get(ticket).map(number);
                    assert_eq!(queue.remove(ticket).as_ref().map(number), held);
                    assert!(held.is_none_or(|held| held == number_of));
                    fates.answered += u64::from(held.is_some());
                }
                Step::Freshen(which) if !tickets.is_empty() => {
                    queue.freshen(tickets[which.index(tickets.len())].1);
                }
                Step::Remove(_) | Step::Freshen(_) => {}
                Step::Pop => fates.out.extend(queue.pop().as_ref().map(number)),
                Step::Answer => {
                    for packet in queue.take_all() {
                        match number(&packet) % 5 {
                            0 => fates.answered += 1,
                            _ => {
                                queue.push(packet, Worth::Stale, None);
                            }
                        }
                    }
                }
            }
        }
        queue.close_boundary(digest);
        while let Some(packet) = queue.pop() {
            fates.out.push(number(&packet));
        }
        (fates, next)
    }

    proptest! {
        #[test]
        fn every_frame_has_exactly_one_fate(
            steps in prop::collection::vec(step(), 0..200),
            frames in 0_u64..40,
            bytes in 0_u64..4000,
        ) {
            let budget = Budget::new(Limits { frames, bytes });
            let mut queue = ReplayQueue::new(budget.clone());
            let (fates, pushed) = run(&mut queue, &steps);
            let sum = fates.out.len() as u64 + queue.drops().lost() + fates.answered + queue.suppressed();
            prop_assert_eq!(u64::from(pushed), sum);
            prop_assert_eq!(budget.used(), (0, 0));
            let mut once = fates.out.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), fates.out.len());
            prop_assert!(fates.out.iter().all(|n| !fates.at_tap.contains(n)), "delivered twice");
        }

        #[test]
        fn each_kind_stays_in_order(steps in prop::collection::vec(step(), 0..200)) {
            let mut queue = ReplayQueue::new(Budget::new(Limits { frames: 1000, bytes: 1 << 20 }));
            let groups: Vec<bool> = steps
                .iter()
                .filter_map(|s| match s {
                    Step::Unicast(..) => Some(false),
                    Step::Group { .. } => Some(true),
                    _ => None,
                })
                .collect();
            let (fates, _) = run(&mut queue, &steps);
            for kind in [false, true] {
                let of_kind: Vec<u32> =
                    fates.out.iter().copied().filter(|n| groups[*n as usize] == kind).collect();
                prop_assert!(of_kind.is_sorted());
            }
        }

        #[test]
        fn octets_are_accounted_exactly(lens in prop::collection::vec(0_usize..200, 0..50), limit in 0_u64..5000) {
            let budget = Budget::new(Limits { frames: 20, bytes: limit });
            let mut queue = ReplayQueue::new(budget.clone());
            let mut model: Vec<u64> = Vec::new();
            for len in lens {
                let packet = packet(0, false, len);
                let cost = packet.cost();
                let full = if model.len() == 20 {
                    Some(Reason::FrameLimit)
                } else {
                    (model.iter().sum::<u64>() + cost > limit).then_some(Reason::ByteLimit)
                };
                let before = queue.drops().clone();
                queue.push(packet, Worth::Fresh, None);
                match full {
                    Some(reason) => prop_assert_eq!(queue.drops().of(reason), before.of(reason) + 1),
                    None => {
                        prop_assert_eq!(queue.drops(), &before);
                        model.push(cost);
                    }
                }
                prop_assert_eq!(budget.used(), (model.len() as u64, model.iter().sum()));
            }
        }

        #[test]
        fn the_boundary_suppresses_as_often_as_seen(copies in 0_u32..6, seen in 0_u32..6) {
            let mut queue = ReplayQueue::new(Budget::new(Limits { frames: 100, bytes: 1 << 20 }));
            queue.open_boundary();
            (0..seen).for_each(|_| queue.seen_at_tap(7));
            assert!((0..copies).all(|_| queue.push_group(packet(7, true, 0), Worth::Fresh, None).is_held()));
            prop_assert_eq!(queue.close_boundary(digest), u64::from(copies.min(seen)));
            prop_assert_eq!(queue.len(), (copies - copies.min(seen)) as usize);
        }
    }

    #[test]
    fn what_is_in_doubt_waits_for_two_looks_and_no_longer() {
        let mut queue = ReplayQueue::new(Budget::new(Limits { frames: 9, bytes: 1000 }));
        queue.open_boundary();
        queue.push_group(packet(1, true, 0), Worth::Fresh, None);
        queue.look(digest);
        assert!(queue.front().is_none());
        queue.push_group(packet(2, true, 0), Worth::Fresh, None);
        queue.seen_at_tap(2);
        queue.look(digest);
        assert_eq!(queue.pop().map(|p| number(&p)), Some(1));
        queue.look(digest);
        assert!(queue.pop().is_none());
        assert_eq!((queue.len(), queue.suppressed()), (0, 1));
    }

    #[test]
    fn older_frames_come_first() {
        let mut queue = ReplayQueue::new(Budget::new(Limits { frames: 1, bytes: 1000 }));
        queue.push(packet(3, false, 0), Worth::Fresh, None);
        queue.push_older(vec![packet(1, false, 0), packet(2, false, 0)]);
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop()).map(|p| number(&p)).collect();
        assert_eq!(order, [1, 2, 3]);
    }

    #[test]
    fn stale_frames_give_way_and_fresh_ones_do_not() {
        let mut queue = ReplayQueue::new(Budget::new(Limits { frames: 3, bytes: 1000 }));
        let mut push = |n, worth| queue.push(packet(n, false, 0), worth, None);
        let room: Vec<Pushed> = (0..5).map(|n| push(n, Worth::Stale)).collect();
        assert_eq!(room, [Pushed::Held, Pushed::Held, Pushed::Held, Pushed::InPlace, Pushed::InPlace]);
        let room: Vec<Pushed> = (5..9).map(|n| push(n, Worth::Fresh)).collect();
        assert_eq!(room, [Pushed::InPlace, Pushed::InPlace, Pushed::InPlace, Pushed::Dropped]);
        let order: Vec<u32> = queue.take_all().iter().map(number).collect();
        assert_eq!(order, [5, 6, 7]);
        assert_eq!(queue.drops().of(Reason::FrameLimit), 6);
    }

    #[test]
    fn ports_share_a_budget_and_give_it_back() {
        let budget = Budget::new(Limits { frames: 1, bytes: 1000 });
        let (mut a, mut b) = (ReplayQueue::new(budget.clone()), ReplayQueue::new(budget.clone()));
        a.push(packet(1, false, 0), Worth::Fresh, None);
        b.push(packet(2, false, 0), Worth::Fresh, None);
        assert_eq!((b.len(), b.drops().of(Reason::FrameLimit)), (0, 1));
        drop(a);
        b.push(packet(2, false, 0), Worth::Fresh, None);
        assert_eq!(budget.used().0, 1);
    }
}
