//! When a machine is idle: a pure policy over samples of its counters.
//!
//! Each signal (CPU, network, disk) is a rate over a window: from the newest sample that is at
//! least a window old to the last one. A signal becomes busy at its threshold and quiet below
//! half of it; between the two it stays as it was, so that noise about the threshold does not
//! count as activity again and again. Before there are two samples every signal counts as busy.
//! The machine is idle while all are quiet; the clock of `idle_after` starts at the sample that
//! found the last of them quiet.
//!
//! The policy starts afresh when it cannot know what happened between two samples: a counter went
//! backwards (the process was started again), the clock was set back, or nobody looked for
//! [`MAX_GAP`].

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use dormouse_types::Timestamp;

use crate::spec::SleepSpec;

/// The window, unless `idle_after` is so short that half of it is less.
pub const WINDOW: Duration = Duration::from_secs(10);

/// After so long without a sample the policy starts afresh.
pub const MAX_GAP: Duration = Duration::from_secs(300);

/// Counters of a machine, which only grow while its process lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// When they were read.
    pub at: Timestamp,
    /// CPU time of all virtual processors.
    pub cpu: Duration,
    /// Bytes sent and received, without broadcast noise.
    pub network_bytes: u64,
    /// Bytes read and written on disks.
    pub disk_bytes: u64,
}

/// A rate that idleness is judged by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signal {
    /// `cpu`, `network` or `disk`.
    pub name: &'static str,
    /// Unit of value and threshold: `%` (of one processor) or `B/s`.
    pub unit: &'static str,
    /// The rate over the last window; zero before there are two samples.
    pub value: f64,
    /// At and above this the signal becomes busy; below half of it, quiet.
    pub threshold: f64,
    /// Does it keep the machine awake?
    pub busy: bool,
    /// Since which sample it is so.
    pub since: Timestamp,
}

/// What the policy makes of the samples so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The last sample's time.
    pub at: Timestamp,
    /// What it was judged by.
    pub signals: [Signal; 3],
    /// Since when all signals are quiet.
    pub idle_since: Option<Timestamp>,
    /// When the machine is to sleep if it stays idle.
    pub due: Option<Timestamp>,
}

/// Judges one machine while its guest runs.
#[derive(Clone, Debug)]
pub struct IdlePolicy {
    idle_after: Option<Duration>,
    thresholds: [f64; 3],
    window: Duration,
    samples: VecDeque<Sample>,
    /// Per signal: its rate, whether it is busy, since when.
    judged: [(f64, bool, Timestamp); 3],
}

const NAMES: [(&str, &str); 3] = [("cpu", "%"), ("network", "B/s"), ("disk", "B/s")];

impl IdlePolicy {
    /// A policy by the thresholds of a machine's file.
    #[must_use]
    pub fn new(spec: &SleepSpec) -> Self {
        let half = spec.idle_after.map_or(WINDOW, |span| span / 2);
        Self {
            idle_after: spec.idle_after,
            thresholds: [spec.cpu_below, as_f64(spec.network_below), as_f64(spec.disk_below)],
            window: WINDOW.min(half),
            samples: VecDeque::new(),
            judged: [(0.0, true, Timestamp::default()); 3],
        }
    }

    /// Forgets all samples: the machine woke, or did something that the counters do not tell.
    pub fn reset(&mut self) {
        self.samples.clear();
    }

    /// Takes in the counters and judges.
    pub fn sample(&mut self, sample: Sample) -> Verdict {
        match self.samples.back() {
            Some(last) if last.at == sample.at => {}
            Some(last) if follows(last, &sample) => self.judge(sample),
            _ => self.start_afresh(sample),
        }
        self.verdict(sample.at)
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
            let busy = rate >= if was_busy { threshold / 2.0 } else { threshold };
            *judged = (rate, busy, if busy == was_busy { since } else { sample.at });
        }
    }

    fn verdict(&self, at: Timestamp) -> Verdict {
        let signals = std::array::from_fn(|i| {
            let ((name, unit), (value, busy, since)) = (NAMES[i], self.judged[i]);
            Signal { name, unit, value, threshold: self.thresholds[i], busy, since }
        });
        let quiet = signals.iter().all(|signal: &Signal| !signal.busy);
        let idle_since = signals.iter().map(|signal| signal.since).max().filter(|_| quiet);
        let due = idle_since.zip(self.idle_after).map(|(since, span)| since + span);
        Verdict { at, signals, idle_since, due }
    }
}

impl Verdict {
    /// Is the machine to sleep at `now`?
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// The verdict in a line, for the log and `dormouse why`.
    #[must_use]
    pub fn explain(&self) -> String {
        let age = |since| in_words(self.at.since(since));
        match (self.idle_since, self.due) {
            (Some(since), Some(due)) => {
                format!("idle for {}; sleeps after {}", age(since), in_words(due.since(since)))
            }
            (Some(since), None) => format!("idle for {}; sleeps only when told", age(since)),
            (None, _) => {
                let busy = self.signals.iter().filter(|signal| signal.busy);
                let busy: Vec<_> = busy.map(|signal| format!("{signal} for {}", age(signal.since))).collect();
                format!("busy: {}", busy.join("; "))
            }
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, unit, value, threshold, .. } = self;
        write!(f, "{name} {value:.1} {unit} (idle below {:.1})", threshold / 2.0)
    }
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

/// To the second, which is what a person reads.
fn in_words(span: Duration) -> String {
    humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(idle_after: u64) -> IdlePolicy {
        IdlePolicy::new(&SleepSpec { idle_after: Some(secs(idle_after)), ..SleepSpec::default() })
    }

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::default() + secs(1_000 + seconds)
    }

