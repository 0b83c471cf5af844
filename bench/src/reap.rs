//! `dormouse-bench reap COMMAND...`: runs a command as a good init would, reaping at once what its
//! daemonized children leave behind. libvirt waits for that.

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        wait::{WaitStatus, wait},
    },
    unistd::Pid,
};
use std::process::{Command, ExitCode};

/// Returns when the command has ended, with its status.
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    let Some((program, arguments)) = words.split_first() else { bail!("reap what?") };
    prctl::set_child_subreaper(true)?;
    let child = Command::new(program).args(arguments).spawn().with_context(|| program.clone())?;
    let child = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => {
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            Ok(WaitStatus::Signaled(pid, ..)) if pid == child => return Ok(ExitCode::FAILURE),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
