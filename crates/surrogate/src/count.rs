//! Why frames are dropped, and how many.

use std::collections::BTreeMap;

/// Why a frame that came for a machine is not given to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// As many frames were held as its limits allow.
    FrameLimit,
    /// As many octets were held as its limits allow.
    ByteLimit,
    /// As many octets were held for all machines of the host as its limit allows.
    HostLimit,
    /// The machine would have done nothing with it, as an address request for somebody else.
    Filtered,
    /// The machine's ignore list names it.
    Ignored,
    /// So many frames came for the machine that the rest of its bridge would have suffered.
    Flood,
    /// The guest did not make room for it in time while it was replayed.
    GuestDoesNotRead,
    /// Its interface refused the frame.
    Refused,
    /// The frame was longer than the surrogate can read (64 KiB).
    TooLong,
    /// It was lost between the bridge and the surrogate, which did not read fast enough.
    ///
    /// Exact with the eBPF handover. Without it, what the whole bridge lost in that time.
    Overrun,
    /// The kernel could not describe it to the surrogate: a kind of segmentation that virtio does
    /// not know. Counted like [`Reason::Overrun`].
    Unreadable,
}

impl Reason {
    /// The word that statistics use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FrameLimit => "frame-limit",
            Self::ByteLimit => "byte-limit",
            Self::HostLimit => "host-limit",
            Self::Filtered => "filtered",
            Self::Ignored => "ignored",
            Self::Flood => "flood",
            Self::GuestDoesNotRead => "guest-does-not-read",
            Self::Refused => "refused",
            Self::TooLong => "too-long",
            Self::Overrun => "overrun",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Dropped frames by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops(BTreeMap<Reason, u64>);

impl Drops {
    /// Counts `frames` more; zero leaves no trace.
    pub fn add(&mut self, reason: Reason, frames: u64) {
        if frames > 0 {
            *self.0.entry(reason).or_default() += frames;
        }
    }

    /// Adds another count to this one.
    pub fn merge(&mut self, other: &Self) {
        for (reason, frames) in other.iter() {
            self.add(reason, frames);
        }
    }

    /// Frames dropped for `reason`.
    #[must_use]
    pub fn of(&self, reason: Reason) -> u64 {
        self.0.get(&reason).copied().unwrap_or_default()
    }

    /// Every reason that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        self.0.iter().map(|(reason, frames)| (*reason, *frames))
    }

    /// Frames that were for the machine and are lost to it: all but the filtered ones.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.iter().filter(|(reason, _)| *reason != Reason::Filtered).map(|(_, frames)| frames).sum()
    }
}
