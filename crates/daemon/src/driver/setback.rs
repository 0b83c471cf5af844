//! Why a machine that should sleep cannot, so that it is not tried again and again.

use std::time::Duration;

use dormouse_machine::idle::Keep;
use dormouse_types::Timestamp;

/// After a sleep that failed the next one waits so long, at first and at most, doubling between.
const AGAIN: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));
/// What bars a sleep is looked for again so much later.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What came in the way of a machine's last sleeps. Times are of the steady clock.
#[derive(Debug, Default)]
pub(super) struct Setbacks {
    /// Sleeps in a row that failed.
    failures: u32,
    /// Why the last one did, and until when none is tried.
    failed: Option<(String, Duration)>,
    /// Why its platform cannot put it to sleep, and until when that is not looked at again.
    barred: Option<(String, Duration)>,
}

impl Setbacks {
    /// A sleep failed.
    pub(super) fn failed(&mut self, why: String, now: Duration) {
        let wait = AGAIN.0.saturating_mul(1 << self.failures.min(16)).min(AGAIN.1);
        self.failures = self.failures.saturating_add(1);
        self.failed = Some((why, now + wait));
    }

    /// It sleeps.
    pub(super) fn slept(&mut self) {
        *self = Self::default();
    }

    /// It was looked whether something bars its sleep. True if something did before.
    pub(super) fn looked(&mut self, barred: Option<String>, now: Duration) -> bool {
        let barred = barred.map(|why| (why, now + LOOK_AGAIN));
        std::mem::replace(&mut self.barred, barred).is_some()
    }

    /// Is it known that it cannot sleep now?
    pub(super) fn stand(&self, now: Duration) -> bool {
        [&self.failed, &self.barred].into_iter().flatten().any(|(_, until)| now < *until)
    }

    /// As what keeps the machine awake; `steady` and `wall` are now. `known`: what bars its sleep as far as that
    /// is known without a look.
    pub(super) fn keeps(
        &self,
        known: Option<String>,
        steady: Duration,
        wall: Timestamp,
    ) -> impl Iterator<Item = Keep> {
        let failed = self.failed.as_ref().filter(|(_, until)| steady < *until).map(|(why, until)| Keep {
            what: "failed-sleep",
            why: why.clone(),
            until: Some(wall + until.saturating_sub(steady)),
        });
        let barred = self.barred.as_ref().map(|(why, _)| why.clone()).or(known);
        let barred = barred.map(|why| Keep { what: "obstacle", why, until: None });
        failed.into_iter().chain(barred)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_waits_longer_until_it_sleeps() {
        let mut setbacks = Setbacks::default();
        let (mut now, mut waits) = (Duration::ZERO, Vec::new());
        for _ in 0..9 {
            setbacks.failed("no space".into(), now);
            let keep = setbacks.keeps(None, now, Timestamp(0)).next().unwrap();
            let wait = keep.until.unwrap().since(Timestamp(0));
            assert!(setbacks.stand(now + wait - Duration::from_nanos(1)) && !setbacks.stand(now + wait));
            waits.push(wait.as_secs() / 60);
            now += wait;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        setbacks.slept();
        setbacks.failed("no space".into(), now);
        assert!(!setbacks.stand(now + AGAIN.0));
    }

    #[test]
    fn what_bars_a_sleep_is_told_while_it_is_looked_at_again() {
        let mut setbacks = Setbacks::default();
        setbacks.looked(Some("hostdev".into()), Duration::ZERO);
        assert!(setbacks.stand(Duration::ZERO) && !setbacks.stand(LOOK_AGAIN));
        assert_eq!(setbacks.keeps(None, LOOK_AGAIN, Timestamp(0)).count(), 1);
        setbacks.looked(None, LOOK_AGAIN);
        assert_eq!(setbacks.keeps(None, LOOK_AGAIN, Timestamp(0)).count(), 0);
    }
}
