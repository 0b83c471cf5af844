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
pub(super) struct Touched {
    ranges: Vec<Range<u64>>,
    /// There was more than may be named.
    full: bool,
}

impl Touched {
    pub(super) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Was there more than may be named? Then much of it is of wakes long ago.
    pub(super) const fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Adds what is resident now (ascending) of a memory of `len` bytes and was not before.
    pub(super) fn add(&mut self, resident: &[Range<u64>], len: u64) {
        let known = self.ascending();
        let mut room = MOST.min(len / PART).saturating_sub(self.bytes());
        for new in merge(subtract(resident, &known), &known) {
            let size = new.end - new.start;
            if size > room || self.ranges.len() >= RANGES {
                self.full = true;
                return;
            }
            room -= size;
            self.ranges.push(new);
        }
    }

    fn ascending(&self) -> Vec<Range<u64>> {
        let mut ranges = self.ranges.clone();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges
    }

    /// The file's content, for a memory of `len` bytes.
    pub(super) fn to_bytes(&self, len: u64) -> Vec<u8> {
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
    pub(super) fn from_bytes(bytes: &[u8], len: u64) -> Option<Self> {
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
        let touched = Self { ranges, full: false };
        (fits && touched.bytes() <= MOST.min(len / PART)).then_some(touched)
    }
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
        samples.iter().for_each(|sample| touched.add(&pages(sample), LEN));
        touched
    }

    fn pages(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        ranges.iter().map(|range| range.start * PAGE..range.end * PAGE).collect()
    }

    #[test]
    fn what_came_first_stays_first_and_nothing_is_named_twice() {
        let list = touched(&[&[100..110], &[50..60, 100..120], &[0..200]]);
        assert_eq!(list.ranges(), pages(&[100..110, 50..60, 110..120, 0..50, 60..100, 120..200]));
        assert!(!list.is_full());
    }

    #[test]
    fn neighbours_are_read_as_one() {
        assert_eq!(touched(&[&[0..1, 9..10, 19..20]]).ranges(), pages(&[0..10, 19..20]));
    }

    #[test]
    fn no_more_is_named_than_a_wake_may_read() {
        let list = touched(&[&[0..16_000], &[20_000..30_000]]);
        assert!(list.is_full() && list.bytes() <= MOST);
        let mut small = Touched::default();
        small.add(&[0..2 << 20], 4 << 20);
        assert!(small.is_full() && small.ranges().is_empty());
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

    proptest! {
        #[test]
        fn all_that_was_touched_is_named_once(samples in samples()) {
            let mut list = Touched::default();
            samples.iter().for_each(|sample| list.add(sample, LEN));
            let named = list.ascending();
            prop_assert!(named.windows(2).all(|pair| pair[0].end <= pair[1].start), "{named:?}");
            for touched in samples.iter().flatten() {
                prop_assert!(subtract(std::slice::from_ref(touched), &named).is_empty());
            }
            prop_assert_eq!(Touched::from_bytes(&list.to_bytes(LEN), LEN), Some(list.clone()));
            prop_assert_eq!(Touched::from_bytes(&list.to_bytes(LEN), LEN + PAGE), None);
        }

        #[test]
        fn no_octets_are_believed_or_make_it_panic(
            samples in samples(), at in any::<proptest::sample::Index>(), flip in 1_u8..=255, any in any::<Vec<u8>>(),
        ) {
            prop_assert_eq!(Touched::from_bytes(&any, LEN), None);
            let mut list = Touched::default();
            samples.iter().for_each(|sample| list.add(sample, LEN));
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
