//! The daemon's configuration: `/etc/dormouse/dormoused.toml`.
//!
//! Read once, before anything is opened or bound, into typed values; a key that is not known or
//! a value that is not allowed ends the daemon with an error that names it. Every key has a
//! default, and `packaging/dormoused.toml` shows all of them; a test compares the two.

mod budget;
mod energy;
mod policy;
mod program;
mod rules;
#[cfg(test)]
mod tests;
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
use value::check;
pub use value::{Ceiling, Handover, OnStop, Span};

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
}
