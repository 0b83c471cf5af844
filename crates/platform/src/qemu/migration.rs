//! Writing a machine's state, and reading it again, as QEMU's migration to and from a file.
//!
//! With the RAM in a shared file, `x-ignore-shared` leaves it out and only the devices' state
//! remains. QEMU's `docs/devel/migration.rst`, `qapi/migration.json`.

use std::{fs::OpenOptions, os::fd::AsFd, os::unix::fs::OpenOptionsExt, time::Duration};

use dormouse_machine::spec::MemoryBacking;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

use super::{args::STATE_FD, dir::MachineDir, launch::Commands, running::Running};
use crate::{Error, error::free_bytes, qmp::Event};

const SAVE: &str = "save";
const LOAD: &str = "load";
/// Bytes per second: no limit that a disk could reach.
const BANDWIDTH: u64 = 1 << 40;
/// Milliseconds: the guest stands still while its state is written.
const DOWNTIME: u64 = 300_000;
/// A full disk has no more than this, in bytes.
const FULL: u64 = 1 << 20;

/// Leaves the disks alone until `cont`: not locked, and nothing of them kept in mind.
const LATE: &str = "late-block-activate";

/// When a process that reads a state takes possession of the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disks {
    /// When it has read the state, beside what else a wake waits for.
    AtOnce,
    /// When the guest is to run.
    Late,
}

fn capabilities(backing: MemoryBacking, disks: Disks) -> Value {
    json!({ "capabilities": [
        { "capability": "events", "state": true },
        { "capability": "x-ignore-shared", "state": backing == MemoryBacking::File },
        { "capability": LATE, "state": disks == Disks::Late },
    ] })
}

/// What a process that is to load a state must be told first.
pub(super) fn incoming(backing: MemoryBacking, disks: Disks) -> Commands {
    vec![
        ("qmp_capabilities", Value::Null),
        ("migrate-set-capabilities", capabilities(backing, disks)),
        ("migrate-incoming", json!({ "uri": format!("fd:{STATE_FD}") })),
    ]
}

/// Has a process that was found read its state, and does it leave the disks alone until its guest is to run?
pub(super) async fn stands_by(running: &Running) -> Result<bool, Error> {
    let info = running.execute("query-migrate", Value::Null).await?;
    if info["status"] != "completed" {
        return Ok(false);
    }
    let all = running.execute("query-migrate-capabilities", Value::Null).await?;
    let mut all = all.as_array().into_iter().flatten();
    Ok(all.any(|c| c["capability"] == LATE && c["state"] == true))
}

/// A state being written.
pub(super) struct Saving<'a> {
    pub(super) running: &'a Running,
    pub(super) dir: &'a MachineDir,
    pub(super) backing: MemoryBacking,
    /// Changes when the machine is wanted.
    pub(super) hurry: watch::Receiver<u64>,
    /// The longest time without progress.
    pub(super) stall: Duration,
}

impl Saving<'_> {
    /// Writes the state; the guest then stands still, in `postmigrate`.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        let path = self.dir.state();
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(Error::io("make", &path))?;
        self.running.execute("migrate-set-capabilities", capabilities(self.backing, Disks::AtOnce)).await?;
        let limits = json!({ "max-bandwidth": BANDWIDTH, "downtime-limit": DOWNTIME });
        self.running.execute("migrate-set-parameters", limits).await?;
        self.running.qmp.give_fd("state", file.as_fd()).await.map_err(Error::qmp("getfd"))?;
        drop(file);
        let mut events = self.running.qmp.events();
        self.running.execute("migrate", json!({ "uri": "fd:state" })).await?;
        match self.outcome(&mut events).await?.as_str() {
            "completed" => self.settled().await,
            "cancelled" => Err(Error::Hurried("saving the state")),
            _ => Err(self.failure().await),
        }
    }

    async fn outcome(&mut self, events: &mut broadcast::Receiver<Event>) -> Result<String, Error> {
        let mut cancelled = false;
        loop {
            tokio::select! {
                end = ended(self.running, events, SAVE, self.stall) => return end,
                _ = self.hurry.changed(), if !cancelled => {
                    cancelled = true;
                    self.running.execute("migrate_cancel", Value::Null).await?;
                }
            }
        }
    }

    /// QEMU announces the end a moment before it is in `postmigrate`, and that it does not announce.
    async fn settled(&self) -> Result<(), Error> {
        for _ in 0..1000 {
            let state = self.running.run_state().await?;
            if state.is("postmigrate") {
                return Ok(());
            }
            if !state.is("finish-migrate") {
                let why = format!("it is in {:?} afterwards", state.0);
                return Err(Error::Migration { action: SAVE, why });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err(Error::Timeout { what: "the end of the save", after: Duration::from_secs(1) })
    }

    async fn failure(&self) -> Error {
        let path = self.dir.state();
        match free_bytes(&path) {
            Some(free) if free < FULL => Error::NoSpace { action: "write", path, free },
            _ => Error::Migration { action: SAVE, why: why(self.running).await },
        }
    }
}

/// Sees to it that a process reads its state whose first daemon may have been killed before QEMU
/// had its commands, or while it was reading.
pub(super) async fn ensure_loaded(
    running: &Running,
    backing: MemoryBacking,
    disks: Disks,
    stall: Duration,
) -> Result<(), Error> {
    let mut events = running.qmp.events();
    let info = running.execute("query-migrate", Value::Null).await?;
    match info["status"].as_str() {
        Some("completed") => return Ok(()),
        Some("none") | None => {
            for (command, arguments) in incoming(backing, disks).split_off(1) {
                running.execute(command, arguments).await?;
            }
        }
        Some(_) => {}
    }
    loaded(running, &mut events, stall).await
}

/// Waits until a process has read its state.
pub(super) async fn loaded(
    running: &Running,
    events: &mut broadcast::Receiver<Event>,
    stall: Duration,
) -> Result<(), Error> {
    match ended(running, events, LOAD, stall).await?.as_str() {
        "completed" => Ok(()),
        _ => Err(Error::Migration { action: LOAD, why: why(running).await }),
    }
}

/// Waits until a migration has ended; says how. Never polls: that starves QEMU's main loop.
async fn ended(
    running: &Running,
    events: &mut broadcast::Receiver<Event>,
    during: &'static str,
    stall: Duration,
) -> Result<String, Error> {
    let mut progress = None;
    loop {
        match running.event(events, during, stall).await {
            Ok(Some(event)) if event.name == "MIGRATION" => {
                if let Some(status) = event.text("status").filter(|s| is_end(s)) {
                    return Ok(status.to_owned());
                }
            }
            Ok(Some(_)) => {}
            // Events were missed, or there were none for long: ask, once.
            Ok(None) | Err(Error::Timeout { .. }) => {
                let info = running.execute("query-migrate", Value::Null).await?;
                if let Some(status) = info["status"].as_str().filter(|s| is_end(s)) {
                    return Ok(status.to_owned());
                }
                let now = info["ram"]["transferred"].as_u64();
                if now == progress {
                    return Err(Error::Timeout { what: during, after: stall });
                }
                progress = now;
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_end(status: &str) -> bool {
    matches!(status, "completed" | "failed" | "cancelled")
}

async fn why(running: &Running) -> String {
    let info = running.execute("query-migrate", Value::Null).await.unwrap_or_default();
    let words = info["error-desc"].as_str().map(str::to_owned);
    words.filter(|w| !w.is_empty()).unwrap_or_else(|| running.log.tail())
}
