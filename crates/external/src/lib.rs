//! Programs of the user: responders get a line of JSON for a frame and say what to do about it, policies
//! get one for a sample and say whether to sleep. `docs/responders.md` and `docs/policies.md` are the protocols.
//!
//! A program is started when it is first asked, serves every machine that names it, and is started
//! again, ever later, when it ends. It is asked about at most a bounded number of frames at a time,
//! and has a bounded time for each; of a frame that it says nothing about nothing is said.
#![forbid(unsafe_code)]

mod line;
mod policy;
mod process;
mod protocol;
mod task;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dormouse_types::MachineName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub use policy::{Occasion, Opinion};
use task::Asked;

/// Frames that a program may be asked about at a time.
pub const MAX_OUTSTANDING: usize = 64;

/// Of these, so many about one machine: who is flooded leaves room for the others.
pub const SHARE: usize = 8;

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
    /// The frame is held, and wakes nobody.
    Hold,
}

/// A program at work. Cheap to clone; the program ends with the last clone.
#[derive(Clone, Debug)]
pub struct External {
    asked: mpsc::Sender<Asked>,
    room: Arc<Semaphore>,
    shares: Arc<Shares>,
}

/// How many questions wait about which machine; those of none are not in it.
type Shares = Mutex<HashMap<MachineName, usize>>;

/// A question's place among those outstanding.
#[derive(Debug)]
pub(crate) struct Room {
    machine: MachineName,
    shares: Arc<Shares>,
    _permit: OwnedSemaphorePermit,
}

impl Room {
    fn take(external: &External, machine: &MachineName) -> Option<Self> {
        let permit = Arc::clone(&external.room).try_acquire_owned().ok()?;
        let shares = Arc::clone(&external.shares);
        {
            let mut shares = shares.lock().unwrap_or_else(PoisonError::into_inner);
            let waiting = shares.entry(machine.clone()).or_default();
            if *waiting >= SHARE {
                return None;
            }
            *waiting += 1;
        }
        Some(Self { machine: machine.clone(), shares, _permit: permit })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = shares.get_mut(&self.machine) {
            *waiting -= 1;
            if *waiting == 0 {
                shares.remove(&self.machine);
            }
        }
    }
}

impl External {
    /// Makes ready to ask `program`; it is started when it is first asked. Within a tokio runtime.
    #[must_use]
    pub fn new(program: Program) -> Self {
        let (asked, questions) = mpsc::channel(MAX_OUTSTANDING);
        tokio::spawn(task::run(program, questions));
        Self { asked, room: Arc::new(Semaphore::new(MAX_OUTSTANDING)), shares: Arc::default() }
    }

    /// Asks, without waiting; `None`: too much waits for an answer already, of this machine or of all.
    ///
    /// Within the program's timeout an answer comes, or the channel is closed: the program said nothing,
    /// cannot be started or ended.
    #[must_use]
    pub fn ask(&self, question: Question) -> Option<oneshot::Receiver<Verdict>> {
        let room = Room::take(self, &question.machine)?;
        self.put(room, move |id| protocol::ask(id, &question), protocol::answer)
    }

    /// As [`External::ask`], whether a machine is to sleep.
    #[must_use]
    pub fn ask_policy(&self, occasion: Occasion) -> Option<oneshot::Receiver<Opinion>> {
        let room = Room::take(self, &occasion.machine)?;
        self.put(room, move |id| policy::ask(id, &occasion), policy::answer)
    }

    fn put<A: Send + 'static>(
        &self,
        room: Room,
        line: impl FnOnce(u64) -> serde_json::Result<Vec<u8>> + Send + 'static,
        read: fn(&[u8]) -> Result<A, protocol::Error>,
    ) -> Option<oneshot::Receiver<A>> {
        let (answer, answered) = oneshot::channel();
        let ear = Box::new(task::Ear { read, answer: Some(answer) });
        self.asked.try_send(Asked { line: Box::new(line), ear, room }).ok()?;
        Some(answered)
    }
}
