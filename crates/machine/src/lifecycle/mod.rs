//! The life of a machine.
//!
//! ```text
//!            start                    idle, sleep                 committed
//!  Stopped ────────► Waking ──► Active ──────────► Settling ────────────────► Asleep
//!     ▲                ▲ │        │ ▲                 │ packet, hold, wake,      │
//!     │                │ │        │ │ released        ▼ failure                  │
//!     │                │ │        │ └───────────── Undoing                       │
//!     │ guest or user  │ │        │                                              │
//!     └── Stopping ◄───┼─┼────────┘                                              │
//!                      └─┼───────────── packet, wake ────────────────────────────┘
//!                        ▼
//!                     Failed{during, why}     (also from Settling, Undoing, Active)
//! ```
//!
//! One driver task per machine owns a [`Lifecycle`]; it alone feeds events and commands and carries
//! out actions. Every [`Action`] with a [`Task`] is answered by exactly one [`Event::Done`]; until
//! then no other action of that task is given. A state is journalled before the side effect
//! that makes it true, so that after a crash [`Lifecycle::recover`] can tell, by asking the
//! platform, which of two worlds is the real one.
//!
//! Sleeping, per depth (`|` is the point of no return; before it, anything that wants the
//! machine undoes the sleep):
//!
//! ```text
//! saved        Journal Capture Drain Save StandIn Flush Journal(Asleep) | Quit
//! paused       Journal Capture Drain Pause StandIn Journal(Asleep)      |
//! pmsuspended  Journal Capture Drain Suspend StandIn Journal(Asleep)    |
//! off          Journal Capture | PowerDown StandIn Journal(Asleep)
//! ```
//!
//! What comes for a guest that suspends itself is held from the capture on: its interfaces take nothing.
//!
//! Deeper sleep over time wakes nobody where that can be; a failure leaves the machine asleep as it was:
//!
//! ```text
//! paused, pmsuspended to saved  Journal Save Flush Journal(Asleep) | Quit
//!   where a save ends           Journal | Save Journal(Asleep)
//! any to off                    wakes, and then as from Active; if its guest stays, sleeps as before
//! ```
//!
//! Waking:
//!
//! ```text
//! saved        Prepare, Load and (from Spawned on) Journal(Waking, state used), Resume, Release, Journal(Active)
//! paused       Journal Prepare Resume Release Journal(Active)
//! pmsuspended  Journal Prepare Resume Release Journal(Active)
//! off          Journal Prepare Boot AwaitGuest Release Journal(Active)
//! stopped      Journal Boot Watch Journal(Active)
//! ```
//!
//! A guest that suspended itself is not waited for: its interfaces' queues take what is handed back, and
//! its drivers read them as soon as they are up again.
//!
//! Some platforms need another order (see [`Shape`]). Where the interfaces exist only while there is a
//! process:
//!
//! ```text
//! saved        Load and (from Spawned on) Journal(Waking, state used), Prepare, Resume, Release, Journal(Active)
//! off          Journal Boot Prepare Resume AwaitGuest Release Journal(Active)
//! stopped      Journal Boot Watch Resume Journal(Active)
//! ```
//!
//! Where a save ends the process, so that the platform alone keeps what was saved:
//!
//! ```text
//! saved        Journal Capture Drain Pause StandIn | Save Journal(Asleep)
//! ```
//!
//! There a state is used once because the platform says so: it removes the state as soon as a process
//! has it, and before that process's guest runs. So after a `Load` there is none, whatever the journal
//! says, and the process is all that is left of the machine: it is not ended because a later step
//! fails.
//!
//! Undoing: `Journal(Undoing)` if the disk may say `Asleep`, `DiscardState` if one was written,
//! `Prepare` if the surrogate stood in, `Resume` if the guest was stopped, `Release`,
//! `Journal(Active)`.
//!
//! What others do to a machine by its platform's own means is followed, at rest and half-way: `Look` asks
//! the platform as soon as no task is awaited, and before a failed task of the platform is judged.
//!
//! ```text
//!                 is seen running                    standing still    gone
//! Active                                             Suspended         Stopped
//! Suspended       Active                                               Stopped
//! Stopped         Active                             Suspended
//! Asleep          Journal(Waking) Prepare [AwaitGuest] Release Active
//!   paused, pmsuspended                                                Stopped
//!   saved                                            Suspended         Stopped, if its state is gone
//!   off                                              Suspended
//! Settling        Undoing, from when it was stopped  Suspended before  Stopped, if it is not off or saved
//! Undoing,Waking  go on without the steps that       Suspended after   Stopped, if there should be a
//!                 would let it run                   they let it run   process, or a state to load
//! ```
//!
//! A machine that is no longer defined on its platform, and has no process, is `Stopped`.
//!
//! As long as the platform cannot be asked, nothing is decided: sleepers are answered for, what wants one
//! waits (a `Load` that failed meanwhile leaves it asleep), and a step that failed is judged afterwards:
//! it may have been done. One whose answer was lost (`Unanswered`) and that is not done is done again, unless
//! it was to put the machine to sleep: that is undone.
//!
//! What holds whatever happens:
//!
//! - The guest is let run (`Resume`, `Boot`) only if a crash afterwards cannot lead to its old
//!   saved state being used: the disk must no longer offer that state, or the state must be gone.
//!   This is checked in one place, where a step starts. So a wake journals "state used" first,
//!   and only once the loading process exists, which outlives a killed daemon: a crash in between
//!   finds either an unused state or a process to go on with.
//! - A write that only records what is already so (`Active`, `Stopped`, `Failed`, asleep `off`)
//!   and fails is tried again: see [`Lifecycle::next_deadline`].
//! - `Dismiss` must stop the surrogate from answering even when it fails; `Resume` on a running
//!   guest, `Kill` without a process and `DiscardState` without a state must do nothing and succeed.
//! - `Kill` may be asked while `PowerDown` is still unanswered, and anything while `AwaitGuest` is.
//! - A sleeper for which `StandIn` fails, or whose bridge is lost, sleeps on: `StandIn` is tried again
//!   (see [`Lifecycle::absent`]), and what wants the machine waits for it, unless some of its
//!   interfaces are stood in for: from them it wakes. Only one that is `paused`
//!   runs on instead, when `StandIn` fails that never succeeded.
//! - Where a task's failure leaves something better to do than to give up, the machine does it:
//!   when `Prepare` or `Release` fails for a guest that can run, it runs on with the surrogate
//!   dismissed (what was held is counted as dropped).

