//! One task per machine, the only one that changes it.
//!
//! ```text
//!  API ── orders ──────────┐
//!  surrogate, platform ────┤ notices
//!  clock ── idle samples,  ├────────► driver ──► lifecycle ──► actions
//!           holds that end │            ▲                         │ a future each,
//!                          │            └──── Done(task, result) ◄┘ side by side
//! ```
//!
//! The driver itself never waits for anything but its mailbox and its tasks' ends: whatever takes
//! time is a future of its own (see [`tasks`]), so that a packet can turn round a sleep whose
//! state is being written. What others may know of the machine is in the [`View`], published
//! after every change.

mod act;
mod adopt;
mod deeper;
mod holds;
mod idleness;
mod jobs;
mod journal;
mod mind;
mod notices;
mod opinion;
mod orders;
mod room;
mod run;
mod setback;
mod story;
mod tasks;
mod view;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dormouse_api_types::Problem;
use dormouse_external::External;
use dormouse_machine::spec::MachineSpec;
use dormouse_platform::Instance;
use dormouse_registry::{Record, Registry, Revision};
use dormouse_surrogate::{Port, Sleeper};
use dormouse_types::MachineName;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    clock::Clock, config::Config, events::Events, fault::Fault, inhibit::Inhibitors, meters::Meters,
    presence::Presence, room::Rooms,
};

pub(crate) use adopt::{drive_known, drive_new};
pub use orders::{Given, Order};
pub(crate) use story::cause_parts;
pub(crate) use tasks::addresses;
pub use view::View;
pub(crate) use view::state_of;

/// What waits in a mailbox at most; drivers empty theirs at once.
const MAILBOX: usize = 256;

/// What all drivers share.
#[derive(Clone)]
pub struct Shared {
    /// Where machines are remembered.
    pub registry: Arc<dyn Registry>,
    /// What they use.
    pub meters: Meters,
    /// The stand-in.
    pub presence: Arc<dyn Presence>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who is told.
    pub events: Events,
    /// The configuration.
    pub config: Arc<Config>,
    /// Locks that others took.
    pub inhibitors: Arc<Inhibitors>,
    /// Programs that say whether machines are to sleep, by name.
    pub policies: Arc<BTreeMap<String, External>>,
    /// Who is asked before a machine wakes. The host opens it if there is a budget.
    pub rooms: Rooms,
    /// A planted crash, for tests.
    pub fault: Fault,
}

/// What a driver is told.
#[derive(Debug)]
pub(crate) enum Message {
    /// A user's order.
    Order { order: Order, wait: bool, reply: oneshot::Sender<Result<Given, Problem>> },
    /// Forget the machine. The driver ends when it is forgotten.
    Remove { force: bool, reply: oneshot::Sender<Result<(), Problem>> },
    /// Its definition has changed, and this is to be its machine file; how it differs, for the user.
    Rewrite { file: String, what: String },
    /// It is to go to sleep if it is idle, so that others can be awake; why, after "put to sleep". Told
    /// whether it does.
    MakeRoom { why: String, reply: oneshot::Sender<bool> },
    /// From the surrogate.
    Presence(dormouse_surrogate::Notice),
    /// From the platform.
    Platform(dormouse_platform::Notice),
}

impl Message {
    /// Answers that it cannot be followed. Notices have no answer.
    fn refuse(self, problem: Problem) {
        // Whoever asked may be gone.
        match self {
            Self::Order { reply, .. } => drop(reply.send(Err(problem))),
            Self::Remove { reply, .. } => drop(reply.send(Err(problem))),
            Self::Rewrite { .. } | Self::MakeRoom { .. } | Self::Presence(_) | Self::Platform(_) => {}
        }
    }
}

/// The machine that a driver is started for.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) spec: Arc<MachineSpec>,
    pub(crate) instance: Arc<dyn Instance>,
    pub(crate) record: Record,
    pub(crate) revision: Revision,
}

/// The way to a driver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) name: MachineName,
    pub(crate) spec: Arc<MachineSpec>,
    pub(crate) instance: Arc<dyn Instance>,
    mailbox: mpsc::Sender<Message>,
    view: watch::Receiver<View>,
}

/// A driver's end of the handle.
#[derive(Debug)]
pub(crate) struct Ends {
    mailbox: mpsc::Receiver<Message>,
    view: watch::Sender<View>,
    /// Told once nothing of an earlier daemon has to be claimed any more.
    recovered: Option<oneshot::Sender<()>>,
}

/// Why a driver ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The machine is forgotten.
    Removed,
    /// Its file is another one, and is durable. What is told to it goes on coming to these ends.
    Rewritten(Box<Ends>),
    /// Nobody can tell it anything any more: the daemon ends.
    Closed,
}

impl Handle {
    /// The machine as it would be stood in for now, as far as that is known without its taps.
    pub(crate) fn sleeper(&self, config: &Config) -> Sleeper {
        let view = self.view();
        let known = tasks::Known { learned: &view.learned, personas: &view.personas };
        let ports = self.spec.interfaces.iter().map(|interface| Port {
            bridge: interface.bridge.clone(),
            tap: view.taps.get(&interface.mac).cloned().unwrap_or_default(),
            ..known.port(&self.spec, interface.mac)
        });
        tasks::sleeper(&self.spec, config, ports.collect())
    }

    /// The two ends, for a driver that is about to start.
    pub(crate) fn new(subject: &Subject) -> (Self, Ends, oneshot::Receiver<()>) {
        let (to_driver, mailbox) = mpsc::channel(MAILBOX);
        let (view, seen) = watch::channel(View::of(&subject.record));
        let (recovered, is_recovered) = oneshot::channel();
        let handle = Self {
            name: subject.record.name.clone(),
            spec: Arc::clone(&subject.spec),
            instance: Arc::clone(&subject.instance),
            mailbox: to_driver,
            view: seen,
        };
        (handle, Ends { mailbox, view, recovered: Some(recovered) }, is_recovered)
    }

    /// The way to the same machine, which is another one from now on.
    pub(crate) fn rewritten(&self, subject: &Subject) -> Self {
        Self { spec: Arc::clone(&subject.spec), instance: Arc::clone(&subject.instance), ..self.clone() }
    }

    /// What is known of the machine.
    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Looks at what is known of the machine, without a copy of it.
    pub(crate) fn peek<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.view.borrow())
    }

    /// Gives an order; answered when the machine has settled, or at once, or when `patience` ends.
    pub(crate) async fn order(&self, order: Order, wait: bool, patience: Duration) -> Result<Given, Problem> {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Order { order, wait, reply }).await;
        match tokio::time::timeout(patience, answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(orders::gone(&self.name))),
            Err(_) => Ok(Given::unsettled(&self.view(), patience)),
        }
    }

    /// Forgets the machine.
    pub(crate) async fn remove(&self, force: bool) -> Result<(), Problem> {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Remove { force, reply }).await;
        answer.await.unwrap_or_else(|_| Err(orders::gone(&self.name)))
    }

    /// Tells the driver something. One that has ended has no use for it.
    pub(crate) async fn tell(&self, message: Message) {
        let _ = self.mailbox.send(message).await;
    }
}
