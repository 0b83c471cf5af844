//! The daemon's configuration: `/etc/dormouse/dormoused.toml`.
//!
//! Read once, before anything is opened or bound, into typed values; a key that is not known or
//! a value that is not allowed ends the daemon with an error that names it. Every key has a
//! default, and `packaging/dormoused.toml` shows all of them; a test compares the two.

mod budget;
mod energy;
mod policy;
mod program;
mod value;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use dormouse_machine::spec::MemoryBacking;
use dormouse_wire::ScanLimits;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use budget::Budget;
pub use energy::{Energy, Metering};
pub use policy::UsualPolicy;
pub use program::UserProgram;
pub use value::{Ceiling, Handover, OnStop, Span};
use value::{Rule, check};

/// Where the file is unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/dormouse/dormoused.toml";

/// All that can be configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The registry, the machines' directories and their saved states.
    pub state_dir: PathBuf,
    /// The unix socket of the API.
    pub socket: PathBuf,
    /// The group that may use the socket, if it exists.
    pub socket_group: String,
    /// What is logged, as tracing's `EnvFilter` has it.
    pub log: String,
    /// How often a running machine's counters are read.
    pub sample_interval: Span,
    /// Events that are kept for readers that come later or are slow.
    pub event_history: usize,
    /// What becomes of running machines when the daemon is told to end.
    pub on_stop: OnStop,
    /// See [`Qemu`].
    pub qemu: Qemu,
    /// See [`Libvirt`].
    pub libvirt: Libvirt,
    /// See [`Sleep`].
    pub sleep: Sleep,
    /// See [`Standby`].
    pub standby: Standby,
    /// See [`Budget`].
    pub budget: Budget,
    /// See [`Network`].
    pub network: Network,
    /// See [`Limits`].
    pub limits: Limits,
    /// See [`Metering`].
    pub metering: Metering,
    /// See [`Energy`].
    pub energy: Energy,
    /// See [`Scan`].
    pub scan: Scan,
    /// Programs that machine files may name as responders, by name.
    pub responder: BTreeMap<String, UserProgram>,
    /// Programs that machine files may name as policies, by name.
    pub policy: BTreeMap<String, UserProgram>,
}

/// How QEMU is run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Qemu {
    /// The program, a path or a name that is looked for in `PATH`.
    pub binary: PathBuf,
    /// The user that QEMU runs as.
    pub user: String,
    /// Where guests have their memory, unless their files say.
    pub memory: MemoryBacking,
    /// Whether the whole memory file is reserved on the disk at boot, unless their files say.
    pub preallocate: bool,
}

/// Domains of libvirt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Libvirt {
    /// The connection of machines whose files name none, and of imports that name none; as `virsh -c` takes it.
    pub uri: String,
}

/// Sleeping and waking, for all machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sleep {
    /// The policy of machines whose files name none.
    pub policy: UsualPolicy,
    /// How long a guest has to read what its tap holds, before it is stopped.
    pub drain_grace: Span,
    /// How long a booting guest may take until it is first heard on its network.
    pub boot_timeout: Span,
    /// How long a guest may take to shut itself down.
    pub stop_timeout: Span,
}

/// Processes that wait for the wakes of machines that sleep saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Standby {
    /// Bytes that all of them may occupy together; none are started with 0.
    #[serde(deserialize_with = "value::bytes")]
    pub memory: usize,
    /// How long a machine has slept before one is started for it.
    pub after: Span,
}

/// Standing in for sleepers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// How held frames are joined to direct ones at a wake.
    pub handover: Handover,
}

/// Bounds on what others can make the daemon use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Frames that are held for one machine.
    pub held_frames: usize,
    /// Bytes of frames that are held for one machine.
    #[serde(deserialize_with = "value::bytes")]
    pub held_bytes: usize,
    /// Bytes of memory for what is held for all machines together.
    #[serde(deserialize_with = "value::bytes")]
    pub held_total: usize,
    /// The largest request body.
    #[serde(deserialize_with = "value::bytes")]
    pub request_bytes: usize,
    /// How long the answer to a command waits for the machine to settle.
    pub command_wait: Span,
}

/// What makes a source a scanner, whose frames wake nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scan {
    /// As many different ports within `within`; 0: ports are not counted.
    pub ports: u32,
    /// As many different machines within `within`; 0: machines are not counted.
    pub machines: u32,
    /// The time; and how long a scanner must try nothing new to be none any more.
    pub within: Span,
    /// Networks and addresses whose sources never are scanners.
    #[serde(with = "value::nets")]
    pub trusted: Vec<IpNet>,
}

