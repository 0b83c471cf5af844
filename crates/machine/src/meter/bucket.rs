//! Amounts of one machine over a stretch of time, as they are kept.

use std::collections::BTreeMap;

use dormouse_types::{MachineName, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Amounts, Class};

const HOUR: u64 = 3_600_000_000_000;

/// Where hours begin: those of the local zone, whose offset may not be whole hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    /// Nanoseconds after a whole hour of UTC.
    shift: u64,
}

impl Grid {
    /// The grid of a zone so many seconds east of UTC.
    #[must_use]
    pub fn of_offset(seconds: i32) -> Self {
        let behind = (-i64::from(seconds)).rem_euclid(3600);
        Self { shift: behind.unsigned_abs() * 1_000_000_000 }
    }

    /// The end of the hour that `at` is in.
    pub(super) const fn hour_end(self, at: Timestamp) -> Timestamp {
        let into = at.0.wrapping_add(HOUR - self.shift) % HOUR;
        Timestamp(at.0.saturating_add(HOUR - into))
    }

    /// The beginning of the hour that `at` is in.
    #[must_use]
    pub const fn hour_start(self, at: Timestamp) -> Timestamp {
        Timestamp(self.hour_end(at).0.saturating_sub(HOUR))
    }
}

/// Whose usage it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tags {
    /// The owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Tags {
    fn is_empty(&self) -> bool {
        self.owner.is_none() && self.labels.is_empty()
    }
}

/// Amounts of one machine and owner over an hour, or a part of one; of a day, when it is old.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// When it begins, by the wall clock; no two of a machine begin at the same instant.
    pub start: Timestamp,
    /// Up to when it is filled.
    pub end: Timestamp,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// What was used.
    pub amounts: Amounts,
}

/// What a ledger must know to go on after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// What time is counted as.
    pub class: Class,
    /// Bytes that the guest sees.
    pub configured: u64,
    /// Bytes of the host that are occupied.
    pub occupied: u64,
    /// Bytes that were occupied before it fell asleep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// The counter of processor time when it was last read, nanoseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counter: Option<u64>,
    /// Why it is put to sleep, while it is on its way there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The boot of the host in which all this was so (random(4), `boot_id`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

/// The account of a machine as it is stored beside its closed buckets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Grows with every change of the account: of two, that with the larger number is right.
    pub serial: u64,
    /// Nanoseconds after the hour at which buckets begin: another number each time that the clock was set
    /// back, so that an hour that comes twice has two buckets.
    #[serde(default)]
    pub nudge: u64,
    /// The newest bucket, which still changes.
    pub bucket: Bucket,
    /// How to go on; `None` when the machine is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Open>,
}

/// What is to be written of a machine's account, all of it at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// The machine.
    pub machine: MachineName,
    /// Buckets that change no more, to be kept by their start. Some may have been written before.
    pub closed: Vec<Bucket>,
    /// The account, unless one with a larger serial is there.
    pub account: Account,
}

/// A bucket and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The machine.
    pub machine: MachineName,
    /// What it used.
    pub bucket: Bucket,
}

impl Bucket {
    /// One that begins at `start`, with nothing in it.
    pub(super) const fn empty(start: Timestamp, tags: Tags) -> Self {
        let amounts = Amounts::new();
        Self { start, end: start, tags, amounts }
    }

    fn merge(&mut self, more: &Self) {
        self.end = self.end.max(more.end);
        self.amounts.merge(&more.amounts);
    }
}

/// Rows of which one was made, and what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// The rows that are to be put, each in the place of the first of those that it was made of.
    pub put: Vec<Row>,
    /// The machines and starts of the others, which are to be removed.
    pub remove: Vec<(MachineName, Timestamp)>,
}

/// Makes one row of those that are of the same machine, owner, labels and day; `day` gives the beginning of
/// the day that an instant is in.
#[must_use]
pub fn compact(rows: &[Row], day: impl Fn(Timestamp) -> Timestamp) -> Compaction {
    let mut days: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        days.entry((&row.machine, day(row.bucket.start), &row.bucket.tags)).or_default().push(row);
    }
    let mut done = Compaction::default();
    for mut hours in days.into_values().filter(|hours| hours.len() > 1) {
        hours.sort_by_key(|row| row.bucket.start);
        let mut all = hours.into_iter();
        let Some(mut whole) = all.next().cloned() else { continue };
        for row in all {
            whole.bucket.merge(&row.bucket);
            done.remove.push((row.machine.clone(), row.bucket.start));
        }
        done.put.push(whole);
    }
    done
}
