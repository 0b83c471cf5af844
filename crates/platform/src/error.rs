//! Why a platform could not do what it was asked.

use std::{io, path::PathBuf, time::Duration};

use crate::qmp;

/// Why a platform could not do what it was asked. The causes are in `source()`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, directory or socket of the machine.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was to be done with it.
        action: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file system is full.
    #[error("no space left to {action} {path} ({free} bytes are free): make room and try again", path = path.display())]
    NoSpace {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Bytes free on its file system for this user.
        free: u64,
    },
    /// The program could not be started.
    #[error("cannot start {program}", program = program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The process ended by itself.
    #[error("the machine's process ended while it was to {during} ({status})")]
    Exited {
        /// What it should have done.
        during: &'static str,
        /// Its status, and the last lines that it logged.
        status: String,
    },
    /// The monitor refused a command.
    #[error("QEMU did not carry out {command}")]
    Qmp {
        /// The command.
        command: &'static str,
        /// What it said.
        #[source]
        source: qmp::Error,
    },
    /// QEMU could not write or read the machine's state.
    #[error("QEMU could not {action} the machine's state: {why}")]
    Migration {
        /// Write or read.
        action: &'static str,
        /// What QEMU said.
        why: String,
    },
    /// It took too long.
    #[error("{what} took more than {after:?}")]
    Timeout {
        /// What did.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// `hurry` interrupted it.
    #[error("{0} was interrupted because the machine is wanted")]
    Hurried(&'static str),
    /// No state is there.
    #[error("there is no saved state in {path}", path = path.display())]
    NoState {
        /// Where it would be.
        path: PathBuf,
    },
    /// The state was used before, and the machine's memory has moved on.
    #[error("the saved state in {path} was used before: start the machine cold", path = path.display())]
    StateUsed {
        /// Where it is.
        path: PathBuf,
    },
    /// The state is not what was saved.
    #[error("the saved state is damaged: {path}: {what}; restore the file, or start the machine cold", path = path.display())]
    StateDamaged {
        /// The file that is wrong.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The state belongs to a machine of another make.
    #[error(
        "the saved state does not fit the machine's file: {what}; undo the change, or start the machine cold"
    )]
    StateForeign {
        /// What differs.
        what: String,
    },
    /// There is no process.
    #[error("the machine has no process")]
    NotRunning,
    /// There is a process already.
    #[error("the machine already has a process ({pid})")]
    AlreadyRunning {
        /// Its id; 0 if it cannot be told.
        pid: u32,
    },
    /// An interface cannot be made or joined to its bridge.
    #[error("cannot attach interface {mac} to bridge {bridge}")]
    Interface {
        /// The guest's address.
        mac: dormouse_types::MacAddr,
        /// The bridge.
        bridge: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What runs the machine, and is no part of us, did not do what it was asked.
    #[error("{whom} did not {action}")]
    Refused {
        /// Who was asked: `libvirt`.
        whom: &'static str,
        /// For what.
        action: String,
        /// What was said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What runs the machine cannot be asked. The machine itself may well run.
    #[error("{whom} cannot be reached: {why}")]
    Unreachable {
        /// Who: `libvirt (qemu:///system)`.
        whom: String,
        /// Why not, as far as is known.
        why: String,
    },
    /// The machine's file asks for what cannot be.
    #[error("{0}")]
    Unsupported(String),
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| {
            if source.kind() == io::ErrorKind::StorageFull {
                let free = free_bytes(&path).unwrap_or(0);
                return Self::NoSpace { action, path, free };
            }
            Self::Io { action, path, source }
        }
    }

    pub(crate) fn qmp(command: &'static str) -> impl FnOnce(qmp::Error) -> Self {
        move |source| Self::Qmp { command, source }
    }
}

/// Bytes that may still be written on the file system of `path` or of its nearest parent.
pub(crate) fn free_bytes(path: &std::path::Path) -> Option<u64> {
    let there = path.ancestors().find(|p| p.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}
