//! The signal that somebody looks at the machine's screen from elsewhere.

use dormouse_types::Timestamp;

use super::{Signal, guest::judged};
use crate::spec::KeepSpec;

/// From so many on they keep it awake.
const BUSY: f64 = 1.0;

/// Those who look at one machine's screen.
#[derive(Clone, Debug)]
pub(super) struct Viewers {
    is_ignored: bool,
    signal: Option<Signal>,
}

impl Viewers {
    pub(super) const fn new(spec: &KeepSpec) -> Self {
        Self { is_ignored: spec.ignore_viewers, signal: None }
    }

    pub(super) fn reset(&mut self) {
        self.signal = None;
    }

    pub(super) const fn signal(&self) -> Option<&Signal> {
        self.signal.as_ref()
    }

    /// Takes in how many there are. While nobody knows, there are as many as there were.
    pub(super) fn take(&mut self, count: Option<u32>, now: Timestamp) {
        let Some(count) = count.map(f64::from) else { return };
        let signal = judged(self.signal.as_ref(), ("viewers", "open"), (Some(count), BUSY), (None, ""), now);
        let detail = || Some("sleep.viewers of its file ignores them".into());
        self.signal = Some(if self.is_ignored {
            Signal { threshold: None, busy: false, detail: detail(), ..signal }
        } else {
            signal
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000_000)
    }

    fn says(viewers: &mut Viewers, now: u64, count: Option<u32>) -> Option<(Option<f64>, bool, Timestamp)> {
        viewers.take(count, at(now));
        viewers.signal().map(|signal| (signal.value, signal.busy, signal.since))
    }

    #[test]
    fn keep_awake_until_the_last_leaves() {
        let mut viewers = Viewers::new(&KeepSpec::default());
        assert_eq!(says(&mut viewers, 1, None), None);
        assert_eq!(says(&mut viewers, 2, Some(0)), Some((Some(0.0), false, at(2))));
        assert_eq!(says(&mut viewers, 3, Some(2)), Some((Some(2.0), true, at(3))));
        assert_eq!(says(&mut viewers, 4, Some(1)), Some((Some(1.0), true, at(3))));
        assert_eq!(says(&mut viewers, 5, None), Some((Some(1.0), true, at(3))));
        assert_eq!(says(&mut viewers, 6, Some(0)), Some((Some(0.0), false, at(6))));
        assert_eq!(says(&mut viewers, 9, Some(0)), Some((Some(0.0), false, at(6))));
        viewers.reset();
        assert!(viewers.signal().is_none());
    }

    #[test]
    fn are_told_where_the_file_ignores_them() {
        let mut viewers = Viewers::new(&KeepSpec { ignore_viewers: true, ..KeepSpec::default() });
        assert_eq!(
            says(&mut viewers, 1, Some(1)).map(|(value, busy, _)| (value, busy)),
            Some((Some(1.0), false))
        );
        assert_eq!(viewers.signal().and_then(|signal| signal.threshold), None);
    }
}
