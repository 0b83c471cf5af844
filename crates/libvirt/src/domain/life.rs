//! Start, pause, suspend, save, stop.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use dormouse_machine::lifecycle::{Observed, Process, StateOnDisk};
use dormouse_platform::{Error, Notice, Obstacle};
use dormouse_sys::libvirt as more;
use dormouse_types::Depth;
use tokio::time::{Instant, timeout_at};
use virt::{domain::Domain as Handle, error::ErrorNumber};
use virt_sys as ffi;

use super::{Inner, is_missing};
use crate::{
    expect::Deed,
    hub::{CallError, Lane},
};

/// Events may be lost with a connection: whoever waits for one looks for himself as often as this.
const LOOK: Duration = Duration::from_secs(1);
/// An agent may say yes and have no program to do it by: then the button is pressed all the same.
const AGENT: Duration = Duration::from_secs(5);
/// A guest that is booting does not see the button that it is to shut down by: it is pressed again.
const PRESS: Duration = Duration::from_secs(10);
/// How long a guest may take to run on from S3, as far as QEMU can see.
const WAKE_UP: Duration = Duration::from_secs(10);
/// How long a guest that was asked may take to suspend itself. One that will not is not heard of.
const SUSPENDS: Duration = Duration::from_secs(20);
/// After a wake the guest's agent is away for so long at most.
const AGENT_BACK: Duration = Duration::from_secs(8);
/// Between two tries to have it heard.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Between two looks at a libvirt that is away.
const AGAIN: Duration = Duration::from_millis(20);
/// Of guests that suspended themselves once, and do not again.
const ONCE: &str = "since its process was started it has suspended itself once, and some firmware (as SeaBIOS of a \
                    q35 machine) brings a guest back without what it needs for another time";
/// `KEY_SLEEP` of Linux' input-event-codes.h.
const SLEEP_KEY: u32 = 142;

/// A domain that was started paused and not restored: `VIR_DOMAIN_PAUSED_USER`. Of one that was restored
/// `VIR_DOMAIN_PAUSED_MIGRATION` is said.
const BOOTED: (ffi::virDomainState, i32) = (ffi::VIR_DOMAIN_PAUSED, 1);

/// What libvirt says of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Running,
    Paused,
    /// Its guest has suspended itself (S3).
    PmSuspended,
    /// It has no process.
    Off,
}

/// What came of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Booted,
    Restored,
    /// It ran.
    Runs,
    /// There was nothing to restore.
    Unsaved,
    /// libvirt has booted it in place of restoring it; the guest did not run yet.
    BootedInstead,
}

impl Status {
    pub(super) fn of(domain: &Handle) -> Result<Self, CallError> {
        let (state, _) = domain.get_state()?;
        Ok(match state {
            ffi::VIR_DOMAIN_PAUSED => Self::Paused,
            ffi::VIR_DOMAIN_PMSUSPENDED => Self::PmSuspended,
            ffi::VIR_DOMAIN_SHUTOFF => Self::Off,
            // One whose guest panicked, and that is kept so or is gone.
            ffi::VIR_DOMAIN_CRASHED if domain.is_active()? => Self::Paused,
            ffi::VIR_DOMAIN_CRASHED => Self::Off,
            _ => Self::Running,
        })
    }
}

impl Inner {
    pub(super) async fn status(&self) -> Result<Status, CallError> {
        self.ask(Lane::Quick, Status::of).await
    }

    pub(super) async fn see(&self) -> Result<Observed, Error> {
        let seen =
            self.ask(Lane::Quick, |domain| Ok((Status::of(domain)?, domain.has_managed_save(0)?))).await;
        let (status, is_saved) = match seen {
            Err(error) if is_missing(&error) => {
                let by = error.to(self.action("find"));
                let why = std::error::Error::source(&by).map_or_else(String::new, ToString::to_string);
                let _ = self.notices.send(Notice::Undefined(self.machine.clone(), why)).await;
                (Status::Off, false)
            }
            seen => seen.map_err(self.failed("tell the state of"))?,
        };
        let process = match status {
            Status::Running => Process::Running,
            Status::Paused | Status::PmSuspended => Process::Still,
            Status::Off => Process::Absent,
        };
        let is_off = status == Status::Off;
        let is_kept = self.managed_save.told(is_saved && is_off);
        let is_saved = if is_off { is_kept } else { is_saved && !self.managed_save.is_empty() };
        // libvirt removes a managed save before the guest runs from it.
        let saved_state = if is_saved { StateOnDisk::Whole } else { StateOnDisk::None };
        self.see_ram_file(Observed { process, saved_state }).await
    }

