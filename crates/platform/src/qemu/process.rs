//! A QEMU process: started, found again, watched, ended.
//!
//! It is in a process group of its own and outlives the daemon. It has the machine's lock file
//! open, under a known number: by it it is found again, and no second one can be started.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::MetadataExt,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use rustix::{
    fs::FlockOperation,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, setpriority_pgrp},
};
use tokio::sync::watch;

use super::{account::Account, args::LOCK_FD};
use crate::Error;

/// A live or ended process.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    handle: Arc<OwnedFd>,
    ended: watch::Receiver<Option<String>>,
}

/// What to start.
pub(super) struct Plan<'a> {
    pub(super) program: &'a Path,
    pub(super) args: Vec<String>,
    pub(super) account: Option<Account>,
    /// Descriptors and their numbers in the process.
    pub(super) fds: Vec<(OwnedFd, i32)>,
    /// Takes what it says.
    pub(super) log: File,
}

/// Starts it.
pub(super) fn start(plan: Plan<'_>) -> Result<Process, Error> {
    let program = plan.program;
    let failed = |source| Error::Spawn { program: program.into(), source };
    let mut command = command(plan).map_err(failed)?;
    let mut child = command.spawn().map_err(failed)?;
    let pid = child.id().unwrap_or(0);
    let handle = open_handle(pid).map_err(failed);
    if handle.is_err() {
        // Nobody could end it later.
        let _ = child.start_kill();
    }
    let (tell, ended) = watch::channel(None);
    // Whatever becomes of its machine: a child that nobody waits for stays defunct.
    tokio::spawn(async move {
        let status = child.wait().await.map_or_else(|e| e.to_string(), |s| in_words(&s));
        tell.send_replace(Some(status));
    });
    Ok(Process { pid, handle: Arc::new(handle?), ended })
}

fn command(plan: Plan<'_>) -> io::Result<tokio::process::Command> {
    let mut command = Command::new(plan.program);
    command
        .args(plan.args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(plan.log.try_clone()?)
        .stderr(plan.log);
    if let Some(Account { uid, gid }) = plan.account {
        command.uid(uid).gid(gid);
    }
    let mappings =
        plan.fds.into_iter().map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
    command.fd_mappings(mappings).map_err(io::Error::other)?;
    Ok(command.into())
}

fn open_handle(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

fn in_words(status: &ExitStatus) -> String {
    match status.signal() {
        Some(31) => "killed by its sandbox: a system call that it may not make".into(),
        Some(7) => "killed by SIGBUS: the disk under its RAM file is full or failed".into(),
        _ => status.to_string(),
    }
}

/// A process that was found, whose end is not yet told.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) process: Process,
    tell: watch::Sender<Option<String>>,
}

/// Finds a machine's process by its lock file: started by us, or by a daemon before us.
pub(super) fn find(lock: &Path) -> Result<Option<Found>, Error> {
    let Ok(wanted) = fs::metadata(lock).map(|m| (m.dev(), m.ino())) else {
        return Ok(None);
    };
    for entry in fs::read_dir("/proc").map_err(Error::io("read", "/proc"))?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        // Opened first, so that the check is of this very process, and not of a later one of its number.
        let Ok(handle) = open_handle(pid) else { continue };
        let found = fs::metadata(format!("/proc/{pid}/fd/{LOCK_FD}")).map(|m| (m.dev(), m.ino()));
        if found.is_ok_and(|found| found == wanted) && pid != std::process::id() {
            let (tell, ended) = watch::channel(None);
            return Ok(Some(Found { process: Process { pid, handle: Arc::new(handle), ended }, tell }));
        }
    }
    Ok(None)
}

/// As [`find`], but waits for one that is just being started or just ending.
pub(super) async fn find_settled(lock: &Path) -> Result<Option<Found>, Error> {
    for _ in 0..100 {
        // First, since it spares the walk through /proc.
        if !is_locked(lock) {
            return Ok(None);
        }
        let found = find(lock)?;
        if found.is_some() {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(Error::AlreadyRunning { pid: 0 })
}

fn is_locked(lock: &Path) -> bool {
    File::open(lock)
        .is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err())
}

impl Found {
    /// Tells its end from now on.
    ///
    /// By a thread, for tokio's AsyncFd cannot be made without unsafe code. It ends with the process.
    pub(super) fn watch(self) -> Result<Process, Error> {
        let Self { process, tell } = self;
        let watched = Arc::clone(&process.handle);
        std::thread::Builder::new()
            .name(format!("watch {}", process.pid))
            .stack_size(64 << 10)
            .spawn(move || {
                await_end(&watched);
                tell.send_replace(Some("its status went to another parent".to_owned()));
            })
            .map_err(Error::io("watch", format!("/proc/{}", process.pid)))?;
        Ok(process)
    }
}

/// A pidfd is readable once its process has ended; pidfd_open(2).
fn await_end(handle: &OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    while poll(&mut [PollFd::new(handle, PollFlags::IN)], None) == Err(rustix::io::Errno::INTR) {}
}

/// Locks a machine's lock file, for as long as any process has this open file.
pub(super) async fn lock(file: &File, pid_hint: impl FnOnce() -> u32) -> Result<(), Error> {
    // A process that is just being started elsewhere may hold a copy until it is executed.
    for _ in 0..50 {
        if rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(Error::AlreadyRunning { pid: pid_hint() })
}

impl Process {
    /// Has it ended?
    pub(super) fn is_gone(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Waits until it has ended; says how.
    pub(super) async fn gone(&self) -> String {
        let mut ended = self.ended.clone();
        let status = ended.wait_for(Option::is_some).await.map(|s| s.clone());
        status.ok().flatten().unwrap_or_else(|| "its watcher was stopped".into())
    }

    /// Waits until it has ended, or `patience` is over.
    pub(super) async fn gone_within(&self, patience: Duration) -> Option<String> {
        tokio::time::timeout(patience, self.gone()).await.ok()
    }

    /// Sets the nice value of all its threads, which are a process group.
    pub(super) fn set_nice(&self, nice: i32) -> io::Result<()> {
        let group = i32::try_from(self.pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        Ok(setpriority_pgrp(Some(group), nice)?)
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        // That it is gone already is as good.
        let _ = pidfd_send_signal(&*self.handle, Signal::KILL);
    }
}

/// The last lines of a log, at most 2 KiB.
pub(super) fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let from = text.len().saturating_sub(2048);
    String::from_utf8_lossy(&text[from..]).trim().replace('\n', " | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_lock_that_is_held_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let lock = dir.path().join("lock");
        assert!(find_settled(&lock).await.unwrap().is_none());
        let file = File::create(&lock).unwrap();
        let mut command = Command::new("sleep");
        let parent_fd = file.try_clone().unwrap().into();
        command.arg("60").fd_mappings(vec![FdMapping { parent_fd, child_fd: LOCK_FD }]).unwrap();
        let mut child = command.spawn().unwrap();
        drop(command);
        assert_eq!(find(&lock).unwrap().unwrap().process.pid, child.id());
        assert!(find_settled(&lock).await.unwrap().is_none());
        super::lock(&file, || 0).await.unwrap();
        drop(file);
        let found = find_settled(&lock).await.unwrap().unwrap();
        assert_eq!(found.process.pid, child.id());
        let process = found.watch().unwrap();
        process.kill();
        process.gone().await;
        child.wait().unwrap();
        assert!(find_settled(&lock).await.unwrap().is_none());
    }
}
