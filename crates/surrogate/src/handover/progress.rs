//! What has been seen of the frames that the program on the bridge port numbered.
//!
//! The program gives the n-th frame of an address the mark n (its low 32 bits). So the surrogate
//! knows up to where it has got, whatever was lost on the way (a full buffer), came twice (a frame
//! that the kernel had to segment), or was never counted (mark 0: it was under way before the
//! count began).

/// How far the surrogate has got with one address. No I/O.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    highest: u64,
    seen: u64,
}

impl Progress {
    /// Nothing has been seen.
    pub(crate) const fn new() -> Self {
        Self { highest: 0, seen: 0 }
    }

    /// Takes note of a unicast frame that was received, by its mark.
    pub(crate) fn note(&mut self, mark: u32) {
        if mark == 0 {
            return;
        }
        let number = self.widen(mark);
        if number > self.highest {
            self.highest = number;
            self.seen += 1;
        } else if number < self.highest && self.missing() > 0 {
            // Overtaken by a frame that another processor forwarded.
            self.seen += 1;
        }
    }

    /// The highest number that was seen: the count at which to try [`Handover::switch`].
    ///
    /// [`Handover::switch`]: super::Handover::switch
    #[must_use]
    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    /// Frames numbered below the highest that have not come: still under way on another
    /// processor, or, if they do not come within a grace period, lost before the socket.
    #[must_use]
    pub(crate) fn missing(&self) -> u64 {
        self.highest - self.seen
    }

    /// Of `counted` frames, those that have not come.
    #[must_use]
    pub(crate) fn behind(&self, counted: u64) -> u64 {
        counted.saturating_sub(self.seen)
    }

    /// The number whose low half is `mark` and that is nearest to the highest.
    fn widen(&self, mark: u32) -> u64 {
        let distance = mark.wrapping_sub(low_half(self.highest)).cast_signed();
        self.highest.saturating_add_signed(distance.into())
    }
}

fn low_half(number: u64) -> u32 {
    let [_, _, _, _, a, b, c, d] = number.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(marks: impl IntoIterator<Item = u64>) -> Progress {
        let mut progress = Progress::default();
        marks.into_iter().for_each(|number| progress.note(low_half(number)));
        progress
    }

    #[test]
    fn frames_that_were_not_counted_do_not_count() {
        assert_eq!(after([0, 0, 0]), Progress::default());
    }

    #[test]
    fn segments_of_one_frame_are_one() {
        let progress = after([1, 1, 1, 2]);
        assert_eq!((progress.highest(), progress.missing()), (2, 0));
    }

    #[test]
    fn numbers_go_on_past_32_bits() {
        let start = u64::from(u32::MAX) - 1;
        let mut progress = Progress { highest: start, seen: start };
        // Number 2^32 itself has mark 0 and looks like a frame that was not counted.
        for number in start + 1..start + 5 {
            progress.note(low_half(number));
        }
        assert_eq!((progress.highest(), progress.missing()), (start + 4, 1));
    }

    proptest! {
        /// However frames are lost and overtaken: the highest is the last number that came, and
        /// missing are exactly those below it that did not.
        #[test]
        fn tells_the_lost_from_the_seen(
            came in prop::collection::vec(any::<bool>(), 1..200),
            swaps in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut numbers: Vec<u64> = (1u64..).zip(&came).filter_map(|(n, came)| came.then_some(n)).collect();
            for at in swaps {
                if numbers.len() > 1 {
                    let i = at.index(numbers.len() - 1);
                    numbers.swap(i, i + 1);
                }
            }
            let progress = after(numbers.clone());
            let highest = numbers.iter().max().copied().unwrap_or(0);
            prop_assert_eq!(progress.highest(), highest);
            prop_assert_eq!(progress.missing(), highest - numbers.len() as u64);
            prop_assert_eq!(progress.behind(came.len() as u64), came.iter().filter(|came| !**came).count() as u64);
        }

        #[test]
        fn any_marks_keep_it_sound(marks in prop::collection::vec(any::<u32>(), 0..300)) {
            let mut progress = Progress::default();
            for mark in marks {
                let before = progress.highest();
                progress.note(mark);
                prop_assert!(progress.highest() >= before);
                prop_assert!(progress.missing() <= progress.highest());
            }
        }
    }
}
