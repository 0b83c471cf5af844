//! What the surrogate is told, and what it tells.

use std::{collections::BTreeMap, fmt, net::IpAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use dormouse_types::{MacAddr, MachineName, Matcher, Service, Timestamp, WakeRule};
use dormouse_wire::{Persona, Policy, ScanLimits};

use crate::Drops;

/// How the surrogate works on this host.
#[derive(Clone, Debug)]
pub struct Settings {
    /// First letters of the names of its interfaces (1 to 4 letters or digits).
    pub prefix: String,
    /// How long a guest may take to read its replayed frames before the rest is dropped.
    pub patience: Duration,
    /// Queue length of a woken guest's tap, in frames: what its guest may leave unread while it
    /// catches up. The kernel's default for a tap is 1000.
    pub replay_queue: u32,
    /// Receive buffer per bridge, in octets: what may arrive while the thread does not run.
    pub receive_buffer: u32,
    /// Octets that may be held for all machines together, each frame with what it takes besides.
    pub held_total: u64,
    /// Do not even try the eBPF handover, nor the following of connections by eBPF.
    pub plain_handover: bool,
    /// What makes a source a scanner, whose frames wake nobody.
    pub scan: ScanLimits,
    /// Programs that machines may name as responders.
    pub externals: Vec<dormouse_external::Program>,
}

/// A machine to stand in for.
#[derive(Clone, Debug)]
pub struct Sleeper {
    /// Its name.
    pub name: MachineName,
    /// Its interfaces.
    pub ports: Vec<Port>,
    /// What wakes it.
    pub wake: Vec<WakeRule>,
    /// What is dropped, and counted as [`Reason::Ignored`](crate::Reason::Ignored).
    pub ignore: Vec<Matcher>,
    /// TCP services that are spoken for it.
    pub services: Vec<Service>,
    /// Frames that programs are asked about.
    pub externals: Vec<ExternalRule>,
    /// What its stand-in may do without it.
    pub policy: Policy,
    /// Its guest is off, and boots when it wakes: of what it was, only its addresses are kept.
    pub will_boot: bool,
    /// How much is held for it, over all its interfaces.
    pub limits: Limits,
}

/// Frames that a program is asked about, before the wake rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalRule {
    /// The program's name in [`Settings::externals`].
    pub program: String,
    /// The frames.
    pub frames: Vec<Matcher>,
}

/// One interface of a machine.
#[derive(Clone, Debug)]
pub struct Port {
    /// The guest's Ethernet address.
    pub mac: MacAddr,
    /// The bridge it is in.
    pub bridge: String,
    /// Its tap's name on the host.
    pub tap: String,
    /// The tap's queue, to see what the guest has not read yet; `None` where it cannot be had.
    pub queue: Option<Arc<OwnedFd>>,
    /// IP addresses to answer for.
    pub addresses: Vec<IpAddr>,
    /// They are those of the machine's file; learned ones are given up to another who claims them.
    pub configured: bool,
    /// What it was on the network, as last told by [`Notice::Persona`]; empty if that is not known.
    pub persona: Persona,
}

/// How much is held for one machine; what comes beyond is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Frames.
    pub frames: u64,
    /// Octets, each frame with its 10 octets of offload header.
    pub bytes: u64,
}

/// What the surrogate tells without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A frame came that the machine's rules name. Told once per sleep.
    Wake {
        /// The machine.
        name: MachineName,
        /// The frame in one line.
        frame: String,
    },
    /// A running machine was seen to use these addresses.
    Learned {
        /// The machine.
        name: MachineName,
        /// The interface.
        mac: MacAddr,
        /// Addresses that it claimed, some of them perhaps known already.
        addresses: Vec<IpAddr>,
    },
    /// What a machine is on the network, to be kept and given back as [`Port::persona`]: told when
    /// it is stood in for, and when that changes, as by the renewal of a lease.
    Persona {
        /// The machine.
        name: MachineName,
        /// The interface.
        mac: MacAddr,
        /// What it is.
        persona: Box<Persona>,
    },
    /// A running machine sent its first frame since it is watched.
    Heard {
        /// The machine.
        name: MachineName,
    },
    /// A bridge, or the surrogate's port in it, is gone: nobody there is answered for.
    BridgeLost {
        /// The bridge's name.
        bridge: String,
        /// What is known of why.
        why: String,
    },
    /// A bridge that was lost, or asked for in vain, is there: [`Surrogate::stand_in`](crate::Surrogate::stand_in)
    /// can be called once more for everybody on it, which sets it up anew.
    BridgeBack {
        /// The bridge's name.
        bridge: String,
    },
}

