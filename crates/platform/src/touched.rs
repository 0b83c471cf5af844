//! The parts of a machine's memory that its wakes touched, in that order: a file beside the memory.
//!
//! It is only advice, of what to read before it is asked for. One that is damaged, or does not fit
//! the memory, is as good as none.
//!
//! ```text
//! "dmtouch1"  length of the memory in bytes, u64  count, u32  count x (first, pages: u32)  CRC-64/XZ, u64
//! ```
//!
//! Pages are of 4 KiB whatever the host's are; all numbers are little-endian; the checksum is of all before it.

use std::ops::Range;

use crc::{CRC_64_XZ, Crc, Table};

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);
const MAGIC: &[u8; 8] = b"dmtouch1";
const PAGE: u64 = 4096;
/// Bytes of memory that are named at most, and the part of all memory.
const MOST: u64 = 64 << 20;
const PART: u64 = 4;
/// Ranges at most: the file is no longer than 512 KiB.
const RANGES: usize = 64 << 10;
/// Bytes between two ranges that are read along with them: that is faster than to leave them out.
const GAP: u64 = 32 << 10;

/// Ranges of the memory in bytes, whole pages, none twice, those touched first before the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    ranges: Vec<Range<u64>>,
}

impl Touched {
    pub(crate) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Adds what is resident now (ascending) of a memory of `len` bytes, and is named neither here
    /// nor in `other`, as far as there is room for it.
    pub(crate) fn add(&mut self, resident: &[Range<u64>], other: &Self, len: u64) {
        let mut known = [self.ranges(), other.ranges()].concat();
        known.sort_unstable_by_key(|range| range.start);
        self.append(merge(subtract(resident, &known), &known), len);
    }

    /// This list for the next wake, after one that touched what is in `missed`, too, which must name
    /// nothing that is here. Where both do not fit, what was missed comes first, and what was named
    /// longest goes: it may be of wakes long ago, and comes back if it is touched again.
    pub(crate) fn renewed(self, missed: Self, len: u64) -> Self {
        let fits =
            self.bytes() + missed.bytes() <= most(len) && self.ranges.len() + missed.ranges.len() <= RANGES;
        let (mut first, then) = if fits { (self, missed) } else { (missed, self) };
        first.append(then.ranges, len);
        first
    }

    /// Adds `ranges` up to the limits; the last one may be cut.
    fn append(&mut self, ranges: Vec<Range<u64>>, len: u64) {
        let mut room = most(len).saturating_sub(self.bytes());
        for range in ranges {
            if room == 0 || self.ranges.len() >= RANGES {
                return;
            }
            let size = room.min(range.end - range.start);
            room -= size;
            self.ranges.push(range.start..range.start + size);
        }
    }

    /// The file's content, for a memory of `len` bytes.
    pub(crate) fn to_bytes(&self, len: u64) -> Vec<u8> {
        let number = |at: u64| u32::try_from(at / PAGE).unwrap_or(u32::MAX).to_le_bytes();
        let count = u32::try_from(self.ranges.len()).unwrap_or(u32::MAX);
        let mut bytes = [MAGIC.as_slice(), &len.to_le_bytes(), &count.to_le_bytes()].concat();
        for range in &self.ranges {
            bytes.extend(number(range.start).into_iter().chain(number(range.end - range.start)));
        }
        let crc = CRC.checksum(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    }

    /// What a file says of a memory of `len` bytes; `None` if it does not fit, is damaged, or says more
    /// than is allowed.
    pub(crate) fn from_bytes(bytes: &[u8], len: u64) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<8>()?;
        if CRC.checksum(body) != u64::from_le_bytes(*crc) {
            return None;
        }
        let (length, rest) = body.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
        let (count, entries) = rest.split_first_chunk::<4>()?;
        let fits = u64::from_le_bytes(*length) == len
            && usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(8)? == entries.len()
            && entries.len() / 8 <= RANGES;
        let number = |octets: &[u8]| -> Option<u64> {
            Some(u64::from(u32::from_le_bytes(octets.try_into().ok()?)) * PAGE)
        };
        let range = |entry: &[u8]| -> Option<Range<u64>> {
            let (start, size) = (number(entry.get(..4)?)?, number(entry.get(4..)?)?);
            (size > 0 && start + size <= len.next_multiple_of(PAGE)).then_some(start..start + size)
        };
        let ranges = entries.chunks_exact(8).map(range).collect::<Option<Vec<_>>>()?;
        let touched = Self { ranges };
        (fits && touched.bytes() <= most(len)).then_some(touched)
    }
}

/// Bytes that are named at most, in whole pages, of a memory of `len` bytes.
fn most(len: u64) -> u64 {
    MOST.min(len / PART) / PAGE * PAGE
}

/// The parts of `these` that are in none of `those`; both ascending.
fn subtract(these: &[Range<u64>], those: &[Range<u64>]) -> Vec<Range<u64>> {
    let (mut left, mut those) = (Vec::new(), those.iter().peekable());
    for range in these {
        let mut start = range.start;
        while let Some(other) = those.next_if(|other| other.end <= range.end) {
            if other.start > start {
                left.push(start..other.start.min(range.end));
            }
            start = start.max(other.end);
        }
        let end = those.peek().map_or(range.end, |other| other.start.clamp(start.min(range.end), range.end));
        if end > start {
            left.push(start..end);
        }
    }
    left
}

