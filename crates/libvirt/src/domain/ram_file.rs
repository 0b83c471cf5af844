//! `save = "ram-file"`: a domain that sleeps saved beside a memory that is a file.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use dormouse_machine::{
    lifecycle::{Observed, Process, StateOnDisk},
    spec::LibvirtSave,
};
use dormouse_platform::{Error, Notice, saved};
use dormouse_sys::libvirt as more;
use virt::domain::Domain as Handle;
use virt_sys as ffi;

use super::{Inner, Known, is_missing, life::Status, measure::allocated};
use crate::{
    expect::Deed,
    hub::Lane,
    ram_file::{self as files, Files},
    uri::is_local_qemu,
    xml::Description,
};

/// Of a domain that others started while its file was made anew, or where QEMU sees other folders than we do.
pub(super) const OTHER_FILE: &str = "the file that is its memory is not the one in our folder";

/// What a machine's file says, and where the files are.
#[derive(Debug)]
pub(super) struct RamFile {
    pub(super) is_wanted: bool,
    pub(super) files: Files,
    /// Held while a state is written or read: what is found meanwhile is half of a story.
    pub(super) busy: tokio::sync::Mutex<()>,
    /// Held while the definition is made ready, and while it is started. Locked before `busy`, by who needs both.
    pub(super) defining: tokio::sync::Mutex<()>,
    /// Why QEMU could not start with it.
    refused: Mutex<Option<String>>,
    /// The machine is forgotten.
    pub(super) is_erased: AtomicBool,
    /// libvirt's capabilities, since it is connected.
    host: Mutex<Option<Arc<str>>>,
}

/// Of a file that is memory.
pub(super) struct FileBytes {
    /// In the host's memory.
    pub(super) resident: u64,
    /// On its disk, with the saved state.
    pub(super) on_disk: u64,
}

impl RamFile {
    pub(super) fn new(save: LibvirtSave, folder: &Path, machine: &str) -> Self {
        Self {
            is_wanted: save == LibvirtSave::RamFile,
            files: Files::new(folder, machine),
            busy: tokio::sync::Mutex::default(),
            defining: tokio::sync::Mutex::default(),
            refused: Mutex::default(),
            is_erased: AtomicBool::new(false),
            host: Mutex::default(),
        }
    }

