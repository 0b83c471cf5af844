//! How long a machine's idle times were: a histogram, and from it how likely one that has lasted for
//! so long ends next.
//!
//! M. Shahrad et al., "Serverless in the Wild", USENIX ATC 2020, section 4, keeps such a histogram for
//! each function, keeps it warm between a low and a high percentile, and leaves the histogram where
//! it does not represent the function. Here each bin by itself is judged by its hazard: the share of
//! the idle times which came as far as the bin and ended in it. Where few came so far, the hazard is
//! drawn to that of all machines of that age, which is what takes the place of the fallback.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The width of a bin.
pub(super) const BIN: Duration = Duration::from_secs(300);

/// The last bin holds all that lasted longer: five hours and a quarter.
pub(super) const BINS: usize = 64;

/// As many idle times as a machine's own count against what is known of all machines.
const PRIOR: f32 = 3.0;

/// The share of bins in which the idle times of all machines end.
const PRIOR_RATE: f32 = 0.12;

/// When so many idle times are counted, all counts are halved: what was last counts most.
const MOST: f32 = 512.0;

/// Idle times by their length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f32>", into = "Vec<f32>")]
pub(super) struct Ages {
    ended: [f32; BINS],
    /// Of those counted, how many came as far as each bin.
    reached: [f32; BINS],
    /// Bins that all those counted spent idle.
    bins: f32,
}

impl Default for Ages {
    fn default() -> Self {
        Self::of([0.0; BINS])
    }
}

impl Ages {
    fn of(ended: [f32; BINS]) -> Self {
        let mut reached = [0.0; BINS];
        let mut sum = 0.0;
        for (reached, ended) in reached.iter_mut().zip(ended).rev() {
            sum += ended;
            *reached = sum;
        }
        // One that ended in bin n spent n whole bins idle.
        let bins = reached.iter().skip(1).sum();
        Self { ended, reached, bins }
    }

    /// The hazard that the machine's own idle times show beyond chance: the lower end of Wilson's
    /// interval of 95 % (E. B. Wilson, J. Am. Stat. Assoc. 22, 1927).
    pub(super) fn at_least(&self, age: usize) -> f32 {
        const Z: f32 = 1.96;
        let age = age.min(BINS - 1);
        let (Some(ended), Some(reached)) = (self.ended.get(age), self.reached.get(age)) else { return 0.0 };
        if *reached < 1.0 || age == BINS - 1 {
            return 0.0;
        }
        let (n, p) = (*reached, ended / reached);
        let middle = p + Z * Z / (2.0 * n);
        let spread = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).max(0.0).sqrt();
        ((middle - spread) / (1.0 + Z * Z / n)).clamp(0.0, 1.0)
    }

    /// An idle time of so many whole bins ended.
    pub(super) fn add(&mut self, age: usize) {
        let mut ended = self.ended;
        if let Some(count) = ended.get_mut(age.min(BINS - 1)) {
            *count += 1.0;
        }
        if self.count() >= MOST {
            ended = ended.map(|count| count / 2.0);
        }
        *self = Self::of(ended);
    }

    /// How many idle times are counted, those long ago for less.
    pub(super) const fn count(&self) -> f32 {
        self.reached[0]
    }

    /// How likely an idle time that came as far as the bin ends in it: of this machine's own, those of
    /// about its age.
    pub(super) fn hazard(&self, age: usize) -> f32 {
        let age_or_last = age.min(BINS - 1);
        let around = age_or_last / 4;
        let least = usize::from(age_or_last > 0);
        let near = (age_or_last - around).max(least)..=(age_or_last + around).min(BINS - 1);
        let ended: f32 = near.clone().filter_map(|bin| self.ended.get(bin)).sum();
        let reached: f32 = near.filter_map(|bin| self.reached.get(bin)).sum();
        (ended + PRIOR * prior(age)) / (reached + PRIOR)
    }

    /// The share of bins, whatever the age, in which this machine's idle times end, the present one
    /// having lasted for `age` bins.
    pub(super) fn rate(&self, age: usize) -> f32 {
        let now = count(age.saturating_sub(1));
        let longer: f32 = self.count() - self.ended[0];
        (longer + PRIOR * PRIOR_RATE) / (self.bins + now + PRIOR)
    }
}

/// The hazard by age of all machines, fitted to the machines of one day.
fn prior(age: usize) -> f32 {
    if age == 0 { 0.1 } else { (0.27 * count(age).powf(-0.6)).min(0.3) }
}

#[expect(clippy::cast_precision_loss, reason = "ages in bins are far below 2^24")]
pub(super) const fn count(bins: usize) -> f32 {
    bins as f32
}

impl TryFrom<Vec<f32>> for Ages {
    type Error = String;

    /// Trailing empty bins may be left out.
    fn try_from(counts: Vec<f32>) -> Result<Self, String> {
        let is_sane = |count: &f32| (0.0..=MOST).contains(count);
        if counts.len() > BINS || !counts.iter().all(is_sane) {
            return Err(format!("a histogram has up to {BINS} counts from 0 to {MOST}"));
        }
        let mut ended = [0.0; BINS];
        for (bin, count) in ended.iter_mut().zip(counts) {
            *bin = count;
        }
        Ok(Self::of(ended))
    }
}

impl From<Ages> for Vec<f32> {
    fn from(ages: Ages) -> Self {
        let used = ages.ended.iter().rposition(|count| *count > 0.0).map_or(0, |last| last + 1);
        ages.ended.into_iter().take(used).collect()
    }
}
