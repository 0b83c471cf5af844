//! The lab itself: two namespaces, a bridge, a directory, and their removal.

use crate::{
    Client, Error, Namespace, Result,
    command::{ip_batch, stdout},
    namespace,
};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

/// Every lab's name starts so, and by this a sweep knows them.
const MARK: &str = "dml-";
/// A lab whose directory holds this file outlives the process that made it.
const KEEP: &str = "keep";
const DEFAULT_DIRECTORY: &str = "/var/tmp/dormouse-lab";

/// A switch and a client in namespaces of their own, and a directory. All gone when dropped, unless
/// [`Lab::keep`] was called.
#[derive(Debug)]
pub struct Lab {
    id: String,
    dir: PathBuf,
    switch: Namespace,
    client: Namespace,
    keep: bool,
}

impl Lab {
    /// The bridge on the switch.
    pub const BRIDGE: &str = "br0";
    /// The client's only interface.
    pub const CLIENT_INTERFACE: &str = "eth0";
    /// The bridge's port towards the client.
    pub const CLIENT_PORT: &str = "cl0";

    /// Makes a lab. `prefix` says in listings what it is for: letters, digits and underscores.
    ///
    /// # Errors
    ///
    /// If not root, or if the kernel or iproute2 refuse.
    pub fn new(prefix: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{MARK}{prefix}-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = make_directory(&id)?;
        let made = Self::make_network(&id);
        let (switch, client) = made.inspect_err(|_| drop(remove(&id)))?;
        Ok(Self { id, dir, switch, client, keep: false })
    }

    fn make_network(id: &str) -> Result<(Namespace, Namespace)> {
        let switch = Namespace::create(format!("{id}-sw"))?;
        let client = Namespace::create(format!("{id}-cl"))?;
        // Unprivileged echo sockets: the kernel fills in identifiers and checksums for us.
        client.sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
        ip_batch(
            None,
            &format!(
                "link add cl0 netns {} type veth peer name eth0 netns {}\n",
                switch.name(),
                client.name()
            ),
        )?;
        switch.ip("link set lo up\n\
             link add br0 type bridge stp_state 0 forward_delay 0\n\
             link set br0 up\n\
             link set cl0 master br0\n\
             link set cl0 up\n")?;
        client.ip("link set lo up\n\
             addr add 10.9.0.1/24 dev eth0\n\
             addr add fd77::1/64 dev eth0 nodad\n\
             link set eth0 up\n")?;
        Ok((switch, client))
    }

    /// Its name, unique on this machine.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directory: on a disk, so that flushing and eviction are real.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The namespace with the bridge, where the daemon and the guests run.
    #[must_use]
    pub const fn switch(&self) -> &Namespace {
        &self.switch
    }

    /// The namespace of the client.
    #[must_use]
    pub const fn client_namespace(&self) -> &Namespace {
        &self.client
    }

    /// Someone on the network to measure from.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.client.clone())
    }

    /// Writes a file in the lab's directory and returns its path.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        fs::write(&path, text).map_err(Error::file("write", &path))?;
        Ok(path)
    }

    /// Puts a file into the lab's directory without copying its bytes, if the disk allows.
    ///
    /// # Errors
    ///
    /// If it can be neither linked nor copied.
    pub fn link(&self, file: &Path) -> Result<PathBuf> {
        let to = self.dir.join(file.file_name().unwrap_or_default());
        if to.exists() || fs::hard_link(file, &to).is_ok() {
            return Ok(to);
        }
        fs::copy(file, &to).map_err(Error::file("copy", file))?;
        Ok(to)
    }

    /// Removes a lab by its name, kept or not, with all that runs in it.
    ///
    /// # Errors
    ///
    /// If that is no lab's name; or the first failure, and the rest is removed all the same.
    pub fn remove(id: &str) -> Result<()> {
        if !id.starts_with(MARK) || id.contains('/') {
            return Err(Error::Setup(format!("{id} is not the name of a lab")));
        }
        remove(id)
    }

    /// Leaves the lab in place when this value is dropped and the process ends.
    ///
    /// # Errors
    ///
    /// If the mark cannot be written.
    pub fn keep(&mut self) -> Result<()> {
        self.write(KEEP, "")?;
        self.keep = true;
        Ok(())
    }

    /// Removes what labs of dead processes left behind, and returns their names. Labs that were kept
    /// on purpose are removed only if `kept` says so.
    ///
    /// # Errors
    ///
    /// The first failure; the rest is removed all the same.
    pub fn sweep(kept: bool) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        let mut first_error = Ok(());
        for id in leftovers() {
            if base_directory().join(&id).join(KEEP).exists() && !kept {
                continue;
            }
            match remove(&id) {
                Ok(()) => removed.push(id),
                Err(e) => first_error = first_error.and(Err(e)),
            }
        }
        first_error.map(|()| removed)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.keep
            && let Err(e) = remove(&self.id)
        {
            eprintln!("lab {}: not all removed: {e}", self.id);
        }
    }
}

fn base_directory() -> PathBuf {
    std::env::var_os("DORMOUSE_LAB_DIR").map_or_else(|| DEFAULT_DIRECTORY.into(), PathBuf::from)
}

fn make_directory(id: &str) -> Result<PathBuf> {
    let base = base_directory();
    let dir = base.join(id);
    fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
    // QEMU may run as a user of its own and must reach the files of its guest.
    for path in [&base, &dir] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::file("open up", path))?;
    }
    let filesystem = statfs(&dir).map_err(|e| Error::file("examine", &dir)(e.into()))?;
    if filesystem.filesystem_type() == TMPFS_MAGIC {
        return Err(Error::Setup(format!("{} is in memory: set DORMOUSE_LAB_DIR to a disk", base.display())));
    }
    Ok(dir)
}

/// Takes a lab down, going on past failures; reports the first.
fn remove(id: &str) -> Result<()> {
    let mut first_error = Ok(());
    for side in ["sw", "cl"] {
        let namespace = Namespace::named(format!("{id}-{side}"));
        if namespace.path().exists() {
            first_error = first_error.and(namespace.destroy());
        }
    }
    let dir = base_directory().join(id);
    for place in mounts_under(&dir) {
        first_error = first_error.and(stdout(Command::new("umount").arg("--lazy").arg(place)).map(drop));
    }
    if dir.exists() {
        first_error = first_error.and(fs::remove_dir_all(&dir).map_err(Error::file("remove", &dir)));
    }
    first_error
}

/// File systems that a test mounted in a lab's directory, the innermost first.
fn mounts_under(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut inside: Vec<PathBuf> = places.filter(|place| place.starts_with(dir)).collect();
    inside.reverse();
    inside
}

/// Names of labs whose process is dead.
fn leftovers() -> Vec<String> {
    let mut ids: Vec<String> = names_in(Path::new(namespace::DIRECTORY))
        .filter_map(|name| name.rsplit_once('-').map(|(id, _)| id.to_owned()))
        .chain(names_in(&base_directory()))
        .filter(|id| id.starts_with(MARK) && owner(id).is_some_and(|pid| !is_alive(pid)))
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

fn names_in(dir: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// The process that made a lab, from its name `dml-PREFIX-PID-N`.
fn owner(id: &str) -> Option<u32> {
    id.rsplit('-').nth(1)?.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_names_its_owner() {
        assert_eq!(owner("dml-wake_on_syn-4711-0"), Some(4711));
        assert_eq!(owner("dml-x"), None);
    }
}
