//! What a platform says of itself and of a machine.

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
