//! A shell in a guest, held open.

use crate::{Error, Namespace, Result, guest::Image};
use std::{
    io::{BufRead, BufReader, Write},
    net::IpAddr,
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Ends every answer, with the exit status after it.
const END: &str = "--end-of-answer--";

/// An ssh session with a shell at its other end.
#[derive(Debug)]
pub struct SshSession {
    ssh: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl SshSession {
    pub(crate) fn open(namespace: &Namespace, image: &Image, ip: IpAddr) -> Result<Self> {
        let mut command = namespace.command("ssh");
        command.arg("-T").arg("-i").arg(image.ssh_key()).arg("-F").arg("/dev/null");
        // Every guest has the same host key, and every lab the same addresses.
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"] {
            command.arg("-o").arg(option);
        }
        command.arg(format!("root@{ip}")).arg("sh");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let run_error = |source| Error::Run { program: "ssh".into(), source };
        let mut ssh = command.spawn().map_err(run_error)?;
        let (Some(stdin), Some(stdout)) = (ssh.stdin.take(), ssh.stdout.take()) else {
            return Err(run_error(std::io::Error::other("no pipes to it")));
        };
        let (to, lines) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| to.send(line))
        });
        let mut session = Self { ssh, stdin, lines };
        session.run("true")?;
        Ok(session)
    }

    /// Runs a command in the guest's shell and returns what it printed to stdout.
    ///
    /// # Errors
    ///
    /// If the session is dead or silent, or the command failed.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.timed(command).map(|(answer, _)| answer)
    }

    /// As [`Self::run`], with the time it took.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn timed(&mut self, command: &str) -> Result<(String, Duration)> {
        let start = Instant::now();
        writeln!(self.stdin, "{command}\necho {END} $?").map_err(Error::net("write to the ssh session"))?;
        let mut answer = String::new();
        loop {
            let left = TIMEOUT.saturating_sub(start.elapsed());
            let line = self.lines.recv_timeout(left).map_err(|_| Error::Timeout {
                what: format!("the answer to {command:?} by ssh"),
                waited: start.elapsed(),
                detail: String::new(),
            })?;
            match line.strip_prefix(END).map(str::trim) {
                Some("0") => return Ok((answer, start.elapsed())),
                Some(status) => return Err(command_failed(command, status, answer)),
                None => answer += &(line + "\n"),
            }
        }
    }
}

fn command_failed(command: &str, status: &str, stdout: String) -> Error {
    Error::Failed { command: command.into(), status: format!("exit status {status}"), stderr: stdout }
}

impl Drop for SshSession {
    fn drop(&mut self) {
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}
