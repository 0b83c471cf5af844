//! What is asked of a machine before it is made known.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use dormouse_api_types::{Problem, ProblemKind};
use dormouse_machine::{
    lifecycle::{Process, State, StateOnDisk},
    spec::{InterfaceSpec, LibvirtSpec, MachineSpec, PlatformSpec},
};
use dormouse_platform::{Activity, Capabilities, Error, Instance};
use dormouse_types::MachineName;
use nix::net::if_::if_nametoindex;

use super::lost::Lost;
use crate::{chain::chain, config::Config, import};

/// Reads a machine file.
pub(super) fn read(toml: &str, base: &Path) -> Result<MachineSpec, Problem> {
    if !base.is_absolute() {
        let detail = format!("{} is not an absolute path", base.display());
        return Err(Problem::new(ProblemKind::Invalid, detail).key("base"));
    }
    MachineSpec::from_toml(toml, base).map_err(|errors| {
        let problem = Problem::new(ProblemKind::Invalid, errors.to_string());
        match errors.0.first() {
            Some(first) if !first.key.is_empty() => problem.key(first.key.clone()),
            _ => problem,
        }
    })
}

/// Every file that the machine needs is there.
pub(super) fn check_files(spec: &MachineSpec) -> Result<(), Problem> {
    let PlatformSpec::Qemu(qemu) = &spec.platform else { return Ok(()) };
    let disks =
        qemu.disks.iter().enumerate().map(|(n, disk)| (format!("qemu.disk[{}].image", n + 1), &disk.image));
    let kernel = qemu.kernel.iter().map(|path| ("qemu.kernel".to_owned(), path));
    let initrd = qemu.initrd.iter().map(|path| ("qemu.initrd".to_owned(), path));
    for (key, path) in disks.chain(kernel).chain(initrd) {
        if let Err(error) = std::fs::metadata(path) {
            let detail = format!("{key} = {:?}: {error}", path.display().to_string());
            let fix = "relative paths start from the folder of the machine file";
            return Err(Problem::new(ProblemKind::Invalid, detail).key(key).fix(fix));
        }
    }
    Ok(())
}

/// The programs that it names are in the daemon's configuration.
pub(super) fn check_responders(spec: &MachineSpec, config: &Config) -> Result<(), Problem> {
    let mut names = spec.responders.iter().map(|responder| &responder.name).enumerate();
    let Some((n, name)) = names.find(|(_, name)| !config.responder.contains_key(*name)) else {
        return Ok(());
    };
    let key = format!("responder[{}].name", n + 1);
    let known: Vec<_> = config.responder.keys().map(String::as_str).collect();
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    let detail = format!("{key} = {name:?}: is no program of dormoused.toml, which has {known}");
    let fix = format!("write a table [responder.{name}] there and restart dormoused");
    Err(Problem::new(ProblemKind::Invalid, detail).key(key).fix(fix))
}

/// The program that says when it sleeps is in the daemon's configuration.
pub(super) fn check_policy(spec: &MachineSpec, config: &Config) -> Result<(), Problem> {
    let Some(name) = &spec.sleep.policy.external else { return Ok(()) };
    if config.policy.contains_key(name) {
        return Ok(());
    }
    let detail = format!("sleep.policy = \"external:{name}\": is no program of dormoused.toml");
    let fix = format!("write a table [policy.{name}] there and restart dormoused");
    Err(Problem::new(ProblemKind::Invalid, detail).key("sleep.policy").fix(fix))
}

/// The time zone of its schedule is known on this host.
pub(super) fn check_zone(spec: &MachineSpec) -> Result<(), Problem> {
    let Some(name) = &spec.sleep.keep.timezone else { return Ok(()) };
    jiff::tz::TimeZone::get(name).map(drop).map_err(|_| {
        let detail = format!("sleep.timezone = {name:?}: there is no such time zone here");
        let fix = "write one of those that `timedatectl list-timezones` lists, as \"Europe/Berlin\"";
        Problem::new(ProblemKind::Invalid, detail).key("sleep.timezone").fix(fix)
    })
}

/// Nobody else has its name or one of its addresses.
pub(super) fn check_claims(
    spec: &MachineSpec,
    others: &[Arc<MachineSpec>],
    lost: &BTreeMap<MachineName, Lost>,
) -> Result<(), Problem> {
    let taken = |n: usize, mac, by| {
        let detail = format!("{mac} is an address of {by} already");
        let key = format!("interface[{}].mac", n + 1);
        Problem::new(ProblemKind::Exists, detail).key(key).fix("choose another address")
    };
    for other in others {
        if other.name == spec.name {
            let detail = format!("there is a machine {} already", spec.name);
            return Err(Problem::new(ProblemKind::Exists, detail).key("name").fix("choose another name"));
        }
        check_domain(spec, other)?;
        for (n, interface) in spec.interfaces.iter().enumerate() {
            if other.interfaces.iter().any(|theirs| theirs.mac == interface.mac) {
                return Err(taken(n, interface.mac, &other.name));
            }
        }
    }
    for (name, lost) in lost {
        let macs = lost.macs();
        let claimed = spec.interfaces.iter().enumerate().find(|(_, ours)| macs.contains(&ours.mac));
        if let Some((n, interface)) = claimed {
            return Err(taken(n, interface.mac, name));
        }
    }
    Ok(())
}

