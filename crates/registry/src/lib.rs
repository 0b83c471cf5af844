//! What Dormouse must remember of its machines, behind one trait.
//!
//! A [`Registry`] maps names to [`Record`]s. Every change is a [`Transaction`]: all of it becomes
//! durable or none of it, and each of its changes can demand that the record is still the one
//! that the writer knows. A store that several hosts share needs no more than that to keep two
//! daemons from writing the same machine; only its watch would be added to the trait.
//!
//! A [`UsageStore`] keeps what machines used, also of those that are no more.
//!
//! [`Redb`] keeps the records in one file of the state directory, for a host by itself.
#![forbid(unsafe_code)]

mod error;
mod record;
mod redb;
mod transaction;
mod usage;

use async_trait::async_trait;
use dormouse_types::MachineName;

pub use error::Error;
pub use record::{FORMAT, LastWake, Record};
pub use redb::{FILE_NAME, Redb};
pub use transaction::{Change, Expect, Revision, Transaction};
pub use usage::{Tidy, UsageStore};

/// A store of records that survives crashes and power cuts.
#[async_trait]
pub trait Registry: Send + Sync {
    /// All records. One that cannot be read is an error of its own: the others are still there.
    ///
    /// # Errors
    ///
    /// When the store as a whole cannot be read.
    async fn load(&self) -> Result<Vec<Entry>, Error>;

    /// Carries out a transaction, and returns once it is on stable storage.
    ///
    /// The revision is the one that all records it put have now.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`] when a record is not as expected; then nothing was changed. Any other
    /// error says that it is not known to be durable: write again.
    async fn commit(&self, transaction: Transaction) -> Result<Revision, Error>;
}

/// One record as it was found.
#[derive(Debug)]
pub struct Entry {
    /// Its key.
    pub name: MachineName,
    /// The record and its revision, or why it cannot be read.
    pub record: Result<(Revision, Record), Error>,
}