    pub(super) fn host(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn refused(&self) -> MutexGuard<'_, Option<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// What of our own saved states is so, beside what libvirt says. States that others have made stale are
    /// discarded.
    pub(super) async fn see_ram_file(&self, seen: Observed) -> Result<Observed, Error> {
        let files = self.ram_file.files.clone();
        let dir = &files.0;
        if !dir.path().exists() {
            return Ok(seen);
        }
        let Ok(_idle) = self.ram_file.busy.try_lock() else { return Ok(seen) };
        if seen.process == Process::Running
            && let Err(error) = self.save_whole().await
        {
            tracing::warn!(domain = self.who.name, %error, "saves and snapshots of it may lack its memory");
        }
        if !saved::exists(dir) && !saved::taken(dir) {
            return Ok(seen);
        }
        match seen.process {
            Process::Absent if saved::exists(dir) => {
                if saved::moved_on(dir) {
                    return self.drop_stale("it was run while nobody watched").await.map(|()| seen);
                }
                Ok(Observed { saved_state: StateOnDisk::Whole, ..seen })
            }
            Process::Absent => Ok(Observed { saved_state: StateOnDisk::Taken, ..seen }),
            Process::Still if saved::taken(dir) && self.waits().await => {
                // Half a wake: its guest never ran, and its state is as good as new.
                self.destroy().await?;
                blocking(move || saved::give_back(&files.0)).await?;
                Ok(Observed { process: Process::Absent, saved_state: StateOnDisk::Whole })
            }
            _ if saved::exists(dir) => self.drop_stale("it has a process").await.map(|()| seen),
            Process::Running => blocking(move || saved::spent(&files.0)).await.map(|()| seen),
            _ => Ok(seen),
        }
    }

    async fn waits(&self) -> bool {
        self.ask(Lane::Quick, files::waits).await.unwrap_or(false)
    }

    async fn drop_stale(&self, why: &str) -> Result<(), Error> {
        tracing::warn!(domain = self.who.name, why, "the saved state is of no more use, and is discarded");
        let files = self.ram_file.files.clone();
        blocking(move || saved::discard(&files.0)).await
    }

    /// Whoever saves it has its memory too: a daemon may have been killed while it was being saved without.
    async fn save_whole(&self) -> Result<(), Error> {
        if self.has_ram_file().await? {
            let whole = self.ask(Lane::Work, files::save_whole).await;
            whole.map_err(self.failed("have all of the memory saved of"))?;
        }
        Ok(())
    }

    /// The guest is about to run: no state of before may be found again.
    pub(super) async fn use_up_ram_file(&self) -> Result<(), Error> {
        let files = self.ram_file.files.clone();
        if files.0.path().exists() {
            self.save_whole().await?;
        }
        if !saved::exists(&files.0) {
            return Ok(());
        }
        blocking(move || saved::discard(&files.0)).await
    }

    /// The guest runs.
    pub(super) async fn spend_ram_file(&self) -> Result<(), Error> {
        let files = self.ram_file.files.clone();
        if !saved::taken(&files.0) {
            return Ok(());
        }
        blocking(move || saved::spent(&files.0)).await
    }

    pub(super) async fn forget_ram_file(&self) -> Result<(), Error> {
        let _busy = self.ram_file.busy.lock().await;
        let files = self.ram_file.files.clone();
        blocking(move || saved::discard(&files.0)).await
    }

    /// Bytes of its memory's file.
    pub(super) fn ram_file_bytes(&self) -> FileBytes {
        let files = &self.ram_file.files.0;
        FileBytes {
            resident: dormouse_sys::memory::resident_bytes(files.ram()).unwrap_or(0),
            on_disk: allocated(&files.ram()).saturating_add(allocated(&files.state())),
        }
    }

    /// Can it be saved without its memory, which is a file of ours? What is plugged in may have changed since it
    /// was booted.
    pub(super) async fn is_saved_beside_ram_file(&self) -> Result<bool, Error> {
        let live = self.ask(Lane::Quick, |domain| Ok(domain.get_xml_desc(0)?)).await;
        let live = live.map_err(self.failed("describe"))?;
        if !files::has_ram_file(&live) {
            return Ok(false);
        }
        let description = Description::from_xml(&live).map_err(|e| Error::Unsupported(e.to_string()))?;
        let is_unsure = match self.pid().await {
            Some(pid) => !self.ram_file.files.is_memory_of(pid),
            None => true,
        };
        let why = files::obstacle(&description, &live).or(is_unsure.then_some(OTHER_FILE));
        if let Some(why) = why {
            tracing::warn!(
                domain = self.who.name,
                why,
                "its RAM file is of no use now: managed save is used"
            );
        }
        Ok(why.is_none())
    }

    /// Is the memory of its process a file of ours, whatever the machine's file says?
    async fn has_ram_file(&self) -> Result<bool, Error> {
        let live = self.ask(Lane::Quick, |domain| Ok(files::has_ram_file(&domain.get_xml_desc(0)?))).await;
        live.map_err(self.failed("describe"))
    }

    /// Writes the state of a guest that stands still, and ends its process.
    pub(super) async fn save_ram_file(&self) -> Result<(), Error> {
        let mut hurry = self.hurry.subscribe();
        let _busy = self.ram_file.busy.lock().await;
        let flags = ffi::VIR_DOMAIN_XML_MIGRATABLE | ffi::VIR_DOMAIN_XML_SECURE;
        let xml = self.ask(Lane::Quick, move |domain| Ok(domain.get_xml_desc(flags)?)).await;
        let xml = xml.map_err(self.failed("describe"))?;
        let files = self.ram_file.files.clone();
        let state = blocking(move || files.make_state()).await?;
        let saved = self.ask(Lane::Work, move |domain| files::save(domain, &state)).await;
        saved.map_err(self.failed("save"))?;
        let files = self.ram_file.files.clone();
        let preparing = blocking(move || files.prepare(&xml));
        let record = tokio::select! {
            prepared = preparing => prepared?,
            _ = hurry.changed() => return Err(Error::Hurried("the save")),
        };
        let files = self.ram_file.files.clone();
        blocking(move || saved::commit(&files.0, &record)).await?;
        self.destroy().await?;
        let files = self.ram_file.files.clone();
        if let Err(error) = blocking(move || files.evict()).await {
            tracing::warn!(domain = self.who.name, %error, "its memory stays in the page cache");
        }
        Ok(())
    }

    /// A process that has read the state, and whose guest does not run yet; false if there is no state of ours.
    pub(super) async fn load_ram_file(&self) -> Result<bool, Error> {
        let _busy = self.ram_file.busy.lock().await;
        let files = self.ram_file.files.clone();
        let is_taken = saved::taken(&files.0);
        if !is_taken && !saved::exists(&files.0) {
            return Ok(false);
        }
        // Nobody's process is ended but the one that is made here, and what others removed stays removed.
        if self.status().await.map_err(self.failed("tell the state of"))? != Status::Off {
            return Err(Error::AlreadyRunning { pid: self.pid().await.unwrap_or(0) });
        }
        if is_taken {
            // Of a process that is gone: nobody asks for this if its guest ran.
            let files = files.clone();
            blocking(move || saved::give_back(&files.0)).await?;
        }
        let (xml, state) = blocking(move || Ok((files.verify()?, files.open_state()?))).await?;
        let xml =
            files::incoming(&xml).ok_or(Error::Unsupported("domain.xml is no XML of a domain".into()))?;
        self.make_process(xml).await?;
        let result = self.read_state(state).await;
        // One that cannot be ended may read on: who looks at it next sees how far it came.
        if result.is_err() && self.destroy().await.is_ok() {
            let files = self.ram_file.files.clone();
            blocking(move || saved::give_back(&files.0)).await?;
        }
        result.map(|()| true)
    }

    async fn make_process(&self, xml: String) -> Result<(), Error> {
        let (_expected, quiet) = (self.expect(Deed::Load), self.quiet_ports());
        let made = self.hub.call(Lane::Work, move |connect| {
            Ok(Handle::create_xml(connect, &xml, ffi::VIR_DOMAIN_START_PAUSED).map(drop)?)
        });
        made.await.map_err(self.failed("start"))?;
        *self.known() = Known { is_clock_behind: true, ..Known::default() };
        self.quiet_all().await;
        drop(quiet);
        // Nobody needs to know.
        let _ = self.notices.try_send(Notice::Spawned(self.machine.clone()));
        Ok(())
    }

    async fn read_state(&self, state: File) -> Result<(), Error> {
        let files = self.ram_file.files.clone();
        let taking = blocking(move || saved::take(&files.0));
        let loading = self.ask(Lane::Work, move |domain| files::load(domain, &state));
        let (taken, loaded) = tokio::join!(taking, loading);
        loaded.map_err(self.failed("load the state of"))?;
        // Without it, nothing would stop a second use.
        taken
    }

    /// Before a managed save, which libvirt restores only where QEMU can open the file that its memory was.
    pub(super) async fn let_restore_open_ram(&self) -> Result<(), Error> {
        if !is_local_qemu(self.hub.uri()) {
            return Ok(());
        }
        let live = self.ask(Lane::Quick, |domain| Ok(domain.get_xml_desc(0)?)).await;
        let live = live.map_err(self.failed("describe"))?;
        let Some((ram, size)) = files::ram_file(&live) else { return Ok(()) };
        // Its process may see other folders than we do.
        let root = self.pid().await.map_or_else(String::new, |pid| format!("/proc/{pid}/root"));
        let seen = PathBuf::from(format!("{root}{}", ram.display()));
        let files = self.ram_file.files.clone();
        if !seen.exists() && ram == files.0.ram() {
            let owner = self.ram_owner(&live).await?;
            let _busy = self.ram_file.busy.lock().await;
            blocking(move || files.make_ram(size, owner)).await?;
        }
        if seen.exists() {
            return Ok(());
        }
        Err(Error::Unsupported(format!(
            "its memory was made as the file {}, which is gone: libvirt could not restore what it saves; \
             shut it down and start it",
            ram.display()
        )))
    }

    async fn ram_owner(&self, xml: &str) -> Result<Option<(u32, u32)>, Error> {
        let description = Description::from_xml(xml).map_err(|e| Error::Unsupported(e.to_string()))?;
        Ok(files::owner(&self.host_capabilities().await?, &description.kind))
    }

    /// The XML of who opens the file by its name yet: a process that others may save, or what was saved of one.
    async fn who_names_ram(&self) -> Result<Option<String>, Error> {
        let all = self.ask(Lane::Quick, |domain| {
            let live = if domain.is_active()? { Some(domain.get_xml_desc(0)?) } else { None };
            // One that cannot be read cannot be restored.
            let saved = domain.has_managed_save(0)?.then(|| more::managed_save_xml(domain).ok()).flatten();
            Ok([live, saved])
        });
        let all = match all.await {
            Err(error) if is_missing(&error) => return Ok(None),
            all => all.map_err(self.failed("describe"))?,
        };
        let ram = self.ram_file.files.0.ram();
        let names = |xml: &String| files::ram_file(xml).is_some_and(|(path, _)| path == ram);
        Ok(all.into_iter().flatten().find(names))
    }

    /// The machine is forgotten: its memory is libvirt's again.
    pub(super) async fn erase_ram_file(&self) -> Result<(), Error> {
        let (_defining, _busy) = (self.ram_file.defining.lock().await, self.ram_file.busy.lock().await);
        // What is taken out would be put in again at once.
        self.ram_file.is_erased.store(true, Ordering::Relaxed);
        let folder = self.ram_file.files.0.path().to_owned();
        if !folder.exists() {
            return Ok(());
        }
        self.take_ram_file_out().await?;
        if let Some(xml) = self.who_names_ram().await?
            && let Some((_, size)) = files::ram_file(&xml)
        {
            tracing::warn!(
                domain = self.who.name,
                folder = %folder.display(),
                "the folder stays, empty: its process, or its managed save, names its memory by it; \
                 remove it once the domain has been shut down"
            );
            let (files, owner) = (self.ram_file.files.clone(), self.ram_owner(&xml).await?);
            // A process keeps the memory that it has: that file goes when it ends.
            return blocking(move || files.empty(size, owner)).await;
        }
        blocking(move || {
            std::fs::remove_dir_all(&folder).map_err(|source| Error::Io {
                action: "remove",
                path: folder,
                source,
            })
        })
        .await
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Unsupported(format!("a disk task was stopped: {error}"))))
}
