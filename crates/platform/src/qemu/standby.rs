//! A process that has read a sleeper's state and waits for the wake, which is then little more than
//! `cont`.
//!
//! Nothing of the state is used up by it. Its record stays as it is, and with it the rule by which
//! a later daemon knows such a process: *one that has a saved state that is not marked as used*. The
//! mark is made durable by the `load` that takes the process over, and the guest runs only then.
//! A standby that ends, for whatever reason, leaves a machine that sleeps as before.
//!
//! What makes it safe to read the state early (QEMU 7.2; the tests look at each):
//!
//! - Reading the devices' state writes nothing to the memory: its pages, its length and its time
//!   of change stay. Should that ever be otherwise, the record does not fit at the wake, which is
//!   refused; nothing runs.
//! - `late-block-activate` leaves the disks inactive until `cont`: not locked, and read anew then.
//! - The network is not touched: the sleeper's taps are down, and QEMU takes at most one frame
//!   from a tap before its guest runs, which at a wake is the surrogate's junk frame.
//! - The guest's clocks stand still until `cont`, however long ago their state was read.

use std::{
    fs,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
};

use dormouse_machine::spec::MemoryBacking;
use dormouse_sys::tap;

use super::{
    Qemu, blocking,
    migration::{self, Disks},
    record,
    running::Running,
};
use crate::Error;

/// While it starts: nothing waits for it.
const CALM: i32 = 15;

impl Qemu {
    /// Starts a standby if the machine sleeps saved and has none; returns when it is ready.
    pub(super) async fn warm_up(&self) -> Result<bool, Error> {
        // One with its memory in the state would have all of it.
        if self.config.memory_backing != MemoryBacking::File || !record::exists(&self.dir) {
            return Ok(false);
        }
        self.attach_all().await?;
        let (dir, devices) = (self.dir.clone(), self.devices());
        let mut slot = self.running.lock().await;
        match self.running_in(&mut slot).await {
            Err(Error::NotRunning) => {}
            // It is awake, or on its way.
            Ok(_) => return Ok(false),
            Err(error) => return Err(error),
        }
        if slot.is_some() {
            return Ok(true);
        }
        let record = match blocking(move || record::verify(&dir, &devices)).await {
            Err(Error::NoState { .. } | Error::StateUsed { .. }) => return Ok(false),
            verified => verified?,
        };
        let (running, begun) = self.begin_load(&mut slot, record.board, Disks::Late).await?;
        // From here on a wake that comes meanwhile takes it over as it is.
        drop(slot);
        let loaded = self.loading(&running, begun).await;
        if let Err(error) = loaded {
            let mut slot = self.running.lock().await;
            if running.is_standby() {
                self.end_standby(&mut slot).await?;
                return Err(error);
            }
        }
        Ok(true)
    }

    /// Ends the standby if there is one.
    pub(super) async fn cool_down(&self) -> Result<(), Error> {
        let mut slot = self.running.lock().await;
        self.cool_in(&mut slot).await
    }

    pub(super) async fn cool_in(&self, slot: &mut Option<Arc<Running>>) -> Result<(), Error> {
        // Finds one that an earlier daemon left.
        match self.running_in(slot).await {
            Ok(_) | Err(Error::NotRunning) => self.end_standby(slot).await,
            // It cannot be told what it is; whoever wants it ended has other means.
            Err(_) => Ok(()),
        }
    }

    async fn end_standby(&self, slot: &mut Option<Arc<Running>>) -> Result<(), Error> {
        let Some(standby) = slot.as_ref().filter(|running| running.is_standby()) else { return Ok(()) };
        standby.kill().await?;
        *slot = None;
        self.give_memory_back().await
    }

