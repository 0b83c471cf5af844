//! Platforms that run machines, behind one trait.
//!
//! The core never asks which platform a machine is on: an [`Instance`] says what it can do, and
//! refuses the rest. Every method can be called again after it failed, and again after a restart
//! of the daemon.
#![forbid(unsafe_code)]

mod candidate;
mod error;
mod obstacle;
pub mod page_out;
pub mod qemu;
pub mod qmp;
pub mod saved;
mod touched;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use dormouse_machine::lifecycle::{Observed, Shape};
use dormouse_types::{Depth, MacAddr, MachineName, Timestamp};

pub use candidate::{Activity, Candidate, Finding, Joined, NotFound};
pub use error::Error;
pub use obstacle::Obstacle;

/// The host's wall clock, which goes on while no daemon runs, and may be set.
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::default() + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// One machine, as its platform sees it. Owned by that machine's driver task.
#[async_trait]
pub trait Instance: Send + Sync {
    /// The depths of sleep that this machine can reach, and what stands in the way of the others.
    fn capabilities(&self) -> Capabilities;

    /// What stands in the way of its sleep, looked for afresh; may ask the platform. For `doctor`.
    async fn obstacles(&self) -> Vec<Obstacle> {
        self.capabilities().obstacles
    }

    /// What is peculiar to the order of its steps.
    fn shape(&self) -> Shape {
        Shape::default()
    }

    /// What is true now: asked after a restart, and after [`Notice::Changed`].
    async fn observe(&self) -> Result<Observed, Error>;

    /// Is there a process of this machine on this host, as far as can be told without its platform? For
    /// sleepers that should have none, while the platform cannot be asked.
    async fn has_process_here(&self) -> bool {
        false
    }

    /// Makes sure that the machine's network interfaces exist on the host, in their bridges.
    async fn attach(&self) -> Result<Vec<Port>, Error>;

    /// The interfaces as [`Instance::attach`] gives them, to stand in for the machine: where no
    /// process has them, without a change of the host, and perhaps of some that are not there.
    async fn ports(&self) -> Result<Vec<Port>, Error>;

    /// Removes the interfaces that [`Instance::attach`] made.
    async fn detach(&self) -> Result<(), Error>;

    /// Powers on and boots. Where the interfaces come late (see [`Instance::shape`]), only makes the
    /// process: its guest boots at the `resume` that follows. A platform that keeps what is saved itself starts
    /// from that, if others have saved the machine.
    async fn boot(&self) -> Result<(), Error>;

    /// Makes ready to run on from the saved state, verified first. The guest does not run yet.
    /// To be asked for only while the journal says that no guest ever ran from that state: one
    /// that a process was given and that is gone is used again.
    async fn load(&self) -> Result<(), Error>;

    /// Makes ready what a later `load` will need, at the price of memory, of which
    /// [`Instance::standby_bytes`] tells. The saved state is not used up by it. False: there is
    /// nothing that could be made ready, for the machine does not sleep saved. May be asked for
    /// beside everything else; a `load` takes what there is by then.
    async fn warm(&self) -> Result<bool, Error> {
        Ok(false)
    }

    /// Gives up what `warm` has made ready, and its memory.
    async fn cool(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Bytes of host memory that what `warm` has made ready occupies now; `None` if nothing is.
    async fn standby_bytes(&self) -> Option<u64> {
        None
    }

    /// Lets the guest run (after `load`, `pause`, `suspend` or `save`); returns once it does.
    async fn resume(&self) -> Result<(), Error>;

    /// Asks the guest to suspend itself to memory (ACPI S3), and waits until it has; `resume` wakes it.
    async fn suspend(&self, _patience: Duration) -> Result<(), Error> {
        Err(Error::Unsupported("its platform cannot ask the guest to suspend itself".into()))
    }

    /// Stops the guest's processors.
    async fn pause(&self) -> Result<(), Error>;

    /// Gives the memory of a paused guest back to the host, as far as its machine's file wants that
    /// and there is a place for it; the bytes. To be asked for once the machine sleeps, and beside
    /// everything else: `resume` ends it early, and does not wait for that.
    async fn page_out(&self) -> Result<u64, Error> {
        Ok(0)
    }

    /// Stops the guest's processors and writes its state; `resume` still undoes it.
    async fn save(&self) -> Result<(), Error>;

    /// Puts memory and state on stable storage; `resume` still undoes it.
    async fn flush(&self) -> Result<(), Error>;

    /// Interrupts a running `save` or `flush`, which then fails or ends early.
    async fn hurry(&self);

    /// Ends the process of a saved machine and gives its memory back to the host.
    async fn quit(&self) -> Result<(), Error>;

    /// Asks the guest to shut down, and waits until it has.
    async fn power_down(&self, patience: Duration) -> Result<(), Error>;

    /// Ends the process.
    async fn kill(&self) -> Result<(), Error>;

    /// Makes the saved state unusable, durably.
    async fn discard_state(&self) -> Result<(), Error>;

    /// Removes all that the platform keeps of a machine that has no process: its interfaces, its
    /// memory and saved state. Disk images are the user's, and stay. Where others act on the machine too
    /// (see [`Instance::shape`]) it may have a process, which runs on.
    async fn erase(&self) -> Result<(), Error>;

    /// Reads the counters that idleness is judged by.
    async fn counters(&self) -> Result<Counters, Error>;

    /// Is there a way to ask the guest itself, by [`Instance::inside`]? A guest may have no helper all the same.
    fn asks_guest(&self) -> bool {
        false
    }

    /// Major page faults of the guest since it booted, where its balloon driver tells them.
    async fn faults(&self) -> Option<Faults> {
        None
    }

    /// How many look at the machine's screen from elsewhere; `None` if that is not known, as of a machine
    /// that has no such screen.
    async fn viewers(&self) -> Option<u32> {
        None
    }

    /// What the guest itself says of how it is used, where a helper in it can be asked.
    async fn inside(&self) -> Option<Inside> {
        None
    }

    /// What is known of the machine's memory and process, for `show`.
    async fn facts(&self) -> Facts;
}

/// What an instance can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Reachable depths.
    pub depths: Vec<Depth>,
    /// Why the others are not.
    pub obstacles: Vec<Obstacle>,
    /// Sleep and wake take the same time whatever the memory size.
    pub lazy_memory: bool,
}