    /// A process that holds the guest before its first step.
    ///
    /// One that others have saved goes on from there, as by `virsh start`: what it has in memory is not ours
    /// to give up.
    pub(super) async fn start_paused(&self) -> Result<(), Error> {
        self.start(false).await
    }

    /// A process that holds the guest before its next step.
    pub(super) async fn restore_paused(&self) -> Result<(), Error> {
        self.start(true).await
    }

    async fn start(&self, must_be_saved: bool) -> Result<(), Error> {
        // Nobody else gets the definition ready meanwhile.
        let _defining = self.ram_file.defining.lock().await;
        let has_ram_file = !must_be_saved
            && self.status().await.map_err(self.failed("tell the state of"))? == Status::Off
            && self.ready_ram_file().await?;
        self.managed_save.told(false);
        let quiet = self.quiet_ports();
        let mut started = self.create(must_be_saved).await;
        if let Err(CallError::Said { .. }) = &started
            && has_ram_file
            && self.is_off().await
        {
            started = self.create_without_ram_file(started).await;
        }
        let started = started.map_err(self.failed("start"))?;
        match started {
            Start::Runs => return Err(Error::AlreadyRunning { pid: self.pid().await.unwrap_or(0) }),
            Start::BootedInstead | Start::Unsaved => {
                if started == Start::BootedInstead {
                    self.destroy().await?;
                    self.managed_save.is_void();
                }
                // Nobody listens: the daemon ends.
                let _ = self.notices.send(self.managed_save_lost()).await;
                let source =
                    "it has no managed save: another client of libvirt has removed or used it".into();
                return Err(Error::Refused { whom: "libvirt", action: self.action("restore"), source });
            }
            Start::Restored | Start::Booted => {}
        }
        let is_clock_behind = started == Start::Restored;
        *self.known() = super::Known { is_clock_behind, ..super::Known::default() };
        if let Some(quiet) = quiet {
            quiet.end().await;
        }
        self.quiet_all().await;
        Ok(())
    }

    async fn create(&self, must_be_saved: bool) -> Result<Start, CallError> {
        // Of a domain whose file is missing or incomplete libvirt says that it has one, and boots it.
        let tells_how = self.hub.uri().starts_with("qemu");
        let created = self.act(Deed::Load, Lane::Work, move |domain| {
            if Status::of(domain)? != Status::Off {
                return Ok(Start::Runs);
            }
            let is_saved = domain.has_managed_save(0)?;
            if must_be_saved && !is_saved {
                return Ok(Start::Unsaved);
            }
            domain.create_with_flags(ffi::VIR_DOMAIN_START_PAUSED)?;
            let is_booted = || Ok::<_, CallError>(domain.get_state()? == BOOTED);
            if must_be_saved && tells_how && is_booted()? {
                return Ok(Start::BootedInstead);
            }
            Ok(if is_saved { Start::Restored } else { Start::Booted })
        });
        created.await
    }

    /// It failed with a RAM file, which QEMU may be kept from: if it starts without, that was why.
    async fn create_without_ram_file(&self, failed: Result<Start, CallError>) -> Result<Start, CallError> {
        if let Err(error) = self.take_ram_file_out().await {
            tracing::warn!(domain = self.who.name, %error, "its RAM file is not taken out of its definition");
            return failed;
        }
        let created = self.create(false).await;
        if let (Ok(_), Err(why)) = (&created, &failed) {
            self.ram_file_is_refused(why);
        }
        created
    }

