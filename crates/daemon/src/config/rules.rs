//! What the types of the configuration alone do not say of its values.

use std::path::Path;

use dormouse_wire::ScanLimits;

use super::{Config, Limits, Scan, Span, value::Rule};

impl Config {
    /// What the types alone do not say of the values.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let absolute =
            |key, path: &Path| Rule::new(key, path.display(), path.is_absolute(), "write an absolute path");
        let positive =
            |key, span: Span| Rule::new(key, span, !span.get().is_zero(), "write a time above zero");
        let filter = tracing_subscriber::EnvFilter::try_new(&self.log).is_ok();
        let Limits { held_frames, held_bytes, held_total, request_bytes, command_wait } = self.limits;
        let mut rules = vec![
            absolute("state_dir", &self.state_dir),
            absolute("socket", &self.socket),
            Rule::new(
                "socket",
                self.socket.display(),
                self.socket.as_os_str().len() < 108,
                "write a path of fewer than 108 octets, as unix(7) wants it",
            ),
            Rule::new(
                "log",
                &self.log,
                filter,
                "write error, warn, info, debug or trace, or a filter as info,dormouse_surrogate=debug",
            ),
            Rule::new(
                "sample_interval",
                self.sample_interval,
                (100..=120_000).contains(&self.sample_interval.get().as_millis()),
                "write a time from 100ms to 2m, so that several samples are compared before a machine sleeps",
            ),
            Rule::new(
                "event_history",
                self.event_history,
                (1..=1_000_000).contains(&self.event_history),
                "write a number from 1 to 1000000",
            ),
            Rule::new(
                "qemu.binary",
                self.qemu.binary.display(),
                !self.qemu.binary.as_os_str().is_empty(),
                "write the path or the name of a QEMU program, as qemu-system-x86_64",
            ),
            positive("sleep.boot_timeout", self.sleep.boot_timeout),
            positive("sleep.stop_timeout", self.sleep.stop_timeout),
            positive("limits.command_wait", command_wait),
            Rule::new(
                "limits.held_frames",
                held_frames,
                (1..=1_000_000).contains(&held_frames),
                "write a number from 1 to 1000000",
            ),
            Rule::new(
                "limits.held_bytes",
                held_bytes,
                (64 << 10..=1 << 30).contains(&held_bytes),
                "write a size from 64KiB (one full GSO frame) to 1GiB",
            ),
            Rule::new(
                "limits.held_total",
                held_total,
                (1 << 20..=1 << 40).contains(&held_total),
                "write a size from 1MiB to 1TiB",
            ),
            Rule::new(
                "limits.request_bytes",
                request_bytes,
                (4 << 10..=64 << 20).contains(&request_bytes),
                "write a size from 4KiB to 64MiB",
            ),
        ];
        rules.extend(self.scan_rules());
        rules.extend(self.budget.rules());
        rules.extend(self.metering.rules());
        rules.extend(self.energy.rules());
        rules.extend(self.responder.iter().flat_map(|(name, responder)| responder.rules("responder", name)));
        rules.extend(self.policy.iter().flat_map(|(name, policy)| policy.rules("policy", name)));
        rules
    }

    fn scan_rules(&self) -> [Rule; 3] {
        let Scan { ports, machines, within, .. } = self.scan;
        let most = ScanLimits::MOST;
        let limit =
            |key, limit| Rule::new(key, limit, limit <= most, "write a number up to 256; 0 counts none");
        [
            limit("scan.ports", ports),
            limit("scan.machines", machines),
            Rule::new(
                "scan.within",
                within,
                (100..=3_600_000).contains(&within.get().as_millis()),
                "write a time from 100ms to 1h",
            ),
        ]
    }
}
