//! Verbs that change machines.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use dormouse_api_types::{
    CreateMachine, HoldRequest, MachineDetail, MachineState, Outcome, ReleaseRequest, SleepRequest,
    StartRequest, StopRequest, WakeRequest, millis, routes,
};
use serde::Serialize;

use super::{each, print::Printer};
use crate::args::{Create, Hold, Names, Release, Remove, Sleep, Start, Stop, Waiting};
use crate::client::{Answer, Client};
use crate::exit::{self, Code};
use crate::render;

/// A machine file has at most this many bytes: it is written by hand.
const MAX_FILE_BYTES: u64 = 1 << 20;

pub(super) async fn create(client: &Client, to: &Printer, args: &Create) -> anyhow::Result<Code> {
    let mut code = Code::Ok;
    for file in &args.files {
        let about = (args.files.len() > 1).then(|| file.display().to_string());
        code = code.or(match create_one(client, file).await.and_then(|answer| to.answer(&answer, created)) {
            Ok(()) => Code::Ok,
            Err(error) => exit::report(about.as_deref(), &error),
        });
    }
    Ok(code)
}

async fn create_one(client: &Client, file: &Path) -> anyhow::Result<Answer> {
    let (toml, base) = read_machine_file(file)?;
    Ok(client.post(routes::MACHINES, &CreateMachine { toml, base }).await?)
}

fn created(machine: &MachineDetail) -> String {
    format!("{} created, {}\n", machine.summary.name, machine.summary.state)
}

/// The text of a machine file, and the folder that its relative paths start from.
fn read_machine_file(file: &Path) -> anyhow::Result<(String, PathBuf)> {
    if file == Path::new("-") {
        let here = std::env::current_dir().context("cannot tell the current folder")?;
        return Ok((read_text(std::io::stdin().lock()).context("cannot read standard input")?, here));
    }
    let cannot = || format!("cannot read the machine file {}", file.display());
    let opened = std::fs::File::open(file).with_context(cannot)?;
    let text = read_text(opened).with_context(cannot)?;
    let whole = file.canonicalize().with_context(cannot)?;
    Ok((text, whole.parent().map(Path::to_path_buf).unwrap_or_default()))
}

fn read_text(from: impl std::io::Read) -> anyhow::Result<String> {
    let mut text = String::new();
    from.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        bail!("it has more than {MAX_FILE_BYTES} bytes: is it a machine file?");
    }
    Ok(text)
}

pub(super) async fn remove(client: &Client, to: &Printer, args: &Remove) -> anyhow::Result<Code> {
    let force = if args.force { "?force=true" } else { "" };
    let ask = |name| async move {
        client.delete(&format!("{}{force}", routes::of(routes::MACHINE, &name))).await?;
        Ok(name)
    };
    // The API answers a removal with nothing, so for programs there is nothing to print.
    let print = |name| if to.is_table() { to.line(&format!("{name} removed")) } else { Ok(()) };
    each(&args.names.names, ask, print).await
}

pub(super) async fn start(client: &Client, to: &Printer, args: &Start) -> anyhow::Result<Code> {
    let request = StartRequest { cold: args.cold };
    tell(client, to, &args.on, routes::START, &request, Some(MachineState::Active)).await
}

pub(super) async fn stop(client: &Client, to: &Printer, args: &Stop) -> anyhow::Result<Code> {
    let request = StopRequest { force: args.force, timeout_ms: args.timeout.map(millis) };
    tell(client, to, &args.on, routes::STOP, &request, Some(MachineState::Stopped)).await
}

pub(super) async fn sleep(client: &Client, to: &Printer, args: &Sleep) -> anyhow::Result<Code> {
    let request = SleepRequest { depth: args.depth };
    tell(client, to, &args.on, routes::SLEEP, &request, Some(MachineState::Asleep)).await
}

pub(super) async fn wake(client: &Client, to: &Printer, args: &Waiting) -> anyhow::Result<Code> {
    tell(client, to, args, routes::WAKE, &WakeRequest {}, Some(MachineState::Active)).await
}

pub(super) async fn hold(client: &Client, to: &Printer, args: &Hold) -> anyhow::Result<Code> {
    let reason = args.reason.clone().unwrap_or_else(default_reason);
    let request = HoldRequest { reason, for_ms: args.span.map(millis) };
    tell(client, to, &args.on, routes::HOLD, &request, None).await
}

fn default_reason() -> String {
    match std::env::var("USER") {
        Ok(user) if !user.is_empty() => format!("held by {user}"),
        _ => "held from the command line".into(),
    }
}

pub(super) async fn release(client: &Client, to: &Printer, args: &Release) -> anyhow::Result<Code> {
    let on = Waiting { names: Names { names: args.names.names.clone() }, no_wait: false };
    tell(client, to, &on, routes::RELEASE, &ReleaseRequest { hold: args.hold }, None).await
}

/// Tells machines to do something, and prints what came of it. `goal` is the state that the
/// command is for: ending in another (a sleep that a packet undid) is a failure.
async fn tell(
    client: &Client,
    to: &Printer,
    on: &Waiting,
    route: &str,
    request: &impl Serialize,
    goal: Option<MachineState>,
) -> anyhow::Result<Code> {
    let mut missed = Code::Ok;
    let ask = |name| async move {
        let wait = if on.no_wait { "?wait=false" } else { "" };
        Ok(client.post(&format!("{}{wait}", routes::of(route, &name)), request).await?)
    };
    let print = |answer: Answer| {
        to.answer(&answer, |outcome: &Outcome| render::outcome(outcome, !answer.accepted))?;
        let outcome: Outcome = answer.read()?;
        let goal = goal.filter(|_| !on.no_wait);
        if let Err(error) = reached(goal, answer.accepted && !on.no_wait, &outcome) {
            missed = missed.or(exit::report(Some(outcome.machine.as_str()), &error));
        }
        Ok(())
    };
    let code = each(&on.names.names, ask, print).await?;
    Ok(code.or(missed))
}

/// Did the command come to its goal? `late`: the daemon stopped waiting, and the command goes on.
fn reached(goal: Option<MachineState>, late: bool, outcome: &Outcome) -> anyhow::Result<()> {
    let Outcome { machine, state, .. } = outcome;
    match goal {
        _ if late => bail!("it is still {state}, and goes on by itself; look later: dormouse show {machine}"),
        Some(goal) if goal != *state => bail!("it is {state}, not {goal}; ask why: dormouse why {machine}"),
        _ => Ok(()),
    }
}
