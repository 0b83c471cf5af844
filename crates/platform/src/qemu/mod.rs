//! Machines on QEMU.
//!
//! A machine that sleeps saved has no process: its memory is a file that QEMU had mapped, its
//! devices' state another, and a commit record says that both are whole. To wake, a new process
//! maps the memory, lazily, and reads the devices' state: about 30 ms whatever the memory's size.
//!
//! A state is used once. The record is renamed, durably, while the new process starts, and
//! given back only if its guest never ran.

mod account;
mod args;
mod config;
mod counters;
pub(crate) mod dir;
mod engine;
mod facts;
mod instance;
mod launch;
mod life;
mod migration;
mod ports;
mod prefetch;
mod process;
pub(crate) mod record;
mod running;
mod standby;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use dormouse_machine::spec::MachineType;
use dormouse_net::Net;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use self::{
    account::Account,
    args::Engine,
    dir::MachineDir,
    ports::Attached,
    running::{Log, Running},
};
use crate::{Error, Notice, blocking, page_out::PageOut};

pub use config::{QemuConfig, Settings};

/// One machine on QEMU.
#[derive(Debug)]
pub struct Qemu {
    config: QemuConfig,
    settings: Settings,
    net: Net,
    dir: MachineDir,
    engine: Engine,
    account: Option<Account>,
    notices: mpsc::Sender<Notice>,
    running: tokio::sync::Mutex<Option<Arc<Running>>>,
    attached: Mutex<Vec<Attached>>,
    /// Held by whoever makes interfaces, or removes them.
    attaching: tokio::sync::Mutex<()>,
    hurry: watch::Sender<u64>,
    /// Its memory was dropped from the page cache when it fell asleep, as far as is known.
    evicted: AtomicBool,
    /// Looks at what its guest touches after a wake.
    watch: Mutex<Option<JoinHandle<()>>>,
    /// Its memory while it is paused.
    page_out: PageOut,
}

impl Qemu {
    /// The machine of `config`; touches nothing but its directory, which is made if need be.
    /// `notices` learns what happens unasked.
    ///
    /// # Errors
    /// When the directory cannot be made, or the definition asks for what QEMU cannot do.
    pub fn new(
        config: QemuConfig,
        settings: Settings,
        net: Net,
        notices: mpsc::Sender<Notice>,
    ) -> Result<Self, Error> {
        config.check()?;
        let dir = MachineDir::new(settings.machines_dir.join(config.name.as_str()));
        dir.create()?;
        let engine = engine::choose(config.qemu.accel);
        if engine == Engine::Tcg && config.qemu.machine == MachineType::Microvm {
            tracing::warn!(
                name = %config.name,
                "without KVM a microvm's kernel may hang at boot, for it cannot measure its clock on a busy host: \
                 add tsc_early_khz=2000000 to qemu.cmdline, or use machine = \"q35\""
            );
        }
        let account = account::find(&settings.user, engine);
        Ok(Self {
            config,
            settings,
            net,
            dir,
            engine,
            account,
            notices,
            running: tokio::sync::Mutex::default(),
            attached: Mutex::default(),
            attaching: tokio::sync::Mutex::default(),
            hurry: watch::Sender::new(0),
            evicted: AtomicBool::new(false),
            watch: Mutex::default(),
            page_out: PageOut::default(),
        })
    }

    /// The machine's process, found if an earlier daemon started it.
    async fn running(&self) -> Result<Arc<Running>, Error> {
        let mut slot = self.running.lock().await;
        self.running_in(&mut slot).await
    }

    async fn running_in(&self, slot: &mut Option<Arc<Running>>) -> Result<Arc<Running>, Error> {
        if let Some(running) = slot.as_ref().filter(|r| !r.process.is_gone()) {
            return if running.is_standby() { Err(Error::NotRunning) } else { Ok(Arc::clone(running)) };
        }
        if slot.take().is_some_and(|r| r.loaded.load(Ordering::Acquire)) {
            record::give_back(&self.dir)?;
        }
        let found = process::find_settled(&self.dir.lock()).await?.ok_or(Error::NotRunning)?;
        let (_handle, monitor) = self.dir.short(&self.dir.monitor())?;
        let process = found.process.clone();
        let running = Running::adopt(process, &monitor, self.log(), self.settings.answer_timeout).await?;
        let state = running.run_state().await?;
        self.judge(&running, &state)?;
        // Only now: a failed adoption is tried again and again.
        found.watch()?;
        let running = self.keep(slot, running);
        if self.adopt_standby(&running, slot).await? { Err(Error::NotRunning) } else { Ok(running) }
    }

    /// Forgets a process that has ended.
    async fn forget(&self) {
        self.running.lock().await.take_if(|running| running.process.is_gone());
    }

    fn log(&self) -> Log {
        let images = self.config.qemu.disks.iter().map(|disk| disk.image.clone());
        Log { path: self.dir.log(), images: (args::DISK_FD..).zip(images).collect() }
    }

    fn devices(&self) -> String {
        args::devices(&self.config, self.engine)
    }

    fn attached(&self) -> std::sync::MutexGuard<'_, Vec<Attached>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
