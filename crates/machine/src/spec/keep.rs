//! The keys of `[sleep]` that say what keeps a machine awake beside its use of processor, network and disk.

use std::time::Duration;

use dormouse_types::{Matcher, What};
use serde::{Deserialize, Serialize};

use super::file::{boolean, duration, idle_after, number, one_of, parsed, text};
use super::read::{Section, Value};
use crate::schedule::Spans;

/// The most rules about connections.
const RULES: usize = 32;
/// The longest name of a time zone.
const ZONE: usize = 64;

/// What keeps a machine awake beside its use of processor, network and disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeepSpec {
    /// Which TCP connections keep it awake: the first rule that names one decides.
    pub connections: Vec<ConnectionRule>,
    /// Users who are logged in keep it awake.
    pub users: bool,
    /// Those who look at its screen do not keep it awake.
    pub ignore_viewers: bool,
    /// Idle means that fewer processes of the guest run or want to than this, averaged over a minute.
    pub load_below: Option<f64>,
    /// Idle means that the guest has fewer major page faults a second than this, as its balloon driver says.
    pub faults_below: Option<f64>,
    /// When it stays awake.
    pub stay_awake: Spans,
    /// If there are any: it goes to sleep by itself only in these.
    pub sleep_only: Spans,
    /// So long before each span of `stay_awake` it is woken; `None`: it is not.
    pub wake_ahead: Option<Duration>,
    /// The time zone of both (IANA's name); `None`: the host's.
    pub timezone: Option<String>,
    /// So long after a wake it does not go to sleep by itself.
    pub min_awake: Option<Duration>,
}

/// An entry of `sleep.connections`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRule {
    /// Connections to these ports of the machine, from these networks. Always of TCP.
    #[serde(rename = "match")]
    pub matcher: Matcher,
    /// They keep it awake.
    pub keep_awake: bool,
    /// For so long after the last data; `None`: for as long as they are open.
    pub idle_after: Option<Duration>,
}

/// The time for which a machine stays awake after a wake, unless its file says: what `idle_after` would
/// leave it anyway, and no more than a minute.
const MIN_AWAKE: Duration = Duration::from_secs(60);

impl KeepSpec {
    /// How long the machine stays awake after a wake.
    #[must_use]
    pub fn min_awake(&self, idle_after: Option<Duration>) -> Duration {
        self.min_awake.unwrap_or_else(|| idle_after.map_or(MIN_AWAKE, |span| span.min(MIN_AWAKE)))
    }
}

/// Reads them.
pub(super) fn read(section: &Section<'_, '_>) -> KeepSpec {
    let spec = KeepSpec {
        connections: connections(section),
        users: section.optional("users", |v| one_of(v, &USERS)).unwrap_or_default(),
        ignore_viewers: section.optional("viewers", |v| one_of(v, &VIEWERS)).unwrap_or_default(),
        load_below: section.optional("load_below", load),
        faults_below: section.optional("faults_below", faults),
        stay_awake: spans(section, "stay_awake"),
        sleep_only: spans(section, "sleep_only"),
        wake_ahead: section.optional("wake_ahead", duration),
        timezone: section.optional("timezone", zone),
        min_awake: section.optional("min_awake", duration),
    };
    if section.has("wake_ahead") && !section.has("stay_awake") {
        section
            .wrong("wake_ahead", "is of no use without spans to be awake in; write stay_awake or remove it");
    }
    if section.has("timezone") && !section.has("stay_awake") && !section.has("sleep_only") {
        section.wrong("timezone", "is of no use without a schedule; write stay_awake or sleep_only");
    }
    spec
}

const USERS: [(&str, bool); 2] = [("ignore", false), ("keep-awake", true)];
const VIEWERS: [(&str, bool); 2] = [("ignore", true), ("keep-awake", false)];

fn connections(section: &Section<'_, '_>) -> Vec<ConnectionRule> {
    let mut rules = Vec::new();
    for rule in section.sections("connections", "connections = [{ match = \"tcp:22\" }]") {
        let matcher = rule.required("match", "\"tcp:22\"", of_tcp);
        let keep_awake = rule.optional("keep_awake", boolean).unwrap_or(true);
        let idle_after = rule.optional("idle_after", idle_after).flatten();
        if !keep_awake && rule.has("idle_after") {
            rule.wrong("idle_after", "is of no use where keep_awake is false; remove one of them");
        }
        rule.close();
        rules.extend(matcher.map(|matcher| ConnectionRule { matcher, keep_awake, idle_after }));
    }
    if rules.len() > RULES {
        section.wrong("connections", format!("has too many rules; a machine can have {RULES}"));
    }
    rules
}

fn of_tcp(value: &Value<'_>) -> Result<Matcher, String> {
    let matcher: Matcher = parsed(value)?;
    match matcher.what {
        What::Tcp(_) => Ok(matcher),
        _ => Err("names no connections; write tcp, tcp:22,80 or tcp:22 from 10.0.0.0/8".into()),
    }
}

fn spans(section: &Section<'_, '_>, key: &'static str) -> Spans {
    let spans = section.list(key, "[\"mon-fri 08:00-19:00\"]", parsed).unwrap_or_default();
    if section.is_empty_list(key) {
        section.wrong(key, "is empty; write for example [\"mon-fri 08:00-19:00\"], or remove it");
    }
    if spans.len() > Spans::MAX {
        section.wrong(key, format!("has too many spans; there can be {}", Spans::MAX));
    }
    Spans::new(spans)
}

fn load(value: &Value<'_>) -> Result<f64, String> {
    let load = number(value).filter(|n| n.is_finite() && *n > 0.0 && *n <= 10_000.0);
    load.ok_or_else(|| "must be an average number of processes, more than 0, as 0.5".into())
}

fn faults(value: &Value<'_>) -> Result<f64, String> {
    let faults = number(value).filter(|n| n.is_finite() && *n > 0.0 && *n <= 1e9);
    faults.ok_or_else(|| "must be a number of page faults a second, more than 0, as 20".into())
}

/// Whether there is such a zone, only the host knows.
fn zone(value: &Value<'_>) -> Result<String, String> {
    let allowed = "must be the name of a time zone, as \"Europe/Berlin\" or \"UTC\"";
    let name = text(value, "it in quotes")?;
    let clean = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'+'));
    let is_name = clean && name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.len() <= ZONE;
    if is_name { Ok(name.into()) } else { Err(allowed.into()) }
}
