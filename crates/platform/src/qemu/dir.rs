//! A machine's directory.
//!
//! ```text
//! machines/web/           0700, root's; QEMU gets open files and needs no access to it
//!   ram                   memory, a sparse file of the memory's size, QEMU's user's
//!   state                 devices' state (and all memory, if that is anonymous)
//!   state.json            the commit record: with it, and only with it, there is a saved state
//!   state.used            the commit record of a state that was given to a process
//!   touched               the parts of `ram` that wakes touched, to be read ahead
//!   qmp.sock              QEMU's monitor
//!   lock                  open and locked in a process of the machine for as long as it lives
//!   qemu.log console.log  what QEMU and the guest's serial console said
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use crate::Error;

/// The paths of one machine's directory.
#[derive(Clone, Debug)]
pub struct MachineDir(PathBuf);

impl MachineDir {
    /// Of this path; asks nobody.
    pub const fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Makes the directory, readable by us alone.
    pub fn create(&self) -> Result<(), Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .and_then(|()| fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700)))
            .map_err(Error::io("make directory", &self.0))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The memory.
    pub fn ram(&self) -> PathBuf {
        self.0.join("ram")
    }

    /// The devices' state.
    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    /// The commit record.
    pub fn record(&self) -> PathBuf {
        self.0.join("state.json")
    }

    /// The commit record of a state that was given to a process.
    pub fn used_record(&self) -> PathBuf {
        self.0.join("state.used")
    }

    /// What wakes touched.
    pub fn touched(&self) -> PathBuf {
        self.0.join("touched")
    }

    /// QEMU's monitor.
    pub fn monitor(&self) -> PathBuf {
        self.0.join("qmp.sock")
    }

    /// The process's lock.
    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// What QEMU said.
    pub fn log(&self) -> PathBuf {
        self.0.join("qemu.log")
    }

    /// What the guest said.
    pub fn console(&self) -> PathBuf {
        self.0.join("console.log")
    }

    /// A path to `file` in this directory that is short however deep the directory is, valid
    /// while the handle lives.
    pub fn short(&self, file: &Path) -> Result<(File, PathBuf), Error> {
        let handle = File::open(&self.0).map_err(Error::io("open", &self.0))?;
        let name = file.file_name().unwrap_or_default();
        let path = Path::new("/proc/self/fd").join(handle.as_raw_fd().to_string()).join(name);
        Ok((handle, path))
    }

    /// Makes renames and removals in the directory durable.
    pub fn sync(&self) -> Result<(), Error> {
        File::open(&self.0).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", &self.0))
    }

    /// Opens a log for appending.
    pub fn open_log(&self, path: &Path) -> Result<File, Error> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(Error::io("open", path))
    }
}

/// Removes a file; that it is not there is as good.
pub(crate) fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path)(error)),
    }
}
