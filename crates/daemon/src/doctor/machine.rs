//! What stands in the way of one machine's sleep.

use std::{collections::BTreeSet, sync::Arc};

use dormouse_api_types::{Check, CheckStatus, Report};
use dormouse_machine::{
    lifecycle::State,
    spec::{MachineSpec, PlatformSpec},
};
use dormouse_platform::Obstacle;
use dormouse_types::{Depth, Timestamp};

use super::{fail, network, ok, warn};
use crate::driver::{View, addresses};

/// A machine, and what is known of it.
pub(crate) struct Patient {
    pub(crate) spec: Arc<MachineSpec>,
    pub(crate) view: View,
    /// What its platform finds in the way now.
    pub(crate) obstacles: Vec<Obstacle>,
    /// The depths that its platform reaches.
    pub(crate) depths: Vec<Depth>,
    pub(crate) now: Timestamp,
}

/// Looks at a machine, and at its bridges. Blocks: may ask Open vSwitch's programs.
pub(crate) fn examine(patient: &Patient, bridges: BTreeSet<String>) -> Report {
    let mut checks = vec![state(patient)];
    checks.extend(Depth::ALL.map(|depth| reach(patient, depth)));
    let warnings = patient.obstacles.iter().filter(|obstacle| obstacle.depths.is_empty());
    checks.extend(warnings.map(warning));
    checks.extend(interfaces(patient));
    checks.extend(bridges.iter().map(|bridge| network::bridge(bridge)));
    checks.extend(patient.view.holds.blocking(patient.now).map(|hold| {
        let fix = format!("release it: dormouse release {} --hold {}", patient.spec.name, hold.id);
        warn(&format!("hold #{}", hold.id), format!("keeps it awake: {}", hold.reason), fix)
    }));
    Report { checks }
}

fn state(patient: &Patient) -> Check {
    let (name, view) = (&patient.spec.name, &patient.view);
    match &view.state {
        State::Failed { during, why, state_kept } => {
            let again = if *state_kept {
                "try again: dormouse wake"
            } else {
                "boot it afresh: dormouse start --cold"
            };
            fail("state", format!("failed while {during}: {why}"), format!("{again} {name}"))
        }
        State::Suspended { by } => warn(
            "state",
            format!("its processors stand still ({by}); it is left alone, and nobody stands in for it"),
            let_run_on(&patient.spec),
        ),
        state => match &view.absent {
            Some(why) => fail(
                "state",
                format!("{state}, and nobody answers for it: {why}"),
                "put that right; it is tried again by itself",
            ),
            None => ok("state", state.to_string()),
        },
    }
}

/// How one that stands still by the doing of others, or its guest's own, runs on: none of Dormouse's commands.
fn let_run_on(spec: &MachineSpec) -> String {
    match &spec.platform {
        PlatformSpec::Libvirt(libvirt) => {
            let uri = libvirt.uri.as_ref().map(|uri| format!("-c {uri} ")).unwrap_or_default();
            let domain = format!("{:?}", libvirt.domain);
            format!(
                "let it run on: virsh {uri}resume {domain}, or, if its guest suspended itself (virsh {uri}domstate \
                 {domain} says pmsuspended), virsh {uri}dompmwakeup {domain}"
            )
        }
        PlatformSpec::Qemu(_) => "let it run on by the means by which it was stopped".into(),
    }
}

/// A depth that its file asks for and that it cannot reach is a failure; another one is good to know.
fn reach(patient: &Patient, depth: Depth) -> Check {
    let name = format!("depth {depth}");
    let sleep = &patient.spec.sleep;
    let is_step = sleep.deeper.iter().any(|step| step.depth == depth);
    let wanted = match (sleep.depth == depth, is_step) {
        (true, _) => ", and idleness leads there",
        (false, true) => ", and sleep.deeper leads there",
        (false, false) => "",
    };
    let bars: Vec<_> = patient.obstacles.iter().filter(|obstacle| obstacle.bars(depth)).collect();
    if bars.is_empty() && patient.depths.contains(&depth) {
        return ok(&name, format!("can be reached{wanted}"));
    }
    let why: Vec<_> = bars.iter().map(|bar| format!("{}: {}", bar.what, bar.reason)).collect();
    let why = if why.is_empty() { "its platform does not have it".into() } else { why.join("; ") };
    let fixes: Vec<_> = bars.iter().filter_map(|bar| bar.fix.as_deref()).collect();
    let key = if is_step { "sleep.deeper" } else { "sleep.depth" };
    let fix = if fixes.is_empty() { format!("choose another depth: {key}") } else { fixes.join("; ") };
    let found = format!("cannot be reached{wanted}: {why}");
    if sleep.depth != depth { warn(&name, found, fix) } else { fail(&name, found, fix) }
}

fn warning(obstacle: &Obstacle) -> Check {
    match &obstacle.fix {
        Some(fix) => warn(&obstacle.what, &obstacle.reason, fix),
        None => Check { status: CheckStatus::Ok, ..ok(&obstacle.what, &obstacle.reason) },
    }
}

fn interfaces(patient: &Patient) -> Vec<Check> {
    let (spec, view) = (&patient.spec, &patient.view);
    if spec.interfaces.is_empty() {
        let none = "none: only commands and holds wake it";
        if spec.sleep.idle_after.is_none() {
            return vec![ok("interfaces", none)];
        }
        let found = format!("{none}, and idleness puts it to sleep all the same");
        let fix = "sleep.idle_after = \"never\" in its machine file; or give it an interface in a bridge";
        return vec![warn("interfaces", found, fix)];
    }
    let look = |mac| {
        let name = format!("interface {mac}");
        let known: Vec<_> = addresses(spec, &view.learned, mac).iter().map(ToString::to_string).collect();
        if known.is_empty() {
            let found = "no address of it is known: nobody can answer for it while the machine sleeps";
            let fix = "let the guest speak, or name its addresses in interface.addresses";
            return warn(&name, found, fix);
        }
        ok(&name, known.join(" "))
    };
    spec.interfaces.iter().map(|interface| look(interface.mac)).collect()
}
