//! `save = "ram-file"`: a domain that sleeps saved beside a memory that is a file.

use std::{fs::File, path::Path};

use dormouse_machine::{
    lifecycle::{Observed, Process, StateOnDisk},
    spec::LibvirtSave,
};
use dormouse_platform::{Error, Notice, Obstacle, saved};
use virt::domain::Domain as Handle;
use virt_sys as ffi;

use super::{Inner, Known, life::Status, measure::allocated};
use crate::{
    expect::Deed,
    hub::Lane,
    ram_file::{self as files, Files},
    xml::Description,
};

/// What a machine's file says, and where the files are.
#[derive(Debug)]
pub(super) struct RamFile {
    save: LibvirtSave,
    files: Files,
    /// Held while a state is written or read: what is found meanwhile is half of a story.
    busy: tokio::sync::Mutex<()>,
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
        Self { save, files: Files::new(folder, machine), busy: tokio::sync::Mutex::default() }
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
        let why = files::obstacle(&description, &live);
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

    /// Why its memory is no file of ours, though its machine's file wants that.
    pub(super) async fn ram_file_obstacle(&self) -> Option<Obstacle> {
        if self.ram_file.save != LibvirtSave::RamFile {
            return None;
        }
        let xml = self.ask(Lane::Quick, |domain| Ok((domain.is_active()?, domain.get_xml_desc(0)?)));
        let (is_active, xml) = xml.await.ok()?;
        let why = files::obstacle(&Description::from_xml(&xml).ok()?, &xml);
        let why = why.or((is_active && !files::has_ram_file(&xml)).then_some("it is from its next boot on"));
        why.map(|why| Obstacle::warning("save = \"ram-file\"", format!("managed save is used: {why}")))
    }

    /// Before a boot: the definition is as the machine's file wants it, and the memory is empty.
    pub(super) async fn ready_ram_file(&self) -> Result<(), Error> {
        let found = self.ask(Lane::Quick, |domain| {
            let is_saved = domain.has_managed_save(0)?;
            let flags = ffi::VIR_DOMAIN_XML_INACTIVE | ffi::VIR_DOMAIN_XML_SECURE;
            Ok((is_saved, domain.is_persistent()?, domain.get_xml_desc(flags)?))
        });
        let (is_saved, is_persistent, xml) = found.await.map_err(self.failed("describe"))?;
        let wanted = self.ram_file.save == LibvirtSave::RamFile;
        if is_saved || !(wanted || files::has_ram_file(&xml)) {
            return Ok(());
        }
        let description = Description::from_xml(&xml).map_err(|e| Error::Unsupported(e.to_string()))?;
        if let Some(why) = files::obstacle(&description, &xml).filter(|_| wanted) {
            tracing::warn!(
                domain = self.who.name,
                why,
                "save = \"ram-file\" cannot be: managed save is used"
            );
            return Ok(());
        }
        let ram = self.ram_file.files.0.ram();
        if !wanted || !is_persistent {
            return self.redefine(files::without(&xml), "its memory is libvirt's again").await;
        }
        let size = description.memory;
        if !files::is_current(&xml, &ram, size) {
            let changed = files::with_ram_file(&xml, &ram, size);
            self.redefine(
                changed,
                "its memory is a file of ours (save = \"ram-file\"); `save = \"managed\"` undoes it",
            )
            .await?;
        }
        let files = self.ram_file.files.clone();
        let owner = self.hub.call(Lane::Quick, |connect| Ok(connect.get_capabilities()?)).await;
        let owner = files::owner(&owner.map_err(self.failed("find who runs"))?, &description.kind);
        blocking(move || files.make_ram(size, owner)).await
    }

    async fn redefine(&self, xml: Option<String>, why: &str) -> Result<(), Error> {
        let Some(xml) = xml else {
            return Err(Error::Unsupported(format!(
                "save = \"ram-file\": the definition of domain {} cannot be changed: its prefix `qemu` is another's",
                self.who.name
            )));
        };
        tracing::warn!(domain = self.who.name, "its definition is changed: {why}");
        let defined =
            self.hub.call(Lane::Quick, move |connect| Ok(Handle::define_xml(connect, &xml).map(drop)?));
        defined.await.map_err(self.failed("define"))
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
        if saved::taken(&files.0) {
            // Of a process that is gone: nobody asks for this if its guest ran.
            let files = files.clone();
            blocking(move || saved::give_back(&files.0)).await?;
        }
        if !saved::exists(&files.0) {
            return Ok(false);
        }
        let (xml, state) = blocking(move || Ok((files.verify()?, files.open_state()?))).await?;
        let xml =
            files::incoming(&xml).ok_or(Error::Unsupported("domain.xml is no XML of a domain".into()))?;
        // Nobody's process is ended but the one that was made here, and what others removed stays removed.
        if self.status().await.map_err(self.failed("tell the state of"))? != Status::Off {
            return Err(Error::AlreadyRunning { pid: self.pid().await.unwrap_or(0) });
        }
        self.make_process(xml).await?;
        let result = self.read_state(state).await;
        if result.is_err() {
            let _ = self.destroy().await;
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

    /// The machine is forgotten, and its domain off: its memory is libvirt's again.
    pub(super) async fn erase_ram_file(&self) -> Result<(), Error> {
        let _busy = self.ram_file.busy.lock().await;
        let folder = self.ram_file.files.0.path().to_owned();
        if !folder.exists() {
            return Ok(());
        }
        let flags = ffi::VIR_DOMAIN_XML_INACTIVE | ffi::VIR_DOMAIN_XML_SECURE;
        let xml = self.ask(Lane::Quick, move |domain| Ok(domain.get_xml_desc(flags)?)).await;
        match xml {
            Err(error) if super::is_missing(&error) => {}
            Err(error) => return Err(error.to(self.action("describe"))),
            Ok(xml) if files::has_ram_file(&xml) => {
                self.redefine(files::without(&xml), "its memory is libvirt's again").await?;
            }
            Ok(_) => {}
        }
        // A process that others run keeps its memory: the file goes when it ends.
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

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::Unsupported(format!("a disk task was stopped: {error}"))))
}
