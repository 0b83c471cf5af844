//! At which hours of the week a machine's use begins, in local time.
//!
//! A cell is a quarter of an hour of a day of the week. Of each it is counted how often the machine
//! was idle when it began, and how often use began in it then. The same quarter of the other working
//! days, or of the other day of the weekend, counts for half.

use std::{collections::BTreeMap, time::Duration};

use dormouse_types::Timestamp;
use serde::{Deserialize, Serialize};

/// The width of a cell.
pub(super) const CELL: Duration = Duration::from_secs(900);

const CELLS_A_DAY: u64 = 96;
pub(super) const CELLS: u64 = CELLS_A_DAY * 7;

/// What was counted a week ago counts for so much of what is counted now.
const FADE: f32 = 0.9;

/// What the machine's age says counts as so many visits of a cell.
const PRIOR: f32 = 2.0;

/// How much another day of the same kind counts.
const ALIKE: f32 = 0.5;

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cell {
    /// Times that the machine was idle when the cell began.
    idle: f32,
    /// Of those, times that its use began in the cell.
    begun: f32,
}

/// The cells of a week that were ever visited, Monday's first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<u16, (f32, f32)>", into = "BTreeMap<u16, (f32, f32)>")]
pub(super) struct Hours {
    cells: BTreeMap<u16, Cell>,
}

impl Hours {
    /// The machine was idle from `since` until its use began at `until`, both in local seconds.
    pub(super) fn add(&mut self, since: u64, until: u64) {
        let last = until / CELL.as_secs();
        // Longer than a week tells of each cell no more than its last week.
        let first = since.div_ceil(CELL.as_secs()).max(last.saturating_sub(CELLS - 1));
        for at in first..=last {
            let cell = self.cells.entry(index(at)).or_default();
            cell.idle = cell.idle * FADE + 1.0;
            cell.begun = cell.begun * FADE + if at == last { 1.0 } else { 0.0 };
        }
    }

    /// How likely use begins in the cell at local second `at`, where `expected` is what is known from
    /// elsewhere; and of how many times that is known.
    pub(super) fn chance(&self, at: u64, expected: f32) -> (f32, Times) {
        let times = self.times(at);
        ((times.begun + PRIOR * expected) / (times.idle + PRIOR), times)
    }

    /// Did use ever begin in the cell at local second `at`, or in one like it?
    pub(super) fn has_begun(&self, at: u64) -> bool {
        self.times(at).begun > 0.0
    }

    fn times(&self, at: u64) -> Times {
        let cell = u64::from(index(at / CELL.as_secs()));
        let (day, quarter) = (cell / CELLS_A_DAY, cell % CELLS_A_DAY);
        let alike = if day < 5 { 0..5 } else { 5..7 };
        let mut times = Times::default();
        for other in alike {
            let weight = if other == day { 1.0 } else { ALIKE };
            if let Some(known) = self.cells.get(&narrow(other * CELLS_A_DAY + quarter)) {
                times.idle += weight * known.idle;
                times.begun += weight * known.begun;
            }
        }
        times
    }
}

/// How often a machine was idle at the beginning of an hour, and how often its use then began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Times {
    pub(super) idle: f32,
    pub(super) begun: f32,
}

/// Seconds since the epoch as a clock on the wall shows them.
pub(super) fn local_seconds(at: Timestamp, ahead: i64) -> u64 {
    (at.0 / 1_000_000_000).saturating_add_signed(ahead)
}

/// The cell of the week; the epoch was a Thursday.
fn index(cell: u64) -> u16 {
    narrow((cell + 3 * CELLS_A_DAY) % CELLS)
}

/// Of what is less than the cells of a week.
fn narrow(cell: u64) -> u16 {
    u16::try_from(cell).unwrap_or(u16::MAX)
}

impl TryFrom<BTreeMap<u16, (f32, f32)>> for Hours {
    type Error = String;

    fn try_from(counts: BTreeMap<u16, (f32, f32)>) -> Result<Self, String> {
        let is_sane = |(cell, (idle, begun)): (&u16, &(f32, f32))| {
            u64::from(*cell) < CELLS && (0.0..=16.0).contains(idle) && (0.0..=*idle).contains(begun)
        };
        if !counts.iter().all(is_sane) {
            return Err(format!("a cell is below {CELLS} and its use began no oftener than it was idle"));
        }
        let cells = counts.into_iter().map(|(cell, (idle, begun))| (cell, Cell { idle, begun }));
        Ok(Self { cells: cells.collect() })
    }
}

impl From<Hours> for BTreeMap<u16, (f32, f32)> {
    fn from(hours: Hours) -> Self {
        hours.cells.into_iter().map(|(cell, Cell { idle, begun })| (cell, (idle, begun))).collect()
    }
}
