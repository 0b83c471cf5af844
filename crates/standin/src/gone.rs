//! Connections that were, remembered for a while.

use std::{collections::VecDeque, time::Duration};

use dormouse_types::Timestamp;

use crate::segment::Tuple;

/// How many are remembered; the oldest is forgotten first.
const MAX: usize = 64;
/// How long: a client has given up its retransmissions to us by then, or nearly.
const FOR: Duration = Duration::from_secs(60);

/// Connections that ended, the oldest first.
#[derive(Debug)]
pub(crate) struct Gone(VecDeque<(Tuple, Timestamp)>);

impl Gone {
    pub(crate) const fn new() -> Self {
        Self(VecDeque::new())
    }

    pub(crate) fn add(&mut self, tuple: Tuple, now: Timestamp) {
        if self.0.len() >= MAX {
            self.0.pop_front();
        }
        self.0.push_back((tuple, now + FOR));
    }

    pub(crate) fn has(&self, tuple: &Tuple) -> bool {
        self.0.iter().any(|(gone, _)| gone == tuple)
    }

    pub(crate) fn remove(&mut self, tuple: &Tuple) {
        self.0.retain(|(gone, _)| gone != tuple);
    }

    /// Forgets those whose time is over, and gives back the memory of the last.
    pub(crate) fn forget(&mut self, now: Timestamp) {
        while self.0.front().is_some_and(|(_, until)| *until <= now) {
            self.0.pop_front();
        }
        if self.0.is_empty() {
            self.0.shrink_to_fit();
        }
    }

    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.0.front().map(|(_, until)| *until)
    }
}
