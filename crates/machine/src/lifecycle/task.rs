//! What the driver carries out.

use std::fmt;

/// A task that the driver carries out and answers with one [`Event::Done`](super::Event::Done).
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
