//! Records in one redb file, written by one thread.
//!
//! ```text
//! drivers ── commit ──► queue ──► writer thread: all that waits, in one redb transaction ──► fsync
//! ```
//!
//! Machines that journal at the same time share an fsync, so that a host with many of them
//! recovers, or goes to sleep, at the speed of the disk and not of the number.
//!
//! After an I/O error redb refuses all further work on the open file. The writer then opens it
//! anew before the next transaction, so that a disk that was full for a while does not need a
//! restart of the daemon.

mod store;
mod usage;
mod writer;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use dormouse_machine::meter::{Account, Bucket};
use dormouse_types::{MachineName, Timestamp};
use tokio::sync::{mpsc, oneshot};

use crate::{Entry, Error, Record, Registry, Revision, Tidy, Transaction, UsageStore};
use store::Store;
use writer::Request;

/// The database's name in the state directory.
pub const FILE_NAME: &str = "registry.redb";
/// Requests that wait for the writer; a driver has at most one, so this is a bound on memory only.
const QUEUE: usize = 1024;

/// A registry in one file. Cheap to clone; the file is closed with the last clone.
#[derive(Clone, Debug)]
pub struct Redb {
    requests: mpsc::Sender<Request>,
}

impl Redb {
    /// Opens the registry in `state_dir`, or makes one. Blocks: repairs after a crash if needed.
    ///
    /// # Errors
    ///
    /// When the file is in use, damaged, of another version, or cannot be reached. It is never
    /// deleted or replaced.
    pub fn open(state_dir: &Path) -> Result<Self, Error> {
        let path: PathBuf = state_dir.join(FILE_NAME);
        let store = Store::open(&path)?;
        let (requests, queue) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("registry".into())
            .spawn(move || writer::run(store, queue))
            .map_err(|source| Error::Open { path, source: redb::Error::Io(source) })?;
        Ok(Self { requests })
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| Error::Closed)?;
        answered.await.map_err(|_| Error::Closed)
    }

    /// Has the writer do something beside its transactions.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let request = |answer: oneshot::Sender<Result<T, Error>>| {
            Request::Work(Box::new(move |store| drop(answer.send(work(store)))))
        };
        self.ask(request).await?
    }
}

#[async_trait]
impl Registry for Redb {
    async fn load(&self) -> Result<Vec<Entry>, Error> {
        let raw = self.ask(Request::Load).await??;
        Ok(raw.into_iter().filter_map(|(key, revision, bytes)| entry(&key, revision, &bytes)).collect())
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, Error> {
        self.ask(|answer| Request::Commit(transaction, answer)).await?
    }
}

#[async_trait]
impl UsageStore for Redb {
    async fn accounts(&self) -> Result<Vec<(MachineName, Account)>, Error> {
        self.work(|store| store.look(usage::accounts)).await
    }

    async fn buckets(
        &self,
        machine: &MachineName,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Bucket>, Error> {
        let machine = machine.clone();
        self.work(move |store| store.look(|file| usage::buckets(file, &machine, since, until))).await
    }

    async fn tidy(&self, machine: &MachineName, tidy: Tidy) -> Result<usize, Error> {
        let machine = machine.clone();
        self.work(move |store| store.change(|file| usage::tidy(file, &machine, &tidy))).await
    }
}

fn entry(key: &str, revision: Revision, bytes: &[u8]) -> Option<Entry> {
    let name: MachineName = match key.parse() {
        Ok(name) => name,
        Err(error) => {
            tracing::error!(key, %error, "a record's key is no machine name; it was left as it is");
            return None;
        }
    };
    Some(Entry { name, record: Record::decode(key, bytes).map(|record| (revision, record)) })
}
