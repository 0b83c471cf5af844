//! What a machine can be told to do, and what came of it.

use dormouse_types::{Depth, MachineName};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{DepthWord, MachineState};

/// Query of every command: is the answer to wait?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// Answer when the machine has settled (200), or at once (202).
    #[serde(default = "yes")]
    #[param(default = true)]
    pub wait: bool,
}

impl Default for Wait {
    fn default() -> Self {
        Self { wait: true }
    }
}

const fn yes() -> bool {
    true
}

/// Run a machine: boot it when stopped, wake it when asleep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StartRequest {
    /// Give up a saved state and boot afresh.
    pub cold: bool,
}

/// Shut a machine down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StopRequest {
    /// Do not ask the guest.
    pub force: bool,
    /// How long the guest may take; the daemon's `stop_timeout` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// Put a machine to sleep now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SleepRequest {
    /// How deep; as the machine file says when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DepthWord>)]
    pub depth: Option<Depth>,
}

/// Wake a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WakeRequest {}

/// Keep a machine awake; one that sleeps is woken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HoldRequest {
    /// Why, for whoever asks later.
    pub reason: String,
    /// For how long; until released when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
}

/// Keep a machine awake for as long as the answer is read: it is one [`Outcome`] in a line, and then
/// lasts until whoever asked closes the connection, or is killed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HoldWhileRequest {
    /// Why, for whoever asks later.
    pub reason: String,
}

/// Let a machine sleep again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReleaseRequest {
    /// Which hold; all of them when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<u64>,
}

/// Query of a removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Remove {
    /// End it if it runs, and give up its saved state if it sleeps. Disk images stay in any case.
    pub force: bool,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outcome {
    /// The machine.
    #[schema(value_type = String, example = "web")]
    pub machine: MachineName,
    /// Where it is now.
    pub state: MachineState,
    /// How deep it sleeps now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<DepthWord>)]
    pub depth: Option<Depth>,
    /// From the command to the answer.
    pub took_ms: u64,
    /// The hold that was placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<u64>,
    /// One line for people, as "was active already"; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}