    /// Makes the standby the machine's process, which has read the state. `None`: there is none of use.
    pub(super) async fn promote(&self, slot: &mut Option<Arc<Running>>) -> Option<Arc<Running>> {
        let running = Arc::clone(slot.as_ref().filter(|running| running.is_standby())?);
        if let Err(error) = running.process.set_nice(0) {
            tracing::debug!(name = %self.config.name, %error, "the standby keeps its priority");
        }
        let ready = running.ready.load(Ordering::Acquire);
        let loaded = if ready { Ok(()) } else { self.ensure_loaded(&running).await };
        if let Err(error) = loaded {
            tracing::warn!(name = %self.config.name, %error, "the standby is of no use: a new process is started");
            if let Err(error) = self.end_standby(slot).await {
                tracing::warn!(name = %self.config.name, %error, "the standby remains");
            }
            return None;
        }
        running.ready.store(true, Ordering::Release);
        running.expected.store(false, Ordering::Release);
        running.standby.store(false, Ordering::Release);
        Some(running)
    }

    /// Sees to it that a process which was told to read the state has read it.
    pub(super) async fn ensure_loaded(&self, running: &Running) -> Result<(), Error> {
        let disks = if running.is_standby() { Disks::Late } else { Disks::AtOnce };
        migration::ensure_loaded(running, self.config.memory_backing, disks, self.settings.stall_timeout)
            .await
    }

    /// Is a process that was found a standby? Then it is kept as one, if it can be of use.
    pub(super) async fn adopt_standby(
        &self,
        running: &Running,
        slot: &mut Option<Arc<Running>>,
    ) -> Result<bool, Error> {
        let given = running.loaded.load(Ordering::Acquire);
        if !given || record::taken(&self.dir) || !record::exists(&self.dir) {
            return Ok(false);
        }
        running.standby.store(true, Ordering::Release);
        running.expected.store(true, Ordering::Release);
        // One whose daemon was killed in a wake has the disks; another may not even have its orders.
        if migration::stands_by(running).await.unwrap_or(false) {
            running.ready.store(true, Ordering::Release);
        } else {
            self.end_standby(slot).await?;
        }
        Ok(true)
    }

    /// A copy of the queue of tap `name` that the standby has.
    pub(super) async fn standby_queue(&self, name: &str) -> Option<OwnedFd> {
        let pid = self.standby_pid().await?;
        let queue = tap::borrow_queue(pid, name);
        queue.inspect_err(|error| tracing::warn!(tap = name, %error, "the standby is ended")).ok().flatten()
    }

    pub(super) async fn standby_pid(&self) -> Option<u32> {
        let slot = self.running.lock().await;
        let standby = slot.as_ref().filter(|running| running.is_standby() && !running.process.is_gone());
        standby.map(|running| running.process.pid)
    }

    pub(super) async fn standby_memory(&self) -> Option<u64> {
        let ready = |running: &Running| running.is_standby() && running.ready.load(Ordering::Acquire);
        let slot = self.running.lock().await;
        let pid = slot.as_ref().filter(|r| ready(r) && !r.process.is_gone()).map(|r| r.process.pid)?;
        drop(slot);
        Some(share(pid))
    }
}

/// Bytes that a process occupies of the host's memory.
fn share(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    parse_share(&rollup).unwrap_or(0)
}

impl Running {
    pub(super) fn is_standby(&self) -> bool {
        self.standby.load(Ordering::Acquire)
    }

    /// Lets all else go first until a wake takes it over.
    pub(super) fn stand_back(&self) {
        if let Err(error) = self.process.set_nice(CALM) {
            tracing::debug!(%error, "the standby starts at full priority");
        }
    }
}

/// Its pages, those that it shares with others in parts: proc_pid_smaps(5), `Pss:    1234 kB`.
fn parse_share(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::parse_share;

    #[test]
    fn reads_what_the_kernel_writes() {
        let text =
            "5581-7fff ---p 00000000 00:00 0    [rollup]\nRss:  9 kB\nPss:     12 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(parse_share(text), Some(12 * 1024));
        assert_eq!(parse_share("Pss_Dirty: 1 kB\n"), None);
    }
}
