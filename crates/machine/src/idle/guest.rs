//! The signals that the guest itself gives, by a helper in it.

use std::time::Duration;

use dormouse_types::Timestamp;

use super::{Signal, rates::is_busy};
use crate::spec::KeepSpec;

/// For so long a guest's word counts, if it does not give another.
pub const STALE: Duration = Duration::from_secs(300);

/// A guest's word on its use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuestWord {
    /// When it was given.
    pub at: Timestamp,
    /// Who is logged in, as `alice (pts/0)`.
    pub users: Vec<String>,
    /// Processes that run or want to, averaged over a minute; `None`: it cannot tell.
    pub load: Option<f64>,
}

/// What one guest says.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    users: bool,
    load_below: Option<f64>,
    word: Option<GuestWord>,
    signals: Vec<Signal>,
}

impl Guest {
    pub(super) fn new(spec: &KeepSpec) -> Self {
        Self { users: spec.users, load_below: spec.load_below, word: None, signals: Vec::new() }
    }

    pub(super) fn reset(&mut self) {
        self.word = None;
        self.signals.clear();
    }

    pub(super) const fn is_asked(&self) -> bool {
        self.users || self.load_below.is_some()
    }

    pub(super) fn signals(&self) -> &[Signal] {
        &self.signals
    }

    /// Takes in what it says, if it says something. A guest that should say and does not is taken to be
    /// in use: who wrote the rule wants to be sure.
    pub(super) fn take(&mut self, word: Option<GuestWord>, now: Timestamp) {
        self.word = word.or_else(|| self.word.take().filter(|word| now.since(word.at) < STALE));
        let users = self.users.then(|| {
            let word = self.word.as_ref();
            let count = word.map(|word| f64::from(u32::try_from(word.users.len()).unwrap_or(u32::MAX)));
            let detail = word.map(|word| word.users.join(", ")).filter(|users| !users.is_empty());
            self.judged("users", "logged in", (count, 1.0), detail, now)
        });
        let load = self.load_below.map(|below| {
            let load = self.word.as_ref().and_then(|word| word.load).filter(|load| load.is_finite());
            self.judged("load", "", (load, below), None, now)
        });
        self.signals = users.into_iter().chain(load).collect();
    }

    fn judged(
        &self,
        name: &'static str,
        unit: &'static str,
        measured: (Option<f64>, f64),
        detail: Option<String>,
        now: Timestamp,
    ) -> Signal {
        let before = self.signals.iter().find(|signal| signal.name == name);
        let unknown = "the guest agent does not say, so it counts as busy";
        judged(before, (name, unit), measured, (detail, unknown), now)
    }
}

/// A signal with its threshold, as it follows on what it was before. Not known is busy: who wrote the rule wants
/// to be sure.
pub(super) fn judged(
    before: Option<&Signal>,
    (name, unit): (&'static str, &'static str),
    (value, threshold): (Option<f64>, f64),
    (detail, unknown): (Option<String>, &str),
    now: Timestamp,
) -> Signal {
    let was_busy = before.is_none_or(|signal| signal.busy);
    let busy = value.is_none_or(|value| is_busy(value, threshold, was_busy));
    let since = before.filter(|signal| signal.busy == busy).map_or(now, |signal| signal.since);
    let detail = detail.or_else(|| value.is_none().then(|| unknown.into()));
    Signal { value, threshold: Some(threshold), detail, ..Signal::new(name, unit, busy, since) }
}
