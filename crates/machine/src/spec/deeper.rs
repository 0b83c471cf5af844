//! `sleep.deeper`: how deep a machine sleeps after how long.

use std::time::Duration;

use dormouse_types::Depth;
use serde::{Deserialize, Serialize};

use super::file::{duration, one_of};
use super::read::Section;

/// An entry of `sleep.deeper`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deeper {
    /// How deep.
    pub depth: Depth,
    /// After how long a sleep.
    pub after: Duration,
}

const EXAMPLE: &str = "deeper = [{ depth = \"saved\", after = \"1h\" }]";
const DEPTHS: [(&str, Depth); 2] = [("saved", Depth::Saved), ("off", Depth::Off)];

/// Reads them: each deeper than the one before it, and later.
pub(super) fn read(section: &Section<'_, '_>) -> Vec<Deeper> {
    let mut steps: Vec<Deeper> = Vec::new();
    for step in section.sections("deeper", EXAMPLE) {
        let depth = step.required("depth", "\"saved\"", |v| one_of(v, &DEPTHS));
        let after = step.required("after", "\"1h\"", duration);
        if let (Some(depth), Some(after)) = (depth, after) {
            if steps.last().is_some_and(|last| depth <= last.depth) {
                step.wrong("depth", "is not deeper than the entry before it; write them from saved to off");
            } else if steps.last().is_some_and(|last| after <= last.after) {
                step.wrong(
                    "after",
                    "is not later than the entry before it; both count from when it fell asleep",
                );
            }
            steps.push(Deeper { depth, after });
        }
        step.close();
    }
    steps
}
