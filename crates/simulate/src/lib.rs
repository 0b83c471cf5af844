//! Replays traces of processor use against the policies that the daemon runs.
//!
//! ```text
//! trace    lines of CSV, one machine each, read one by one
//! replay   one machine: the edges of its use, and what each policy makes of them
//! tally    what that comes to in hours, wakes and users who waited
//! plot     the same as a picture
//! ```
//!
//! What is kept in memory is a tally for each policy and, where several files are consecutive days, what
//! the policies learned of each machine.
#![forbid(unsafe_code)]

mod plot;
mod replay;
mod tally;
mod trace;

use std::{
    collections::{HashMap, HashSet},
    io::BufRead,
    time::Duration,
};

use dormouse_machine::policy::Settings;
use dormouse_types::Timestamp;
use jiff::tz::TimeZone;

pub use replay::{Move, Replay, What};
pub use tally::{Report, Row, Tally};
pub use trace::{Error, Problem};

use trace::{Line, Lines};

/// Machines whose day is drawn.
const DRAWN: usize = 6;

/// What is replayed, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Use begins at so much of one processor, in percent, and ends below half of it, as
    /// [`dormouse_machine::idle`] has it.
    pub cpu_below: f64,
    /// From a value of the trace to the next.
    pub interval: Duration,
    /// When the first value of the first file begins.
    pub start: Timestamp,
    /// Of each machine so much of the beginning is learned from and not counted.
    pub warm_up: Duration,
    /// From the decision that a machine sleeps until it is asleep.
    pub sleep_takes: Duration,
    /// From what wakes a machine until it runs.
    pub wake_takes: Duration,
    /// Files tell of different machines, even where names are the same.
    pub separate: bool,
    /// The zone of local time.
    pub zone: TimeZone,
    /// The policies, each with its name in the report.
    pub policies: Vec<(String, Settings)>,
}

/// A simulation under way.
#[derive(Debug)]
pub struct Simulation {
    options: Options,
    machines: HashMap<String, Replay>,
    report: Report,
    days: Vec<plot::Day>,
    /// When the next file begins.
    next: Timestamp,
}

impl Simulation {
    /// Nothing is replayed yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let report = Report::new(options.policies.iter().map(|(name, _)| name.clone()));
        let next = options.start;
        Self { options, machines: HashMap::new(), report, days: Vec::new(), next }
    }

    /// Replays a file, which follows the one before it in time.
    ///
    /// # Errors
    /// The first line that cannot be read; nothing after it is replayed.
    pub fn file(&mut self, name: &str, text: impl BufRead) -> Result<(), Error> {
        let begins = if self.options.separate { self.options.start } else { self.next };
        let mut names = HashSet::new();
        let mut lines = Lines::new(name, text);
        while let Some(line) = lines.next_line()? {
            if !names.insert(line.name.clone()) {
                return Err(lines.wrong(1, Problem::Twice(line.name)));
            }
            let ends = self.line(begins, line);
            self.next = self.next.max(ends);
        }
        if names.is_empty() { Err(lines.wrong(1, Problem::Empty)) } else { Ok(()) }
    }

    fn line(&mut self, begins: Timestamp, line: Line) -> Timestamp {
        let known = if self.options.separate { None } else { self.machines.remove(&line.name) };
        let mut replay = known.unwrap_or_else(|| Replay::new(&self.options, begins));
        replay.resume(begins);
        let draws =
            self.days.len() < DRAWN && replay.is_new() && plot::is_telling(&self.options, &line.values);
        if draws {
            replay.record();
        }
        for value in &line.values {
            replay.step(*value);
        }
        let ends = replay.now();
        if draws {
            self.days.push(plot::Day::new(line.name.clone(), begins, ends, replay.recorded()));
        }
        self.report.add(replay.take_tallies());
        if !self.options.separate {
            self.machines.insert(line.name, replay);
        }
        ends
    }

    /// What came of it.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// It as a picture (SVG).
    #[must_use]
    pub fn svg(&self) -> String {
        plot::svg(&self.report, &self.options.policies, &self.days)
    }
}
