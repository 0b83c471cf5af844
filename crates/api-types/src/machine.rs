//! Machines, as they are listed, shown and created.

use core::fmt;
use std::{collections::BTreeMap, path::PathBuf};

use dormouse_types::{Depth, MachineName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Time;

/// Asks for a new machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateMachine {
    /// The machine file, as the user wrote it (TOML).
    pub toml: String,
    /// The absolute path of the folder that relative paths in the file start from.
    #[schema(value_type = String, example = "/srv/machines/web")]
    pub base: PathBuf,
}

/// Where a machine is in its life, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// Does not run, and nobody stands in for it.
    Stopped,
    /// Its guest runs.
    Active,
    /// On its way to sleep.
    Settling,
    /// Its sleep is being undone.
    Undoing,
    /// Asleep; the surrogate stands in for it.
    Asleep,
    /// On its way to run.
    Waking,
    /// Being shut down.
    Stopping,
    /// Others made its processors stand still; it is left alone.
    Suspended,
    /// Something failed that Dormouse cannot put right by itself.
    Failed,
    /// A state that a newer daemon knows and this client does not.
    #[serde(other)]
    Unknown,
}

impl MachineState {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Active => "active",
            Self::Settling => "settling",
            Self::Undoing => "undoing",
            Self::Asleep => "asleep",
            Self::Waking => "waking",
            Self::Stopping => "stopping",
            Self::Suspended => "suspended",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for MachineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The schema of [`Depth`], whose own crate knows nothing of `OpenAPI`.
#[derive(ToSchema)]
#[schema(as = Depth, rename_all = "lowercase")]
pub enum DepthWord {
    /// See [`Depth::Paused`].
    Paused,
    /// See [`Depth::Pmsuspended`].
    Pmsuspended,
    /// See [`Depth::Saved`].
    Saved,
    /// See [`Depth::Off`].
    Off,
}

/// A machine in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineSummary {
    /// Its name.
    #[schema(value_type = String, example = "web")]
    pub name: MachineName,
    /// Where it is in its life.
    pub state: MachineState,
    /// How deep it sleeps, or is to sleep, or wakes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DepthWord>)]
    pub depth: Option<Depth>,
    /// When it entered this state.
    pub since: Time,
    /// What runs it: `qemu`, `libvirt`; absent if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// The memory that its guest sees.
    pub memory_bytes: u64,
    /// The memory of the host that it occupies now; absent if nobody knows, as of one on another host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// Host memory of the process that stands by for its wake, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby_bytes: Option<u64>,
    /// Why nobody answers for it, though it sleeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// How long it has been idle; absent while it does not run or is busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_for_ms: Option<u64>,
    /// How many holds keep it awake.
    pub holds: u64,
    /// Its IP addresses, from its file or learned.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<std::net::IpAddr>,
}

/// A hold: while there is one, the machine does not go to sleep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hold {
    /// Names it to `release`.
    pub id: u64,
    /// Why it was placed.
    pub reason: String,
    /// When it was placed.
    pub since: Time,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// A network interface of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Interface {
    /// Its Ethernet address.
    #[schema(value_type = String, example = "52:54:00:00:00:02")]
    pub mac: dormouse_types::MacAddr,
    /// The bridge it is in.
    pub bridge: String,
    /// The tap's name on the host, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// Its IP addresses, from the machine file or learned.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<std::net::IpAddr>,
}

/// What the machine's platform can do for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Abilities {
    /// The depths of sleep it can reach.
    #[schema(value_type = Vec<DepthWord>)]
    pub depths: Vec<Depth>,
    /// Why not the others.
    pub obstacles: Vec<String>,
    /// Sleep and wake take the same time whatever the size of the memory.
    pub lazy_memory: bool,
}

/// What failed, in state `failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// What was being done.
    pub during: String,
    /// The chain of causes, outermost first.
    pub why: String,
    /// A saved state is there and unused: `wake` may be tried again. Else only a cold start helps.
    pub state_kept: bool,
}

/// All that is known of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineDetail {
    /// What lists show.
    #[serde(flatten)]
    pub summary: MachineSummary,
    /// Why it failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Since when its platform cannot be asked, and why, while that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The machine file, as the user wrote it (TOML).
    pub toml: String,
    /// The folder that relative paths in the file start from.
    #[schema(value_type = String)]
    pub base: PathBuf,
    /// Its process on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Space on the host's disk of its memory file and saved state.
    pub disk_bytes: u64,
    /// The log of its serial console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub console: Option<PathBuf>,
    /// Its network interfaces.
    pub interfaces: Vec<Interface>,
    /// The holds that keep it awake. (In the summary: how many.)
    pub hold_list: Vec<Hold>,
    /// What its platform can do for it.
    pub abilities: Abilities,
}
