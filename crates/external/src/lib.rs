//! Responders that are programs of the user: one line of JSON in for a frame, one line out for
//! what to do about it. `docs/responders.md` is the protocol.
//!
//! A program is started when it is first asked, serves every machine that names it, and is started
//! again, ever later, when it ends. It is asked about at most a bounded number of frames at a time,
//! and has a bounded time for each: a frame it says nothing about is held, as if nobody had asked.
#![forbid(unsafe_code)]

mod line;
mod process;
mod protocol;
mod task;

use std::{path::PathBuf, sync::Arc, time::Duration};

use dormouse_types::MachineName;
use tokio::sync::{Semaphore, mpsc, oneshot};

use task::Asked;

/// Frames that a program may be asked about at a time.
pub const MAX_OUTSTANDING: usize = 64;

/// A program that answers for sleepers: `[responder.NAME]` of dormoused.toml.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The name by which machine files mean it.
    pub name: String,
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// The user that it runs as; `None`: the daemon's own.
    pub user: Option<String>,
    /// How long it may take for a frame.
    pub timeout: Duration,
}

/// A frame that a program is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The sleeper.
    pub machine: MachineName,
    /// The Ethernet frame.
    pub frame: Vec<u8>,
    /// The same in one line.
    pub summary: String,
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send these frames; the frame is done with.
    Reply(Vec<Vec<u8>>),
    /// Wake the machine; the frame is held for it.
    Wake,
    /// The machine would do nothing with it.
    Ignore,
    /// Nothing: the frame is held.
    Hold,
}

/// A program at work. Cheap to clone; the program ends with the last clone.
#[derive(Clone, Debug)]
pub struct External {
    asked: mpsc::Sender<Asked>,
    room: Arc<Semaphore>,
}

impl External {
    /// Makes ready to ask `program`; it is started when it is first asked. Within a tokio runtime.
    #[must_use]
    pub fn new(program: Program) -> Self {
        let (asked, questions) = mpsc::channel(MAX_OUTSTANDING);
        tokio::spawn(task::run(program, questions));
        Self { asked, room: Arc::new(Semaphore::new(MAX_OUTSTANDING)) }
    }

    /// Asks, without waiting; `None`: too much waits for an answer already.
    ///
    /// An answer always comes, within the program's timeout: [`Verdict::Hold`] if the program has
    /// none, cannot be started or ends.
    #[must_use]
    pub fn ask(&self, question: Question) -> Option<oneshot::Receiver<Verdict>> {
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let (answer, verdict) = oneshot::channel();
        self.asked.try_send(Asked { question, answer, room }).ok()?;
        Some(verdict)
    }
}
