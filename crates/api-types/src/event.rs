//! What happens, as it happens.

use core::fmt;
use std::collections::BTreeMap;

use dormouse_types::MachineName;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{MachineState, Time};

/// Query of the events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// After the kept events, go on with new ones as they happen.
    pub follow: bool,
    /// Only those of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub machine: Option<MachineName>,
    /// Only those after this one: a client that lost its connection misses nothing that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows by one with each event since the daemon started.
    pub seq: u64,
    /// When.
    pub at: Time,
    /// The machine; absent when it is about the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub machine: Option<MachineName>,
    /// What.
    pub kind: EventKind,
    /// The state that was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<MachineState>,
    /// The state that was entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<MachineState>,
    /// Why, in one line; the chain of causes of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What was measured; each name carries its unit, as `took_ms`, `resident_bytes`, `replayed_frames`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A machine was created.
    Created,
    /// A machine was removed.
    Removed,
    /// A machine went from one state to another.
    State,
    /// A hold was placed.
    Hold,
    /// A hold was released or ended.
    Release,
    /// A step failed and Dormouse went on; `cause` has the chain.
    Warning,
    /// A sleeper for which nobody had answered is answered for again.
    Presence,
    /// The daemon found the machine again after a restart.
    Adopted,
    /// The reader was too slow; `figures` say how many events it `missed`.
    Lagged,
    /// A kind that a newer daemon knows and this client does not.
    #[serde(other)]
    Unknown,
}

impl EventKind {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Removed => "removed",
            Self::State => "state",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Warning => "warning",
            Self::Presence => "presence",
            Self::Adopted => "adopted",
            Self::Lagged => "lagged",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
