//! Boot, save, load, resume, and what else a machine goes through.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use dormouse_machine::{
    lifecycle::{Observed, Process as Seen, StateOnDisk},
    spec::MemoryBacking,
};
use serde_json::Value;
use tokio::sync::broadcast;

use super::{
    Qemu,
    args::Start,
    blocking,
    dir::remove,
    launch::{Answers, make_ram},
    migration::{self, Disks, Saving},
    process::Found,
    record::{self, Origin},
    running::{self, RunState, Running},
};
use crate::{Error, Notice, qmp, qmp::Event};

impl Qemu {
    pub(super) async fn see(&self) -> Result<Observed, Error> {
        let process = match self.running().await {
            Ok(running) => self.judge(&running, &running.run_state().await?)?,
            Err(Error::NotRunning) => Seen::Absent,
            Err(error) => return Err(error),
        };
        let saved_state = match process {
            _ if record::exists(&self.dir) => StateOnDisk::Whole,
            // One that a process was given, and that its guest never touched, is still good.
            Seen::Incoming if record::taken(&self.dir) => StateOnDisk::Whole,
            Seen::Absent if record::taken(&self.dir) => StateOnDisk::Taken,
            _ => StateOnDisk::None,
        };
        Ok(Observed { process, saved_state })
    }

    /// QEMU's word in ours.
    pub(super) fn judge(&self, running: &Running, state: &RunState) -> Result<Seen, Error> {
        let taken = record::taken(&self.dir);
        match state.0.as_str() {
            "running" => {
                record::spent(&self.dir)?;
                Ok(Seen::Running)
            }
            "inmigrate" | "prelaunch" => {
                running.loaded.store(true, Ordering::Release);
                Ok(Seen::Incoming)
            }
            // Loaded, and stopped by `-S` before its first instruction: no guest that is paused has
            // a saved state.
            "paused" if taken || record::exists(&self.dir) => {
                running.loaded.store(true, Ordering::Release);
                Ok(Seen::Incoming)
            }
            "paused" | "postmigrate" | "finish-migrate" | "save-vm" | "suspended" | "shutdown" => {
                Ok(Seen::Still)
            }
            other => {
                tracing::warn!(name = %self.config.name, state = other, "QEMU is in an unusual state: taken as standing still");
                Ok(Seen::Still)
            }
        }
    }

    pub(super) async fn power_on(&self) -> Result<(), Error> {
        self.attach_all().await?;
        // Held until there is a process: who looks for one meanwhile waits for it.
        let mut slot = self.running.lock().await;
        self.forbid_second_in(&mut slot).await?;
        self.cool_in(&mut slot).await?;
        let dir = self.dir.clone();
        self.hold_watch(None);
        blocking(move || record::discard(&dir)).await?;
        remove(&self.dir.touched())?;
        make_ram(self)?;
        let commands = vec![("qmp_capabilities", Value::Null)];
        let (running, answers) = self.launch(Start::Boot, commands).await?;
        let running = self.keep(&mut slot, running);
        drop(slot);
        self.or_kill(&running, answered(&running, answers, self.settings.answer_timeout)).await
    }

    /// Refuses when there is a process.
    pub(super) async fn forbid_second(&self) -> Result<(), Error> {
        self.forbid_second_in(&mut *self.running.lock().await).await
    }