    /// The guest runs, whatever kept it from it.
    pub(super) async fn run_on(self: &Arc<Self>) -> Result<(), Error> {
        match self.ask(Lane::Deed, Status::of).await.map_err(self.failed("tell the state of"))? {
            Status::Running => return Ok(()),
            Status::Off => return Err(Error::NotRunning),
            Status::Paused => {
                self.use_up_ram_file().await?;
                let resumed =
                    self.act(Deed::Resume, Lane::Deed, |domain| Ok(domain.resume().map(drop)?)).await;
                // The answer to a call may be lost, or somebody else have been faster.
                if let Err(error) = resumed
                    && self.status().await.ok() != Some(Status::Running)
                {
                    return Err(error.to(self.action("resume")));
                }
            }
            Status::PmSuspended => {
                let _expected = self.expect(Deed::WakeUp);
                let woken = self.ask(Lane::Quick, |domain| Ok(domain.pm_wakeup(0).map(drop)?)).await;
                woken.map_err(self.failed("wake up"))?;
                self.wait_for("the guest's waking from its own suspension", WAKE_UP, |s| {
                    s == Status::Running
                })
                .await?;
                self.known().s3.is_woken = true;
            }
        }
        self.is_paused_by_us.store(false, Ordering::Relaxed);
        self.known().ran_on = Some(std::time::Instant::now());
        self.mind_clock();
        self.spend_ram_file().await
    }

    pub(super) async fn stand_still(&self) -> Result<(), Error> {
        match self.ask(Lane::Deed, Status::of).await.map_err(self.failed("tell the state of"))? {
            Status::Paused => return Ok(()),
            Status::Off => return Err(Error::NotRunning),
            Status::Running | Status::PmSuspended => {}
        }
        self.is_paused_by_us.store(true, Ordering::Relaxed);
        let paused = self.act(Deed::Pause, Lane::Deed, |domain| Ok(domain.suspend().map(drop)?)).await;
        paused.map_err(self.failed("suspend"))?;
        self.known().still_since = Some(std::time::Instant::now());
        Ok(())
    }

    /// The guest suspends itself to memory, asked by its agent, or else by the key that means so.
    pub(super) async fn doze(&self, patience: Duration) -> Result<(), Error> {
        let _expected = self.expect(Deed::Suspend);
        let span = patience.min(SUSPENDS);
        // libvirt answers once the guest sleeps.
        let asked = tokio::time::timeout(span, self.ask_to_suspend()).await;
        let is_over = asked.is_err();
        if let Ok(Err(error)) = asked {
            // Others than the agent's absence are told.
            if !is_unheard(&error) {
                return Err(error.to(self.action("suspend the guest of")));
            }
            tracing::debug!(domain = self.who.name, ?error, "no guest agent: its sleep key is pressed");
            let pressed = self.ask(Lane::Quick, press_sleep).await;
            pressed.map_err(self.failed("press the sleep key of"))?;
        }
        let span = if is_over { Duration::ZERO } else { span };
        let suspended =
            self.wait_for("the guest's suspending itself", span, |s| s == Status::PmSuspended).await;
        let mut known = self.known();
        match suspended {
            Err(Error::Timeout { .. }) if known.s3.is_woken => {
                known.s3.is_spent = true;
                Err(Error::Unsupported(format!("its guest was asked, and did not: {ONCE}")))
            }
            Err(error) => Err(error),
            Ok(()) => {
                known.still_since = Some(std::time::Instant::now());
                Ok(())
            }
        }
    }

    /// Has the guest's agent suspend it. Just after a wake the agent is not heard for a moment.
    async fn ask_to_suspend(&self) -> Result<(), CallError> {
        let ran_on = self.known().ran_on;
        let is_early = || ran_on.is_some_and(|at| at.elapsed() < AGENT_BACK);
        loop {
            match self.ask_agent(|domain| Ok(more::pm_suspend(domain, false)?)).await {
                Err(error) if is_silent(&error) && is_early() => tokio::time::sleep(ASK_AGAIN).await,
                asked => return asked,
            }
        }
    }