mod absent;
mod command;
mod deeper;
mod engine;
mod failure;
mod follow;
mod look;
mod recover;
mod settle;
mod stop;
mod wake;

use std::fmt;

use dormouse_types::Depth;
use serde::{Deserialize, Serialize};

pub use absent::STAND_IN_RETRY;
pub use engine::{JOURNAL_RETRY, Lifecycle};
pub use look::LOOK_RETRY;

/// Where a machine is in its life. This is what is journalled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Known, not running, and nobody stands in for it: it wakes only by a command.
    Stopped,
    /// Its guest runs.
    Active,
    /// On its way to sleep; all that comes for it is held.
    Settling {
        /// How deep it is to sleep.
        depth: Depth,
        /// Why it is put to sleep.
        reason: SleepReason,
    },
    /// A sleep is being undone.
    Undoing {
        /// What undid it.
        cause: Cause,
    },
    /// Asleep; the surrogate stands in for it.
    Asleep {
        /// How deep.
        depth: Depth,
    },
    /// On its way to run.
    Waking {
        /// What it wakes from; `None` for a boot from [`State::Stopped`].
        from: Option<Depth>,
        /// The saved state may have been used: it must never be used again.
        state_used: bool,
        /// What woke it.
        cause: Cause,
    },
    /// Being shut down at a user's wish.
    Stopping,
    /// Others than Dormouse made its processors stand still. It is left alone, and nobody stands in
    /// for it, until they run again.
    Suspended {
        /// Who or what did it.
        by: String,
    },
    /// Something failed that Dormouse cannot put right by itself; nothing is deleted.
    Failed {
        /// What was being done.
        during: String,
        /// The chain of causes, outermost first.
        why: String,
        /// A saved state was committed and never used, so that a wake may be tried again.
        state_kept: bool,
    },
}

