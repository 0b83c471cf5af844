//! Frames that interfaces dropped: where a stream that did not arrive whole was cut.

use crate::{Error, Namespace, Result};
use std::{collections::BTreeMap, fs};

const STATISTICS: &str = "/proc/thread-self/net/dev";

/// Frames dropped by each interface of a namespace since it exists: `br0 in`, `tap0 out`.
pub type Drops = BTreeMap<String, u64>;

impl Namespace {
    /// What its interfaces have dropped up to now.
    ///
    /// # Errors
    ///
    /// If the namespace is gone.
    pub fn drops(&self) -> Result<Drops> {
        let text = self.run(|| fs::read_to_string(STATISTICS))?.map_err(Error::file("read", STATISTICS))?;
        Ok(parse(&text))
    }
}

/// What was dropped between two looks, as `tap0 out 12`; empty if nothing was.
#[must_use]
pub fn dropped_between(before: &Drops, after: &Drops) -> String {
    let since = |(name, now): (&String, &u64)| {
        let dropped = now.saturating_sub(before.get(name).copied().unwrap_or(0));
        (dropped > 0).then(|| format!("{name} {dropped}"))
    };
    after.iter().filter_map(since).collect::<Vec<_>>().join(", ")
}

/// Two lines of heading, then `name: ` and 16 numbers; the 4th and the 12th are drops.
fn parse(text: &str) -> Drops {
    let mut drops = Drops::new();
    for line in text.lines() {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|n| n.parse().ok()).collect();
        for (way, column) in [("in", 3), ("out", 11)] {
            if let Some(n) = numbers.get(column) {
                drops.insert(format!("{} {way}", name.trim()), *n);
            }
        }
    }
    drops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_dropped() {
        let text = |tap: u64| {
            format!(
                "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop\n \
                 t0: 1 2 0 5 0 0 0 0 9 9 0 {tap} 0 0 0 0\n"
            )
        };
        let (before, after) = (parse(&text(0)), parse(&text(7)));
        assert_eq!(before["t0 in"], 5);
        assert_eq!(dropped_between(&before, &after), "t0 out 7");
        assert_eq!(dropped_between(&after, &after), "");
    }
}
