//! When to connect, and what to tell of it.

use std::time::Duration;

use dormouse_types::Timestamp;

/// The pause before libvirt is tried again: at first, and at most, doubling between.
pub(crate) const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A connection that held for so long was no failure: the pauses begin anew.
pub(crate) const STEADY: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// What was asked for by [`Action::Open`] is there.
    Opened,
    /// It is not, and why.
    Refused(String),
    /// It takes long.
    Slow(String),
    /// The connection ended without our doing.
    Closed(String),
    /// Somebody needs it now.
    Wanted,
    /// [`Reconnect::next_deadline`] came.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Open a connection. Answered by one of `Opened` and `Refused`; until then it is not asked for again.
    Open,
    /// Tell that libvirt cannot be asked, and why.
    TellAway(String),
    /// Tell that it can be asked again: what happened meanwhile nobody told.
    TellBack,
}

/// The state of a connection that is wanted for good.
#[derive(Clone, Debug)]
pub(crate) struct Reconnect {
    phase: Phase,
    /// The next pause.
    pause: Duration,
    /// It was told that libvirt is away, and not yet that it is back.
    is_away: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting { since: Timestamp, until: Timestamp },
    Opening,
    Open { since: Timestamp },
}

impl Reconnect {
    /// None yet; the first try is due at once.
    pub(crate) const fn new(now: Timestamp) -> Self {
        let phase = Phase::Waiting { since: Timestamp(0), until: now };
        Self { phase, pause: PAUSE.0, is_away: false }
    }

    /// When [`Event::Tick`] is due.
    pub(crate) const fn next_deadline(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Waiting { until, .. } => Some(until),
            Phase::Opening | Phase::Open { .. } => None,
        }
    }

    pub(crate) fn handle(&mut self, event: Event, now: Timestamp) -> Vec<Action> {
        match (event, self.phase) {
            (Event::Tick, Phase::Waiting { until, .. }) if is_due(until, now) => self.open(),
            // Not without a pause: many may want it, each time.
            (Event::Wanted, Phase::Waiting { since, .. }) if is_due(since + PAUSE.0, now) => self.open(),
            (Event::Opened, Phase::Opening) => {
                self.phase = Phase::Open { since: now };
                if std::mem::take(&mut self.is_away) { vec![Action::TellBack] } else { Vec::new() }
            }
            (Event::Refused(why), Phase::Opening) => {
                self.wait(now);
                self.away(why)
            }
            (Event::Slow(why), Phase::Opening) => self.away(why),
            (Event::Closed(why), Phase::Open { since }) => {
                if now.since(since) >= STEADY {
                    self.pause = PAUSE.0;
                }
                self.wait(now);
                self.away(why)
            }
            _ => Vec::new(),
        }
    }

    fn open(&mut self) -> Vec<Action> {
        self.phase = Phase::Opening;
        vec![Action::Open]
    }

    fn wait(&mut self, now: Timestamp) {
        self.phase = Phase::Waiting { since: now, until: now + self.pause };
        self.pause = (self.pause * 2).min(PAUSE.1);
    }

    fn away(&mut self, why: String) -> Vec<Action> {
        let is_news = !std::mem::replace(&mut self.is_away, true);
        if is_news { vec![Action::TellAway(why)] } else { Vec::new() }
    }
}