    /// A sample a second, with `network` bytes in that second.
    fn run(policy: &mut IdlePolicy, traffic: &[u64]) -> Vec<Verdict> {
        let mut network_bytes = 0;
        let mut verdicts = Vec::new();
        for (i, bytes) in traffic.iter().enumerate() {
            network_bytes += bytes;
            verdicts.push(policy.sample(Sample { at: at(i as u64), network_bytes, ..Sample::default() }));
        }
        verdicts
    }

    #[test]
    fn quiet_is_due_after_idle_after() {
        let verdicts = run(&mut policy(60), &[0; 100]);
        assert_eq!(verdicts[0].idle_since, None, "one sample tells nothing");
        assert_eq!(verdicts[50].idle_since, Some(at(1)));
        assert_eq!(verdicts[50].due, Some(at(61)));
        assert!(!verdicts[50].is_due(at(60)) && verdicts[50].is_due(at(61)));
        assert_eq!(verdicts[50].explain(), "idle for 49s; sleeps after 1m");
    }

    #[test]
    fn threshold_and_half_of_it_are_the_edges() {
        let mut traffic = vec![0; 20];
        traffic.extend([1000; 20]); // below 1 KiB/s: stays quiet
        traffic.extend([1024; 20]); // busy once the window is full of it
        traffic.extend([600; 20]); // above the half: stays busy
        traffic.extend([500; 20]); // below the half: quiet again
        let verdicts = run(&mut policy(60), &traffic);
        let busy: Vec<_> = verdicts.iter().map(|v| v.signals[1].busy).collect();
        assert!(!busy[1..49].contains(&true));
        assert!(!busy[50..80].contains(&false));
        assert!(!busy[90..].contains(&true));
        assert_eq!(verdicts[49].signals[1].value, 1024.0);
        assert!(verdicts[70].explain().starts_with("busy: network 600.0 B/s (idle below 512.0) for "));
    }

    #[test]
    fn each_signal_alone_keeps_awake() {
        for busy in 0..3 {
            let mut policy = policy(10);
            let mut verdict = None;
            for i in 0..60 {
                let grown = |signal, per_second: u64| if signal == busy { i * per_second } else { 0 };
                let cpu = Duration::from_millis(grown(0, 100));
                let sample =
                    Sample { at: at(i), cpu, network_bytes: grown(1, 1024), disk_bytes: grown(2, 16384) };
                verdict = Some(policy.sample(sample));
            }
            let verdict = verdict.unwrap();
            assert_eq!(verdict.due, None, "{}", verdict.explain());
            assert_eq!(verdict.signals.map(|s| s.busy), [busy == 0, busy == 1, busy == 2]);
        }
    }

    #[test]
    fn starts_afresh_when_it_cannot_know() {
        let sample = |seconds, network_bytes| Sample { at: at(seconds), network_bytes, ..Sample::default() };
        // A counter went back, the clock was set back, nobody looked for too long.
        for next in [sample(21, 4), sample(10, 9), sample(21 + MAX_GAP.as_secs(), 5)] {
            let mut policy = policy(10);
            for i in 0..=20 {
                policy.sample(sample(i, 5));
            }
            assert_eq!(policy.sample(sample(20, 5)).due, Some(at(11)), "the same sample changes nothing");
            assert_eq!(policy.sample(next).idle_since, None, "{next:?}");
        }
    }

    #[test]
    fn never_means_only_when_told() {
        let mut policy = IdlePolicy::new(&SleepSpec { idle_after: None, ..SleepSpec::default() });
        let verdicts = run(&mut policy, &[0; 100]);
        assert!(verdicts.iter().all(|v| v.due.is_none()));
        assert_eq!(verdicts[99].explain(), "idle for 1m 38s; sleeps only when told");
        policy.reset();
        assert_eq!(policy.sample(Sample { at: at(100), ..Sample::default() }).idle_since, None);
    }

    proptest! {
        /// Traffic of one sample that alone fills a whole window to its threshold resets the
        /// clock; without such, and with quiet windows, `due` never moves earlier.
        #[test]
        fn never_due_before_idle_after_of_quiet(
            traffic in prop::collection::vec(prop_oneof![3 => 0u64..100, 1 => 100u64..50_000], 1..200),
            idle_after in 2u64..40,
        ) {
            let mut policy = policy(idle_after);
            let window = WINDOW.min(secs(idle_after) / 2).as_secs() + 1;
            let verdicts = run(&mut policy, &traffic);
            let mut last_busy = 0;
            let mut last_idle_since = None;
            for (i, verdict) in verdicts.iter().enumerate() {
                if traffic[i] >= 1024 * window && i > 0 {
                    last_busy = i;
                    prop_assert!(verdict.signals[1].busy, "{i}: {:?}", verdict);
                }
                if let Some(due) = verdict.due {
                    prop_assert!(due >= at(last_busy as u64 + idle_after), "{i}: {:?}", verdict);
                    prop_assert!(verdict.idle_since >= last_idle_since);
                    last_idle_since = verdict.idle_since;
                    prop_assert!(verdict.signals.iter().all(|s| !s.busy && s.value < s.threshold));
                }
            }
        }

        #[test]
        fn any_samples_give_a_verdict(samples in prop::collection::vec(any::<(u64, u64, u64, u64)>(), 0..50)) {
            let mut policy = policy(10);
            for (t, cpu, network_bytes, disk_bytes) in samples {
                let sample = Sample { at: Timestamp(t), cpu: Duration::from_nanos(cpu), network_bytes, disk_bytes };
                let verdict = policy.sample(sample);
                prop_assert!(verdict.signals.iter().all(|s| s.value.is_finite() && s.value >= 0.0));
                prop_assert!(!verdict.is_due(Timestamp(t)) || verdict.idle_since.is_some());
            }
        }
    }
}
