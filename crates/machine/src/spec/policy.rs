//! `sleep.policy`: by which policy a machine goes to sleep by itself, and is awake ahead of need.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SleepSpec;
use super::file::{duration, parsed, program_name, text};
use super::read::{Section, Value};
use crate::policy::{Kind, Settings};

/// A policy, and what its parameters are if not the usual.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicySpec {
    /// Which; `None`: the daemon's configuration says.
    pub kind: Option<Kind>,
    /// A program of the daemon's configuration, by its name there; where it says nothing, a fixed time.
    pub external: Option<String>,
    /// See [`Settings::idle_most`].
    pub idle_most: Option<Duration>,
    /// See [`Settings::wake_cost`].
    pub wake_cost: Option<Duration>,
    /// See [`Settings::lead`].
    pub lead: Option<Duration>,
    /// See [`Settings::idle_least`].
    pub idle_least: Option<Duration>,
}

impl SleepSpec {
    /// The policy's settings, where `usual` is the policy of machines that name none.
    #[must_use]
    pub fn settings(&self, usual: Kind) -> Settings {
        let given = &self.policy;
        let base = Settings::default();
        Settings {
            kind: if given.external.is_some() { Kind::Fixed } else { given.kind.unwrap_or(usual) },
            idle_after: self.idle_after,
            idle_most: given.idle_most.unwrap_or(base.idle_most),
            wake_cost: given.wake_cost.unwrap_or(base.wake_cost),
            lead: given.lead.unwrap_or(base.lead),
            idle_least: given.idle_least.unwrap_or(base.idle_least),
        }
    }
}

fn named(value: &Value<'_>) -> Result<PolicySpec, String> {
    let name = text(value, "it in quotes")?;
    if let Some(program) = name.strip_prefix("external:") {
        return Ok(PolicySpec { external: Some(program_name(program, "policy")?), ..PolicySpec::default() });
    }
    let kind = name.parse().map_err(|why: String| format!("{why}, or \"external:NAME\""))?;
    Ok(PolicySpec { kind: Some(kind), ..PolicySpec::default() })
}

/// Reads `policy = "predictive"`, or a table with parameters.
pub(super) fn read(sleep: &Section<'_, '_>) -> PolicySpec {
    if !sleep.has_table("policy") {
        return sleep.optional("policy", named).unwrap_or_default();
    }
    let Some(section) = sleep.section("policy") else { return PolicySpec::default() };
    let kind: Option<Kind> = section.required("name", "\"predictive\"", parsed);
    let spec = PolicySpec {
        kind,
        external: None,
        idle_most: section.optional("idle_most", duration),
        wake_cost: section.optional("wake_cost", duration),
        lead: section.optional("lead", duration),
        idle_least: section.optional("idle_least", duration),
    };
    if let Some(kind) = kind {
        for key in Settings::KEYS.into_iter().filter(|key| !kind.keys().contains(key)) {
            // `idle_after` stands in [sleep], and is no key of this table.
            if section.has(key) && key != "idle_after" {
                section.wrong(key, format!("is of no use to the policy {kind}; remove it"));
            }
        }
    }
    section.close();
    spec
}
