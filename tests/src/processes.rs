//! What is done to QEMU behind the daemon's back.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Ends a process as the kernel does when memory runs out.
///
/// # Panics
///
/// When there is no such process.
#[track_caller]
pub fn kill9(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// Stops a process, so that whatever it is asked for is under way until it is killed.
///
/// # Panics
///
/// When there is no such process.
#[track_caller]
pub fn freeze(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
}

/// Lets a process go on after [`freeze`].
///
/// # Panics
///
/// When there is no such process.
#[track_caller]
pub fn thaw(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
}
