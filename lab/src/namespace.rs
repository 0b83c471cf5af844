//! One network namespace, and work done inside it.

use crate::{
    Error, Result,
    command::{ip_batch, stdout},
};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Where iproute2 keeps the names.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// A named network namespace. This is the name only: dropping it removes nothing.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn named(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    pub(crate) fn create(name: impl Into<String>) -> Result<Self> {
        let namespace = Self::named(name);
        stdout(Command::new("ip").args(["netns", "add", &namespace.name]))?;
        // Duplicate address detection would hold IPv6 back for a second and prove nothing here.
        for which in ["all", "default"] {
            namespace.sysctl(&format!("net/ipv6/conf/{which}/accept_dad"), "0")?;
        }
        Ok(namespace)
    }

    /// Its name, as `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// A command that will run inside. The child's process id is the program's own.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs several `ip` commands inside, one to a line.
    ///
    /// # Errors
    ///
    /// What `ip` complains about.
    pub fn ip(&self, lines: &str) -> Result<()> {
        ip_batch(Some(&self.name), lines)
    }

    /// Sets one of the namespace's own kernel parameters, given as a path below `/proc/sys`.
    ///
    /// # Errors
    ///
    /// If there is no such parameter or the kernel refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key);
        self.run(|| fs::write(&path, value).map_err(Error::file("write", &path)))?
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets opened there stay there.
    ///
    /// # Errors
    ///
    /// If the namespace cannot be entered; and if `work` panics, which is reported as such.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| self.enter().map(|()| work()));
            inside.join().unwrap_or_else(|_| Err(Error::Setup(format!("work in {} panicked", self.name))))
        })
    }

    /// Moves the calling thread inside, for good.
    pub(crate) fn enter(&self) -> Result<()> {
        let error = |source| Error::Enter { name: self.name.clone(), source };
        let file = File::open(self.path()).map_err(error)?;
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|e| error(e.into()))
    }

    /// The processes inside.
    ///
    /// # Errors
    ///
    /// If the namespace is gone.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let text = stdout(Command::new("ip").args(["netns", "pids", &self.name]))?;
        Ok(text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect())
    }

    /// Kills every process inside and removes the namespace.
    pub(crate) fn destroy(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let pids = self.pids()?;
            for pid in &pids {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            if pids.is_empty() || start.elapsed() > Duration::from_secs(5) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        stdout(Command::new("ip").args(["netns", "del", &self.name])).map(drop)
    }
}
