//! A machine's record, and the writes of it: one at a time, the newest content each time.
//!
//! A state that the registry refused is not kept in the record: a later write of something else,
//! as of a hold, must not make durable what the lifecycle believes was never written.

use dormouse_machine::lifecycle::State;
use dormouse_registry::{Error, Expect, Record, Revision, Transaction};
use dormouse_types::Timestamp;

/// The record as the driver wants it, and how much of it is durable.
#[derive(Debug)]
pub(crate) struct Journal<T> {
    record: Record,
    durable: Record,
    expect: Expect,
    /// Who is told when the next write is durable.
    waiting: Vec<T>,
    /// The write that is under way, and who waits for it.
    under_way: Option<(Record, Vec<T>)>,
    dirty: bool,
}

impl<T> Journal<T> {
    /// A record as it was loaded, or has just been put.
    pub(crate) fn new(record: Record, revision: Revision) -> Self {
        let durable = record.clone();
        let expect = Expect::At(revision);
        Self { record, durable, expect, waiting: Vec::new(), under_way: None, dirty: false }
    }

    pub(crate) const fn record(&self) -> &Record {
        &self.record
    }

    /// Changes the record; written when [`Journal::next`] is asked.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Record), ticket: Option<T>) {
        change(&mut self.record);
        self.waiting.extend(ticket);
        self.dirty = true;
    }

    /// Changes the state.
    pub(crate) fn state(&mut self, state: State, reason: Option<String>, now: Timestamp, ticket: T) {
        let set = |record: &mut Record| {
            record.state = state;
            record.reason = reason;
            record.since = now;
        };
        self.change(set, Some(ticket));
    }

    /// What is to be written now: nothing while a write is under way, or when all is durable.
    pub(crate) fn next(&mut self) -> Option<Transaction> {
        if self.under_way.is_some() || !self.dirty {
            return None;
        }
        self.dirty = false;
        let record = self.record.clone();
        self.under_way = Some((record.clone(), std::mem::take(&mut self.waiting)));
        Some(Transaction::put(self.expect, record))
    }

    /// A write has ended; returns who waited for it.
    pub(crate) fn done(&mut self, result: &Result<Revision, Error>) -> Vec<T> {
        let Some((written, tickets)) = self.under_way.take() else { return Vec::new() };
        match result {
            Ok(revision) => {
                self.durable = written;
                self.expect = Expect::At(*revision);
            }
            Err(error) => {
                if self.record.state == written.state {
                    self.record.state = self.durable.state.clone();
                    self.record.reason = self.durable.reason.clone();
                    self.record.since = self.durable.since;
                }
                // It may have become durable all the same, except where someone else was first.
                if !matches!(error, Error::Conflict { .. }) {
                    self.expect = Expect::Anything;
                }
            }
        }
        tickets
    }

    /// The state that the write under way is to make durable, if that is what it is for.
    pub(crate) fn written_state(&self) -> Option<&State> {
        let (written, _) = self.under_way.as_ref()?;
        (written.state != self.durable.state).then_some(&written.state)
    }

    /// Is everything durable?
    pub(crate) const fn is_idle(&self) -> bool {
        self.under_way.is_none() && !self.dirty
    }

    /// What a removal expects.
    pub(crate) const fn expect(&self) -> Expect {
        self.expect
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_types::{Depth, MacAddr};

    const ASLEEP: State = State::Asleep { depth: Depth::Saved };

    fn journal() -> Journal<u8> {
        let record = Record::new("web".parse().unwrap(), String::new(), "/".into(), Timestamp(1));
        Journal::new(record, Revision(1))
    }

    #[test]
    fn writes_one_at_a_time_and_the_newest() {
        let mut journal = journal();
        assert_eq!(journal.next(), None);
        journal.state(State::Active, None, Timestamp(2), 1);
        assert!(journal.next().is_some());
        journal.state(ASLEEP, None, Timestamp(3), 2);
        journal.change(|record| record.reason = Some("x".into()), Some(3));
        assert_eq!(journal.next(), None);
        assert_eq!(journal.done(&Ok(Revision(2))), [1]);
        let expected = Transaction::put(Expect::At(Revision(2)), journal.record().clone());
        assert_eq!(journal.next(), Some(expected));
        assert_eq!(journal.done(&Ok(Revision(3))), [2, 3]);
        assert!(journal.is_idle());
    }

    #[test]
    fn a_refused_state_is_taken_back() {
        let mut journal = journal();
        journal.state(ASLEEP, None, Timestamp(2), 1);
        let learned = MacAddr([2; 6]);
        journal.change(|record| drop(record.learned.insert(learned, Vec::new())), None);
        assert!(journal.next().is_some());
        assert_eq!(journal.done(&Err(Error::Closed)), [1]);
        assert_eq!((&journal.record().state, journal.record().since), (&State::Stopped, Timestamp(1)));
        assert_eq!(journal.record().learned.len(), 1);
        journal.change(|_| {}, None);
        assert_eq!(journal.next(), Some(Transaction::put(Expect::Anything, journal.record().clone())));
    }

    #[test]
    fn a_state_set_meanwhile_survives_the_refusal_of_an_older_one() {
        let mut journal = journal();
        journal.state(ASLEEP, None, Timestamp(2), 1);
        let _ = journal.next();
        journal.state(State::Active, None, Timestamp(3), 2);
        assert_eq!(journal.done(&Err(Error::Closed)), [1]);
        assert_eq!(journal.record().state, State::Active);
    }
}
