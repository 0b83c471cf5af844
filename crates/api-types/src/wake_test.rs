//! What a frame would do.

use core::fmt;

use dormouse_types::{MacAddr, MachineName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks what would become of a frame if the machine slept and it came now. Nothing is sent, and nothing
/// wakes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WakeTestRequest {
    /// The frame, as `tcp 10.0.0.9:5555 > :22`, `udp [fd77::1]:5353 > :53`, `icmp 10.0.0.9`,
    /// `arp who-has 10.0.0.2 tell 10.0.0.9`, `magic` or `hex 5254...`.
    #[schema(example = "tcp 10.0.0.9:5555 > :22")]
    pub frame: String,
    /// The interface that it comes to; needed where the machine has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "52:54:00:00:00:02")]
    pub interface: Option<MacAddr>,
}

/// What would become of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WakeTest {
    /// The machine.
    #[schema(value_type = String, example = "web")]
    pub machine: MachineName,
    /// The interface that it comes to.
    #[schema(value_type = String, example = "52:54:00:00:00:02")]
    pub interface: MacAddr,
    /// The frame in one line.
    pub frame: String,
    /// What would become of it.
    pub verdict: WakeVerdict,
    /// By whom or why: the responder or service that answers, the rule that wakes or ignores, the program
    /// that is asked, the reason why it is held.
    pub by: String,
}

/// What would become of a frame, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WakeVerdict {
    /// It wakes the machine, which gets it.
    Wakes,
    /// It is answered without the machine.
    Answered,
    /// It is held for the machine and does not wake it.
    Held,
    /// It is dropped.
    Ignored,
    /// A program decides.
    Asked,
    /// A verdict that a newer daemon knows and this client does not.
    #[serde(other)]
    Unknown,
}

impl WakeVerdict {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wakes => "wakes",
            Self::Answered => "answered",
            Self::Held => "held",
            Self::Ignored => "ignored",
            Self::Asked => "asked",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for WakeVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
