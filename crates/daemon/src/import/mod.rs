//! Machines that a platform has of its own are made machines of Dormouse.
//!
//! [`plan`] is pure: from a candidate and what the user wishes to the machine file, or to the reason why
//! there is none. The file is admitted as any other is; only then the machine is known.

mod file;
mod name;
mod redefined;

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use dormouse_api_types::{Problem, ProblemKind};
use dormouse_machine::{lifecycle::State, spec::MachineSpec};
use dormouse_platform::{Activity, Candidate};
use dormouse_types::{Depth, MacAddr, MachineName};

pub(crate) use file::NO_PACKET;
pub(crate) use redefined::{Change, redefined};

/// Relative paths of an imported machine's file start from here: it has none.
pub(crate) const BASE: &str = "/";

/// What the user wishes, beside the domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// The connection, if not the daemon's own.
    pub(crate) uri: Option<String>,
    /// The machine's name, if not the domain's.
    pub(crate) name: Option<String>,
    /// Keys of its file.
    pub(crate) set: Vec<String>,
}

impl Wishes {
    /// The connection as it is to be said again to the command line, if it is not the daemon's own.
    pub(crate) fn uri_argument(&self) -> String {
        self.uri.as_ref().map(|uri| format!(" --uri '{uri}'")).unwrap_or_default()
    }
}

/// A machine that is to be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) toml: String,
    pub(crate) spec: MachineSpec,
    /// Addresses that its guest seems to have.
    pub(crate) hints: BTreeMap<MacAddr, Vec<IpAddr>>,
    pub(crate) state: State,
    /// It is kept from falling asleep by itself, for no packet could wake it.
    pub(crate) stays_awake: bool,
}

/// Makes the machine of a candidate.
pub(crate) fn plan(candidate: &Candidate, wishes: &Wishes) -> Result<Plan, Problem> {
    // A name is chosen in vain for what cannot sleep.
    let depth = depth(candidate)?;
    let name = machine_name(candidate, wishes)?;
    let toml = file::write(candidate, &name, depth, wishes)?;
    let spec = MachineSpec::from_toml(&toml, Path::new(BASE)).map_err(|errors| {
        let key = errors.0.first().map(|first| first.key.clone()).unwrap_or_default();
        Problem::new(ProblemKind::Invalid, errors.to_string()).key(key)
    })?;
    if !candidate.reaches(spec.sleep.depth) {
        let detail = format!("sleep.depth = {}: {}", spec.sleep.depth, bars(candidate, spec.sleep.depth));
        return Err(Problem::new(ProblemKind::Invalid, detail).key("sleep.depth"));
    }
    let hints = candidate.interfaces.iter().filter(|joined| !joined.addresses.is_empty());
    let hints = hints.map(|joined| (joined.mac, joined.addresses.clone())).collect();
    let stays_awake = file::stays_awake(candidate, wishes);
    Ok(Plan { toml, spec, hints, state: state(candidate.activity), stays_awake })
}

fn machine_name(candidate: &Candidate, wishes: &Wishes) -> Result<MachineName, Problem> {
    let name = wishes.name.as_deref().unwrap_or(&candidate.name);
    name.parse().map_err(|error: dormouse_types::NameError| {
        let problem = Problem::new(ProblemKind::Invalid, error.to_string()).key("name");
        let suggestion = name::suggestion(name);
        let (domain, uri) = (&candidate.name, wishes.uri_argument());
        problem.fix(format!("name the machine: dormouse import libvirt {domain:?}{uri} --as {suggestion}"))
    })
}

/// How deep it is to sleep unless its user says: as deep as loses nothing.
fn depth(candidate: &Candidate) -> Result<Depth, Problem> {
    let deepest = [Depth::Saved, Depth::Paused, Depth::Pmsuspended];
    deepest.into_iter().find(|depth| candidate.reaches(*depth)).ok_or_else(|| {
        let problem = Problem::new(ProblemKind::Refused, bars(candidate, Depth::Paused));
        let fixes: Vec<_> = barring(candidate, Depth::Paused).filter_map(|bar| bar.fix.as_deref()).collect();
        if fixes.is_empty() { problem } else { problem.fix(fixes.join("; ")) }
    })
}

fn barring(candidate: &Candidate, depth: Depth) -> impl Iterator<Item = &dormouse_platform::Obstacle> {
    candidate.obstacles.iter().filter(move |obstacle| obstacle.bars(depth))
}

fn bars(candidate: &Candidate, depth: Depth) -> String {
    let bars: Vec<_> = barring(candidate, depth).map(|bar| format!("{}: {}", bar.what, bar.reason)).collect();
    bars.join("; ")
}

/// The state that a machine is in which others have looked after until now. Its driver asks the platform
/// before anything is done; so this says only how what it finds is to be understood.
pub(crate) fn state(activity: Activity) -> State {
    match activity {
        Activity::Running => State::Active,
        Activity::Suspended => {
            State::Suspended { by: "another client of libvirt, before it was imported".into() }
        }
        Activity::Saved => State::Asleep { depth: Depth::Saved },
        Activity::Off => State::Stopped,
    }
}

#[cfg(test)]
mod tests;
