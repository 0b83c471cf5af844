//! Taking over machines that others have defined.

use core::fmt;

use dormouse_types::{Depth, MachineName};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{DepthWord, Problem};

/// Query of what can be imported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// libvirt's connection; the daemon's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

/// Make domains machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImportRequest {
    /// libvirt's connection; the daemon's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Domains, by name or UUID.
    pub names: Vec<String>,
    /// All domains that are not machines already; then no names are given.
    pub all: bool,
    /// The machine's name, where it is not to be the domain's; with one domain only.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Keys of the machine file, each as `sleep.idle_after="30m"` with the value in TOML.
    pub set: Vec<String>,
    /// Only say what would come of it.
    pub dry_run: bool,
}

/// What came of an import, or what can be imported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportReport {
    /// What is good to know of that libvirt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// One for each domain, in the order asked for, or by name.
    pub domains: Vec<ImportedDomain>,
}

/// What came of one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportedDomain {
    /// Its name.
    pub domain: String,
    /// Its UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// What it does: `running`, `suspended`, `saved`, `off`; absent if it cannot be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// What came of it.
    pub status: ImportStatus,
    /// The machine that it is, or would be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub machine: Option<MachineName>,
    /// The machine file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toml: Option<String>,
    /// What stands in the way of its sleep, and what its user should know of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obstacles: Vec<SleepObstacle>,
    /// What is to come of the machine now, in a line: when it sleeps, and what wakes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Why it is not imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// What came of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImportStatus {
    /// It is a machine now.
    Imported,
    /// It can be imported.
    Importable,
    /// It was a machine before.
    Known,
    /// It cannot be imported as it is.
    Refused,
    /// A word that a newer daemon knows and this client does not.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for ImportStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Imported => "imported",
            Self::Importable => "importable",
            Self::Known => "known",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        })
    }
}

/// One thing that stands in the way of a machine's sleep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SleepObstacle {
    /// The depths that it bars; none if it is only a word of warning.
    #[schema(value_type = Vec<DepthWord>)]
    pub depths: Vec<Depth>,
    /// The thing.
    pub what: String,
    /// Why it is in the way.
    pub reason: String,
    /// What the user can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}