impl State {
    /// The state in a word, as the command line shows it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Active => "active",
            Self::Settling { .. } => "settling",
            Self::Undoing { .. } => "undoing",
            Self::Asleep { .. } => "asleep",
            Self::Waking { .. } => "waking",
            Self::Stopping => "stopping",
            Self::Suspended { .. } => "suspended",
            Self::Failed { .. } => "failed",
        }
    }

    /// On disk, says this state that a saved state may be resumed from?
    pub(crate) const fn offers_saved_state(&self) -> bool {
        matches!(
            self,
            Self::Asleep { depth: Depth::Saved }
                | Self::Waking { from: Some(Depth::Saved), state_used: false, .. }
                | Self::Failed { state_kept: true, .. }
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// Why a machine is put to sleep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SleepReason {
    /// It was idle for as long as its file says.
    Idle,
    /// The program that its file names says so; its name, and why.
    Policy(String),
    /// A user asked.
    Command,
    /// It has slept at this depth for as long as its file says, and is to sleep deeper.
    Deeper(Depth),
    /// Awake machines have used up what they may have together; for whom or what room is made.
    Budget(String),
}

impl SleepReason {
    /// The reason in a word, by which sleeps are counted.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Policy(_) => "policy",
            Self::Command => "command",
            Self::Budget(_) => "budget",
            Self::Deeper(_) => "deeper",
        }
    }
}

/// What wants a machine to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by", content = "detail")]
pub enum Cause {
    /// A user asked.
    Command,
    /// A hold was placed; its reason.
    Hold(String),
    /// A frame that its wake rules name; the frame in one line.
    Packet(String),
    /// A step of its sleep failed; the chain of causes.
    Failure(String),
    /// The daemon found it half-way after a restart.
    Restart,
    /// Nobody yet: it is to be awake before somebody wants it; by what rule.
    Ahead(String),
    /// Others than Dormouse, by the platform's own means; who did what.
    Others(String),
    /// Nobody: it is woken to be shut down, for it has slept for as long as its file says.
    Deeper,
}

impl Cause {
    /// The cause in a word, by which wakes are counted.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Hold(_) => "hold",
            Self::Packet(_) => "packet",
            Self::Failure(_) => "failure",
            Self::Restart => "restart",
            Self::Ahead(_) => "ahead",
            Self::Others(_) => "others",
            Self::Deeper => "deeper",
        }
    }
}

/// A task that the driver carries out and answers with one [`Event::Done`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// Write the state durably.
    Journal,
    /// Surrogate: learn addresses from the running guest's traffic.
    Watch,
    /// Surrogate: hold every frame that comes for the machine, whose guest still runs.
    Capture,
    /// Surrogate: wait until the guest has read all that its tap holds, within the grace period.
    Drain,
    /// Surrogate: the guest stands still; answer for it, and judge what was held.
    StandIn,
    /// Surrogate: make the tap ready for a guest that is about to run.
    Prepare,
    /// Surrogate: the guest runs; replay what was held and hand the address back to it.
    Release,
    /// Surrogate: forget the machine; count what was held as dropped.
    Dismiss,
    /// Surrogate: wait until the booting guest is heard on its tap, or the boot time is over.
    AwaitGuest,
    /// Platform: power on.
    Boot,
    /// Platform: a process with the saved state; the guest does not run yet.
    Load,
    /// Platform: the guest runs on.
    Resume,
    /// Platform: the guest stands still.
    Pause,
    /// Platform: the guest suspends itself to memory.
    Suspend,
    /// Platform: the guest stands still and its state is written.
    Save,
    /// Platform: memory and state are on stable storage, and verified by their checksum record.
    Flush,
    /// Platform: the process is gone and the memory is given back.
    Quit,
    /// Platform: ask the guest to shut down and wait; fails when the time is over.
    PowerDown,
    /// Platform: the process is gone, whatever the guest says.
    Kill,
    /// Platform: the saved state can never be used again.
    DiscardState,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Journal => "write the state",
            Self::Watch => "watch the network",
            Self::Capture => "capture the traffic",
            Self::Drain => "drain the interfaces",
            Self::StandIn => "stand in on the network",
            Self::Prepare => "prepare the interfaces",
            Self::Release => "hand the traffic back",
            Self::Dismiss => "leave the network",
            Self::AwaitGuest => "hear the guest",
            Self::Boot => "boot",
            Self::Load => "load the saved state",
            Self::Resume => "let the guest run",
            Self::Pause => "pause",
            Self::Suspend => "suspend the guest",
            Self::Save => "save",
            Self::Flush => "flush to disk",
            Self::Quit => "end the saved machine's process",
            Self::PowerDown => "shut down the guest",
            Self::Kill => "end the process",
            Self::DiscardState => "discard the saved state",
        })
    }
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write this state durably; answered by `Done(Task::Journal)`.
    Journal(State),
    /// Carry out a task other than `Journal`; answered by `Done` of it.
    Do(Task),
    /// Interrupt a running `Save` or `Flush`, which then answers (in either way) soon. No answer of its own.
    Hurry,
    /// Tell whoever listens that the machine changed its state. No answer.
    Announce {
        /// The state it left.
        from: State,
        /// The state it entered.
        to: State,
        /// Why, where others did it and the states do not say so.
        why: Option<String>,
    },
    /// Ask the platform what is so; answered by one [`Event::Found`].
    Look,
}

