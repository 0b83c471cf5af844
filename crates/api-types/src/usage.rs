//! What machines used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::Time;

/// Asks what was used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// From when on, rounded down to the hour (for what is older than metering.hourly, its day); all that is
    /// known when absent.
    #[param(value_type = Option<String>, format = DateTime)]
    pub since: Option<Time>,
    /// Until when, rounded as `since`; now when absent.
    #[param(value_type = Option<String>, format = DateTime)]
    pub until: Option<Time>,
    /// What to sum by, with commas between: machine (when absent), owner, label:KEY, day, hour.
    pub by: Option<String>,
    /// Only these machines, with commas between, also such that are no more; all when absent.
    pub machine: Option<String>,
}

/// What was used in a span of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageReport {
    /// The beginning, in the host's zone with its offset.
    pub since: String,
    /// The end.
    pub until: String,
    /// What it is summed by.
    pub by: Vec<String>,
    /// The sums.
    pub lines: Vec<UsageLine>,
    /// The sum of all.
    pub total: Usage,
    /// What energy was estimated by.
    pub energy: EnergyModel,
}

/// What was used by those who have the same values of all keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageLine {
    /// Key and value; a value is empty where a machine has no owner, or not that label.
    pub group: BTreeMap<String, String>,
    /// What was used.
    #[serde(flatten)]
    pub usage: Usage,
}

/// What was used. The seconds of all states add up to `total_seconds`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// All seconds that were counted.
    pub total_seconds: f64,
    /// The guest ran.
    pub awake_seconds: f64,
    /// On its way to run.
    pub waking_seconds: f64,
    /// Asleep, at any depth: the sum of the next four.
    pub asleep_seconds: f64,
    /// Asleep at depth paused.
    pub paused_seconds: f64,
    /// Asleep at depth pmsuspended.
    pub pmsuspended_seconds: f64,
    /// Asleep at depth saved.
    pub saved_seconds: f64,
    /// Asleep at depth off.
    pub off_seconds: f64,
    /// Others made its processors stand still.
    pub suspended_seconds: f64,
    /// Did not run.
    pub stopped_seconds: f64,
    /// Failed.
    pub failed_seconds: f64,
    /// Nobody knows: the daemon was down, and the machine was found changed.
    pub unknown_seconds: f64,
    /// Time of virtual processors.
    pub vcpu_seconds: f64,
    /// Memory that the guest sees, while it was awake, asleep or suspended.
    pub memory_configured_gib_hours: f64,
    /// Of it, while it was awake.
    pub memory_awake_gib_hours: f64,
    /// Memory of the host that it occupied.
    pub memory_occupied_gib_hours: f64,
    /// Memory of the host that its sleep gave back.
    pub memory_saved_gib_hours: f64,
    /// Energy, estimated; watt-hours.
    pub energy_used_wh: f64,
    /// Energy that its sleep saved, estimated; watt-hours.
    pub energy_saved_wh: f64,
    /// Wakes by cause.
    pub wakes: BTreeMap<String, u64>,
    /// Sleeps by reason.
    pub sleeps: BTreeMap<String, u64>,
    /// Boots of the stopped machine.
    pub starts: u64,
}

/// What energy is estimated by; see docs/usage.md.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EnergyModel {
    /// Watts of a GiB of memory.
    pub memory_watts: f64,
    /// Watts of the idle host for each of its processors.
    pub idle_watts: f64,
    /// Watts that a busy processor draws more.
    pub busy_watts: f64,
    /// Processors of the host.
    pub cpus: u32,
    /// Memory of the host.
    pub memory_bytes: u64,
}
