//! At which hours of the week a machine's use begins, in local time.
//!
//! A cell is a quarter of an hour of a day of the week. Of each it is counted how often the machine
//! was idle when it began, and how often use began in it then. The same quarter of the other working
//! days, or of the other day of the weekend, counts for half.

use std::{collections::BTreeMap, time::Duration};

use dormouse_types::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// The width of a cell.
const CELL: Duration = Duration::from_secs(900);

const CELLS_A_DAY: usize = 96;
pub(super) const CELLS: usize = CELLS_A_DAY * 7;

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

/// The cells of a week, Monday's first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<usize, (f32, f32)>", into = "BTreeMap<usize, (f32, f32)>")]
pub(super) struct Hours {
    cells: Vec<Cell>,
    /// Use began in some cell, or in those like it, often enough to tell something.
    is_telling: bool,
}

/// So often use must have begun in a cell before it tells something by itself.
const TELLING: f32 = 1.5;

impl Default for Hours {
    fn default() -> Self {
        Self { cells: vec![Cell::default(); CELLS], is_telling: false }
    }
}

impl Hours {
    /// The machine was idle from `since` until its use began at `until`, both in local seconds.
    pub(super) fn add(&mut self, since: u64, until: u64) {
        let last = until / CELL.as_secs();
        // Longer than a week tells of each cell no more than its last week.
        let week = 7 * 86_400 / CELL.as_secs();
        let first = since.div_ceil(CELL.as_secs()).max(last.saturating_sub(week - 1));
        for at in first..=last {
            let Some(cell) = self.cells.get_mut(index(at)) else { continue };
            cell.idle = cell.idle * FADE + 1.0;
            cell.begun = cell.begun * FADE + if at == last { 1.0 } else { 0.0 };
        }
        self.is_telling |= self.tells(until);
    }

    /// How likely use begins in the cell at local second `at`, where `expected` is what is known from
    /// elsewhere; and of how many times that is known.
    pub(super) fn chance(&self, at: u64, expected: f32) -> (f32, Times) {
        let times = self.times(at);
        ((times.begun + PRIOR * expected) / (times.idle + PRIOR), times)
    }

    /// Is there a cell that tells something by itself?
    pub(super) const fn is_telling(&self) -> bool {
        self.is_telling
    }

    /// Does the cell at local second `at` tell something by itself?
    pub(super) fn tells(&self, at: u64) -> bool {
        self.times(at).begun >= TELLING
    }

    fn times(&self, at: u64) -> Times {
        let cell = index(at / CELL.as_secs());
        let (day, quarter) = (cell / CELLS_A_DAY, cell % CELLS_A_DAY);
        let alike = if day < 5 { 0..5 } else { 5..7 };
        let mut times = Times::default();
        for other in alike {
            let weight = if other == day { 1.0 } else { ALIKE };
            if let Some(known) = self.cells.get(other * CELLS_A_DAY + quarter) {
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
pub(super) fn local_seconds(at: Timestamp, zone: &TimeZone) -> u64 {
    let seconds = at.0 / 1_000_000_000;
    // Of a time that no calendar knows it does not matter.
    let moment = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let ahead = moment.map_or(0, |moment| zone.to_offset(moment).seconds());
    seconds.saturating_add_signed(ahead.into())
}

/// The cell of the week; the epoch was a Thursday.
fn index(cell: u64) -> usize {
    let week = 7 * 86_400 / CELL.as_secs();
    let cell = (cell % week + 3 * 86_400 / CELL.as_secs()) % week;
    usize::try_from(cell).unwrap_or_default()
}

impl TryFrom<BTreeMap<usize, (f32, f32)>> for Hours {
    type Error = String;

    /// Cells that were never visited may be left out.
    fn try_from(counts: BTreeMap<usize, (f32, f32)>) -> Result<Self, String> {
        let mut hours = Self::default();
        for (number, (idle, begun)) in counts {
            let cell = hours.cells.get_mut(number);
            let cell = cell.ok_or_else(|| format!("there is no cell {number}, only {CELLS}"))?;
            if !((0.0..=16.0).contains(&idle) && (0.0..=idle).contains(&begun)) {
                return Err(format!("cell {number} was idle {idle} times, of which use began in {begun}"));
            }
            *cell = Cell { idle, begun };
        }
        let week = (0..7 * 86_400).step_by(900);
        hours.is_telling = week.into_iter().any(|at| hours.tells(at));
        Ok(hours)
    }
}

impl From<Hours> for BTreeMap<usize, (f32, f32)> {
    fn from(hours: Hours) -> Self {
        let visited = hours.cells.into_iter().enumerate().filter(|(_, cell)| cell.idle > 0.0);
        visited.map(|(number, Cell { idle, begun })| (number, (idle, begun))).collect()
    }
}