    async fn forbid_second_in(&self, slot: &mut Option<Arc<Running>>) -> Result<(), Error> {
        match self.running_in(slot).await {
            Ok(running) => Err(Error::AlreadyRunning { pid: running.process.pid }),
            Err(Error::NotRunning) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn keep(&self, slot: &mut Option<Arc<Running>>, running: Running) -> Arc<Running> {
        let running = Arc::new(running);
        running::watch(self.config.name.clone(), &running, self.notices.clone());
        *slot = Some(Arc::clone(&running));
        running
    }

    /// A process that did not come up is of no use; its end is no news.
    pub(super) async fn or_kill(
        &self,
        running: &Running,
        work: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let result = work.await;
        if result.is_err() {
            if let Err(error) = running.kill().await {
                tracing::warn!(name = %self.config.name, %error, "the failed process remains");
            }
            self.forget().await;
        }
        result
    }

    pub(super) async fn load_state(&self) -> Result<(), Error> {
        self.read_ahead();
        self.forbid_second().await?;
        // Of a process that a power cut ended: its guest cannot have run, or nobody would ask for this.
        self.give_back().await?;
        self.attach_all().await?;
        let (dir, devices) = (self.dir.clone(), self.devices());
        let record = blocking(move || record::verify(&dir, &devices)).await?;
        let mut slot = self.running.lock().await;
        self.forbid_second_in(&mut slot).await?;
        let (running, begun) = match self.promote(&mut slot).await {
            Some(running) => (running, None),
            None => {
                let (running, begun) = self.begin_load(&mut slot, record.board, Disks::AtOnce).await?;
                (running, Some(begun))
            }
        };
        drop(slot);
        self.tell_spawned();
        // Used up while the process starts, which takes longer.
        let dir = self.dir.clone();
        let taking = tokio::spawn(blocking(move || record::take(&dir)));
        let loading = match begun {
            Some(begun) => self.or_kill(&running, self.loading(&running, begun)).await,
            None => Ok(()),
        };
        let taken = taking.await.unwrap_or_else(|e| Err(Error::Unsupported(e.to_string())));
        if let Err(error) = loading {
            self.give_back().await?;
            return Err(error);
        }
        // Without it, nothing would stop a second use.
        self.or_kill(&running, async { taken }).await
    }

    /// Starts a process that reads the saved state.
    pub(super) async fn begin_load(
        &self,
        slot: &mut Option<Arc<Running>>,
        board: String,
        disks: Disks,
    ) -> Result<(Arc<Running>, Begun), Error> {
        let commands = migration::incoming(self.config.memory_backing, disks);
        let (running, answers) = self.launch(Start::Load { board }, commands).await?;
        running.loaded.store(true, Ordering::Release);
        running.standby.store(disks == Disks::Late, Ordering::Release);
        running.expected.store(disks == Disks::Late, Ordering::Release);
        if disks == Disks::Late {
            running.stand_back();
        }
        let events = running.qmp.events();
        Ok((self.keep(slot, running), Begun { answers, events }))
    }

    /// Lets the journal be written while the process loads. Not where that takes long: a power cut
    /// after the write loses the memory.
    fn tell_spawned(&self) {
        if self.config.memory_backing == MemoryBacking::File {
            // Nobody needs to know.
            let _ = self.notices.try_send(Notice::Spawned(self.config.name.clone()));
        }
    }

    /// Waits until a process has read the saved state.
    pub(super) async fn loading(&self, running: &Running, begun: Begun) -> Result<(), Error> {
        let Begun { answers, mut events } = begun;
        answered(running, answers, self.settings.answer_timeout).await?;
        migration::loaded(running, &mut events, self.settings.stall_timeout).await?;
        running.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// The RAM file is about to move on: what was saved with it must not be found again.
    async fn take_state(&self) -> Result<(), Error> {
        if !record::exists(&self.dir) {
            return Ok(());
        }
        let dir = self.dir.clone();
        blocking(move || record::discard(&dir)).await
    }

    async fn give_back(&self) -> Result<(), Error> {
        let dir = self.dir.clone();
        blocking(move || record::give_back(&dir)).await
    }

    pub(super) async fn run_on(&self) -> Result<(), Error> {
        self.page_out.wake();
        let running = self.running().await?;
        if running.loaded.load(Ordering::Acquire) {
            if !running.ready.load(Ordering::Acquire) {
                self.ensure_loaded(&running).await?;
            }
        } else if running.run_state().await?.is("running") {
            return Ok(());
        }
        self.take_state().await?;
        let mut events = running.qmp.events();
        // Before `cont`: whatever happens to it, the guest may have run.
        let loaded = running.loaded.swap(false, Ordering::AcqRel);
        let mut resumed = std::pin::pin!(self.resumed(&running, &mut events));
        // The guest runs some milliseconds before QEMU finds the time to answer.
        let answer = tokio::select! {
            biased;
            answer = running.execute("cont", Value::Null) => answer,
            result = &mut resumed => {
                result?;
                if loaded {
                    self.watch_pages();
                }
                return record::spent(&self.dir);
            }
        };
        if let Err(error) = answer {
            let refused = matches!(&error, Error::Qmp { source: qmp::Error::Refused(_), .. });
            running.loaded.store(loaded && refused, Ordering::Release);
            return Err(error);
        }
        resumed.await?;
        if loaded {
            self.watch_pages();
        }
        record::spent(&self.dir)
    }

    async fn resumed(&self, running: &Running, events: &mut broadcast::Receiver<Event>) -> Result<(), Error> {
        loop {
            match running.event(events, "resume", self.settings.answer_timeout).await? {
                Some(event) if event.name == "RESUME" => return Ok(()),
                None if running.run_state().await?.is("running") => return Ok(()),
                _ => {}
            }
        }
    }

    pub(super) async fn stand_still(&self) -> Result<(), Error> {
        self.running().await?.execute("stop", Value::Null).await?;
        self.page_out.sleep();
        Ok(())
    }

    pub(super) async fn put_memory_away(&self) -> Result<u64, Error> {
        if !self.config.qemu.page_out {
            return Ok(0);
        }
        let Some(running) = self.running_or_none().await? else { return Ok(0) };
        let given = self.page_out.put_away(running.process.pid).await?;
        Ok(given.before.saturating_sub(given.left))
    }

    pub(super) async fn save_state(&self) -> Result<(), Error> {
        self.hold_watch(None);
        let hurry = self.hurry.subscribe();
        let running = self.running().await?;
        let dir = self.dir.clone();
        blocking(move || record::discard(&dir)).await?;
        let (backing, stall) = (self.config.memory_backing, self.settings.stall_timeout);
        Saving { running: &running, dir: &self.dir, backing, hurry, stall }.run().await
    }

    pub(super) async fn make_durable(&self) -> Result<(), Error> {
        let mut hurry = self.hurry.subscribe();
        let running = self.running().await?;
        let origin = Origin {
            qemu: running.version().await?,
            board: running.board().await?,
            devices: self.devices(),
            ram_in_file: self.config.memory_backing == MemoryBacking::File,
        };
        let (dir, revoked) = (self.dir.clone(), Revoked::default());
        let _guard = RevokeOnDrop(revoked.clone());
        let work = blocking(move || {
            let prepared = record::prepare(&dir, origin)?;
            let revoked = revoked.0.lock().unwrap_or_else(PoisonError::into_inner);
            if *revoked { Ok(()) } else { record::commit(&dir, &prepared) }
        });
        tokio::select! {
            result = work => result,
            _ = hurry.changed() => Err(Error::Hurried("flushing the state")),
        }
    }

    pub(super) async fn end_saved(&self) -> Result<(), Error> {
        if let Some(running) = self.running_or_none().await? {
            running.expected.store(true, Ordering::Release);
            // It may be gone before it answers.
            let _ = running.qmp.execute("quit", Value::Null).await;
            if running.process.gone_within(self.settings.answer_timeout).await.is_none() {
                tracing::warn!(name = %self.config.name, "QEMU does not quit: killed");
                running.kill().await?;
            }
            self.forget().await;
        }
        self.give_memory_back().await
    }

    pub(super) async fn running_or_none(&self) -> Result<Option<Arc<Running>>, Error> {
        match self.running().await {
            Ok(running) => Ok(Some(running)),
            Err(Error::NotRunning) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn shut_down(&self, patience: Duration) -> Result<(), Error> {
        let Some(running) = self.running_or_none().await? else { return Ok(()) };
        running.expected.store(true, Ordering::Release);
        running.execute("system_powerdown", Value::Null).await?;
        if running.process.gone_within(patience).await.is_some() {
            self.forget().await;
            return Ok(());
        }
        running.expected.store(false, Ordering::Release);
        Err(Error::Timeout { what: "the guest's shutdown", after: patience })
    }

    pub(super) async fn end_now(&self) -> Result<(), Error> {
        self.cool_down().await?;
        let known = self.running().await;
        let process = match &known {
            Ok(running) => {
                running.expected.store(true, Ordering::Release);
                Some(running.process.clone())
            }
            Err(Error::NotRunning) => None,
            // One whose monitor is stuck must be ended as well.
            Err(_) => super::process::find(&self.dir.lock())?.map(Found::watch).transpose()?,
        };
        if let Some(process) = process {
            process.kill();
            let gone = process.gone_within(self.settings.answer_timeout).await;
            gone.ok_or(Error::Timeout {
                what: "the end of a killed process",
                after: self.settings.answer_timeout,
            })?;
        }
        let untouched = known.is_ok_and(|r| r.loaded.load(Ordering::Acquire));
        self.forget().await;
        if untouched { self.give_back().await } else { Ok(()) }
    }

    pub(super) async fn forget_state(&self) -> Result<(), Error> {
        let mut slot = self.running.lock().await;
        self.cool_in(&mut slot).await?;
        let dir = self.dir.clone();
        blocking(move || record::discard(&dir)).await
    }
}

/// What a process that reads a state was told, and what it tells.
#[derive(Debug)]
pub(super) struct Begun {
    answers: Answers,
    events: broadcast::Receiver<Event>,
}

/// Set when a flush must not make a record any more.
#[derive(Clone, Debug, Default)]
struct Revoked(Arc<Mutex<bool>>);

/// Revokes a flush that nobody waits for; waits, shortly, for a record that is being written.
struct RevokeOnDrop(Revoked);

impl Drop for RevokeOnDrop {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

/// Waits for the answers to what was queued before the process existed.
async fn answered(running: &Running, answers: Answers, patience: Duration) -> Result<(), Error> {
    for (command, pending) in answers {
        match tokio::time::timeout(patience, pending.answer()).await {
            Ok(Ok(_)) => {}
            Ok(Err(source)) => return Err(running.explain(command, source).await),
            Err(_) => return Err(Error::Timeout { what: command, after: patience }),
        }
    }
    Ok(())
}
