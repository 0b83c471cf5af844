//! What happened, for whoever follows: a bounded ring, and a broadcast of what is new.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dormouse_api_types::{Event, EventKind, MachineState};
use dormouse_types::{MachineName, Timestamp};
use tokio::sync::broadcast;

use crate::clock::Clock;

/// The last events of the daemon. Cheap to clone; publishing never waits for a reader.
#[derive(Clone)]
pub struct Events {
    ring: Arc<Mutex<Ring>>,
    clock: Arc<dyn Clock>,
}

struct Ring {
    kept: VecDeque<Event>,
    limit: usize,
    last: u64,
    /// `None` once the daemon ends: followers then see the end of the stream.
    news: Option<broadcast::Sender<Event>>,
}

/// An event without what the ring gives it: its number and its time.
#[derive(Clone, Debug)]
pub struct Draft {
    machine: Option<MachineName>,
    kind: EventKind,
    from: Option<MachineState>,
    to: Option<MachineState>,
    cause: Option<String>,
    figures: BTreeMap<String, f64>,
}

/// What a reader gets: what is kept, and then what is new.
pub struct Subscription {
    /// Kept events, oldest first.
    pub kept: Vec<Event>,
    /// Later ones; `None` when the daemon is ending.
    pub news: Option<broadcast::Receiver<Event>>,
}

impl Draft {
    /// An event of a machine.
    #[must_use]
    pub fn of(machine: &MachineName, kind: EventKind) -> Self {
        let machine = Some(machine.clone());
        Self { machine, kind, from: None, to: None, cause: None, figures: BTreeMap::new() }
    }

    /// An event of the daemon itself.
    #[must_use]
    pub fn of_daemon(kind: EventKind) -> Self {
        Self { machine: None, kind, from: None, to: None, cause: None, figures: BTreeMap::new() }
    }

    /// The states that were left and entered.
    #[must_use]
    pub fn states(self, from: MachineState, to: MachineState) -> Self {
        Self { from: Some(from), to: Some(to), ..self }
    }

    /// Why.
    #[must_use]
    pub fn cause(self, cause: Option<impl Into<String>>) -> Self {
        Self { cause: cause.map(Into::into), ..self }
    }

    /// What was measured, each name with its unit.
    #[must_use]
    pub fn figures(self, figures: BTreeMap<String, f64>) -> Self {
        Self { figures, ..self }
    }

    fn numbered(self, seq: u64, at: Timestamp) -> Event {
        let Self { machine, kind, from, to, cause, figures } = self;
        Event { seq, at: at.into(), machine, kind, from, to, cause, figures }
    }
}

impl Events {
    /// A ring that keeps the last `limit` events.
    #[must_use]
    pub fn new(limit: usize, clock: Arc<dyn Clock>) -> Self {
        let limit = limit.max(1);
        let news = Some(broadcast::channel(limit).0);
        let ring = Ring { kept: VecDeque::with_capacity(limit), limit, last: 0, news };
        Self { ring: Arc::new(Mutex::new(ring)), clock }
    }

    /// Tells all readers, and keeps the event.
    pub fn publish(&self, draft: Draft) {
        let now = self.clock.now();
        let mut ring = self.lock();
        ring.last += 1;
        let event = draft.numbered(ring.last, now);
        if ring.kept.len() == ring.limit {
            ring.kept.pop_front();
        }
        ring.kept.push_back(event.clone());
        if let Some(news) = &ring.news {
            // No reader is no error.
            let _ = news.send(event);
        }
    }

    /// The number of the last event; 0 if nothing has happened yet.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// The kept events after number `after`, and all later ones without a gap.
    #[must_use]
    pub fn subscribe(&self, after: u64) -> Subscription {
        let ring = self.lock();
        // A number from the future is of a daemon before this one: all of ours are new to it.
        let after = if after > ring.last { 0 } else { after };
        let kept = ring.kept.iter().filter(|event| event.seq > after).cloned().collect();
        Subscription { kept, news: ring.news.as_ref().map(broadcast::Sender::subscribe) }
    }

    /// Says to a reader that it has missed `missed` events.
    #[must_use]
    pub fn lagged(&self, missed: u64) -> Event {
        let seq = self.lock().last;
        #[allow(clippy::cast_precision_loss, reason = "a count for people")]
        let figures = BTreeMap::from([("missed".to_owned(), missed as f64)]);
        Draft::of_daemon(EventKind::Lagged).figures(figures).numbered(seq, self.clock.now())
    }

    /// Ends the streams of all followers.
    pub fn close(&self) {
        self.lock().news = None;
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics while the ring is locked half-way.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    fn numbers(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.seq).collect()
    }

    #[tokio::test]
    async fn keeps_the_last_and_goes_on_without_a_gap() {
        let events = Events::new(3, Arc::new(SystemClock));
        for _ in 0..5 {
            events.publish(Draft::of_daemon(EventKind::Warning));
        }
        let subscription = events.subscribe(0);
        assert_eq!(numbers(&subscription.kept), [3, 4, 5]);
        assert_eq!(numbers(&events.subscribe(4).kept), [5]);
        assert_eq!(numbers(&events.subscribe(99).kept), [3, 4, 5]);
        events.publish(Draft::of_daemon(EventKind::Warning));
        events.close();
        let mut news = subscription.news.unwrap();
        assert_eq!(news.recv().await.unwrap().seq, 6);
        assert_eq!(news.recv().await, Err(broadcast::error::RecvError::Closed));
        assert!(events.subscribe(0).news.is_none());
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_what_it_missed() {
        let events = Events::new(2, Arc::new(SystemClock));
        let mut news = events.subscribe(0).news.unwrap();
        for _ in 0..10 {
            events.publish(Draft::of_daemon(EventKind::Warning));
        }
        let Err(broadcast::error::RecvError::Lagged(missed)) = news.recv().await else { panic!() };
        assert_eq!(events.lagged(missed).figures["missed"], 8.0);
    }
}
