//! What others may know of a machine, without asking its driver.

use std::{collections::BTreeMap, net::IpAddr};

use dormouse_api_types::{Failure, MachineState};
use dormouse_machine::{
    hold::Holds,
    idle::{Keep, Verdict},
    lifecycle::State,
    spec::MachineSpec,
};
use dormouse_registry::{LastWake, Record};
use dormouse_surrogate::Status;
use dormouse_types::{Depth, MacAddr, MachineName, Timestamp};
use dormouse_wire::Persona;

use super::tasks::addresses;

/// A machine at an instant.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Its name.
    pub name: MachineName,
    /// Where it is in its life.
    pub state: State,
    /// When it came there.
    pub since: Timestamp,
    /// Why, in one line.
    pub reason: Option<String>,
    /// The machine file and its folder.
    pub file: (String, std::path::PathBuf),
    /// Addresses learned from its traffic.
    pub learned: BTreeMap<MacAddr, Vec<IpAddr>>,
    /// What it was seen to be on its networks.
    pub personas: BTreeMap<MacAddr, Persona>,
    /// What keeps it awake.
    pub holds: Holds,
    /// What woke it last.
    pub last_wake: Option<LastWake>,
    /// Its taps on the host.
    pub taps: BTreeMap<MacAddr, String>,
    /// What idleness is judged by, while it runs.
    pub idle: Option<Verdict>,
    /// What keeps it awake whatever its use, besides its holds.
    pub keeps: Vec<Keep>,
    /// When it goes to sleep by itself, or sleeps deeper, if nothing happens; and how deep.
    pub sleeps_at: Option<(Timestamp, Depth)>,
    /// What its policy plans, in words.
    pub plan: Option<String>,
    /// When it is woken ahead of need.
    pub wakes_at: Option<Timestamp>,
    /// What the surrogate did in the last sleep.
    pub last_status: Option<Status>,
    /// Why nobody answers for it, though it sleeps.
    pub absent: Option<String>,
    /// Since when its platform cannot be asked, and why.
    pub unreachable: Option<(Timestamp, String)>,
    /// Interfaces for which nobody could answer.
    pub unaddressed: Unaddressed,
    /// Why it sleeps on for want of room, though something wants it.
    pub no_room: Option<String>,
    /// Nothing is going on.
    pub settled: bool,
}

/// Interfaces of which no IP address is known. A sleeper vanishes there, as soon as its peers' caches
/// forget it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unaddressed {
    macs: Vec<MacAddr>,
    of: usize,
}

/// Looks for interfaces without an address.
pub(crate) fn unaddressed(spec: &MachineSpec, learned: &BTreeMap<MacAddr, Vec<IpAddr>>) -> Unaddressed {
    let macs = spec.interfaces.iter().map(|interface| interface.mac);
    let is_unknown = |mac: &MacAddr| addresses(spec, learned, *mac).is_empty();
    Unaddressed { macs: macs.filter(is_unknown).collect(), of: spec.interfaces.len() }
}

impl Unaddressed {
    /// Is no address known of any interface? Then the machine does not go to sleep by itself.
    pub(crate) fn all(&self) -> bool {
        !self.macs.is_empty() && self.macs.len() == self.of
    }

    /// What that means and what to do about it, if there are such interfaces.
    pub(crate) fn explain(&self) -> Option<String> {
        let macs: Vec<_> = self.macs.iter().map(ToString::to_string).collect();
        (!macs.is_empty())
            .then(|| format!("no address is known of {}: name it in interface.addresses", macs.join(", ")))
    }
}

impl View {
    /// What the record alone tells.
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            name: record.name.clone(),
            state: record.state.clone(),
            since: record.since,
            reason: record.reason.clone(),
            file: (record.file.clone(), record.base.clone()),
            learned: record.learned.clone(),
            personas: record.personas.clone(),
            holds: record.holds.clone(),
            last_wake: record.last_wake.clone(),
            taps: BTreeMap::new(),
            idle: None,
            keeps: Vec::new(),
            sleeps_at: None,
            plan: None,
            wakes_at: None,
            last_status: None,
            absent: None,
            unreachable: None,
            unaddressed: Unaddressed::default(),
            no_room: None,
            settled: false,
        }
    }

    /// The depth that the state is about.
    #[must_use]
    pub fn depth(&self) -> Option<Depth> {
        depth_of(&self.state)
    }

    /// What failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let State::Failed { during, why, state_kept } = &self.state else { return None };
        Some(Failure { during: during.clone(), why: why.clone(), state_kept: *state_kept })
    }
}

/// The state in a word.
pub(crate) const fn state_of(state: &State) -> MachineState {
    match state {
        State::Stopped => MachineState::Stopped,
        State::Active => MachineState::Active,
        State::Settling { .. } => MachineState::Settling,
        State::Undoing { .. } => MachineState::Undoing,
        State::Asleep { .. } => MachineState::Asleep,
        State::Waking { .. } => MachineState::Waking,
        State::Stopping => MachineState::Stopping,
        State::Suspended { .. } => MachineState::Suspended,
        State::Failed { .. } => MachineState::Failed,
    }
}

/// The depth that a state is about.
pub(crate) const fn depth_of(state: &State) -> Option<Depth> {
    match state {
        State::Settling { depth, .. } | State::Asleep { depth } => Some(*depth),
        State::Waking { from, .. } => *from,
        _ => None,
    }
}
