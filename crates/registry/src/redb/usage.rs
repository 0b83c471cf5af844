//! The tables of usage.
//!
//! | table | key | value |
//! |---|---|---|
//! | `usage` | name, start of the bucket (nanoseconds since the epoch) | the closed bucket as JSON |
//! | `accounts` | name | the account, with the bucket that still changes, as JSON |

use dormouse_machine::meter::{Account, Bucket, Posting, Row, compact};
use dormouse_types::{MachineName, Timestamp};
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, ReadableTable as _, Table,
    TableDefinition, TableError, WriteTransaction,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::Tidy;

type Buckets<'t> = Table<'t, (&'static str, u64), &'static [u8]>;

const USAGE: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("usage");
const ACCOUNTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("accounts");

/// Writes what was posted.
pub(super) fn post(writer: &WriteTransaction, postings: &[Posting]) -> Result<(), redb::Error> {
    let mut accounts = writer.open_table(ACCOUNTS)?;
    let mut usage = writer.open_table(USAGE)?;
    for Posting { machine, closed, account } in postings {
        let name = machine.as_str();
        for bucket in closed {
            insert(&mut usage, name, bucket)?;
        }
        // Postings may overtake each other on their way here.
        let found = accounts.get(name)?.and_then(|value| decode::<Account>(name, value.value()));
        if found.is_none_or(|found| found.serial < account.serial)
            && let Some(json) = encode(name, account)
        {
            accounts.insert(name, json.as_slice())?;
        }
    }
    Ok(())
}

fn insert(usage: &mut Buckets<'_>, name: &str, bucket: &Bucket) -> Result<(), redb::Error> {
    if let Some(json) = encode(name, bucket) {
        usage.insert((name, bucket.start.0), json.as_slice())?;
    }
    Ok(())
}

pub(super) fn accounts(database: &Database) -> Result<Vec<(MachineName, Account)>, redb::Error> {
    let Some(accounts) = opened(&database.begin_read()?, ACCOUNTS)? else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for row in accounts.iter()? {
        let (key, value) = row?;
        let name = key.value();
        if let (Ok(machine), Some(account)) = (name.parse(), decode(name, value.value())) {
            all.push((machine, account));
        }
    }
    Ok(all)
}

pub(super) fn buckets(
    database: &Database,
    machine: &MachineName,
    since: Timestamp,
    until: Timestamp,
) -> Result<Vec<Bucket>, redb::Error> {
    let Some(usage) = opened(&database.begin_read()?, USAGE)? else { return Ok(Vec::new()) };
    let name = machine.as_str();
    let mut found = Vec::new();
    if since < until {
        for row in usage.range((name, since.0)..(name, until.0))? {
            found.extend(decode(name, row?.1.value()));
        }
    }
    Ok(found)
}

pub(super) fn tidy(database: &Database, machine: &MachineName, tidy: &Tidy) -> Result<usize, redb::Error> {
    let name = machine.as_str();
    let old = buckets(database, machine, Timestamp(0), tidy.days_before)?;
    let (forgotten, kept): (Vec<_>, Vec<_>) = old.into_iter().partition(|old| old.end < tidy.forget_before);
    let rows: Vec<_> = kept.into_iter().map(|bucket| Row { machine: machine.clone(), bucket }).collect();
    let days = compact(&rows, |at| (tidy.day)(at));
    let writer = database.begin_write()?;
    let left = {
        let mut usage = writer.open_table(USAGE)?;
        for start in forgotten.iter().map(|bucket| bucket.start).chain(days.remove.iter().map(|(_, at)| *at))
        {
            usage.remove((name, start.0))?;
        }
        for row in &days.put {
            insert(&mut usage, name, &row.bucket)?;
        }
        let left = count(&usage, name)?;
        let mut accounts = writer.open_table(ACCOUNTS)?;
        let account = accounts.get(name)?.and_then(|value| decode::<Account>(name, value.value()));
        let is_gone = account.is_some_and(|a| a.open.is_none() && a.bucket.end < tidy.forget_before);
        if left == 0 && is_gone {
            accounts.remove(name)?;
        }
        left
    };
    writer.commit()?;
    Ok(left)
}

fn count(usage: &Buckets<'_>, name: &str) -> Result<usize, redb::Error> {
    let mut count = 0;
    for row in usage.range((name, 0)..=(name, u64::MAX))? {
        row?;
        count += 1;
    }
    Ok(count)
}

/// A table, unless nothing was ever written to it.
fn opened<K: redb::Key + 'static, V: redb::Value + 'static>(
    reader: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, redb::Error> {
    match reader.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What cannot be written must not keep a state from being journalled.
fn encode(name: &str, value: &impl Serialize) -> Option<Vec<u8>> {
    let written = serde_json::to_vec(value);
    if let Err(error) = &written {
        tracing::error!(machine = name, %error, "what it used cannot be written");
    }
    written.ok()
}

fn decode<T: DeserializeOwned>(name: &str, json: &[u8]) -> Option<T> {
    let read = serde_json::from_slice(json);
    if let Err(error) = &read {
        tracing::error!(machine = name, %error, "what it used cannot be read in part, and is left as it is");
    }
    read.ok()
}
