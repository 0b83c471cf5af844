//! The signals that are rates: of processor, network and disk.

use std::collections::VecDeque;
use std::time::Duration;

use dormouse_types::Timestamp;

use super::{MAX_GAP, Sample, Signal, WINDOW};
use crate::spec::SleepSpec;

const NAMES: [(&str, &str); 3] = [("cpu", "%"), ("network", "B/s"), ("disk", "B/s")];

/// The rates of one machine.
#[derive(Clone, Debug)]
pub(super) struct Rates {
    thresholds: [f64; 3],
    window: Duration,
    samples: VecDeque<Sample>,
    /// Per signal: its rate, whether it is busy, since when.
    judged: [(f64, bool, Timestamp); 3],
}

impl Rates {
    pub(super) fn new(spec: &SleepSpec) -> Self {
        let half = spec.idle_after.map_or(WINDOW, |span| span / 2);
        Self {
            thresholds: [spec.cpu_below, as_f64(spec.network_below), as_f64(spec.disk_below)],
            window: WINDOW.min(half),
            samples: VecDeque::new(),
            judged: [(0.0, true, Timestamp::default()); 3],
        }
    }

    pub(super) fn reset(&mut self) {
        self.samples.clear();
    }

    /// Takes in the counters.
    pub(super) fn take(&mut self, sample: Sample) {
        match self.samples.back() {
            Some(last) if last.at == sample.at => {}
            Some(last) if follows(last, &sample) => self.judge(sample),
            _ => self.start_afresh(sample),
        }
    }

    pub(super) fn signals(&self) -> impl Iterator<Item = Signal> {
        let parts = NAMES.iter().zip(self.judged).zip(self.thresholds);
        parts.map(|(((name, unit), (value, busy, since)), threshold)| {
            let (value, threshold) = (Some(value), Some(threshold));
            Signal { value, threshold, ..Signal::new(*name, unit, busy, since) }
        })
    }

    fn start_afresh(&mut self, sample: Sample) {
        self.samples.clear();
        self.samples.push_back(sample);
        self.judged = [(0.0, true, sample.at); 3];
    }

    fn judge(&mut self, sample: Sample) {
        self.samples.push_back(sample);
        while self.samples.get(1).is_some_and(|second| sample.at.since(second.at) >= self.window) {
            self.samples.pop_front();
        }
        let Some(first) = self.samples.front() else { return };
        let rates = rates(first, &sample);
        for ((judged, rate), threshold) in self.judged.iter_mut().zip(rates).zip(self.thresholds) {
            let (_, was_busy, since) = *judged;
            let busy = is_busy(rate, threshold, was_busy);
            *judged = (rate, busy, if busy == was_busy { since } else { sample.at });
        }
    }
}

/// Busy from the threshold on, quiet below half of it.
pub(super) fn is_busy(value: f64, threshold: f64, was_busy: bool) -> bool {
    value >= if was_busy { threshold / 2.0 } else { threshold }
}

/// Can `sample` be compared with the one before it?
fn follows(last: &Sample, sample: &Sample) -> bool {
    last.at < sample.at
        && sample.at.since(last.at) <= MAX_GAP
        && last.cpu <= sample.cpu
        && last.network_bytes <= sample.network_bytes
        && last.disk_bytes <= sample.disk_bytes
}

/// Percent of one processor, and bytes a second.
fn rates(first: &Sample, last: &Sample) -> [f64; 3] {
    let seconds = last.at.since(first.at).as_secs_f64();
    let bytes = |first, last: u64| as_f64(last.saturating_sub(first)) / seconds;
    [
        last.cpu.saturating_sub(first.cpu).as_secs_f64() * 100.0 / seconds,
        bytes(first.network_bytes, last.network_bytes),
        bytes(first.disk_bytes, last.disk_bytes),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a rate need not be exact beyond 52 bits")]
const fn as_f64(bytes: u64) -> f64 {
    bytes as f64
}
