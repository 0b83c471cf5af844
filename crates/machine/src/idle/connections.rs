//! The signals that are open TCP connections.
//!
//! A connection survives its machine's sleep, so that one on which nothing is said keeps nobody awake,
//! unless a rule of the machine's file says so.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dormouse_types::{Timestamp, What};

use super::{Signal, in_words};
use crate::spec::ConnectionRule;

/// An established connection of the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The machine's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The next sequence number that the machine will send, and the next that it expects: data moves
    /// them, and keepalive probes do not (RFC 9293 §3.8.4).
    pub numbers: (u32, u32),
    /// When the machine last sent a segment on it.
    pub heard: Timestamp,
}

type Key = (SocketAddr, SocketAddr);

/// What is known of one.
#[derive(Clone, Copy, Debug)]
struct Seen {
    numbers: (u32, u32),
    /// When there was data on it last, as far as that is known.
    used: Timestamp,
}

/// The connections of one machine.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    rules: Vec<ConnectionRule>,
    seen: BTreeMap<Key, Seen>,
    /// A signal for each rule that keeps awake, or one that tells how many there are.
    signals: Vec<Signal>,
}

impl Connections {
    pub(super) fn new(rules: &[ConnectionRule]) -> Self {
        Self { rules: rules.to_vec(), seen: BTreeMap::new(), signals: Vec::new() }
    }

    pub(super) fn reset(&mut self) {
        self.signals.clear();
    }

    pub(super) fn signals(&self) -> &[Signal] {
        &self.signals
    }

    /// Takes in those that are open now.
    pub(super) fn take(&mut self, open: &[Connection], now: Timestamp) {
        let seen = open.iter().map(|connection| {
            let Connection { local, remote, numbers, heard } = *connection;
            let known = self.seen.get(&(local, remote)).filter(|seen| seen.numbers == numbers);
            let used = known.map_or_else(|| heard.min(now), |seen| seen.used);
            ((local, remote), Seen { numbers, used })
        });
        self.seen = seen.collect();
        let mut signals: Vec<_> = (0..self.rules.len()).filter_map(|rule| self.judge(rule, now)).collect();
        if self.rules.is_empty() && !open.is_empty() {
            let detail = Some("silent ones survive its sleep".into());
            let value = Some(count(open.len()));
            signals.push(Signal { value, detail, ..Signal::new("connections", "open", false, now) });
        }
        self.signals = signals;
    }

    /// What the connections that a rule names come to; `None` if it keeps nobody awake.
    fn judge(&self, rule: usize, now: Timestamp) -> Option<Signal> {
        let ConnectionRule { matcher, keep_awake: true, idle_after } = self.rules.get(rule)? else {
            return None;
        };
        let all: Vec<_> = self.seen.iter().filter(|(key, _)| self.rule_of(key) == Some(rule)).collect();
        let quiet_at = |seen: &Seen| idle_after.map(|span| seen.used + span);
        let live = || all.iter().filter(|(_, seen)| quiet_at(seen).is_none_or(|at| at > now));
        let name = format!("connections {matcher}");
        let before = self.signals.iter().find(|signal| signal.name == name);
        let (busy, used) = (live().next().is_some(), all.iter().map(|(_, seen)| seen.used).max());
        let since = match (before, used) {
            (Some(before), _) if before.busy == busy => before.since,
            // The use of one that fell silent was over with its last data.
            (Some(_), Some(used)) if !busy => used,
            _ => now,
        };
        let last = live().max_by_key(|(_, seen)| seen.used);
        let ends = last.and_then(|(_, seen)| Some((quiet_at(seen)?, seen.used)));
        let detail = last.map(|(key, seen)| told(key, seen, live().count(), now));
        let (value, threshold) = (Some(count(live().count())), Some(1.0));
        Some(Signal { value, threshold, ends, detail, ..Signal::new(name, "open", busy, since) })
    }

    /// The first rule that names a connection.
    fn rule_of(&self, (local, remote): &Key) -> Option<usize> {
        self.rules.iter().position(|rule| {
            let named = matches!(&rule.matcher.what, What::Tcp(ports) if ports.has(local.port()));
            named && rule.matcher.is_from(Some(remote.ip()))
        })
    }
}

fn told((local, remote): &Key, seen: &Seen, of: usize, now: Timestamp) -> String {
    let others = if of > 1 { format!(", and {} more", of - 1) } else { String::new() };
    format!("{remote} > :{}, data {} ago{others}", local.port(), in_words(now.since(seen.used)))
}

fn count(of: usize) -> f64 {
    u32::try_from(of).unwrap_or(u32::MAX).into()
}