/// Joins neighbours with little between them, where that is not `known` already.
fn merge(ranges: Vec<Range<u64>>, known: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        let is_free = |gap: &Range<u64>| {
            let next = known.partition_point(|k| k.end <= gap.start);
            known.get(next).is_none_or(|k| k.start >= gap.end)
        };
        match merged.last_mut() {
            Some(last) if range.start - last.end <= GAP && is_free(&(last.end..range.start)) => {
                last.end = range.end
            }
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges, some of one")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEN: u64 = 1 << 30;

    fn touched(samples: &[&[Range<u64>]]) -> Touched {
        let mut touched = Touched::default();
        samples.iter().for_each(|sample| touched.add(&pages(sample), &Touched::default(), LEN));
        touched
    }

    fn pages(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        ranges.iter().map(|range| range.start * PAGE..range.end * PAGE).collect()
    }

    #[test]
    fn what_came_first_stays_first_and_nothing_is_named_twice() {
        let list = touched(&[&[100..110], &[50..60, 100..120], &[0..200]]);
        assert_eq!(list.ranges(), pages(&[100..110, 50..60, 110..120, 0..50, 60..100, 120..200]));
    }

    #[test]
    fn neighbours_are_read_as_one() {
        assert_eq!(touched(&[&[0..1, 9..10, 19..20]]).ranges(), pages(&[0..10, 19..20]));
    }

    #[test]
    fn no_more_is_named_than_a_wake_may_read() {
        let list = touched(&[&[0..16_000], &[20_000..30_000]]);
        assert_eq!(list.ranges(), pages(&[0..16_000, 20_000..20_384]));
        let mut small = Touched::default();
        small.add(&[0..2 << 20], &Touched::default(), 4 << 20);
        assert_eq!(small.ranges(), [0..1 << 20]);
    }

    #[test]
    fn a_full_list_gives_up_what_it_has_named_longest() {
        let old = touched(&[&[0..10_000], &[20_000..26_384]]);
        let missed = touched(&[&[40_000..40_001]]);
        let next = old.clone().renewed(missed, LEN);
        assert_eq!(next.ranges(), pages(&[40_000..40_001, 0..10_000, 20_000..26_383]));
        // What does fit comes in the order in which it was touched.
        let next = touched(&[&[0..10]]).renewed(touched(&[&[40..50]]), LEN);
        assert_eq!(next.ranges(), pages(&[0..10, 40..50]));
        let all = touched(&[&[100_000..116_384]]);
        assert_eq!(old.renewed(all.clone(), LEN), all);
    }

    fn samples() -> impl Strategy<Value = Vec<Vec<Range<u64>>>> {
        let runs = proptest::collection::vec((1_u64..40, 1_u64..40), 0..12).prop_map(|runs| {
            let mut at = 0;
            let run = |(gap, size)| {
                let start: u64 = at + gap;
                at = start + size;
                start..at
            };
            pages(&runs.into_iter().map(run).collect::<Vec<_>>())
        });
        proptest::collection::vec(runs, 0..5)
    }

    fn ascending(list: &Touched) -> Vec<Range<u64>> {
        let mut ranges = list.ranges.clone();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges
    }

    proptest! {
        #[test]
        fn all_that_was_touched_is_named_once(samples in samples()) {
            let mut list = Touched::default();
            samples.iter().for_each(|sample| list.add(sample, &Touched::default(), LEN));
            let named = ascending(&list);
            prop_assert!(named.windows(2).all(|pair| pair[0].end <= pair[1].start), "{named:?}");
            for touched in samples.iter().flatten() {
                prop_assert!(subtract(std::slice::from_ref(touched), &named).is_empty());
            }
            prop_assert_eq!(Touched::from_bytes(&list.to_bytes(LEN), LEN), Some(list.clone()));
            prop_assert_eq!(Touched::from_bytes(&list.to_bytes(LEN), LEN + PAGE), None);
        }

        /// Whatever the wakes before have touched, the next one knows what the last one did, as much
        /// as fits, and as much as ever.
        #[test]
        fn after_every_wake_the_next_has_a_list_with_what_it_missed(
            wakes in proptest::collection::vec((0_u64..100, samples()), 1..8),
        ) {
            // So small a memory that lists are full: room for 64 pages.
            let len = 256 * PAGE;
            let mut list = Touched::default();
            for (at, looks) in wakes {
                let (before, mut missed) = (list.bytes(), Touched::default());
                for look in &looks {
                    let shifted = |r: &Range<u64>| r.start + at * PAGE..(r.end + at * PAGE).min(len);
                    let resident: Vec<_> = look.iter().map(shifted).filter(|r| r.start < r.end).collect();
                    missed.add(&resident, &list, len);
                }
                let next = list.renewed(missed.clone(), len);
                let named = ascending(&next);
                prop_assert!(named.windows(2).all(|pair| pair[0].end <= pair[1].start), "{named:?}");
                prop_assert!(subtract(&ascending(&missed), &named).is_empty());
                prop_assert!((before..=most(len)).contains(&next.bytes()));
                prop_assert_eq!(Touched::from_bytes(&next.to_bytes(len), len), Some(next.clone()));
                list = next;
            }
        }

        #[test]
        fn no_octets_are_believed_or_make_it_panic(
            samples in samples(), at in any::<proptest::sample::Index>(), flip in 1_u8..=255, any in any::<Vec<u8>>(),
        ) {
            prop_assert_eq!(Touched::from_bytes(&any, LEN), None);
            let mut list = Touched::default();
            samples.iter().for_each(|sample| list.add(sample, &Touched::default(), LEN));
            let mut bytes = list.to_bytes(LEN);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(Touched::from_bytes(&bytes, LEN), None);
            // With a checksum that fits, whatever it says is within bounds.
            let body = bytes.len() - 8;
            let crc = CRC.checksum(&bytes[..body]).to_le_bytes();
            bytes[body..].copy_from_slice(&crc);
            if let Some(list) = Touched::from_bytes(&bytes, LEN) {
                prop_assert!(list.bytes() <= MOST && list.ranges().iter().all(|r| r.end <= LEN));
            }
        }
    }
}
