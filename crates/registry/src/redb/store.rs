//! The file: its tables, how it is opened, and how transactions are applied to it.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` | number of this layout |
//! | `meta` | `revision` | number of the last transaction |
//! | `machines` | name | revision (8 octets, little-endian), then the record as JSON |
//!
//! and those of [`usage`].

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition};

use super::usage;
use crate::{Change, Error, Expect, Revision, Transaction};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const MACHINES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("machines");
/// The layout that this version reads and writes.
const LAYOUT: u64 = 1;

/// A record as it lies in the file: key, revision, JSON.
pub(super) type Raw = (String, Revision, Vec<u8>);

/// The open file, or, after an I/O error, only its path.
pub(super) struct Store {
    path: PathBuf,
    database: Option<Database>,
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { path: path.into(), database: Some(open(path)?) })
    }

    /// All records.
    pub(super) fn load(&mut self) -> Result<Vec<Raw>, Error> {
        self.look(read_all)
    }

    /// Applies the transactions, each by itself, and makes all of them durable at once. Outer
    /// error: nothing is durable.
    pub(super) fn commit(
        &mut self,
        transactions: &[Transaction],
    ) -> Result<Vec<Result<Revision, Error>>, Error> {
        let path = self.path.clone();
        let done = write_all(self.database()?, transactions);
        done.map_err(|source| {
            // Redb does no more work after an I/O error: the next call opens the file anew.
            self.database = None;
            Error::Write { path, source: Arc::new(source) }
        })
    }

    /// Looks at the file.
    pub(super) fn look<T>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, Error> {
        let path = self.path.clone();
        work(self.database()?).map_err(|source| Error::Read { path, source })
    }

    /// Changes the file by a transaction of its own.
    pub(super) fn change<T>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, Error> {
        let path = self.path.clone();
        work(self.database()?).map_err(|source| {
            self.database = None;
            Error::Write { path, source: Arc::new(source) }
        })
    }

    fn database(&mut self) -> Result<&Database, Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        Ok(self.database.insert(database))
    }
}

fn open(path: &Path) -> Result<Database, Error> {
    let damaged = |why: String| Error::Damaged { path: path.into(), why };
    // Redb asserts what a sound file holds; a damaged one must not take the daemon down.
    let opened = catch_unwind(AssertUnwindSafe(|| Database::create(path)));
    let database = match opened {
        Err(_) => return Err(damaged("its structure contradicts itself".into())),
        Ok(Err(error)) => return Err(open_error(path, error.into())),
        Ok(Ok(database)) => database,
    };
    match catch_unwind(AssertUnwindSafe(|| initialize(&database))) {
        Err(_) => Err(damaged("its structure contradicts itself".into())),
        Ok(Err(error)) => Err(open_error(path, error)),
        Ok(Ok(LAYOUT)) => Ok(database),
        Ok(Ok(found)) => Err(Error::Format {
            path: path.into(),
            found: format!("layout {found}"),
            known: format!("layout {LAYOUT}"),
        }),
    }
}

fn open_error(path: &Path, error: redb::Error) -> Error {
    let path = path.to_path_buf();
    match error {
        redb::Error::DatabaseAlreadyOpen => Error::InUse { path },
        redb::Error::Corrupted(why) => Error::Damaged { path, why },
        redb::Error::RepairAborted => Error::Damaged { path, why: "it cannot be repaired".into() },
        // A file that is no redb file at all: redb says so with this kind.
        redb::Error::Io(io) if io.kind() == std::io::ErrorKind::InvalidData => {
            Error::Damaged { path, why: io.to_string() }
        }
        redb::Error::UpgradeRequired(found) => {
            Error::Format { path, found: format!("redb {found}"), known: "redb 3 and later".into() }
        }
        source => Error::Open { path, source },
    }
}

/// Makes the tables if they are not there; returns the layout's number.
fn initialize(database: &Database) -> Result<u64, redb::Error> {
    let reader = database.begin_read()?;
    match reader.open_table(META) {
        Ok(meta) => {
            if let Some(layout) = meta.get("format")? {
                return Ok(layout.value());
            }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let writer = database.begin_write()?;
    writer.open_table(META)?.insert("format", LAYOUT)?;
    writer.open_table(MACHINES)?;
    writer.commit()?;
    Ok(LAYOUT)
}

fn read_all(database: &Database) -> Result<Vec<Raw>, redb::Error> {
    let reader = database.begin_read()?;
    let machines = reader.open_table(MACHINES)?;
    let mut all = Vec::new();
    for row in machines.iter()? {
        let (key, value) = row?;
        let (revision, json) = split(value.value());
        all.push((key.value().to_owned(), revision, json.to_vec()));
    }
    Ok(all)
}

fn write_all(
    database: &Database,
    transactions: &[Transaction],
) -> Result<Vec<Result<Revision, Error>>, redb::Error> {
    let writer = database.begin_write()?;
    let mut answers = Vec::with_capacity(transactions.len());
    {
        let mut meta = writer.open_table(META)?;
        let mut machines = writer.open_table(MACHINES)?;
        let last = meta.get("revision")?.map_or(0, |r| r.value());
        for (transaction, revision) in transactions.iter().zip(last + 1..) {
            let revision = Revision(revision);
            let applied = apply(&mut machines, transaction, revision)?;
            if applied.is_ok() && !transaction.postings.is_empty() {
                usage::post(&writer, &transaction.postings)?;
            }
            answers.push(applied.map(|()| revision));
        }
        meta.insert("revision", last + u64::try_from(transactions.len()).unwrap_or(u64::MAX))?;
    }
    writer.commit()?;
    Ok(answers)
}

/// Outer error: the file; inner error: this transaction, of which then nothing was applied.
fn apply(
    machines: &mut Table<'_, &str, &[u8]>,
    transaction: &Transaction,
    revision: Revision,
) -> Result<Result<(), Error>, redb::Error> {
    let mut values = Vec::new();
    for (expect, change) in &transaction.changes {
        let name = change.name().as_str();
        let found = machines.get(name)?.map(|value| split(value.value()).0);
        if !is_met(*expect, found) {
            return Ok(Err(Error::Conflict { name: name.into() }));
        }
        values.push(match change {
            Change::Remove(_) => None,
            Change::Put(record) => match record.encode() {
                Ok(json) => Some([&revision.0.to_le_bytes(), json.as_slice()].concat()),
                Err(error) => return Ok(Err(error)),
            },
        });
    }
    for ((_, change), value) in transaction.changes.iter().zip(values) {
        let name = change.name().as_str();
        match value {
            Some(value) => machines.insert(name, value.as_slice())?,
            None => machines.remove(name)?,
        };
    }
    Ok(Ok(()))
}

fn is_met(expect: Expect, found: Option<Revision>) -> bool {
    match expect {
        Expect::Anything => true,
        Expect::Absent => found.is_none(),
        Expect::At(revision) => found == Some(revision),
    }
}

/// The revision and the JSON of a value. One too short has no revision and, as JSON, is refused.
fn split(value: &[u8]) -> (Revision, &[u8]) {
    value
        .split_first_chunk::<8>()
        .map_or((Revision(0), value), |(revision, json)| (Revision(u64::from_le_bytes(*revision)), json))
}
