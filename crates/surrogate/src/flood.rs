//! Telling addresses whose frames keep the thread of a bridge from all others.
//!
//! The thread is saturated while it reads one full batch after the other. Frames are of no use if
//! they are answered, ignored or dropped, or held at the cost of another. An address that has a
//! good share of all that is read then, by such frames alone, is kept away for a while: by the
//! kernel beyond a window, so that the thread still gets as many of its frames as it can read and
//! nobody waits behind more than that.

use std::time::Duration;

use dormouse_types::MacAddr;

/// Full batches in a row that make the thread saturated.
const SATURATED: u32 = 16;

/// Who has one of so many frames is kept away.
const SHARE: u32 = 8;

/// Addresses that are counted. What is counted of each falls short by one of `COUNTERS + 1` frames at
/// most, so that whoever has twice that above its share is found.
const COUNTERS: usize = 15;

/// How long an address is kept away before it is looked at again.
pub(crate) const KEPT_AWAY: Duration = Duration::from_millis(100);

/// Frames of all addresses together that are kept away that may wait before the thread.
const WINDOW: u64 = 256;

/// Frames of each of so many addresses that may wait before the thread.
pub(crate) const fn window(flooded: usize) -> u64 {
    let each = WINDOW / if flooded == 0 { 1 } else { flooded as u64 };
    if each < 16 { 16 } else { each }
}

/// What was read since the thread last had nothing more to read. No I/O.
///
/// The counters are those of Misra and Gries (*Finding repeated elements*, 1982): a frame of an
/// address without one takes a free one, or else one from each.
#[derive(Debug, Default)]
pub(crate) struct Load {
    batches: u32,
    frames: u32,
    counters: Vec<(MacAddr, u32)>,
}

impl Load {
    /// A frame was read; `useless`: for this address, which has no use for it.
    pub(crate) fn note(&mut self, useless: Option<MacAddr>) {
        self.frames = self.frames.saturating_add(1);
        let Some(mac) = useless else { return };
        if let Some((_, frames)) = self.counters.iter_mut().find(|(counted, _)| *counted == mac) {
            *frames = frames.saturating_add(1);
        } else if self.counters.len() < COUNTERS {
            self.counters.push((mac, 1));
        } else {
            self.counters.retain_mut(|(_, frames)| {
                *frames -= 1;
                *frames > 0
            });
        }
    }

    /// A batch is done; `full`: more may wait. Who is to be kept away?
    pub(crate) fn end_batch(&mut self, full: bool) -> impl Iterator<Item = MacAddr> + use<> {
        self.batches += 1;
        let told = !full || self.batches >= SATURATED;
        let load = if told { std::mem::take(self) } else { Self::default() };
        let least = load.frames.div_ceil(SHARE);
        load.counters.into_iter().filter_map(move |(mac, frames)| (full && frames >= least).then_some(mac))
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
    fn kept_away(frames: &[Option<u8>]) -> Vec<MacAddr> {
        let mut load = Load::default();
        frames.iter().for_each(|frame| load.note(frame.map(mac)));
        (0..SATURATED).flat_map(|_| load.end_batch(true)).collect()
    }

    fn count(frames: &[Option<u8>], number: u8) -> usize {
        frames.iter().filter(|frame| **frame == Some(number)).count()
    }

    #[test]
    fn a_thread_that_has_time_keeps_nobody_away() {
        let mut load = Load::default();
        for batch in 0..SATURATED * 4 {
            (0..64).for_each(|_| load.note(Some(mac(1))));
            assert_eq!(load.end_batch(!batch.is_multiple_of(8)).next(), None);
        }
    }

    #[test]
    fn what_is_of_use_is_no_flood() {
        assert_eq!(kept_away(&[None; 1000]), []);
    }

    #[test]
    fn a_flood_of_several_is_one_of_each() {
        let frames: Vec<_> = (0..900_u32).map(|n| Some(u8::try_from(n % 3).unwrap())).collect();
        assert_eq!(kept_away(&frames), [mac(0), mac(1), mac(2)]);
    }

    proptest! {
        #[test]
        fn who_has_less_than_its_share_is_not_kept_away(
            frames in prop::collection::vec(prop::option::weighted(0.9, 0_u8..12), 1..300),
        ) {
            for number in 0..12 {
                if kept_away(&frames).contains(&mac(number)) {
                    prop_assert!(count(&frames, number) * 8 >= frames.len());
                }
            }
        }

        #[test]
        fn who_has_half_as_much_again_is_kept_away(
            others in prop::collection::vec(prop::option::of(4_u8..200), 0..300),
            floods in prop::collection::vec(0_u8..4, 0..300),
            order in any::<prop::sample::Index>(),
        ) {
            let mut frames: Vec<_> = others.into_iter().chain(floods.into_iter().map(Some)).collect();
            let middle = order.index(frames.len().max(1));
            frames.rotate_left(middle);
            let kept = kept_away(&frames);
            for number in 0..4 {
                // A little more for what is rounded.
                if count(&frames, number) * 16 > frames.len() * 3 + 16 {
                    prop_assert!(kept.contains(&mac(number)));
                }
            }
        }
    }

    #[test]
    fn windows_of_several_are_one_together() {
        assert_eq!((window(0), window(1), window(4), window(1000)), (WINDOW, WINDOW, WINDOW / 4, 16));
    }
}
