//! What machines used, kept for as long as it may be asked for.
//!
//! Beside its record each machine has an account, with the bucket that still changes, and closed buckets by
//! their start, which change no more. They are written by [`Transaction`](crate::Transaction)s, together with a
//! record or alone, and stay when the record is removed. Whatever reads or tidies them does so for one machine
//! at a time, so that nothing that must be journalled waits for long.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_machine::meter::{Account, Bucket};
use dormouse_types::{MachineName, Timestamp};

use crate::Error;

/// A store of accounts. Its writer is [`Registry::commit`](crate::Registry::commit).
#[async_trait]
pub trait UsageStore: Send + Sync {
    /// The accounts of all machines, also of those that are no more.
    ///
    /// # Errors
    ///
    /// When the store cannot be read. An account that cannot be is told of and passed over.
    async fn accounts(&self) -> Result<Vec<(MachineName, Account)>, Error>;

    /// The closed buckets of a machine that begin from `since` on and before `until`, in order.
    ///
    /// # Errors
    ///
    /// When the store cannot be read. A bucket that cannot be is told of and passed over.
    async fn buckets(
        &self,
        machine: &MachineName,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Bucket>, Error>;

    /// Makes days of old hours, and forgets what is older. Returns how many closed buckets are left. The
    /// account of a machine that is no more goes with its last bucket.
    ///
    /// # Errors
    ///
    /// When the store cannot be written; then nothing was changed.
    async fn tidy(&self, machine: &MachineName, tidy: Tidy) -> Result<usize, Error>;
}

/// What becomes of old buckets.
#[derive(Clone)]
pub struct Tidy {
    /// Of those that begin before, one is made for each day.
    pub days_before: Timestamp,
    /// Those that end before are forgotten.
    pub forget_before: Timestamp,
    /// The beginning of the day that an instant is in.
    pub day: Arc<dyn Fn(Timestamp) -> Timestamp + Send + Sync>,
}