impl Scan {
    /// As the surrogate takes it.
    #[must_use]
    pub fn limits(&self) -> ScanLimits {
        let Self { ports, machines, within, trusted } = self.clone();
        ScanLimits { ports, machines, within: within.get(), trusted }
    }
}

impl Default for Scan {
    fn default() -> Self {
        let ScanLimits { ports, machines, within, trusted } = ScanLimits::default();
        Self { ports, machines, within: Span::new(within), trusted }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/dormouse".into(),
            socket: dormouse_api_types::DEFAULT_SOCKET.into(),
            socket_group: "dormouse".into(),
            log: "info".into(),
            sample_interval: Span::seconds(5),
            event_history: 1000,
            on_stop: OnStop::Leave,
            qemu: Qemu::default(),
            libvirt: Libvirt::default(),
            sleep: Sleep::default(),
            standby: Standby::default(),
            budget: Budget::default(),
            network: Network::default(),
            limits: Limits::default(),
            metering: Metering::default(),
            energy: Energy::default(),
            scan: Scan::default(),
            responder: BTreeMap::new(),
            policy: BTreeMap::new(),
        }
    }
}

impl Default for Qemu {
    fn default() -> Self {
        Self {
            binary: "qemu-system-x86_64".into(),
            user: "dormouse-qemu".into(),
            memory: MemoryBacking::File,
            preallocate: false,
        }
    }
}

impl Default for Libvirt {
    fn default() -> Self {
        Self { uri: "qemu:///system".into() }
    }
}

impl Default for Sleep {
    fn default() -> Self {
        Self {
            policy: UsualPolicy::default(),
            drain_grace: Span::millis(200),
            boot_timeout: Span::seconds(120),
            stop_timeout: Span::seconds(60),
        }
    }
}

impl Default for Standby {
    fn default() -> Self {
        Self { memory: 256 << 20, after: Span::seconds(3) }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self { handover: Handover::Auto }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            held_frames: 4096,
            held_bytes: 8 << 20,
            held_total: 512 << 20,
            request_bytes: 1 << 20,
            command_wait: Span::seconds(300),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, has an unknown key, or a value of the wrong kind. The source says which.
    #[error("{} is not a configuration of dormoused", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, key and what is allowed.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value is out of range.
    #[error("{}: {key} = {value} is not allowed: {allowed}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// As `limits.held_frames`.
        key: String,
        /// As it was written.
        value: String,
        /// What may be written.
        allowed: &'static str,
    },
}

