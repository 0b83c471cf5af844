//! What the guest's agent says (qemu-ga), asked by its own commands: libvirt's `virDomainGetGuestInfo` waits for
//! ever for one that hangs.

use std::{sync::Arc, time::Duration};

use dormouse_platform::Inside;
use serde_json::{Value, json};
use tokio::time::timeout;
use virt::domain::Domain as Handle;

use super::Inner;
use crate::{
    clock::now,
    hub::{CallError, Lane},
};

/// Seconds that the agent may take for one answer.
const PATIENCE: i32 = 5;
/// How long an earlier question is waited for.
const BUSY: Duration = Duration::from_secs(5);
/// Users that are told of at most.
const MOST_USERS: usize = 64;

impl Inner {
    /// Asks something that its guest's agent answers: one thing at a time, so that one that hangs is waited for
    /// by one thread only.
    pub(super) async fn ask_agent<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Handle) -> Result<T, CallError> + Send + 'static,
    ) -> Result<T, CallError> {
        let free = timeout(BUSY, Arc::clone(&self.agent).acquire_owned()).await;
        let turn = free.map_err(|_| CallError::Slow(BUSY))?;
        self.ask(Lane::Agent, move |domain| {
            let done = work(domain);
            drop(turn);
            done
        })
        .await
    }

    /// `None` without an agent that answers.
    pub(super) async fn look_inside(&self) -> Option<Inside> {
        if !self.description().await.ok()?.has_guest_agent() {
            return None;
        }
        let asked = self.ask_agent(|domain| {
            let users = users(&question(domain, &json!({"execute": "guest-get-users"}))?);
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
}

/// One question, of which libvirt does not wait for ever.
fn question(domain: &Handle, question: &Value) -> Result<Value, CallError> {
    let answer = domain.qemu_agent_command(&question.to_string(), PATIENCE, 0)?;
    Ok(serde_json::from_str(&answer).unwrap_or_default())
}

/// `{"return":[{"user":"alice","login-time":1795245600.1}]}`
fn users(answer: &Value) -> Vec<String> {
    let all = answer["return"].as_array().into_iter().flatten();
    all.filter_map(|one| one["user"].as_str()).take(MOST_USERS).map(str::to_owned).collect()
}

/// The agent of QEMU up to 9.2 has no command for the load: it reads proc_loadavg(5) to us.
fn load(domain: &Handle) -> Result<Option<f64>, CallError> {
    let path = json!({"path": "/proc/loadavg", "mode": "r"});
    let opened = question(domain, &json!({"execute": "guest-file-open", "arguments": path}))?;
    let handle = &opened["return"];
    let read = json!({"execute": "guest-file-read", "arguments": {"handle": handle, "count": 64}});
    let read = question(domain, &read);
    question(domain, &json!({"execute": "guest-file-close", "arguments": {"handle": handle}}))?;
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
        // As qemu-ga 7.2 gives it.
        let told = json!({"return": [
            {"login-time": 1_795_245_600.1, "user": "alice"},
            {"login-time": 1_795_245_601.2, "user": "root"},
        ]});
        assert_eq!(users(&told), ["alice", "root"]);
        assert!(users(&json!({"return": {}})).is_empty() && users(&Value::Null).is_empty());
        let many: Vec<_> = (0..1000).map(|n| json!({"user": format!("u{n}")})).collect();
        assert_eq!(users(&json!({"return": many})).len(), MOST_USERS);
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
