//! What the guest's agent says (qemu-ga; libvirt's `virDomainGetGuestInfo`), and its balloon driver.

use std::{collections::BTreeMap, time::Duration};

use dormouse_platform::{Faults, Inside};
use dormouse_sys::libvirt::{self as more, Value};
use dormouse_types::Timestamp;
use roxmltree::Document;
use serde_json::json;
use virt::domain::Domain as Handle;

use super::{Inner, measure::NOWAIT};
use crate::{
    clock::now,
    hub::{CallError, Lane},
};

/// `VIR_DOMAIN_GUEST_INFO_USERS`
const USERS: u32 = 1;
/// `VIR_DOMAIN_STATS_BALLOON`
const BALLOON: u32 = 4;
/// The balloon driver is asked so often, if its domain's definition does not say; in seconds.
const PERIOD: i32 = 5;
/// A count that is older than this may be the only one.
const OLD: Duration = Duration::from_secs(2 * PERIOD.unsigned_abs() as u64);
/// `VIR_DOMAIN_AFFECT_LIVE`: the definition stays as it is.
const LIVE: u32 = 1;
/// Seconds that the agent may take for one answer.
const PATIENCE: i32 = 5;
/// Users that are told of at most.
const MOST_USERS: u64 = 64;

impl Inner {
    /// `None` without an agent that answers.
    pub(super) async fn look_inside(&self) -> Option<Inside> {
        if !self.description().await.ok()?.has_guest_agent() {
            return None;
        }
        let asked = self.ask(Lane::Guest, |domain| {
            let users = users(&more::guest_info(domain, USERS)?);
            // An agent may have been told not to open files.
            Ok(Inside { at: now(), users, load: load(domain).ok().flatten() })
        });
        match asked.await {
            Ok(inside) => Some(inside),
            Err(error) => {
                tracing::debug!(domain = self.who.name, ?error, "its guest's agent does not answer");
                None
            }
        }
    }

    /// `None` of a guest without a balloon driver that says it.
    pub(super) async fn count_faults(&self) -> Option<Faults> {
        let asked = self.ask(Lane::Guest, |domain| {
            let told = more::stats(domain, BALLOON, NOWAIT)?;
            let counted = faults(&told);
            // The first count is made when the driver begins, whether or not there is to be another.
            let is_old = counted.is_none_or(|faults| now().since(faults.at) > OLD);
            if is_old && told.contains_key("balloon.current") && !counts(&domain.get_xml_desc(0)?) {
                domain.set_memory_stats_period(PERIOD, LIVE)?;
            }
            Ok(counted)
        });
        asked.await.unwrap_or_else(|error| {
            tracing::debug!(domain = self.who.name, ?error, "its guest's balloon driver is not asked");
            None
        })
    }
}

/// Is the balloon driver of the domain with this XML asked from time to time (`<stats period='10'/>`)?
fn counts(xml: &str) -> bool {
    let Ok(document) = Document::parse(xml) else { return false };
    let mut stats = document.descendants().filter(|node| node.has_tag_name("stats"));
    stats.any(|node| node.attribute("period").is_some_and(|period| period != "0"))
}

/// `balloon.major_fault` at `balloon.last-update`, in seconds, which is zero until the driver has answered once.
fn faults(told: &BTreeMap<String, Value>) -> Option<Faults> {
    let seconds = told.get("balloon.last-update").and_then(Value::count).filter(|seconds| *seconds > 0)?;
    let count = told.get("balloon.major_fault").and_then(Value::count)?;
    Some(Faults { at: Timestamp(seconds.saturating_mul(1_000_000_000)), count })
}

/// `user.count`, `user.0.name`, ...
fn users(told: &BTreeMap<String, Value>) -> Vec<String> {
    let count = told.get("user.count").and_then(Value::count).unwrap_or(0).min(MOST_USERS);
    let name = |n| told.get(&format!("user.{n}.name")).and_then(Value::text).map(str::to_owned);
    (0..count).filter_map(name).collect()
}

