//! What stands in the way of Dormouse on this host, and how to put it right.
//!
//! Each check looks at one thing of the host and changes nothing.

mod host;
mod libvirt;
mod machine;
mod network;
mod programs;

use std::{collections::BTreeSet, time::Duration};

use dormouse_api_types::{AwakeBudget, Check, CheckStatus, Report};
use dormouse_surrogate::Capabilities;

use crate::{
    config::{Config, Metering},
    meters::Kept,
};

pub(crate) use libvirt::Domains;
pub(crate) use machine::{Patient, examine as examine_machine};

/// Looks at everything. Blocks: asks programs for their version.
#[must_use]
pub(crate) fn examine(
    config: &Config,
    surrogate: &Capabilities,
    bridges: BTreeSet<String>,
    domains: Domains,
) -> Report {
    let mut checks = vec![
        host::capabilities(),
        programs::qemu(&config.qemu.binary),
        programs::qemu_user(&config.qemu.user),
        programs::qemu_img(),
        host::kvm(),
        host::state_dir(&config.state_dir),
        host::socket(&config.socket, &config.socket_group),
        network::tun(),
        network::handover(surrogate),
        network::flows(surrogate),
        network::bridge_netfilter(),
    ];
    checks.extend(libvirt::checks(domains));
    checks.extend(bridges.iter().map(|bridge| network::bridge(bridge)));
    Report { checks }
}

/// The processes that stand by for wakes, and the bytes that each has.
pub(crate) fn standbys(budget: usize, bytes: &[u64]) -> Check {
    let sum = bytes.iter().copied().fold(0, u64::saturating_add);
    let budget = u64::try_from(budget).unwrap_or(u64::MAX);
    let found = match (budget, bytes.len()) {
        (0, 0) => "none: standby.memory is 0, so that every wake starts its process first".to_owned(),
        (_, count) => {
            format!("{count} standing by for wakes, in {} of {}", bytesize(sum), bytesize(budget))
        }
    };
    if crate::pressure::is_tight() {
        let fix = "free memory, or lower standby.memory in dormoused.toml";
        return warn("standby", format!("{found}; the host is short of memory, and they are given up"), fix);
    }
    ok("standby", found)
}

/// How much is kept of what machines used, and whether that is as it is configured.
pub(crate) fn usage(kept: Kept, metering: &Metering) -> Check {
    let Kept { rows, most, hourly } = kept;
    let (wanted, keep) = (metering.hourly, metering.keep);
    let found = format!("{rows} rows of what machines used, for {keep}");
    if rows <= most && hourly >= wanted.get() {
        return ok("usage", found);
    }
    let hourly = humantime::format_duration(Duration::from_secs(hourly.as_secs()));
    let found = format!("{found}, of {most}: its hours are kept for {hourly}, not for {wanted}");
    let fix = "shorten metering.hourly and metering.keep in dormoused.toml";
    warn("usage", found, fix)
}

/// A budget of awake memory.
pub(crate) fn budget(budget: &AwakeBudget) -> Check {
    let AwakeBudget { owner, bytes, awake_bytes, strict } = budget;
    let name = owner.as_ref().map_or_else(|| "budget".into(), |owner| format!("budget {owner}"));
    let strict = if *strict { ", strictly" } else { "" };
    let found = format!("{} awake of {}{strict}", bytesize(*awake_bytes), bytesize(*bytes));
    if awake_bytes > bytes {
        let fix = "nobody else is idle: raise the budget in dormoused.toml, or put a machine to sleep";
        return warn(&name, found, fix);
    }
    ok(&name, found)
}

fn bytesize(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

/// A machine that is remembered and cannot be driven.
pub(crate) fn lost_machine(name: &dormouse_types::MachineName, why: &str) -> Check {
    let fix = format!(
        "put the cause right and restart dormoused; or forget the machine with `dormouse rm --force {name}` \
         (its disks stay) and create it again"
    );
    fail(&format!("machine {name}"), format!("cannot be driven: {why}"), fix)
}

fn ok(name: &str, found: impl Into<String>) -> Check {
    Check { name: name.into(), status: CheckStatus::Ok, found: found.into(), fix: None }
}

fn warn(name: &str, found: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { name: name.into(), status: CheckStatus::Warn, found: found.into(), fix: Some(fix.into()) }
}

fn fail(name: &str, found: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { name: name.into(), status: CheckStatus::Fail, found: found.into(), fix: Some(fix.into()) }
}
