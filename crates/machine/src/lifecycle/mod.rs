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
mod platform;
mod recover;
mod settle;
mod state;
mod stop;
mod task;
mod wake;

use dormouse_types::Depth;

pub use absent::STAND_IN_RETRY;
pub use engine::{JOURNAL_RETRY, Lifecycle};
pub use look::LOOK_RETRY;
pub use platform::{Observed, Process, Shape, StateOnDisk};
pub use state::{Cause, SleepReason, State};
pub use task::Task;

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
