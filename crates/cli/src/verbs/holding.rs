//! Holds that last as long as a process: a command that is run, or one that runs already.
//!
//! The daemon holds for as long as a connection is open, so that whatever ends this program ends the hold.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use dormouse_api_types::{HoldWhileRequest, Outcome, routes};
use dormouse_types::MachineName;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::print::Printer;
use crate::args::Hold;
use crate::client::{Client, Error, Lines};
use crate::exit::{self, Code};
use crate::render;

/// Between tries to hold again, after the daemon ended.
const AGAIN: Duration = Duration::from_secs(1);

/// Holds all of the machines, then waits for the process.
pub(super) async fn hold(client: &Client, to: &Printer, args: &Hold) -> anyhow::Result<Code> {
    let process = args.pid.map(process).transpose()?;
    let request = HoldWhileRequest { reason: reason(args) };
    let mut held = Vec::new();
    for name in &args.on.names.names {
        let (lines, outcome) = place(client, name, &request).await?;
        // What a command prints is its own.
        if args.command.is_empty() {
            let json = || serde_json::to_string(&outcome).map(|line| line + "\n");
            to.text(&if to.is_table() { render::outcome(&outcome, true) } else { json()? })?;
        }
        held.push(keep(client, name, &request, lines));
    }
    let holding = futures::future::join_all(held);
    let ended = async {
        match process {
            Some(process) => tokio::task::spawn_blocking(move || end_of(&process)).await?.map(|()| Code::Ok),
            None => run(&args.command).await,
        }
    };
    tokio::select! {
        code = ended => code,
        _ = holding => Err(anyhow!("the holds ended before the process")),
    }
}

fn reason(args: &Hold) -> String {
    let words = args.command.iter().map(|word| word.to_string_lossy());
    let running = || match args.pid {
        Some(pid) => format!("while process {pid} runs"),
        None => words.collect::<Vec<_>>().join(" "),
    };
    args.reason.clone().unwrap_or_else(running)
}

/// A process to wait for.
fn process(pid: i32) -> anyhow::Result<OwnedFd> {
    let id = Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(|| anyhow!("{pid} is no process's number"))?;
    pidfd_open(id, PidfdFlags::empty()).with_context(|| format!("cannot wait for process {pid}"))
}

/// Waits until it has ended: then its descriptor is readable (pidfd_open(2)).
fn end_of(process: &OwnedFd) -> anyhow::Result<()> {
    loop {
        match poll(&mut [PollFd::new(process, PollFlags::IN)], None) {
            Err(Errno::INTR) => {}
            ended => return ended.map(drop).context("cannot wait for the process"),
        }
    }
}

/// Places a hold; its lines have no end while it holds.
async fn place(
    client: &Client,
    name: &MachineName,
    request: &HoldWhileRequest,
) -> Result<(Lines, Outcome), Error> {
    let mut lines = client.post_lines(&routes::of(routes::HOLD_WHILE, name), request).await?;
    let first = lines.next().await?.ok_or(Error::Ended)?;
    let outcome = serde_json::from_slice(&first).map_err(|source| Error::Answer { source })?;
    Ok((lines, outcome))
}

/// Keeps a hold, also when the daemon ends and is started again.
async fn keep(client: &Client, name: &MachineName, request: &HoldWhileRequest, lines: Lines) {
    let mut lines = lines;
    loop {
        while let Ok(Some(_)) = lines.next().await {}
        exit::report(Some(name.as_str()), &anyhow!("its hold is lost; trying to hold it again"));
        lines = loop {
            tokio::time::sleep(AGAIN).await;
            if let Ok((lines, _)) = place(client, name, request).await {
                break lines;
            }
        };
    }
}

/// Runs a command to its end.
async fn run(words: &[std::ffi::OsString]) -> anyhow::Result<Code> {
    let (program, args) = words.split_first().ok_or_else(|| anyhow!("there is no command"))?;
    // What ends a session comes to the command, too, or is passed on to it; then it ends, and so do we.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut quits = signal(SignalKind::quit())?;
    let mut hangups = signal(SignalKind::hangup())?;
    let mut terminates = signal(SignalKind::terminate())?;
    let cannot = || format!("cannot run {}", program.display());
    let mut child = Command::new(program).args(args).spawn().with_context(cannot)?;
    loop {
        tokio::select! {
            status = child.wait() => return Ok(code(status?)),
            _ = interrupts.recv() => {}
            _ = quits.recv() => {}
            _ = hangups.recv() => pass_on(&child, Signal::HUP),
            _ = terminates.recv() => pass_on(&child, Signal::TERM),
        }
    }
}

fn pass_on(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It is not reaped yet, so that its number is its own.
        let _ = kill_process(pid, signal);
    }
}

/// As shells tell it.
fn code(status: ExitStatus) -> Code {
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Code::Command(number.and_then(|number| u8::try_from(number).ok()).unwrap_or(1))
}
