//! The signal of the guest's balloon driver: pages that it had to read back from its disk or swap.

use dormouse_types::Timestamp;

use super::{STALE, Signal, guest::judged};
use crate::spec::KeepSpec;

/// Major page faults of a guest since it booted, as its balloon driver counted them (virtio 1.2, section
/// 5.5.6.3, `VIRTIO_BALLOON_S_MAJFLT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// When they were counted.
    pub at: Timestamp,
    /// How many there were.
    pub count: u64,
}

/// What one guest's balloon driver says.
#[derive(Clone, Debug)]
pub(super) struct Balloon {
    below: Option<f64>,
    last: Option<Faults>,
    rate: Option<f64>,
    signal: Option<Signal>,
}

impl Balloon {
    pub(super) const fn new(spec: &KeepSpec) -> Self {
        Self { below: spec.faults_below, last: None, rate: None, signal: None }
    }

    pub(super) fn reset(&mut self) {
        (self.last, self.rate, self.signal) = (None, None, None);
    }

    pub(super) const fn is_asked(&self) -> bool {
        self.below.is_some()
    }

    pub(super) const fn signal(&self) -> Option<&Signal> {
        self.signal.as_ref()
    }

    /// Takes in what it says, if it says something. One that should say and does not is taken to be in use.
    pub(super) fn take(&mut self, faults: Option<Faults>, now: Timestamp) {
        let Some(below) = self.below else { return };
        // Counted once a period, and asked for more often.
        if let Some(faults) = faults.filter(|faults| Some(*faults) != self.last) {
            self.rate = self.last.and_then(|last| rate(last, faults));
            self.last = Some(faults);
        }
        self.last = self.last.filter(|last| now.since(last.at) < STALE);
        self.rate = self.rate.filter(|_| self.last.is_some());
        let unknown = "its balloon driver has not said it twice yet, so it counts as busy";
        let judged = judged(self.signal.as_ref(), ("faults", "/s"), (self.rate, below), (None, unknown), now);
        self.signal = Some(judged);
    }
}

/// Faults a second; `None` if they cannot be compared: it counts from zero again.
#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact beyond 52 bits")]
fn rate(last: Faults, next: Faults) -> Option<f64> {
    let comparable = last.at < next.at && last.count <= next.count;
    comparable.then(|| (next.count - last.count) as f64 / next.at.since(last.at).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }

    fn balloon() -> Balloon {
        Balloon::new(&KeepSpec { faults_below: Some(10.0), ..KeepSpec::default() })
    }

    /// Asked at `now`, it had counted so many at `counted`.
    fn says(balloon: &mut Balloon, now: u64, counted: u64, count: u64) -> (Option<f64>, bool, Timestamp) {
        balloon.take(Some(Faults { at: at(counted), count }), at(now));
        let signal = balloon.signal().unwrap();
        (signal.value, signal.busy, signal.since)
    }

    #[test]
    fn counts_by_the_second_and_has_hysteresis() {
        let mut balloon = balloon();
        assert_eq!(says(&mut balloon, 1, 0, 700), (None, true, at(1)));
        assert_eq!(says(&mut balloon, 6, 5, 750), (Some(10.0), true, at(1)));
        // It did not count again: the same is said.
        assert_eq!(says(&mut balloon, 9, 5, 750), (Some(10.0), true, at(1)));
        assert_eq!(says(&mut balloon, 11, 10, 780), (Some(6.0), true, at(1)));
        assert_eq!(says(&mut balloon, 16, 15, 800), (Some(4.0), false, at(16)));
        assert_eq!(says(&mut balloon, 21, 20, 840), (Some(8.0), false, at(16)));
        assert_eq!(says(&mut balloon, 26, 25, 890), (Some(10.0), true, at(26)));
    }

    #[test]
    fn what_is_not_said_is_use() {
        let mut balloon = balloon();
        says(&mut balloon, 1, 0, 700);
        assert!(!says(&mut balloon, 6, 5, 700).1);
        // Its last word counts for a while.
        balloon.take(None, at(7));
        assert!(!balloon.signal().unwrap().busy);
        // The guest booted afresh.
        assert_eq!(says(&mut balloon, 11, 10, 3), (None, true, at(11)));
        assert_eq!(says(&mut balloon, 16, 15, 3), (Some(0.0), false, at(16)));
        // It counts no more.
        let stale = 15 + STALE.as_secs();
        assert_eq!(says(&mut balloon, stale, 15, 3), (None, true, at(stale)));
        balloon.take(None, at(stale + 1));
        assert!(balloon.signal().unwrap().busy);
        assert!(balloon.signal().unwrap().detail.as_ref().unwrap().contains("balloon driver"));
        balloon.reset();
        assert!(balloon.signal().is_none());
        let mut unasked = Balloon::new(&KeepSpec::default());
        unasked.take(Some(Faults { at: at(0), count: 1 }), at(1));
        assert!(!unasked.is_asked() && unasked.signal().is_none());
    }

    proptest! {
        #[test]
        fn a_rate_is_a_number(said in prop::collection::vec((any::<u64>(), any::<u64>()), 0..20)) {
            let mut balloon = balloon();
            for (seconds, count) in said {
                let now = Timestamp(seconds) + Duration::from_secs(1);
                balloon.take(Some(Faults { at: Timestamp(seconds), count }), now);
                let value = balloon.signal().and_then(|signal| signal.value);
                prop_assert!(value.is_none_or(|rate| rate.is_finite() && rate >= 0.0));
            }
        }
    }
}
