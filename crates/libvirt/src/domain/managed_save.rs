//! A managed save: libvirt has it, other clients can remove it without an event, and a power cut may take it.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use dormouse_platform::Notice;

use super::Inner;
use crate::uri::is_local_qemu;

/// What has become of a sleeper whose managed save is gone.
const REMOVED: &str = "its managed save was removed by another client of libvirt, or could not be used: what \
                       it had in memory is lost, and its next start boots it";

/// Whether the domain's memory is in a managed save, as far as we know.
#[derive(Debug, Default)]
pub(super) struct ManagedSave(Mutex<Seen>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Seen {
    /// It is not, or nobody has looked.
    #[default]
    No,
    Yes,
    /// It was, and is not any more; what came of it may be told in a moment.
    Missed,
    /// libvirt says so, and has booted the domain in place of restoring it.
    Void,
}

impl ManagedSave {
    /// It is, or is not.
    pub(super) fn is(&self, saved: bool) {
        *self.seen() = if saved { Seen::Yes } else { Seen::No };
    }

    /// There is nothing in what libvirt takes for it, until it is made anew.
    pub(super) fn is_void(&self) {
        *self.seen() = Seen::Void;
    }

    /// Is it known that there is nothing in it?
    pub(super) fn is_empty(&self) -> bool {
        *self.seen() == Seen::Void
    }

    /// libvirt says whether it is; what is so.
    pub(super) fn told(&self, saved: bool) -> bool {
        let mut seen = self.seen();
        if *seen == Seen::Void {
            return false;
        }
        *seen = if saved { Seen::Yes } else { Seen::No };
        saved
    }

    pub(super) fn is_relied_on(&self) -> bool {
        matches!(*self.seen(), Seen::Yes | Seen::Missed)
    }

    /// A look has found it, or not; true the second time in a row that it has not.
    fn found(&self, found: bool) -> bool {
        let mut seen = self.seen();
        let is_gone = !found && *seen == Seen::Missed;
        *seen = match (*seen, found) {
            (Seen::Void, _) => Seen::Void,
            (Seen::No, _) | (Seen::Missed, false) => Seen::No,
            (Seen::Yes, false) => Seen::Missed,
            (_, true) => Seen::Yes,
        };
        is_gone
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// libvirt has it, or has it no more.
    pub(super) fn managed_save_found(&self, found: bool) -> Option<Notice> {
        self.managed_save.found(found).then(|| self.managed_save_lost())
    }

    pub(super) fn managed_save_lost(&self) -> Notice {
        Notice::Changed(self.machine.clone(), REMOVED.into())
    }

    /// The folder where libvirt will keep it, as the running domain's process sees it: a libvirtd may have
    /// folders of its own.
    pub(super) async fn managed_save_folder(&self) -> Option<File> {
        let uri = self.hub.uri();
        if !(is_local_qemu(uri) && uri.contains("/system")) {
            return None;
        }
        let pid = self.pid().await?;
        let open = move || File::open(format!("/proc/{pid}/root/var/lib/libvirt/qemu/save"));
        match tokio::task::spawn_blocking(open).await.ok()? {
            Ok(folder) => Some(folder),
            Err(error) => {
                tracing::debug!(domain = self.who.name, %error, "the folder of managed saves cannot be opened");
                None
            }
        }
    }

    /// libvirt has written it, and waited for the memory's part only.
    pub(super) async fn make_managed_save_durable(&self, folder: Option<File>) {
        let name = format!("{}.save", self.who.name);
        let done = match folder {
            None => return,
            Some(folder) => tokio::task::spawn_blocking(move || sync(&folder, &name)).await,
        };
        match done.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => tracing::debug!(domain = self.who.name, "its managed save is on stable storage"),
            Err(error) => {
                tracing::warn!(
                    domain = self.who.name,
                    %error,
                    "its managed save may be lost if the host loses power now"
                );
            }
        }
    }
}

/// fsync(2) of a file and of the folder that it is in.
fn sync(folder: &File, name: &str) -> io::Result<()> {
    File::open(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))?.sync_all()?;
    folder.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_gone_once_it_was_missed_twice() {
        let save = ManagedSave::default();
        assert!(!save.is_relied_on());
        assert!(!save.found(false) && !save.found(false));
        save.is(true);
        assert!(!save.found(false) && !save.found(true) && !save.found(false));
        assert!(save.is_relied_on());
        assert!(save.found(false), "it is gone");
        assert!(!save.found(false) && !save.is_relied_on(), "it is told once");
        save.is(true);
        assert!(!save.found(false));
        save.is(false);
        assert!(!save.found(false), "we have used it");
        save.is_void();
        assert!(!save.told(true) && !save.is_relied_on(), "libvirt does not know");
        save.is(true);
        assert!(save.told(true) && save.is_relied_on());
    }

    #[test]
    fn a_file_is_synced_in_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("web.save"), "state").unwrap();
        let folder = File::open(dir.path()).unwrap();
        sync(&folder, "web.save").unwrap();
        assert_eq!(sync(&folder, "db.save").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
