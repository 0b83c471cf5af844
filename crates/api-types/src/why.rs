//! Why a machine is awake, what woke it, and what would wake it.

use std::collections::BTreeMap;

use dormouse_types::{Depth, MachineName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{DepthWord, Failure, Hold, MachineState, Time};

/// The answer to "why?".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The machine.
    #[schema(value_type = String, example = "web")]
    pub machine: MachineName,
    /// Where it is in its life.
    pub state: MachineState,
    /// How deep it sleeps, or is to sleep, or wakes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DepthWord>)]
    pub depth: Option<Depth>,
    /// When it entered this state.
    pub since: Time,
    /// One line: why it is in this state, as "idle for 10m" or "tcp 10.9.0.1:40000 > 10.9.0.2:80 SYN".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What idleness is judged by; empty while the guest does not run.
    pub signals: Vec<Signal>,
    /// The holds that keep it awake.
    pub holds: Vec<Hold>,
    /// What else keeps it awake whatever its use, as its schedule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keeps: Vec<Keep>,
    /// What keeps it from sleeping by itself, besides signals and holds; or, while it sleeps, from being
    /// answered for. In words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obstacles: Vec<String>,
    /// The budgets of awake memory that bound it, if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<AwakeBudget>,
    /// When it would be put to sleep so that others can be awake; absent if it would not, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub makes_room: Option<MakesRoom>,
    /// What its wake would cost the others; absent if there is room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_room: Option<NeedsRoom>,
    /// When it would go to sleep if nothing happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_sleep_at: Option<Time>,
    /// The depth it would go to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DepthWord>)]
    pub would_sleep_depth: Option<Depth>,
    /// What its policy plans, and why, if it does more than to wait for a fixed time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// When it would be woken ahead of need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would_wake_at: Option<Time>,
    /// What last woke it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_wake: Option<LastWake>,
    /// The rules of its file that would wake it, as `tcp:22,80`; none if frames cannot, as in state `stopped`.
    pub would_wake: Vec<String>,
    /// Questions that were answered for it in this sleep, or the last one, by kind, as `arp`.
    pub answered: BTreeMap<String, u64>,
    /// Frames that did not wake it in this sleep, or the last one, though they might have: from scanners, by
    /// its ignore list, below a rule's rate. By reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<Ignored>,
    /// TCP services that are spoken for it while it sleeps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// Frames that are held for it now.
    pub held: Held,
    /// Frames that were not delivered to it, by reason, as `frame-limit`.
    pub dropped: BTreeMap<String, u64>,
}

/// A budget of the memory that machines may have awake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AwakeBudget {
    /// Whose machines it bounds; absent: all of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What they may have, in bytes.
    pub bytes: u64,
    /// What those have that are awake.
    pub awake_bytes: u64,
    /// Does a machine sleep on for which there is no room?
    pub strict: bool,
}

/// How a machine that is awake and idle makes room for others in the budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MakesRoom {
    /// How deep it would sleep.
    #[schema(value_type = DepthWord)]
    pub depth: Depth,
    /// From when on it may be put to sleep; absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Time>,
    /// How many have been idle longer, and go before it.
    pub after: u64,
}

/// What is to be done in the budgets so that a sleeper can be awake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NeedsRoom {
    /// Those that would be put to sleep.
    #[schema(value_type = Vec<String>)]
    pub sleep: Vec<MachineName>,
    /// Bytes that would be lacking all the same: it would sleep on in a strict budget, and exceed another one.
    pub lacking_bytes: u64,
}

/// A signal that idleness is judged by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Signal {
    /// As `cpu`, `network`, `disk`, `connections tcp:22`, `users`, `load`.
    pub name: String,
    /// What was measured, for a rate over the last window; absent if nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// At and above this the machine is busy; absent if it is only told, and keeps nobody awake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// Unit of both, as `%`, `B/s` or `open`; may be empty.
    pub unit: String,
    /// Does it keep the machine awake?
    pub busy: bool,
    /// Since when it is busy; if it is not, when the use that it shows was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When it becomes quiet if nothing happens, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// More of it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What keeps a machine awake whatever its use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keep {
    /// As `schedule`, `inhibitor`, `min-awake`, `policy`.
    pub kind: String,
    /// In words.
    pub why: String,
    /// When it ends by itself, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// What woke a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastWake {
    /// As `packet`, `command`, `hold`, `failure`, `restart`.
    pub cause: String,
    /// The frame in one line, when a frame did; else what is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
    /// When.
    pub at: Time,
    /// From the cause until the guest ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
}

/// Frames that did not wake a machine, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ignored {
    /// As `scanner`, `ignore tcp:5666`, `tcp:22 rate 3/10s`.
    pub reason: String,
    /// How many.
    pub frames: u64,
    /// The last one, in one line.
    pub last: String,
    /// When that came.
    pub at: Time,
}

/// A TCP service that is spoken for a sleeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its port.
    pub port: u16,
    /// As `waking-page`, `echo`, `banner`, `connect`.
    pub answer: String,
    /// Does a use of it wake the machine?
    pub wakes: bool,
}

/// Frames that wait for a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Held {
    /// How many.
    pub frames: u64,
    /// Their size.
    pub bytes: u64,
}
