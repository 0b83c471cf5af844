//! The signals that are open TCP connections.
//!
//! A connection survives its machine's sleep, so that one on which nothing is said keeps nobody awake,
//! unless a rule of the machine's file says so.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dormouse_types::{Timestamp, What};

use super::{Signal, in_words};
use crate::spec::ConnectionRule;

/// A connection of the machine's.
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
    /// It is established; else it was, and is being closed or closed.
    pub open: bool,
}

type Key = (SocketAddr, SocketAddr);

/// What is known of one.
#[derive(Clone, Copy, Debug)]
struct Seen {
    numbers: (u32, u32),
    /// When there was data on it last, as far as that is known.
    used: Timestamp,
    open: bool,
}

/// The connections of one machine.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    rules: Vec<ConnectionRule>,
    /// `None` before anybody looked.
    seen: Option<BTreeMap<Key, Seen>>,
    /// Of each rule and, last, of what no rule names: when the last connection that came was in use.
    came: Vec<Option<Timestamp>>,
    /// A signal for each rule that keeps awake, or one that tells how many there are.
    signals: Vec<Signal>,
}

impl Connections {
    pub(super) fn new(rules: &[ConnectionRule]) -> Self {
        Self { rules: rules.to_vec(), seen: None, came: vec![None; rules.len() + 1], signals: Vec::new() }
    }

    pub(super) fn reset(&mut self) {
        self.signals.clear();
    }

    pub(super) fn signals(&self) -> &[Signal] {
        &self.signals
    }

    /// Takes in those that there are now, and those that were there a moment ago.
    pub(super) fn take(&mut self, all: &[Connection], now: Timestamp) {
        let before = self.seen.take();
        let mut seen = BTreeMap::new();
        let mut strangers = 0;
        for connection in all {
            let Connection { local, remote, numbers, heard, open } = *connection;
            let key = (local, remote);
            let known = before.as_ref().and_then(|before| before.get(&key));
            // One that was closed and is open again is another.
            let is_new = before.is_some() && known.is_none_or(|known| open && !known.open);
            if is_new {
                let rule = self.rule_of(&key).unwrap_or(self.rules.len());
                strangers += usize::from(rule == self.rules.len());
                if let Some(came) = self.came.get_mut(rule) {
                    *came = (*came).max(Some(heard.min(now)));
                }
            }
            let known = known.filter(|known| known.numbers == numbers);
            let used = known.map_or_else(|| heard.min(now), |known| known.used);
            seen.insert(key, Seen { numbers, used, open });
        }
        let open = seen.values().filter(|seen| seen.open).count();
        self.seen = Some(seen);
        let mut signals: Vec<_> = (0..self.rules.len()).filter_map(|rule| self.judge(rule, now)).collect();
        if self.rules.is_empty() && open > 0 {
            let detail = Some("silent ones survive its sleep".into());
            let value = Some(count(open));
            signals.push(Signal { value, detail, ..Signal::new("connections", "open", false, now) });
        }
        if let Some(&Some(came)) = self.came.last() {
            // Also one that was gone before anybody looked was use: its client may well come again.
            let signal = Signal::new("new connections", "", strangers > 0, came);
            let (value, threshold) = (Some(count(strangers)), Some(1.0));
            signals.push(Signal { value, threshold, ends: Some((now, came)), ..signal });
        }
        self.signals = signals;
    }

    /// What the connections that a rule names come to; `None` if it keeps nobody awake.
    fn judge(&self, rule: usize, now: Timestamp) -> Option<Signal> {
        let ConnectionRule { matcher, keep_awake: true, idle_after } = self.rules.get(rule)? else {
            return None;
        };
        let open = self.seen.iter().flatten().filter(|(_, seen)| seen.open);
        let all: Vec<_> = open.filter(|(key, _)| self.rule_of(key) == Some(rule)).collect();
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
        let came = self.came.get(rule).copied().flatten().filter(|_| !busy);
        let since = came.map_or(since, |came| came.max(since));
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
