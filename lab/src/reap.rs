//! A parent for what runs in a lab.

use crate::{Error, Result, command};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        wait::{WaitStatus, wait},
    },
    unistd::Pid,
};
use std::process::{Command, ExitCode};

/// Runs a command as a good init would, reaping at once what its daemonized children leave behind: libvirt
/// waits for that. Returns when the command has ended, with its status.
///
/// # Errors
///
/// If the command cannot be started, or nothing of it can be waited for.
pub fn reap(program: &str, arguments: &[String]) -> Result<ExitCode> {
    let error = |errno: Errno| Error::Setup(format!("cannot reap {program}: {errno}"));
    prctl::set_child_subreaper(true).map_err(error)?;
    let mut command = Command::new(program);
    let child = command.args(arguments).spawn().map_err(|source| command::cannot_run(&command, source))?;
    let child = Pid::from_raw(i32::try_from(child.id()).unwrap_or(-1));
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            Ok(WaitStatus::Signaled(pid, ..)) if pid == child => return Ok(ExitCode::FAILURE),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(error(errno)),
        }
    }
}