impl Config {
    /// Reads a file. If it is the default one and there is none, the defaults are meant.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or holds what is not allowed.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && path == Path::new(DEFAULT_PATH) => {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Read { path: path.into(), source }),
        }
    }

    /// Reads a text; `path` is for its errors.
    ///
    /// # Errors
    ///
    /// When it holds what is not allowed.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })?;
        check(&config.rules(), path)?;
        Ok(config)
    }

    /// What the types alone do not say of the values.
    fn rules(&self) -> Vec<Rule> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::chain;

    const SHIPPED: &str = include_str!("../../../../packaging/dormoused.toml");

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/etc/dormouse/dormoused.toml"))
    }

    /// The shipped file with each `#key = value` and `#[table]` in force; `# ` starts prose.
    fn uncommented() -> String {
        SHIPPED
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') => setting,
                _ => line,
            })
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn the_shipped_file_changes_nothing() {
        assert_eq!(parse(SHIPPED).unwrap(), Config::default());
    }

    #[test]
    fn the_shipped_file_shows_exactly_the_defaults() {
        assert_eq!(parse(&uncommented()).unwrap(), Config::default());
    }

    #[test]
    fn the_shipped_file_shows_every_key() {
        let shown: toml::Table = toml::from_str(&uncommented()).unwrap();
        let known = toml::Table::try_from(Config::default()).unwrap();
        assert_eq!(keys(&shown), keys(&known));
    }

    fn keys(table: &toml::Table) -> std::collections::BTreeSet<String> {
        let of = |(key, value): (&String, &toml::Value)| match value {
            toml::Value::Table(inner) => keys(inner).iter().map(|k| format!("{key}.{k}")).collect(),
            _ => vec![key.clone()],
        };
        table.iter().flat_map(of).collect()
    }

    #[test]
    fn errors_name_the_key_the_value_and_what_is_allowed() {
        for (text, parts) in [
            ("stat_dir = \"/x\"", ["stat_dir", "unknown field", "state_dir"]),
            ("state_dir = \"x\"", ["state_dir", "= x ", "absolute path"]),
            ("sample_interval = \"5\"", ["sample_interval", "\"5\"", "as 200ms, 5s or 10m"]),
            ("sample_interval = \"1ms\"", ["sample_interval", "1ms", "100ms to 2m"]),
            ("[limits]\nheld_bytes = \"1KiB\"", ["limits.held_bytes", "1024", "64KiB"]),
            ("[limits]\nheld_total = \"64KiB\"", ["limits.held_total", "65536", "1MiB"]),
            ("[limits]\nheld_bytes = \"many\"", ["held_bytes", "\"many\"", "as 8MiB"]),
            ("on_stop = \"kill\"", ["on_stop", "kill", "leave"]),
            ("log = \"loud=quiet\"", ["log", "loud=quiet", "debug"]),
            ("event_history = 0", ["event_history", "= 0 ", "from 1"]),
            ("[sleep]\npolicy = \"lazy\"", ["sleep.policy", "lazy", "predictive"]),
            ("[sleep.policy]\nname = \"fixed\"\nlead = \"1m\"", ["sleep.policy.lead", "1m", "remove it"]),
            ("[scan]\nports = 257", ["scan.ports", "= 257 ", "256"]),
            ("[scan]\nwithin = \"2h\"", ["scan.within", "2h", "100ms to 1h"]),
            ("[scan]\ntrusted = [\"ten\"]", ["trusted", "\"ten\"", "10.0.0.0/8"]),
            ("[budget]\nawake_memory = \"much\"", ["awake_memory", "\"much\"", "16GiB, or \"none\""]),
            ("[budget]\nawake_memory = 0", ["budget.awake_memory", "= 0 ", "at least 1MiB"]),
            ("[budget.owners]\nalice = \"1KiB\"", ["budget.owners.alice", "= 1024 ", "at least 1MiB"]),
            ("[metering]\nhourly = \"1h\"", ["metering.hourly", "1h", "2d to 10 years"]),
            ("[metering]\nkeep = \"3d\"", ["metering.keep", "3d", "metering.hourly"]),
            ("[energy]\nbusy_watts = -1", ["energy.busy_watts", "-1", "0 to 1000"]),
            ("[energy]\nmemory_watts = nan", ["energy.memory_watts", "NaN", "0 to 1000"]),
            ("[responder.a]\nargs = []", ["responder.a", "missing field", "program"]),
            ("[responder.a]\nprogram = \"b\"", ["responder.a.program", "= b ", "absolute path"]),
            ("[responder.\"a b\"]\nprogram = \"/b\"", ["responder", "= a b ", "letters, digits"]),
            ("[policy.a]\nprogram = \"b\"", ["policy.a.program", "= b ", "absolute path"]),
            ("[responder.a]\nprogram = \"/b\"\ntimeout = \"2m\"", ["responder.a.timeout", "2m", "1ms to 1m"]),
        ] {
            let error = chain(&parse(text).unwrap_err());
            for part in parts {
                assert!(error.contains(part), "{text}: {error:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn budgets_are_sizes_or_none() {
        let text = "[budget]\nawake_memory = \"16GiB\"\n[budget.owners]\nalice = 1048576\nbob = \"none\"";
        let bounds = parse(text).unwrap().budget.bounds();
        assert_eq!((bounds.host, bounds.owners), (Some(16 << 30), [("alice".to_owned(), 1 << 20)].into()));
        assert!(parse("").unwrap().budget.bounds().is_empty());
    }

    #[test]
    fn responders_are_programs_with_a_user_of_little_rights() {
        let text = "[responder.snmp]\nprogram = \"/usr/bin/snmp-proxy\"\nargs = [\"-q\"]";
        let config = parse(text).unwrap();
        let responder = &config.responder["snmp"];
        let expected = dormouse_external::Program {
            name: "snmp".into(),
            program: "/usr/bin/snmp-proxy".into(),
            args: vec!["-q".into()],
            user: Some("nobody".into()),
            timeout: std::time::Duration::from_secs(1),
        };
        assert_eq!(responder.program("snmp", true), expected);
        assert_eq!(responder.program("snmp", false).user, None);
    }

    #[test]
    fn the_example_of_a_responder_is_one() {
        let example: Vec<_> =
            SHIPPED.lines().skip_while(|line| !line.starts_with("#   [responder.")).collect();
        let example: Vec<_> = example.iter().filter_map(|line| line.strip_prefix("#   ")).collect();
        assert!(parse(&example.join("\n")).unwrap().responder.contains_key("snmp"), "{example:?}");
    }

    #[test]
    fn only_the_default_file_may_be_absent() {
        let error = Config::read(Path::new("/nonexistent/dormoused.toml")).unwrap_err();
        assert!(chain(&error).contains("/nonexistent/dormoused.toml"));
    }
}