/// Has it come? Nothing is due in more than the longest pause: then the clock was set back.
fn is_due(due: Timestamp, now: Timestamp) -> bool {
    due <= now || due.since(now) > PAUSE.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp(1) + Duration::from_millis(millis)
    }

    fn why() -> String {
        "connection refused".into()
    }

    #[test]
    fn tries_at_once_and_then_ever_later() {
        let mut link = Reconnect::new(at(0));
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..12 {
            assert_eq!(link.handle(Event::Tick, now), [Action::Open]);
            link.handle(Event::Refused(why()), now);
            let due = link.next_deadline().unwrap();
            pauses.push(due.since(now).as_millis());
            assert_eq!(link.handle(Event::Tick, Timestamp(due.0 - 1)), []);
            now = due;
        }
        assert_eq!(pauses[..4], [100, 200, 400, 800]);
        assert_eq!(pauses[8..], [10_000; 4]);
    }

    #[test]
    fn a_restart_is_told_once_each_way() {
        let mut link = Reconnect::new(at(0));
        link.handle(Event::Tick, at(0));
        assert_eq!(link.handle(Event::Opened, at(1)), []);
        assert_eq!(
            link.handle(Event::Closed("end of file".into()), at(20_000)),
            [Action::TellAway("end of file".into())]
        );
        assert_eq!(link.handle(Event::Tick, at(20_100)), [Action::Open]);
        assert_eq!(link.handle(Event::Slow("no answer".into()), at(26_000)), []);
        assert_eq!(link.handle(Event::Refused(why()), at(30_000)), []);
        assert_eq!(link.handle(Event::Tick, at(30_200)), [Action::Open]);
        assert_eq!(link.handle(Event::Opened, at(30_201)), [Action::TellBack]);
    }

    #[test]
    fn who_wants_it_does_not_wait_for_the_pause() {
        let mut link = Reconnect::new(at(0));
        for _ in 0..10 {
            let due = link.next_deadline().unwrap();
            link.handle(Event::Tick, due);
            link.handle(Event::Refused(why()), due);
        }
        let refused = Timestamp(link.next_deadline().unwrap().0 - 10_000_000_000);
        assert_eq!(link.handle(Event::Wanted, refused + Duration::from_millis(99)), []);
        assert_eq!(link.handle(Event::Wanted, refused + PAUSE.0), [Action::Open]);
    }

    #[test]
    fn a_connection_that_flaps_is_tried_ever_later() {
        let mut link = Reconnect::new(at(0));
        let mut now = at(0);
        for _ in 0..20 {
            link.handle(Event::Tick, now);
            link.handle(Event::Opened, now);
            link.handle(Event::Closed(why()), now);
            now = link.next_deadline().unwrap();
        }
        link.handle(Event::Tick, now);
        link.handle(Event::Opened, now);
        link.handle(Event::Closed(why()), now + STEADY);
        assert_eq!(link.next_deadline(), Some(now + STEADY + PAUSE.0));
    }

    fn events() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Opened),
            Just(Event::Refused(why())),
            Just(Event::Slow(why())),
            Just(Event::Closed(why())),
            Just(Event::Wanted),
            Just(Event::Tick),
        ]
    }

    proptest! {
        /// Whatever comes, and however the clock goes: one try at a time, never without the least pause,
        /// never more than the longest from the next; and what is told alternates.
        #[test]
        fn tries_are_paced_and_news_alternate(
            steps in prop::collection::vec((events(), 0..30_000_u64), 0..200)
        ) {
            let mut link = Reconnect::new(at(0));
            let (mut now, mut opening, mut open, mut away) = (at(0), false, false, false);
            let mut ended: Option<Timestamp> = None;
            for (event, millis) in steps {
                now = now + Duration::from_millis(millis);
                let actions = link.handle(event.clone(), now);
                match event {
                    Event::Opened if opening => (opening, open) = (false, true),
                    Event::Refused(_) if opening => (opening, ended) = (false, Some(now)),
                    Event::Closed(_) if open => (open, ended) = (false, Some(now)),
                    _ => {}
                }
                for action in actions {
                    match action {
                        Action::Open => {
                            prop_assert!(!opening && !open);
                            prop_assert!(ended.is_none_or(|end| now.since(end) >= PAUSE.0));
                            opening = true;
                        }
                        Action::TellAway(_) => prop_assert!(!std::mem::replace(&mut away, true)),
                        Action::TellBack => prop_assert!(open && std::mem::take(&mut away)),
                    }
                }
                prop_assert_eq!(link.next_deadline().is_some(), !opening && !open);
                prop_assert!(link.next_deadline().is_none_or(|due| due.since(now) <= PAUSE.1));
                prop_assert!(!open || !away, "it is back, and nobody was told");
            }
        }

        #[test]
        fn a_clock_that_is_set_back_stops_nothing(ahead in 10_001..u64::MAX / 2_000_000) {
            let mut link = Reconnect::new(at(ahead));
            prop_assert_eq!(link.handle(Event::Tick, at(0)), [Action::Open]);
        }
    }
}
