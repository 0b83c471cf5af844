//! A managed save: libvirt has it, other clients can remove it without an event, and a power cut may take it.

use std::{
    convert::Infallible,
    fs::File,
    io,
    os::fd::AsRawFd,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dormouse_platform::{Error, Notice};
use dormouse_sys::libvirt as more;
use virt::{domain::Domain as Handle, error::ErrorNumber};
use virt_sys as ffi;

use super::{Inner, is_missing};
use crate::{
    expect::Deed,
    hub::{CallError, Lane},
    uri::is_local_qemu,
};

/// Between two tries to interrupt a save that has not quite begun.
const AGAIN: Duration = Duration::from_millis(20);

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
    /// Managed save of a guest that stands still. Given up when hurried: it stands still as before.
    pub(super) async fn save_managed(&self) -> Result<(), Error> {
        let mut hurry = self.hurry.subscribe();
        let folder = self.managed_save_folder().await;
        let _expected = self.expect(Deed::Save);
        let save = self.ask(Lane::Work, |domain| {
            // It would wait for theirs, and an interruption would be theirs too.
            if is_busy(domain)? {
                return Err(CallError::Said {
                    code: ErrorNumber::OperationInvalid,
                    message: "a job of another client of libvirt is going on (virsh domjobinfo)".into(),
                });
            }
            Ok(domain.managed_save(0).map(drop)?)
        });
        tokio::pin!(save);
        let saved = tokio::select! {
            saved = &mut save => saved,
            _ = hurry.changed() => tokio::select! {
                saved = &mut save => match saved {
                    Err(_) => return Err(Error::Hurried("the save")),
                    saved => saved,
                },
                never = self.interrupt() => match never {},
            },
        };
        saved.map_err(self.failed("save"))?;
        // Who starts it without us shall not find it paused.
        let runs = self.ask(Lane::Quick, |domain| Ok(more::managed_save_starts_running(domain)?)).await;
        if let Err(error) = runs {
            tracing::debug!(domain = self.who.name, ?error, "whoever starts it by hand finds it paused");
        }
        self.make_managed_save_durable(folder).await;
        self.managed_save.is(true);
        Ok(())
    }

    /// Interrupts what is done, again and again: it may just begin.
    async fn interrupt(&self) -> Infallible {
        loop {
            // One that has not begun is not there to be found, and others may have begun one.
            let abort = |domain: &Handle| {
                if is_saving(domain)? { Ok(more::abort_job(domain)?) } else { Ok(()) }
            };
            if let Err(error) = self.ask(Lane::Deed, abort).await {
                tracing::debug!(domain = self.who.name, ?error, "nothing to interrupt yet");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    pub(super) async fn forget_state(&self) -> Result<(), Error> {
        self.managed_save.is(false);
        let removed = self.ask(Lane::Deed, |domain| {
            if domain.has_managed_save(0)? {
                domain.managed_save_remove(0)?;
            }
            Ok(())
        });
        match removed.await {
            Err(error) if is_missing(&error) => Ok(()),
            removed => removed.map_err(self.failed("remove the managed save of")),
        }
    }

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

/// Is something being done with it that others would have to wait for? What a driver of libvirt does not know
/// it has not.
fn is_busy(domain: &Handle) -> Result<bool, CallError> {
    match domain.get_job_info() {
        Ok(job) => Ok(i64::from(job.r#type) != i64::from(ffi::VIR_DOMAIN_JOB_NONE)),
        Err(error) if error.code() == ErrorNumber::NoSupport => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Is it being saved?
fn is_saving(domain: &Handle) -> Result<bool, CallError> {
    let operation = domain.get_job_stats(0)?.operation;
    Ok(operation.map(i64::from) == Some(i64::from(ffi::VIR_DOMAIN_JOB_OPERATION_SAVE)))
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
