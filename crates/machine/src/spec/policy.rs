//! `sleep.policy`: by which policy a machine goes to sleep by itself, and is awake ahead of need.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SleepSpec;
use super::file::{parsed, program_name, text};
use super::read::{Section, Value};
use crate::policy::{Kind, Settings, parameter};

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
    /// The policy's settings, where `usual` is the policy of machines that name none, with the parameters of those
    /// that give none.
    #[must_use]
    pub fn settings(&self, usual: &Settings) -> Settings {
        let given = &self.policy;
        Settings {
            kind: if given.external.is_some() { Kind::Fixed } else { given.kind.unwrap_or(usual.kind) },
            idle_after: self.idle_after,
            idle_most: given.idle_most.unwrap_or(usual.idle_most),
            wake_cost: given.wake_cost.unwrap_or(usual.wake_cost),
            lead: given.lead.unwrap_or(usual.lead),
            idle_least: given.idle_least.unwrap_or(usual.idle_least),
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
    let span =
        |key| section.optional(key, |value| parameter(key, value.as_str().unwrap_or_default())).flatten();
    let spec = PolicySpec {
        kind,
        external: None,
        idle_most: span("idle_most"),
        wake_cost: span("wake_cost"),
        lead: span("lead"),
        idle_least: span("idle_least"),
    };
    if section.has("idle_after") {
        // Known, so that it is refused below with its own reason.
        section.optional("idle_after", |_| Ok(()));
    }
    for key in Settings::KEYS.into_iter().filter(|key| section.has(key)) {
        if let Some(why) = kind.and_then(|kind| kind.refuses(key)) {
            section.wrong(key, why);
        }
    }
    section.close();
    spec
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::spec::MachineSpec;

    fn sleep(text: &str) -> SleepSpec {
        let least = "name = \"web\"\nqemu = { memory = 268435456, kernel = \"vmlinuz\" }\n";
        MachineSpec::from_toml(&format!("{least}{text}"), Path::new("/srv/web")).unwrap().sleep
    }

    #[test]
    fn a_policy_is_a_name_or_a_table_with_its_parameters() {
        let usual = |kind| Settings { kind, ..Settings::default() };
        let settings = |text: &str, usual: Settings| sleep(text).settings(&usual);
        let named = settings("sleep.policy = \"hysteresis\"", usual(Kind::Fixed));
        assert_eq!((named.kind, named.idle_after), (Kind::Hysteresis, Some(Duration::from_secs(600))));
        assert_eq!(settings("", usual(Kind::Predictive)).kind, Kind::Predictive);
        let hour = Duration::from_secs(3600);
        let costly = "sleep.policy = { name = \"predictive\", wake_cost = \"1h\" }";
        let table = settings(costly, usual(Kind::Fixed));
        assert_eq!((table.wake_cost, table.lead), (hour, Settings::default().lead));
        // What the daemon's configuration gives counts where the file gives nothing.
        let given = Settings { wake_cost: hour / 2, lead: hour / 60, ..usual(Kind::Predictive) };
        let both = settings(costly, given);
        assert_eq!((both.wake_cost, both.lead), (hour, hour / 60));
        assert_eq!(settings("sleep.policy = \"predictive\"", given).wake_cost, hour / 2);
    }

    #[test]
    fn every_parameter_of_a_policy_can_be_set_in_a_file() {
        for kind in Kind::ALL {
            for key in kind.keys() {
                let mut expected =
                    Settings { kind, idle_after: SleepSpec::default().idle_after, ..Settings::default() };
                expected.set(key, "90s").unwrap();
                let text = match *key {
                    "idle_after" => format!("sleep.policy = \"{kind}\"\nsleep.idle_after = \"90s\""),
                    key => format!("sleep.policy = {{ name = \"{kind}\", {key} = \"90s\" }}"),
                };
                assert_eq!(sleep(&text).settings(&Settings::default()), expected, "{kind} {key}");
            }
        }
    }
}