impl Capabilities {
    /// Why a depth cannot be reached, in one line; `None` if it can be.
    #[must_use]
    pub fn why_not(&self, depth: Depth) -> Option<String> {
        if self.depths.contains(&depth) {
            return None;
        }
        let bars = self.obstacles.iter().filter(|obstacle| obstacle.bars(depth));
        let why: Vec<_> = bars.map(|bar| format!("{}: {}", bar.what, bar.reason)).collect();
        Some(if why.is_empty() { "its platform does not have it".into() } else { why.join("; ") })
    }
}

/// A machine's network interface on the host.
#[derive(Clone, Debug)]
pub struct Port {
    /// The guest's address.
    pub mac: MacAddr,
    /// The bridge it is in.
    pub bridge: String,
    /// The tap's name on the host.
    pub tap: String,
    /// The tap's queue, to see when the guest has read it all; `None` where it cannot be had.
    pub queue: Option<Arc<std::os::fd::OwnedFd>>,
}

/// Counters that only grow while a process lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// When they were read.
    pub at: Timestamp,
    /// CPU time of all virtual processors.
    pub cpu: Duration,
    /// Bytes that the guest sent, and those that it received if they can be told from broadcasts.
    pub network_bytes: u64,
    /// Bytes that the guest read or wrote on its disks.
    pub disk_bytes: u64,
}

/// Major page faults of a guest since it booted, as its balloon driver counted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// When they were counted.
    pub at: Timestamp,
    /// How many there were.
    pub count: u64,
}

/// What a guest says of its use, by QEMU's guest agent (QEMU documentation, qemu-ga-ref).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inside {
    /// When it was asked.
    pub at: Timestamp,
    /// Users that are logged in, as `alice (pts/0)`.
    pub users: Vec<String>,
    /// Processes that run or want to, averaged over a minute; `None` where the agent cannot tell.
    pub load: Option<f64>,
}

/// What a user may want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The process, if there is one.
    pub pid: Option<u32>,
    /// Bytes of host memory that the machine occupies now (its process, and its cached RAM file); `None` if nobody
    /// knows, as of one on another host.
    pub resident_bytes: Option<u64>,
    /// Of these, bytes of the process that stands by for a wake; `None` if none does.
    pub standby_bytes: Option<u64>,
    /// Bytes on disk of its RAM file and saved state.
    pub disk_bytes: u64,
    /// The serial console's log.
    pub console: Option<std::path::PathBuf>,
}

/// What an instance tells without being asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The guest shut itself down.
    GuestShutdown(MachineName),
    /// The process that a `load` started exists, outlives this daemon, and will be ready very soon.
    Spawned(MachineName),
    /// The process ended and nobody had asked; what is known of why.
    Exited(MachineName, String),
    /// Others changed the machine, or the platform is back after it could not be asked: `observe` is
    /// due. Who or what did it, in words for the user.
    Changed(MachineName, String),
    /// Others changed the machine's definition: its interfaces may be others.
    Redefined(MachineName),
    /// Others removed the machine's definition: there is nothing left to run.
    Undefined(MachineName, String),
    /// The platform cannot be asked, since when and why; sleepers are answered for all the same.
    Unreachable(MachineName, String),
}

impl Notice {
    /// The machine that it is about.
    #[must_use]
    pub const fn machine(&self) -> &MachineName {
        match self {
            Self::GuestShutdown(name)
            | Self::Spawned(name)
            | Self::Exited(name, _)
            | Self::Changed(name, _)
            | Self::Redefined(name)
            | Self::Undefined(name, _)
            | Self::Unreachable(name, _) => name,
        }
    }
}

/// Runs what blocks on a disk where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|e| Err(Error::Unsupported(format!("a disk task was stopped: {e}"))))
}
