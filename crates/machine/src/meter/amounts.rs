//! What is added up.

use std::{collections::BTreeMap, time::Duration};

use dormouse_types::Depth;
use serde::{Deserialize, Serialize};

use crate::lifecycle::{SleepReason, State};

/// What a machine's time is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Its guest runs; also on its way to sleep or to its end, and while a sleep is undone.
    Awake,
    /// On its way to run.
    Waking,
    /// Asleep at depth `paused`.
    Paused,
    /// Asleep at depth `pmsuspended`.
    Pmsuspended,
    /// Asleep at depth `saved`.
    Saved,
    /// Asleep at depth `off`.
    Off,
    /// Others made its processors stand still.
    Suspended,
    /// Does not run.
    Stopped,
    /// Failed, and left as it is.
    Failed,
    /// Nobody knows: the daemon was down, and the machine was found changed.
    #[serde(other)]
    Unknown,
}

impl Class {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 10] = [
        Self::Awake,
        Self::Waking,
        Self::Paused,
        Self::Pmsuspended,
        Self::Saved,
        Self::Off,
        Self::Suspended,
        Self::Stopped,
        Self::Failed,
        Self::Unknown,
    ];

    /// The word in tables and files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Awake => "awake",
            Self::Waking => "waking",
            Self::Paused => "paused",
            Self::Pmsuspended => "pmsuspended",
            Self::Saved => "saved",
            Self::Off => "off",
            Self::Suspended => "suspended",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// What time in `state` is counted as.
    #[must_use]
    pub const fn of(state: &State) -> Self {
        match state {
            State::Stopped => Self::Stopped,
            // On its way from one depth to another.
            State::Settling { depth: Depth::Saved, reason: SleepReason::Deeper(from) } => {
                Self::of_depth(*from)
            }
            State::Active | State::Settling { .. } | State::Undoing { .. } | State::Stopping => Self::Awake,
            State::Asleep { depth } => Self::of_depth(*depth),
            State::Waking { .. } => Self::Waking,
            State::Suspended { .. } => Self::Suspended,
            State::Failed { .. } => Self::Failed,
        }
    }

    const fn of_depth(depth: Depth) -> Self {
        match depth {
            Depth::Paused => Self::Paused,
            Depth::Pmsuspended => Self::Pmsuspended,
            Depth::Saved => Self::Saved,
            Depth::Off => Self::Off,
        }
    }

    /// Asleep, at any depth?
    #[must_use]
    pub const fn is_asleep(self) -> bool {
        matches!(self, Self::Paused | Self::Pmsuspended | Self::Saved | Self::Off)
    }

    /// Does the guest run, or is it about to?
    #[must_use]
    pub const fn is_awake(self) -> bool {
        matches!(self, Self::Awake | Self::Waking)
    }

    /// Is there no process whose counters could go on?
    pub(super) const fn is_without_process(self) -> bool {
        matches!(self, Self::Saved | Self::Off | Self::Stopped | Self::Failed)
    }

    /// Is the machine in use as such, so that its memory is spoken for?
    pub(super) const fn is_allotted(self) -> bool {
        !matches!(self, Self::Stopped | Self::Failed | Self::Unknown)
    }
}

/// What was used over some time. Merging adds; nothing is rounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Amounts {
    /// Nanoseconds by class.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub spans: BTreeMap<Class, u64>,
    /// Time of virtual processors, nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub cpu: u64,
    /// Memory that the guest sees, while the machine was awake, asleep or suspended; byte-nanoseconds.
    #[serde(skip_serializing_if = "is_nothing")]
    pub configured: u128,
    /// Of it, while the machine was awake or waking.
    #[serde(skip_serializing_if = "is_nothing")]
    pub configured_awake: u128,
    /// Memory of the host that was occupied; byte-nanoseconds.
    #[serde(skip_serializing_if = "is_nothing")]
    pub occupied: u128,
    /// Memory of the host that sleep gave back: what was occupied before it, less what was while it
    /// lasted; byte-nanoseconds.
    #[serde(skip_serializing_if = "is_nothing")]
    pub saved: u128,
    /// Wakes by the word of their cause.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub wakes: BTreeMap<String, u64>,
    /// Sleeps by the word of their reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sleeps: BTreeMap<String, u64>,
    /// Boots from `stopped`.
    #[serde(skip_serializing_if = "is_zero")]
    pub starts: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

const fn is_nothing(amount: &u128) -> bool {
    *amount == 0
}

impl Amounts {
    /// Nothing.
    pub(super) const fn new() -> Self {
        Self {
            spans: BTreeMap::new(),
            cpu: 0,
            configured: 0,
            configured_awake: 0,
            occupied: 0,
            saved: 0,
            wakes: BTreeMap::new(),
            sleeps: BTreeMap::new(),
            starts: 0,
        }
    }

    /// Adds `more`. Which is added to which first makes no difference.
    pub fn merge(&mut self, more: &Self) {
        add_all(&mut self.spans, &more.spans);
        add_all(&mut self.wakes, &more.wakes);
        add_all(&mut self.sleeps, &more.sleeps);
        self.cpu = self.cpu.saturating_add(more.cpu);
        self.starts = self.starts.saturating_add(more.starts);
        self.configured = self.configured.saturating_add(more.configured);
        self.configured_awake = self.configured_awake.saturating_add(more.configured_awake);
        self.occupied = self.occupied.saturating_add(more.occupied);
        self.saved = self.saved.saturating_add(more.saved);
    }

    /// The time spent in a class.
    #[must_use]
    pub fn span(&self, class: Class) -> Duration {
        Duration::from_nanos(self.spans.get(&class).copied().unwrap_or(0))
    }

    /// The time spent in all classes together.
    #[must_use]
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.spans.values().fold(0, |sum, span| sum.saturating_add(*span)))
    }

    /// Is there nothing at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn add_all<K: Ord + Clone>(to: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (key, count) in more {
        let sum = to.entry(key.clone()).or_default();
        *sum = sum.saturating_add(*count);
    }
}
