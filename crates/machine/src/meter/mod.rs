//! What a machine used: how long it was awake and asleep, what woke it, its memory and processor time.
//!
//! One [`Ledger`] per machine is told of changes `(event, now)` and adds up [`Amounts`] in [`Bucket`]s,
//! one for each hour, or finer where an owner changed or the clock was set. What it says is exact: the
//! spans of all classes are the time that passed, whatever the order and number of events, and sums of
//! buckets do not depend on their order. [`Energy`] makes watts of them, [`report`] a table.
//!
//! - A gauge (memory) counts from when it was measured until it is measured again.
//! - Time is that of a steady clock; the wall clock only says into which hour it goes. A clock that is
//!   set neither adds nor takes time.
//! - After a restart of the daemon the gap is counted as the class before it, if it was no longer than
//!   [`SHORT_GAP`] or the machine is found in that class; else, or after more than [`LONGEST_GAP`], as
//!   [`Class::Unknown`], with no memory and no processor time. If the host was booted in the gap, nothing ran
//!   in it: who slept without a process goes on to sleep, and saves no memory in it.

mod amounts;
mod bucket;
mod energy;
mod ledger;
pub mod report;
#[cfg(test)]
mod tests;

pub use amounts::{Amounts, Class};
pub use bucket::{Account, Bucket, Compaction, Grid, Open, Posting, Row, Tags, compact};
pub use energy::Energy;
pub use ledger::{Event, LONGEST_GAP, Ledger, Moment, SHORT_GAP, Subject};