    /// Why its guest cannot suspend itself any more.
    pub(super) fn s3_obstacle(&self) -> Option<Obstacle> {
        let fix = "shut the guest down and start it again, or choose depth paused or saved";
        let is_spent = self.known().s3.is_spent;
        is_spent.then(|| Obstacle::to(&[Depth::Pmsuspended], "suspend to memory", ONCE).fix(fix))
    }

    pub(super) async fn shut_down(&self, patience: Duration) -> Result<(), Error> {
        let _expected = self.expect(Deed::PowerDown);
        let deadline = Instant::now() + patience;
        // By default the guest's agent is asked, and the button pressed where there is none that answers.
        let (mut how, mut wait) = (ffi::VIR_DOMAIN_SHUTDOWN_DEFAULT, AGENT);
        loop {
            let asked = self.ask(Lane::Guest, move |domain| Ok(domain.shutdown_flags(how).map(drop)?)).await;
            match asked {
                Err(_) if self.is_off().await => return Ok(()),
                asked => asked.map_err(self.failed("shut down"))?,
            }
            let span = deadline.saturating_duration_since(Instant::now()).min(wait);
            (how, wait) = (ffi::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN, PRESS);
            match self.wait_for("the guest's shutting down", span, |status| status == Status::Off).await {
                Err(Error::Timeout { what, .. }) if Instant::now() >= deadline => {
                    return Err(Error::Timeout { what, after: patience });
                }
                Err(Error::Timeout { .. }) => {}
                done => return done,
            }
        }
    }

    async fn is_off(&self) -> bool {
        match self.status().await {
            Ok(status) => status == Status::Off,
            Err(error) => is_missing(&error),
        }
    }

    pub(super) async fn destroy(&self) -> Result<(), Error> {
        let killed = self.act(Deed::Kill, Lane::Deed, |domain| Ok(domain.destroy()?)).await;
        match killed {
            Err(_) if self.is_off().await => Ok(()),
            killed => killed.map_err(self.failed("destroy")),
        }
    }

    /// A process whose guest was saved is of no use; there is none after a managed save.
    pub(super) async fn end_saved(&self) -> Result<(), Error> {
        match self.see().await? {
            Observed { process: Process::Absent, .. } => Ok(()),
            Observed { saved_state: StateOnDisk::Whole, .. } => self.destroy().await,
            Observed { .. } => Err(Error::Unsupported("its state is not saved: it is not ended".into())),
        }
    }

    /// Waits until the domain is as wanted.
    async fn wait_for(
        &self,
        what: &'static str,
        patience: Duration,
        is_wanted: impl Fn(Status) -> bool,
    ) -> Result<(), Error> {
        let mut changed = self.changed.subscribe();
        let deadline = Instant::now() + patience;
        loop {
            let status = match self.status().await {
                Err(error) if is_missing(&error) => Status::Off,
                // libvirt may come back in time.
                Err(CallError::Away(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
                status => status.map_err(self.failed("tell the state of"))?,
            };
            if is_wanted(status) {
                return Ok(());
            }
            if status == Status::Off {
                return Err(Error::NotRunning);
            }
            if Instant::now() >= deadline {
                return Err(Error::Timeout { what, after: patience });
            }
            // An error is that time is over, or that nothing will be told.
            let _ = timeout_at(deadline.min(Instant::now() + LOOK), changed.changed()).await;
        }
    }
}

/// The guest's agent does not answer.
fn is_silent(error: &CallError) -> bool {
    use ErrorNumber as E;
    matches!(error.code(), Some(E::AgentUnresponsive | E::AgentUnsynced | E::AgentCommandTimeout))
}

/// The guest's agent is not there, does not answer, or may not do it.
fn is_unheard(error: &CallError) -> bool {
    use ErrorNumber as E;
    is_silent(error)
        || matches!(
            error.code(),
            Some(E::ArgumentUnsupported | E::ConfigUnsupported | E::OperationUnsupported | E::NoSupport)
        )
}

fn press_sleep(domain: &Handle) -> Result<(), CallError> {
    const HOLD_MS: u32 = 100;
    let mut keys = [SLEEP_KEY];
    Ok(domain.send_key(ffi::VIR_KEYCODE_SET_LINUX, HOLD_MS, keys.as_mut_ptr(), 1, 0)?)
}