/// The agent of QEMU up to 9.2 has no command for the load: it reads proc_loadavg(5) to us.
fn load(domain: &Handle) -> Result<Option<f64>, CallError> {
    let ask = |question: serde_json::Value| -> Result<serde_json::Value, CallError> {
        let answer = domain.qemu_agent_command(&question.to_string(), PATIENCE, 0)?;
        Ok(serde_json::from_str(&answer).unwrap_or_default())
    };
    let opened =
        ask(json!({"execute": "guest-file-open", "arguments": {"path": "/proc/loadavg", "mode": "r"}}))?;
    let handle = &opened["return"];
    let read = ask(json!({"execute": "guest-file-read", "arguments": {"handle": handle, "count": 64}}));
    ask(json!({"execute": "guest-file-close", "arguments": {"handle": handle}}))?;
    Ok(read?["return"]["buf-b64"].as_str().and_then(|text| parse_load(&decode(text))))
}

/// `0.20 0.18 0.12 1/80 11206`
fn parse_load(text: &str) -> Option<f64> {
    text.split_ascii_whitespace().next()?.parse().ok().filter(|load: &f64| load.is_finite() && *load >= 0.0)
}

/// Base64 (RFC 4648 section 4) of a text; it ends where it is not understood.
fn decode(text: &str) -> String {
    let value = |octet: u8| match octet {
        b'A'..=b'Z' => Some(octet - b'A'),
        b'a'..=b'z' => Some(octet - b'a' + 26),
        b'0'..=b'9' => Some(octet - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let values: Vec<u8> = text.bytes().map_while(value).collect();
    let mut octets = Vec::new();
    for group in values.chunks(4) {
        let bits = group.iter().fold(0_u32, |bits, value| bits << 6 | u32::from(*value));
        let bits = bits << (6 * (4 - group.len()));
        let [_, first, second, third] = bits.to_be_bytes();
        octets.extend([first, second, third].iter().take(group.len().saturating_sub(1)));
    }
    String::from_utf8_lossy(&octets).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_the_users() {
        let told = [
            ("user.count".to_owned(), Value::Unsigned(2)),
            ("user.0.name".to_owned(), Value::Text("alice".into())),
            ("user.0.login-time".to_owned(), Value::Unsigned(1)),
            ("user.1.name".to_owned(), Value::Text("root".into())),
        ];
        assert_eq!(users(&told.into()), ["alice", "root"]);
        let many = [("user.count".to_owned(), Value::Unsigned(u64::MAX))];
        assert!(users(&many.into()).is_empty());
    }

    #[test]
    fn reads_what_the_balloon_driver_counted() {
        let told = |update, faults| {
            let update = ("balloon.last-update".to_owned(), Value::Unsigned(update));
            BTreeMap::from([update, ("balloon.major_fault".to_owned(), Value::Unsigned(faults))])
        };
        let counted = Faults { at: Timestamp(1_795_291_787_000_000_000), count: 7 };
        assert_eq!(faults(&told(1_795_291_787, 7)), Some(counted));
        assert_eq!(faults(&told(0, 0)), None);
        assert_eq!(faults(&BTreeMap::new()), None);
        let xml = |stats| format!("<domain><devices><memballoon>{stats}</memballoon></devices></domain>");
        assert!(counts(&xml("<stats period='10'/>")));
        assert!(!counts(&xml("<stats period='0'/>")) && !counts(&xml("")) && !counts("<domain"));
    }

    #[test]
    fn reads_the_load() {
        // As qemu-ga 7.2 gives it.
        assert_eq!(parse_load(&decode("MC4yMCAwLjE4IDAuMTIgMS84MCAxMTIwNgo=")), Some(0.2));
        assert_eq!(decode("TQ=="), "M");
        assert_eq!(decode("TWE="), "Ma");
        assert_eq!(parse_load("NaN"), None);
        assert_eq!(parse_load(""), None);
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(text in "\\PC*") {
            let _ = parse_load(&decode(&text));
        }
    }
}
