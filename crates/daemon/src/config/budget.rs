//! What machines that are awake may have together.

use std::collections::BTreeMap;

use dormouse_machine::budget::Budgets;
use serde::{Deserialize, Serialize};

use super::value::{Ceiling, Rule};

/// Less than any machine has.
const LEAST: u64 = 1 << 20;

/// See [`dormouse_machine::budget`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Memory of all machines that are awake.
    pub awake_memory: Ceiling,
    /// Does a machine for which no room can be made sleep on?
    pub strict: bool,
    /// Memory of all machines of an owner that are awake.
    pub owners: BTreeMap<String, Ceiling>,
}

impl Budget {
    /// As they are kept.
    #[must_use]
    pub fn bounds(&self) -> Budgets {
        let owners = self.owners.iter().filter_map(|(owner, bound)| Some((owner.clone(), bound.get()?)));
        Budgets { host: self.awake_memory.get(), owners: owners.collect() }
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = Rule> {
        let owners = self.owners.iter().map(|(owner, bound)| (format!("budget.owners.{owner}"), *bound));
        let all = std::iter::once(("budget.awake_memory".to_owned(), self.awake_memory)).chain(owners);
        all.map(|(key, bound)| {
            let holds = bound.get().is_none_or(|bytes| bytes >= LEAST);
            Rule::new(key, bound, holds, "write a size of at least 1MiB, as 16GiB, or \"none\"")
        })
    }
}
