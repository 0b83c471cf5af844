//! Summaries of repeated measurements.

use std::{fmt, time::Duration};

/// Durations of one thing, measured again and again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample(Vec<Duration>);

impl Sample {
    pub(crate) fn push(&mut self, duration: Duration) {
        self.0.push(duration);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that this share of the sample does not exceed; `None` of an empty sample.
    pub(crate) fn quantile(&self, percent: usize) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        sorted.get((last * percent).div_ceil(100)).copied()
    }

    /// With an even count the mean of the two in the middle.
    pub(crate) fn median(&self) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let is_even = sorted.len().is_multiple_of(2);
        Some(if is_even { (sorted[middle - 1] + upper) / 2 } else { upper })
    }

    /// How many times the median of `other` goes into this one's.
    pub(crate) fn ratio(&self, other: &Self) -> Option<f64> {
        Some(self.median()?.as_secs_f64() / other.median()?.as_secs_f64())
    }
}

impl FromIterator<Duration> for Sample {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        Self(durations.into_iter().collect())
    }
}

/// `min / median / max` in milliseconds.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.quantile(0), self.median(), self.quantile(100)) {
            (Some(min), Some(median), Some(max)) => {
                write!(f, "{} / **{}** / {}", millis(min), millis(median), millis(max))
            }
            _ => f.write_str("–"),
        }
    }
}

/// Milliseconds, with as many decimals as mean something.
pub(crate) fn millis(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    if ms < 1.0 {
        format!("{ms:.3}")
    } else if ms < 100.0 {
        format!("{ms:.1}")
    } else {
        format!("{ms:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ms: &[u64]) -> Sample {
        ms.iter().copied().map(Duration::from_millis).collect()
    }

    #[test]
    fn middle_and_ends() {
        assert_eq!(sample(&[]).median(), None);
        assert_eq!(sample(&[5, 1, 3]).median(), Some(Duration::from_millis(3)));
        assert_eq!(sample(&[4, 1, 2, 9]).median(), Some(Duration::from_millis(3)));
        assert_eq!(sample(&[4, 1, 2, 9]).quantile(100), Some(Duration::from_millis(9)));
        assert_eq!(sample(&[4, 1, 2, 9]).quantile(0), Some(Duration::from_millis(1)));
        assert_eq!(sample(&[1200, 20, 30]).to_string(), "20.0 / **30.0** / 1200");
        assert_eq!(sample(&[60]).ratio(&sample(&[30])), Some(2.0));
    }
}
