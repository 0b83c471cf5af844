//! The lifecycle against a simulated world: its step tables, its crashes, and its invariants under
//! random events.
#![allow(missing_docs)]

#[cfg(test)]
mod absent;
mod crashes;
#[cfg(test)]
mod deeper;
#[cfg(test)]
mod failures;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod others;
#[cfg(test)]
mod regressions;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod world;
