//! Where a machine is in its life, and why.

use std::fmt;

use dormouse_types::Depth;
use serde::{Deserialize, Serialize};

/// Where a machine is in its life. This is what is journalled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Known, not running, and nobody stands in for it: it wakes only by a command.
    Stopped,
    /// Its guest runs.
    Active,
    /// On its way to sleep; all that comes for it is held.
    Settling {
        /// How deep it is to sleep.
        depth: Depth,
        /// Why it is put to sleep.
        reason: SleepReason,
    },
    /// A sleep is being undone.
    Undoing {
        /// What undid it.
        cause: Cause,
    },
    /// Asleep; the surrogate stands in for it.
    Asleep {
        /// How deep.
        depth: Depth,
    },
    /// On its way to run.
    Waking {
        /// What it wakes from; `None` for a boot from [`State::Stopped`].
        from: Option<Depth>,
        /// The saved state may have been used: it must never be used again.
        state_used: bool,
        /// What woke it.
        cause: Cause,
    },
    /// Being shut down at a user's wish.
    Stopping,
    /// Others than Dormouse made its processors stand still. It is left alone, and nobody stands in
    /// for it, until they run again.
    Suspended {
        /// Who or what did it.
        by: String,
    },
    /// Something failed that Dormouse cannot put right by itself; nothing is deleted.
    Failed {
        /// What was being done.
        during: String,
        /// The chain of causes, outermost first.
        why: String,
        /// A saved state was committed and never used, so that a wake may be tried again.
        state_kept: bool,
    },
}

impl State {
    /// The state in a word, as the command line shows it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Active => "active",
            Self::Settling { .. } => "settling",
            Self::Undoing { .. } => "undoing",
            Self::Asleep { .. } => "asleep",
            Self::Waking { .. } => "waking",
            Self::Stopping => "stopping",
            Self::Suspended { .. } => "suspended",
            Self::Failed { .. } => "failed",
        }
    }

    /// On disk, says this state that a saved state may be resumed from?
    pub(crate) const fn offers_saved_state(&self) -> bool {
        matches!(
            self,
            Self::Asleep { depth: Depth::Saved }
                | Self::Waking { from: Some(Depth::Saved), state_used: false, .. }
                | Self::Failed { state_kept: true, .. }
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Why a machine is put to sleep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SleepReason {
    /// It was idle for as long as its file says.
    Idle,
    /// The program that its file names says so; its name, and why.
    Policy(String),
    /// A user asked.
    Command,
    /// It has slept at this depth for as long as its file says, and is to sleep deeper.
    Deeper(Depth),
    /// Awake machines have used up what they may have together; for whom or what room is made.
    Budget(String),
}

impl SleepReason {
    /// The reason in a word, by which sleeps are counted.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Policy(_) => "policy",
            Self::Command => "command",
            Self::Budget(_) => "budget",
            Self::Deeper(_) => "deeper",
        }
    }
}

/// What wants a machine to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by", content = "detail")]
pub enum Cause {
    /// A user asked.
    Command,
    /// A hold was placed; its reason.
    Hold(String),
    /// A frame that its wake rules name; the frame in one line.
    Packet(String),
    /// A step of its sleep failed; the chain of causes.
    Failure(String),
    /// The daemon found it half-way after a restart.
    Restart,
    /// Nobody yet: it is to be awake before somebody wants it; by what rule.
    Ahead(String),
    /// Others than Dormouse, by the platform's own means; who did what.
    Others(String),
    /// Nobody: it is woken to be shut down, for it has slept for as long as its file says.
    Deeper,
}

impl Cause {
    /// The cause in a word, by which wakes are counted.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Hold(_) => "hold",
            Self::Packet(_) => "packet",
            Self::Failure(_) => "failure",
            Self::Restart => "restart",
            Self::Ahead(_) => "ahead",
            Self::Others(_) => "others",
            Self::Deeper => "deeper",
        }
    }
}
