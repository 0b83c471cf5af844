//! How deeply a machine sleeps.

use core::fmt;
use serde::{Deserialize, Serialize};

/// How deeply a machine sleeps; deeper frees more and wakes more slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Its processors stand still; its memory and its process stay.
    Paused,
    /// Its own operating system suspended it to memory (ACPI S3); its memory and its process stay.
    Pmsuspended,
    /// Its state is on disk; its process is gone and its memory is free.
    Saved,
    /// It was shut down by its own operating system and boots afresh.
    Off,
}

impl Depth {
    /// Every depth, shallowest first.
    pub const ALL: [Self; 4] = [Self::Paused, Self::Pmsuspended, Self::Saved, Self::Off];

    /// Do its process and its memory stay while it sleeps so?
    #[must_use]
    pub const fn keeps_process(self) -> bool {
        matches!(self, Self::Paused | Self::Pmsuspended)
    }

    /// The word that machine files and the command line use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Pmsuspended => "pmsuspended",
            Self::Saved => "saved",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
