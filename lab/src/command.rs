//! Programs, run to their end.

use crate::{Error, Result};
use std::{
    io::Write,
    process::{Command, Stdio},
};

/// What a program printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a program to its end, whatever that end is.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    let out = command.stdin(Stdio::null()).output().map_err(|source| cannot_run(command, source))?;
    Ok(Output {
        code: out.status.code(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    })
}

/// Runs a program that must succeed, and returns what it printed.
pub(crate) fn stdout(command: &mut Command) -> Result<String> {
    let out = output(command)?;
    if out.code == Some(0) { Ok(out.stdout) } else { Err(failure(command, &out)) }
}

/// Feeds `lines` to `ip -batch`: one process for many changes.
pub(crate) fn ip_batch(namespace: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| cannot_run(&command, source))?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(lines.as_bytes()));
    let out = child.wait_with_output().map_err(|source| cannot_run(&command, source))?;
    written.map_err(|source| cannot_run(&command, source))?;
    if out.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&out.stderr).into_owned();
    Err(failure(&command, &Output { code: out.status.code(), stdout: String::new(), stderr }))
}

pub(crate) fn cannot_run(command: &Command, source: std::io::Error) -> Error {
    Error::Run { program: command.get_program().to_string_lossy().into_owned(), source }
}

pub(crate) fn failure(command: &Command, out: &Output) -> Error {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let said = if out.stderr.trim().is_empty() { &out.stdout } else { &out.stderr };
    Error::Failed {
        command: words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" "),
        status: out.code.map_or("ended by a signal".into(), |c| format!("exit status {c}")),
        stderr: said.trim().to_owned(),
    }
}
