//! Programs that get nothing of this process.

use std::{os::unix::process::CommandExt, process::Command};

/// Sets the program apart: it will be the leader of a new session and process group (setsid(2)), so
/// that it has no terminal and can be ended with all that it started, as the process group of its
/// own id; and it inherits no file descriptors but the three standard ones, whatever this process
/// was itself started with (close_range(2) with `CLOSE_RANGE_CLOEXEC`; before Linux 5.11, those
/// that were not marked close-on-exec are inherited).
pub fn set_apart(command: &mut Command) {
    // SAFETY: between fork and exec only the system calls setsid(2) and close_range(2) are made,
    // which are async-signal-safe; the error is made of a number and allocates nothing. Descriptors
    // are not closed but marked, so that nobody's is taken away before exec.
    unsafe {
        command.pre_exec(|| {
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            rustix::process::setsid().map(drop).map_err(Into::into)
        });
    }
}