/// What happened to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Policy: the machine has been idle for as long as its file says, and no hold forbids sleep.
    Idle(Depth),
    /// As [`Event::Idle`], for another reason.
    Sleep(Depth, SleepReason),
    /// Policy: a sleeper has slept for as long as its file says, and is to sleep at this depth.
    Deeper(Depth),
    /// A frame or a hold wants the machine to run.
    Wanted(Cause),
    /// A task ended; the error is the chain of causes.
    Done(Task, Result<(), String>),
    /// The platform went away while it carried out a task, or before; why. Whether the task is done, a look
    /// tells. In place of [`Event::Done`].
    Unanswered(Task, String),
    /// The process that a pending `Load` started exists and outlives this daemon. Optional: it
    /// lets the state be journalled while the load goes on, instead of after it.
    Spawned,
    /// The guest shut itself down.
    GuestShutdown,
    /// The machine's process ended and nobody had asked for it.
    Exited(String),
    /// Nobody stands in for the machine any more, and nobody asked for that; why.
    Lost(String),
    /// `StandIn` ended, and some of the machine's interfaces are stood in for, but not all; why. In
    /// place of [`Event::Done`].
    Partly(String),
    /// What kept the surrogate from standing in may be over: it is to be tried at once.
    Back,
    /// Others than Dormouse changed the machine, or the platform is back after it could not be asked. Who
    /// or what did it, for the user: `started by virsh or another client of libvirt`.
    Changed(String),
    /// Others removed the machine's definition from its platform; who, for the user.
    Undefined(String),
    /// The machine is defined on its platform, perhaps otherwise than before.
    Redefined,
    /// The answer to [`Action::Look`]: what is so now, or why the platform cannot be asked. Where it is
    /// not what the lifecycle would expect, the lifecycle follows it, and never fights.
    Found(Result<Observed, String>),
    /// [`Lifecycle::next_deadline`] came.
    Tick,
}

/// What is peculiar to a platform's way of sleeping and waking: it changes the order of steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The interfaces on the host exist only while there is a process: `Prepare` comes after `Load`,
    /// and `Boot` makes a process whose guest does not run yet, so that `Prepare` and `Resume` follow.
    pub late_interfaces: bool,
    /// `Save` also ends the process, and is the point of no return. It starts from a paused guest;
    /// if it fails or is hurried, the guest is as it was, paused. There is no `Flush` and no `Quit`.
    /// `Load` uses the saved state up, for good; if it fails, the state is as it was.
    pub save_ends_process: bool,
    /// Others act on the machine too, by means of the platform's own: what is found otherwise than it
    /// was left is their doing, and is followed.
    pub shared: bool,
}

/// What a user can ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run it: boot from `Stopped`, wake from sleep; `cold` boots a failed machine afresh and gives up its saved state.
    Start {
        /// Give up a saved state.
        cold: bool,
    },
    /// Shut it down; `force` does not ask the guest.
    Stop {
        /// Do not ask the guest.
        force: bool,
    },
    /// Put it to sleep now.
    Sleep(Depth),
    /// Wake it.
    Wake,
}

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {verb} while the machine is {state}: {fix}")]
pub struct Refusal {
    /// The verb that was asked.
    pub verb: &'static str,
    /// The machine's state, in a word.
    pub state: &'static str,
    /// What the user can do.
    pub fix: &'static str,
}

/// What the platform says of a machine after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its process.
    pub process: Process,
    /// Its saved state.
    pub saved_state: StateOnDisk,
}

/// A machine's saved state, as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateOnDisk {
    /// None.
    None,
    /// One that was given to a process that is gone. Whether its guest ran, only the journal tells.
    Taken,
    /// One that no guest ran from since it was written.
    Whole,
}

/// A machine's process, as found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// None.
    Absent,
    /// The guest runs.
    Running,
    /// The guest stands still (QEMU `paused`, `postmigrate`, `finish-migrate`, ...).
    Still,
    /// Waits for or reads a saved state; its guest never ran (QEMU `inmigrate`, `prelaunch`). A
    /// `Resume` waits until it has read all of it.
    Incoming,
}
