//! Starts a QEMU: its files opened by us, its first commands written before it exists.

use std::{
    fs::{File, OpenOptions},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::OpenOptionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
};

use dormouse_machine::spec::{DiskSpec, MemoryBacking};
use serde_json::Value;

use super::{
    Qemu,
    args::{
        self, CONSOLE_FD, DISK_FD, INITRD_FD, KERNEL_FD, LOCK_FD, MONITOR_FD, RAM_FD, STATE_FD, Start, TAP_FD,
    },
    config::QemuConfig,
    dir::{MachineDir, remove},
    process::{self, Plan, Process},
    running::Running,
};
use crate::{
    Error,
    qmp::{Client, Pending},
};

/// Commands to be queued before the process exists, each with its arguments.
pub(super) type Commands = Vec<(&'static str, Value)>;
/// Their answers, in order.
pub(super) type Answers = Vec<(&'static str, Pending)>;

impl Qemu {
    /// Starts a process for `start`; returns as soon as it exists.
    pub(super) async fn launch(&self, start: Start, commands: Commands) -> Result<(Running, Answers), Error> {
        let queues = self.queues()?;
        // From here on this is the machine's only process.
        let mut fds = vec![(self.lock().await?.into(), LOCK_FD), (self.console(&start)?.into(), CONSOLE_FD)];
        match &start {
            Start::Boot => fds.extend(open_kernel(&self.config)?),
            Start::Load { .. } => fds.push((open(&self.dir.state())?.into(), STATE_FD)),
        }
        if self.config.memory_backing == MemoryBacking::File {
            fds.push((open_ram(&self.dir)?.into(), RAM_FD));
        }
        fds.extend(open_disks(&self.config.qemu.disks)?);
        fds.extend(number(TAP_FD, queues));
        let (listener, stream) = monitor(&self.dir)?;
        fds.push((listener.into(), MONITOR_FD));
        let qmp = Client::new(stream);
        let answers = queue(&qmp, commands).await?;
        let process = self.start_process(&start, fds)?;
        Ok((Running::new(process, qmp, self.log(), self.settings.answer_timeout), answers))
    }

    async fn lock(&self) -> Result<File, Error> {
        let path = self.dir.lock();
        let file = self.dir.open_log(&path)?;
        let holder = || process::find(&path).ok().flatten().map_or(0, |found| found.process.pid);
        process::lock(&file, holder).await.map(|()| file)
    }

    /// Opens the console's log; a boot begins a new one.
    fn console(&self, start: &Start) -> Result<File, Error> {
        let path = self.dir.console();
        let console = self.dir.open_log(&path)?;
        if *start == Start::Boot {
            console.set_len(0).map_err(Error::io("empty", path))?;
        }
        Ok(console)
    }

    fn start_process(&self, start: &Start, fds: Vec<(OwnedFd, i32)>) -> Result<Process, Error> {
        let path = self.dir.log();
        let log = self.dir.open_log(&path)?;
        log.set_len(0).map_err(Error::io("empty", path))?;
        process::start(Plan {
            program: &self.settings.program,
            args: args::command_line(&self.config, self.engine, start),
            account: self.account,
            fds,
            log,
        })
    }
}

/// A listening socket for QEMU, and our connection to it, which QEMU will find waiting.
///
/// It is as fast as an inherited pair, and a later daemon can connect to it as well.
fn monitor(dir: &MachineDir) -> Result<(UnixListener, tokio::net::UnixStream), Error> {
    let path = dir.monitor();
    remove(&path)?;
    // Through the directory's descriptor, for a socket's path is limited to 107 bytes.
    let (_handle, short) = dir.short(&path)?;
    let listener = UnixListener::bind(&short).map_err(Error::io("make socket", &path))?;
    let connect = || {
        let stream = UnixStream::connect(&short)?;
        stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(stream)
    };
    let stream = connect().map_err(Error::io("connect to", &path))?;
    Ok((listener, stream))
}

async fn queue(qmp: &Client, commands: Commands) -> Result<Answers, Error> {
    let mut answers = Vec::new();
    for (command, arguments) in commands {
        let pending = qmp.submit(command, arguments).await.map_err(Error::qmp(command))?;
        answers.push((command, pending));
    }
    Ok(answers)
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(Error::io("open", path))
}

fn open_kernel(config: &QemuConfig) -> Result<Vec<(OwnedFd, i32)>, Error> {
    let files = [(&config.qemu.kernel, KERNEL_FD), (&config.qemu.initrd, INITRD_FD)];
    files
        .into_iter()
        .filter_map(|(path, n)| Some((path.as_ref()?, n)))
        .map(|(path, n)| Ok((open(path)?.into(), n)))
        .collect()
}

fn open_ram(dir: &MachineDir) -> Result<File, Error> {
    let path = dir.ram();
    OpenOptions::new().read(true).write(true).open(&path).map_err(Error::io("open", path))
}

fn open_disks(disks: &[DiskSpec]) -> Result<Vec<(OwnedFd, i32)>, Error> {
    let files = disks.iter().map(|disk| {
        let file = OpenOptions::new().read(true).write(!disk.readonly).open(&disk.image);
        file.map(OwnedFd::from).map_err(Error::io("open disk image", &disk.image))
    });
    Ok(number(DISK_FD, files.collect::<Result<Vec<_>, _>>()?))
}

fn number(first: i32, fds: Vec<OwnedFd>) -> Vec<(OwnedFd, i32)> {
    fds.into_iter().zip(first..).collect()
}

/// Makes an empty RAM file for a boot, QEMU's user's own.
pub(super) fn make_ram(qemu: &Qemu) -> Result<(), Error> {
    let (path, size) = (qemu.dir.ram(), qemu.config.qemu.memory);
    // Not emptied but made anew: another process may still be reading the old one.
    remove(&path)?;
    if qemu.config.memory_backing == MemoryBacking::Anonymous {
        return Ok(());
    }
    let make = || {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        file.set_len(size)?;
        if qemu.config.preallocate {
            rustix::fs::fallocate(file.as_fd(), rustix::fs::FallocateFlags::empty(), 0, size)?;
        }
        if let Some(account) = qemu.account {
            std::os::unix::fs::fchown(&file, Some(account.uid), Some(account.gid))?;
        }
        Ok(())
    };
    make().map_err(Error::io("make", &path))?;
    warn_of_little_space(&path, size, qemu.config.preallocate);
    Ok(())
}

fn warn_of_little_space(path: &Path, size: u64, preallocated: bool) {
    let free = crate::error::free_bytes(path).unwrap_or(u64::MAX);
    if !preallocated && free < size {
        tracing::warn!(
            path = %path.display(), free, size,
            "the disk has less room than the machine has memory: a guest that uses it all will be killed (SIGBUS); \
             make room, or set preallocate"
        );
    }
}