/// How a machine got back what was held for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Frames given to the guest.
    pub frames: u64,
    /// Their octets.
    pub bytes: u64,
    /// Frames that it did not get, over the whole sleep.
    pub dropped: Drops,
    /// Group frames not replayed because the bridge had delivered them.
    pub duplicates_suppressed: u64,
    /// How the handover was made (the lesser way, if the interfaces differ).
    pub handover: HandoverKind,
    /// From the first frame replayed to the handover's end.
    pub took: Duration,
}

/// How the last held frame is joined to the first direct one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HandoverKind {
    /// By a program on the bridge port: nothing lost, doubled or overtaken.
    Ebpf,
    /// By moving the forwarding entry: nothing lost or doubled, a few overtaken at high rates.
    Plain,
}

/// What the surrogate does for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The guest still runs: everything is held, nothing answered.
    Holding,
    /// The guest stands still: it is answered for, and what cannot be answered is held.
    Standing,
    /// As `Standing`, while the guest is on its way to run.
    Waking,
    /// The guest runs, and gets what was held.
    Releasing,
}

/// A machine's numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What is done for it.
    pub mode: Mode,
    /// Frames answered, by responder.
    pub answered: BTreeMap<&'static str, u64>,
    /// Frames held.
    pub held_frames: u64,
    /// Their octets.
    pub held_bytes: u64,
    /// Frames dropped.
    pub dropped: Drops,
    /// The frame that woke it in this sleep, and when.
    pub last_wake: Option<(Timestamp, String)>,
    /// Frames that did not wake it though they might have, by reason, as `scanner`,
    /// `ignore tcp:5666`, `tcp:22 rate 3/10s`.
    pub ignored: BTreeMap<String, Noted>,
}

/// Frames of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// How many.
    pub frames: u64,
    /// The last one, in one line.
    pub last: String,
    /// When it came.
    pub at: Timestamp,
}

/// What would become of a frame if it came now for a machine asleep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rehearsal {
    /// It is answered, by this responder or service.
    Answered(String),
    /// It wakes the machine; the rule.
    Wakes(String),
    /// It does not wake, for this reason, and is dropped.
    Ignored(String),
    /// It is held, and does not wake; why not.
    Held(String),
    /// This program is asked.
    Asked(String),
}

/// What this host lets the surrogate do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How guests are handed over.
    pub handover: HandoverKind,
    /// Why not by eBPF, if so.
    pub obstacle: Option<String>,
    /// How the connections of running guests are followed.
    pub flows: FollowKind,
    /// Why not by eBPF, if so.
    pub flows_obstacle: Option<String>,
}

/// How the TCP connections of running guests are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowKind {
    /// By a program on each guest's tap.
    Ebpf,
    /// By reading the headers of what each guest sends.
    Packets,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: "dm".into(),
            patience: Duration::from_secs(10),
            replay_queue: 10_000,
            receive_buffer: 64 << 20,
            held_total: 512 << 20,
            plain_handover: false,
            scan: ScanLimits::default(),
            externals: Vec::new(),
        }
    }
}

impl fmt::Display for HandoverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ebpf => "ebpf",
            Self::Plain => "plain",
        })
    }
}

impl fmt::Display for FollowKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ebpf => "ebpf",
            Self::Packets => "packets",
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Holding => "holding",
            Self::Standing => "standing",
            Self::Waking => "waking",
            Self::Releasing => "releasing",
        })
    }
}
