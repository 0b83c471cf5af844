//! Machines that are remembered and cannot be driven: they are shown as failed, keep their addresses,
//! and can be forgotten.

use std::{collections::BTreeMap, sync::PoisonError};

use dormouse_api_types::{
    Abilities, EventKind, Failure, MachineDetail, MachineState, MachineSummary, Problem, ProblemKind,
};
use dormouse_registry::{Expect, Record, Transaction};
use dormouse_types::{MacAddr, MachineName, Timestamp};

use super::Host;
use crate::{chain::chain, events::Draft};

/// A machine that cannot be driven.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    /// Why.
    pub(super) why: String,
    found: Timestamp,
    /// If at least this can be read.
    record: Option<Record>,
}

impl Host {
    pub(super) fn lost(&self) -> BTreeMap<MachineName, Lost> {
        self.lost.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leaves a machine as it is, and says so.
    pub(super) fn lose(&self, name: &MachineName, record: Option<Record>, why: String) {
        tracing::error!(machine = %name, "cannot be driven, and is left as it is: {why}");
        let cause = Some(format!("cannot be driven, and is left as it is: {why}"));
        self.events().publish(Draft::of(name, EventKind::Warning).cause(cause));
        let lost = Lost { why, found: self.shared.clock.now(), record };
        self.lost.write().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), lost);
    }

    /// Forgets a machine that cannot be driven. What its platform has of it stays where it is.
    pub(super) async fn forget_lost(&self, name: &MachineName) -> Result<(), Problem> {
        let last = self.meters().close(name);
        let transaction = Transaction::remove(Expect::Anything, name.clone()).with_usage(last.clone());
        self.shared.registry.commit(transaction).await.map_err(|error| {
            Problem::new(ProblemKind::Failed, format!("cannot forget {name}: {}", chain(&error)))
        })?;
        last.iter().for_each(|last| self.meters().posted(&last.machine, &last.account));
        self.lost.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        Ok(())
    }
}

impl Lost {
    /// It in a list.
    pub(super) fn summary(&self, name: &MachineName) -> MachineSummary {
        MachineSummary {
            name: name.clone(),
            state: MachineState::Failed,
            depth: None,
            since: self.record.as_ref().map_or(self.found, |record| record.since).into(),
            platform: None,
            memory_bytes: 0,
            resident_bytes: None,
            standby_bytes: None,
            absent: None,
            idle_for_ms: None,
            holds: 0,
            addresses: Vec::new(),
        }
    }

    /// What little is known of it.
    pub(super) fn detail(&self, name: &MachineName) -> MachineDetail {
        let (toml, base) = self.record.clone().map(|record| (record.file, record.base)).unwrap_or_default();
        let why = format!("{}; `dormouse doctor` says what to do", self.why);
        MachineDetail {
            summary: self.summary(name),
            failure: Some(Failure { during: "being found again".into(), why, state_kept: false }),
            unreachable: None,
            owner: None,
            labels: BTreeMap::new(),
            toml,
            base,
            pid: None,
            disk_bytes: 0,
            console: None,
            interfaces: Vec::new(),
            hold_list: Vec::new(),
            abilities: Abilities::default(),
        }
    }

    /// The Ethernet addresses that its file names, as far as they can be read: they stay its own.
    pub(super) fn macs(&self) -> Vec<MacAddr> {
        let file = self.record.as_ref().and_then(|record| record.file.parse::<toml::Table>().ok());
        let interfaces = file.as_ref().and_then(|file| file.get("interface")?.as_array());
        let macs = interfaces.into_iter().flatten().filter_map(|i| i.get("mac")?.as_str()?.parse().ok());
        macs.collect()
    }
}
