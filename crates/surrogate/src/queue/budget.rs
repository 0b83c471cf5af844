//! How much may be held: for each machine, and for all machines of the host together.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::Held;
use crate::{Limits, Reason, packet::Packet};

/// What a frame takes beyond its octets: its place in a queue, which may have grown to twice what it
/// needs, and the counters and the allocator's header of its octets.
const OVERHEAD: u64 = (2 * size_of::<Held>() + 32) as u64;

/// The last eighth of the host's room is for machines that hold no more than [`LITTLE`].
const RESERVE: u64 = 8;

/// Octets, with their overhead.
const LITTLE: u64 = 64 << 10;

/// What all machines hold together. A group frame counts for each that holds it.
#[derive(Debug)]
pub(crate) struct HostBudget {
    limit: u64,
    used: AtomicU64,
}

/// What one machine holds over all its ports, within its limits and those of the host.
#[derive(Debug)]
pub(crate) struct Budget {
    limit_frames: AtomicU64,
    limit_bytes: AtomicU64,
    frames: AtomicU64,
    bytes: AtomicU64,
    host: Arc<HostBudget>,
}

impl HostBudget {
    /// Room for so many octets, overhead included.
    #[must_use]
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    /// Octets held now, overhead included.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }
}

impl Budget {
    /// Nothing is held yet.
    #[must_use]
    pub(crate) fn new(limits: Limits, host: Arc<HostBudget>) -> Arc<Self> {
        Arc::new(Self {
            limit_frames: AtomicU64::new(limits.frames),
            limit_bytes: AtomicU64::new(limits.bytes),
            frames: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            host,
        })
    }

    /// One of a host with room for all.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn alone(limits: Limits) -> Arc<Self> {
        Self::new(limits, HostBudget::new(u64::MAX))
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

    /// Counts a frame, if there is room for it.
    pub(super) fn charge(&self, packet: &Packet) -> Result<(), Reason> {
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
        let (frames, bytes) = self.used();
        let has_little = bytes.saturating_add(frames.saturating_mul(OVERHEAD)) <= LITTLE;
        let reserve = if has_little { 0 } else { self.host.limit / RESERVE };
        if !within(&self.host.used, taken(packet), self.host.limit - reserve) {
            self.frames.fetch_sub(1, Relaxed);
            self.bytes.fetch_sub(packet.cost(), Relaxed);
            return Err(Reason::HostLimit);
        }
        Ok(())
    }

    /// Counts a frame, whatever the limits.
    pub(super) fn charge_anyway(&self, packet: &Packet) {
        self.frames.fetch_add(1, Relaxed);
        self.bytes.fetch_add(packet.cost(), Relaxed);
        self.host.used.fetch_add(taken(packet), Relaxed);
    }

    /// A frame that was counted is not held any more.
    pub(super) fn refund(&self, packet: &Packet) {
        self.frames.fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(packet.cost(), Relaxed);
        self.host.used.fetch_sub(taken(packet), Relaxed);
    }
}

/// Octets of memory that holding a frame takes.
fn taken(packet: &Packet) -> u64 {
    packet.cost() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(octets: usize) -> Packet {
        Packet::new(dormouse_sys::VnetHdr::PLAIN, &vec![0; octets]).unwrap()
    }

    const LIMITS: Limits = Limits { frames: 1 << 20, bytes: 1 << 30 };

    #[test]
    fn those_who_hold_much_leave_room_for_those_who_hold_little() {
        let host = HostBudget::new(1 << 20);
        let [greedy, other] = [(), ()].map(|()| Budget::new(LIMITS, host.clone()));
        let frame = packet(1000);
        while greedy.charge(&frame).is_ok() {}
        assert_eq!(greedy.charge(&frame), Err(Reason::HostLimit));
        assert!(host.used() <= (1 << 20) / 8 * 7);
        // What is given back is there again, and the counts are what they were.
        let before = (greedy.used(), host.used());
        greedy.refund(&frame);
        assert_eq!(greedy.charge(&frame), Ok(()));
        assert_eq!((greedy.used(), host.used()), before);
        assert_eq!(other.charge(&frame), Ok(()));
        assert_eq!(greedy.charge(&frame), Err(Reason::HostLimit));
    }

    #[test]
    fn nobody_goes_beyond_the_hosts_room() {
        let host = HostBudget::new(1 << 20);
        let frame = packet(60);
        let machines: Vec<_> = (0..100).map(|_| Budget::new(LIMITS, host.clone())).collect();
        for machine in &machines {
            while machine.charge(&frame).is_ok() {}
        }
        assert!(host.used() <= 1 << 20);
        let frames: u64 = machines.iter().map(|machine| machine.used().0).sum();
        assert_eq!(host.used(), frames * taken(&frame));
    }
}
