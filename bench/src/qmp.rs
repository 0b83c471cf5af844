//! As much of QMP as the minimal rival script needs: blocking, one command at a time.

use anyhow::{Context, Result, bail};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufRead, BufReader, IoSlice, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

/// A monitor connection.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Qmp {
    /// A connection whose other end QEMU is to inherit. The greeting is answered before it comes.
    pub(crate) fn new() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(Duration::from_secs(120)))?;
        let lines = BufReader::new(ours.try_clone()?);
        let mut qmp = Self { stream: ours, lines };
        qmp.send("qmp_capabilities", &json!({}))?;
        Ok((qmp, theirs.into()))
    }

    /// Runs a command and waits for its answer.
    pub(crate) fn command(&mut self, name: &str, arguments: &Value) -> Result<Value> {
        self.send(name, arguments)?;
        self.answer()
    }

    /// Sends a command; the caller waits for what comes of it.
    pub(crate) fn send(&mut self, name: &str, arguments: &Value) -> Result<()> {
        let line = json!({"execute": name, "arguments": arguments});
        writeln!(self.stream, "{line}").context("cannot write to the monitor")
    }

    /// The answer to the oldest command that has none.
    pub(crate) fn answer(&mut self) -> Result<Value> {
        loop {
            let mut message = self.message()?;
            if let Some(error) = message.get("error") {
                bail!("QEMU: {error}");
            }
            if message.get("return").is_some() {
                return Ok(message["return"].take());
            }
        }
    }

    /// Hands an open file to QEMU under a name.
    pub(crate) fn give(&mut self, name: &str, file: &File) -> Result<()> {
        let line = json!({"execute": "getfd", "arguments": {"fdname": name}}).to_string() + "\n";
        let fds = [file.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let text = [IoSlice::new(line.as_bytes())];
        sendmsg::<()>(self.stream.as_raw_fd(), &text, &rights, MsgFlags::empty(), None)?;
        self.answer().map(drop)
    }

    /// Waits for an event that is as wanted.
    pub(crate) fn event(&mut self, is_it: impl Fn(&str, &Value) -> bool) -> Result<Value> {
        loop {
            let message = self.message()?;
            if let Some(error) = message.get("error") {
                bail!("QEMU: {error}");
            }
            if message["event"].as_str().is_some_and(|name| is_it(name, &message["data"])) {
                return Ok(message);
            }
        }
    }

    fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).context("cannot read from the monitor")?;
        if read == 0 {
            bail!("QEMU closed its monitor");
        }
        serde_json::from_str(&line).with_context(|| format!("the monitor says {line:?}"))
    }
}
