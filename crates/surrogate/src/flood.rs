//! Telling an address whose frames keep the thread of a bridge from all others.
//!
//! The thread is saturated while it reads one full batch after the other. If one address has most
//! of the frames that it reads then, and they are of no use (answered, ignored, or dropped, and
//! not held for a guest), they are kept away for a while: by the kernel beyond a window, so that
//! the thread still gets as many of them as it can read and nobody waits behind more than that.

use std::time::Duration;

use dormouse_types::MacAddr;

/// Full batches in a row that make the thread saturated.
const SATURATED: u32 = 16;

/// How long an address is kept away before it is looked at again.
pub(crate) const KEPT_AWAY: Duration = Duration::from_millis(100);

/// Frames of an address that is kept away that may wait before the thread.
pub(crate) const WINDOW: u64 = 256;

/// What was read since the thread last had nothing more to read. No I/O.
///
/// The votes are those of Boyer and Moore for a majority: a frame of the candidate is one for it,
/// any other one against it.
#[derive(Debug, Default)]
pub(crate) struct Load {
    batches: u32,
    frames: u32,
    candidate: Option<MacAddr>,
    votes: u32,
}

impl Load {
    /// A frame was read; `useless`: for this address, which did not hold it.
    pub(crate) fn note(&mut self, useless: Option<MacAddr>) {
        self.frames = self.frames.saturating_add(1);
        if useless.is_some() && useless == self.candidate {
            self.votes = self.votes.saturating_add(1);
        } else if self.votes > 0 {
            self.votes -= 1;
        } else if useless.is_some() {
            (self.candidate, self.votes) = (useless, 1);
        }
    }

    /// A batch is done; `full`: more may wait. Who is to be kept away, if anybody?
    pub(crate) fn end_batch(&mut self, full: bool) -> Option<MacAddr> {
        self.batches += 1;
        if full && self.batches < SATURATED {
            return None;
        }
        let load = std::mem::take(self);
        // So many votes in the end are at least so many frames.
        load.candidate.filter(|_| full && load.votes >= load.frames.div_ceil(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mac(number: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, number])
    }

    /// Who is kept away after full batches with these frames.
    fn kept_away(frames: &[Option<u8>]) -> Option<MacAddr> {
        let mut load = Load::default();
        frames.iter().for_each(|frame| load.note(frame.map(mac)));
        (0..SATURATED).find_map(|_| load.end_batch(true))
    }

    #[test]
    fn a_thread_that_has_time_keeps_nobody_away() {
        let mut load = Load::default();
        for batch in 0..SATURATED * 4 {
            (0..64).for_each(|_| load.note(Some(mac(1))));
            assert_eq!(load.end_batch(!batch.is_multiple_of(8)), None);
        }
    }

    #[test]
    fn what_is_held_is_no_flood() {
        assert_eq!(kept_away(&[None; 1000]), None);
    }

    proptest! {
        #[test]
        fn only_who_has_half_of_the_frames_is_kept_away(frames in prop::collection::vec(prop::option::weighted(0.9, 0_u8..3), 1..300)) {
            if let Some(flooded) = kept_away(&frames) {
                let its = frames.iter().filter(|frame| frame.map(mac) == Some(flooded)).count();
                prop_assert!(its * 2 >= frames.len());
            }
        }

        #[test]
        fn who_has_three_quarters_of_them_is_kept_away(
            others in prop::collection::vec(prop::option::of(1_u8..9), 0..60),
            places in prop::collection::vec(any::<prop::sample::Index>(), 60),
        ) {
            let mut frames = vec![Some(0); others.len() * 3 + 1];
            for (other, place) in others.iter().zip(places) {
                frames.insert(place.index(frames.len() + 1), *other);
            }
            prop_assert_eq!(kept_away(&frames), Some(mac(0)));
        }
    }
}
