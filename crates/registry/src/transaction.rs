//! Changes that become durable together or not at all.

use dormouse_machine::meter::Posting;
use dormouse_types::MachineName;

use crate::Record;

/// Counts the transactions of a store; a record's revision is that of the transaction that put it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// What a change demands of the record that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is none.
    Absent,
    /// It is the one of this revision.
    At(Revision),
    /// Nothing is demanded.
    Anything,
}

/// A change of one record.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Puts a record, whatever was there.
    Put(Box<Record>),
    /// Removes the record, if there is one.
    Remove(MachineName),
}

/// Changes that belong together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transaction {
    pub(crate) changes: Vec<(Expect, Change)>,
    pub(crate) postings: Vec<Posting>,
}

impl Change {
    /// The machine that is changed.
    #[must_use]
    pub fn name(&self) -> &MachineName {
        match self {
            Self::Put(record) => &record.name,
            Self::Remove(name) => name,
        }
    }
}

impl Transaction {
    /// Puts one record.
    #[must_use]
    pub fn put(expect: Expect, record: Record) -> Self {
        Self::default().and(expect, Change::Put(Box::new(record)))
    }

    /// Removes one record.
    #[must_use]
    pub fn remove(expect: Expect, name: MachineName) -> Self {
        Self::default().and(expect, Change::Remove(name))
    }

    /// The changes, in order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().map(|(_, change)| change)
    }

    /// What machines used.
    pub fn postings(&self) -> impl Iterator<Item = &Posting> {
        self.postings.iter()
    }

    /// Adds what machines used.
    #[must_use]
    pub fn with_usage(mut self, postings: impl IntoIterator<Item = Posting>) -> Self {
        self.postings.extend(postings);
        self
    }

    /// Adds a change.
    #[must_use]
    pub fn and(mut self, expect: Expect, change: Change) -> Self {
        self.changes.push((expect, change));
        self
    }
}