/// A domain is one machine only.
fn check_domain(spec: &MachineSpec, other: &MachineSpec) -> Result<(), Problem> {
    let (PlatformSpec::Libvirt(ours), PlatformSpec::Libvirt(theirs)) = (&spec.platform, &other.platform)
    else {
        return Ok(());
    };
    if !is_same_domain(ours, theirs) {
        return Ok(());
    }
    let detail = format!("domain {} is the machine {} already", ours.domain, other.name);
    Err(Problem::new(ProblemKind::Exists, detail).key("libvirt.domain"))
}

/// Of two libvirts there may be two domains of a name. A UUID is one domain's, wherever it is.
pub(super) fn is_same_domain(one: &LibvirtSpec, other: &LibvirtSpec) -> bool {
    match (one.uuid, other.uuid) {
        (Some(one), Some(other)) => one == other,
        _ => (&one.domain, &one.uri) == (&other.domain, &other.uri),
    }
}

/// The state of a machine that others have looked after until now.
pub(super) async fn state_found(instance: &dyn Instance) -> Result<State, Problem> {
    let seen = instance.observe().await.map_err(|error| unanswered(&error))?;
    Ok(import::state(match (seen.process, seen.saved_state) {
        (Process::Running, _) => Activity::Running,
        (Process::Still | Process::Incoming, _) => Activity::Suspended,
        (Process::Absent, StateOnDisk::Whole) => Activity::Saved,
        (Process::Absent, _) => Activity::Off,
    }))
}

/// The platform could not say.
pub(super) fn unanswered(error: &Error) -> Problem {
    match error {
        Error::Unreachable { .. } => Problem::new(ProblemKind::Unavailable, chain(error)).fix(
            "start it: systemctl start libvirtd, or virtqemud.socket where the daemons are modular; or say \
                  where it is with --uri",
        ),
        Error::Unsupported(_) => unsupported(error),
        _ => Problem::new(ProblemKind::Failed, chain(error)),
    }
}

/// Its platform can put it to sleep as deep as its file says.
pub(super) fn check_depth(spec: &MachineSpec, abilities: &Capabilities) -> Result<(), Problem> {
    let depth = spec.sleep.depth;
    let Some(why) = abilities.why_not(depth) else { return Ok(()) };
    let detail = format!("sleep.depth = {depth}: {why}");
    Err(Problem::new(ProblemKind::Invalid, detail).key("sleep.depth"))
}

/// Its platform can ask the guest, if its file wants that.
pub(super) fn check_guest(spec: &MachineSpec, instance: &dyn Instance) -> Result<(), Problem> {
    let keep = &spec.sleep.keep;
    let key = match (keep.users, keep.load_below, keep.faults_below) {
        _ if instance.asks_guest() => return Ok(()),
        (true, ..) => "sleep.users",
        (_, Some(_), _) => "sleep.load_below",
        (.., Some(_)) => "sleep.faults_below",
        (false, None, None) => return Ok(()),
    };
    let detail = format!("{key}: its platform cannot ask the guest, so that it would never sleep");
    let fix = "remove the key; only domains of libvirt have a guest agent that can be asked";
    Err(Problem::new(ProblemKind::Invalid, detail).key(key).fix(fix))
}

/// What of `sleep.deeper` its platform cannot do, to warn of: what bars it may go away.
pub(super) fn not_deeper(spec: &MachineSpec, abilities: &Capabilities) -> Vec<String> {
    let unreached = |depth| {
        Some(format!("sleep.deeper has {depth}, which is passed over: {}", abilities.why_not(depth)?))
    };
    spec.sleep.deeper.iter().filter_map(|step| unreached(step.depth)).collect()
}

/// The platform refused the machine.
pub(super) fn unsupported(error: &dormouse_platform::Error) -> Problem {
    Problem::new(ProblemKind::Invalid, chain(error))
}

/// The registry refused the machine.
pub(super) fn not_remembered(name: &MachineName, error: &dormouse_registry::Error) -> Problem {
    match error {
        dormouse_registry::Error::Conflict { .. } => {
            let detail = format!("there is a machine {name} already, which cannot be driven");
            Problem::new(ProblemKind::Exists, detail)
                .key("name")
                .fix("`dormouse doctor` says what to do about it")
        }
        error => Problem::new(ProblemKind::Failed, format!("cannot remember {name}: {}", chain(error))),
    }
}

/// Interfaces whose bridge is not there (yet).
pub(super) fn without_bridge(spec: &MachineSpec) -> impl Iterator<Item = &InterfaceSpec> {
    spec.interfaces.iter().filter(|interface| if_nametoindex(interface.bridge.as_str()).is_err())
}

/// The bridges that a machine is in.
pub(super) fn bridges(spec: &MachineSpec) -> impl Iterator<Item = String> {
    spec.interfaces.iter().map(|interface| interface.bridge.clone())
}
