//! A process together with its monitor.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use dormouse_types::MachineName;
use serde_json::{Value, json};
use tokio::{
    net::UnixStream,
    sync::{OnceCell, broadcast, broadcast::error::RecvError, mpsc},
    time::timeout,
};

use super::process::{Process, tail};
use crate::{
    Error, Notice,
    qmp::{self, Client, Event},
};

/// A QEMU that lives, or did when last seen.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) process: Process,
    pub(super) qmp: Client,
    pub(super) log: Log,
    /// Its end is wanted: nobody need be told.
    pub(super) expected: Arc<AtomicBool>,
    /// It only waits for a wake: as far as others are concerned the machine has no process.
    pub(super) standby: AtomicBool,
    /// It was given a saved state, and its guest has not yet run.
    pub(super) loaded: AtomicBool,
    /// That state was read.
    pub(super) ready: AtomicBool,
    /// Threads of the virtual processors, asked once.
    pub(super) threads: OnceCell<Vec<u32>>,
    patience: Duration,
}

/// What QEMU said.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) path: PathBuf,
    /// Disk images by the numbers under which QEMU knows them.
    pub(super) images: Vec<(i32, PathBuf)>,
}

/// QEMU's word for what it does (`RunState` in `qapi/run-state.json`), or one that we do not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunState(pub(super) String);

impl Running {
    pub(super) fn new(process: Process, qmp: Client, log: Log, patience: Duration) -> Self {
        Self {
            process,
            qmp,
            log,
            expected: Arc::default(),
            standby: AtomicBool::new(false),
            loaded: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            threads: OnceCell::new(),
            patience,
        }
    }

    /// Connects to the monitor of a process that was found, and greets it.
    pub(super) async fn adopt(
        process: Process,
        monitor: &Path,
        log: Log,
        patience: Duration,
    ) -> Result<Self, Error> {
        let stream = UnixStream::connect(monitor).await.map_err(Error::io("connect to", monitor))?;
        let running = Self::new(process, Client::new(stream), log, patience);
        let greeting = timeout(patience, running.qmp.greeting()).await;
        greeting
            .map_err(|_| Error::Timeout {
                what: "the greeting of a QEMU that was found running",
                after: patience,
            })?
            .map_err(Error::qmp("greeting"))?;
        running.execute("qmp_capabilities", Value::Null).await?;
        Ok(running)
    }

    /// Carries out a command; if QEMU ended instead, the error says how.
    pub(super) async fn execute(&self, command: &'static str, arguments: Value) -> Result<Value, Error> {
        let answer = timeout(self.patience, self.qmp.execute(command, arguments)).await;
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(self.explain(command, source).await),
            Err(_) => Err(Error::Timeout { what: command, after: self.patience }),
        }
    }

    /// Turns the end of the connection into the end of the process, if it was that.
    pub(super) async fn explain(&self, command: &'static str, source: qmp::Error) -> Error {
        if matches!(source, qmp::Error::Ended(_))
            && let Some(status) = self.process.gone_within(Duration::from_secs(1)).await
        {
            return self.exited(command, &status);
        }
        Error::Qmp { command, source }
    }

    fn exited(&self, during: &'static str, status: &str) -> Error {
        Error::Exited { during, status: self.log.last_words(status) }
    }

    /// The next event; an error when QEMU ended or `deadline` passes. `None`: some were missed.
    pub(super) async fn event(
        &self,
        events: &mut broadcast::Receiver<Event>,
        during: &'static str,
        patience: Duration,
    ) -> Result<Option<Event>, Error> {
        match timeout(patience, events.recv()).await {
            Ok(Ok(event)) => Ok(Some(event)),
            Ok(Err(RecvError::Lagged(_))) => Ok(None),
            Ok(Err(RecvError::Closed)) => {
                Err(self.explain(during, qmp::Error::Ended("QEMU closed it".into())).await)
            }
            Err(_) => Err(Error::Timeout { what: during, after: patience }),
        }
    }

    /// What QEMU does now.
    pub(super) async fn run_state(&self) -> Result<RunState, Error> {
        let status = self.execute("query-status", Value::Null).await?;
        Ok(RunState(status.get("status").and_then(Value::as_str).unwrap_or("unknown").to_owned()))
    }

    /// The board with its version, as `pc-q35-7.2`.
    pub(super) async fn board(&self) -> Result<String, Error> {
        let kind = self.execute("qom-get", json!({ "path": "/machine", "property": "type" })).await?;
        let kind = kind.as_str().unwrap_or_default();
        Ok(kind.strip_suffix("-machine").unwrap_or(kind).to_owned())
    }

    /// QEMU's version, as `7.2.22`.
    pub(super) async fn version(&self) -> Result<String, Error> {
        let greeting = self.qmp.greeting().await.map_err(Error::qmp("greeting"))?;
        let number = |key: &str| greeting["version"]["qemu"][key].as_u64().unwrap_or(0);
        Ok(format!("{}.{}.{}", number("major"), number("minor"), number("micro")))
    }

    /// Ends it at once and waits until it has.
    pub(super) async fn kill(&self) -> Result<(), Error> {
        self.expected.store(true, Ordering::Release);
        self.process.kill();
        let gone = self.process.gone_within(self.patience).await;
        gone.map(drop).ok_or(Error::Timeout { what: "the end of a killed process", after: self.patience })
    }
}

impl RunState {
    pub(super) fn is(&self, state: &str) -> bool {
        self.0 == state
    }
}

impl Log {
    /// How it ended, and the last that it said.
    fn last_words(&self, status: &str) -> String {
        let words = self.tail();
        if words.is_empty() { status.to_owned() } else { format!("{status}; it said: {words}") }
    }

    /// The last that it said, with the files' own names.
    pub(super) fn tail(&self) -> String {
        let mut words = tail(&self.path);
        for (number, image) in &self.images {
            words = words.replace(&format!("/dev/fdset/{number}]"), &format!("{}]", image.display()));
        }
        words
    }
}

/// Tells whoever listens when the process ends unasked.
pub(super) fn watch(name: MachineName, running: &Arc<Running>, notices: mpsc::Sender<Notice>) {
    let mut events = running.qmp.events();
    let (process, log) = (running.process.clone(), running.log.clone());
    let expected = Arc::clone(&running.expected);
    tokio::spawn(async move {
        let by_guest = shutdown_by_guest(&name, &mut events).await;
        let status = process.gone().await;
        // Asked of the flag itself: who looked for the process meanwhile has forgotten it.
        if expected.load(Ordering::Acquire) {
            return;
        }
        let notice = if by_guest {
            Notice::GuestShutdown(name)
        } else {
            Notice::Exited(name, log.last_words(&status))
        };
        // Nobody listens while the daemon ends.
        let _ = notices.send(notice).await;
    });
}

/// Listens until the connection ends; was the guest's own shutdown announced before?
async fn shutdown_by_guest(name: &MachineName, events: &mut broadcast::Receiver<Event>) -> bool {
    let mut by_guest = false;
    loop {
        match events.recv().await {
            Ok(event) if event.name == "SHUTDOWN" => by_guest = event.data["guest"] == json!(true),
            Ok(event) if matches!(event.name.as_str(), "GUEST_PANICKED" | "BLOCK_IO_ERROR" | "WATCHDOG") => {
                tracing::warn!(%name, event = event.name, data = %event.data, "QEMU");
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return by_guest,
        }
    }
}
