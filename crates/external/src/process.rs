//! The program while it runs.

use std::{io, process::Stdio, sync::Arc, time::Duration};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::{Pid, User},
};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{
    MAX_OUTSTANDING, Program,
    line::{self, Line},
    protocol::MAX_LINE,
};

/// What of a line of its standard error is logged, in octets.
const MAX_LOG: usize = 1024;
/// As many such lines are read in [`LOG_SPAN`]; then the program has to wait.
const LOG_LINES: u32 = 200;
const LOG_SPAN: Duration = Duration::from_secs(10);

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no such user here.
    #[error("there is no user {0}: create it, or name another one as the program's \"user\"")]
    User(String),
    /// The users could not be looked up.
    #[error("cannot look up user {name}")]
    Lookup {
        /// The user.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
}

/// A running program; it ends, with all that it started, when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Option<Pid>,
    questions: mpsc::Sender<Vec<u8>>,
    lines: mpsc::Receiver<Line>,
    /// What moves lines; ends with it.
    _tasks: JoinSet<()>,
}

impl Process {
    pub(crate) fn start(program: &Program) -> Result<Self, Error> {
        let mut child = command(program)?
            .spawn()
            .map_err(|source| Error::Start { program: program.program.display().to_string(), source })?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let mut tasks = JoinSet::new();
        let (questions, to_write) = mpsc::channel(MAX_OUTSTANDING);
        let (read, lines) = mpsc::channel(1);
        if let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        {
            tasks.spawn(write(stdin, to_write));
            tasks.spawn(self::read(stdout, read));
            tasks.spawn(log(stderr, program.name.as_str().into()));
        }
        Ok(Self { child, group, questions, lines, _tasks: tasks })
    }

    /// Gives it a line; `false` if it does not read, or not any more.
    pub(crate) fn tell(&self, line: Vec<u8>) -> bool {
        self.questions.try_send(line).is_ok()
    }

    /// Its next line; `None` when there are none any more. May be dropped and called again.
    pub(crate) async fn line(&mut self) -> Option<Line> {
        self.lines.recv().await
    }

    /// Ends it; how it ended, as far as that is known.
    pub(crate) async fn end(mut self) -> String {
        self.kill();
        self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string())
    }

    fn kill(&mut self) {
        // Nobody else reaps it, so that its id is its own until it was waited for.
        if let Some(group) = self.group.take() {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The command: nothing of the daemon's but its program, arguments and user.
fn command(program: &Program) -> Result<Command, Error> {
    let mut command = Command::new(&program.program);
    command
        .args(&program.args)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    dormouse_sys::set_apart(command.as_std_mut());
    if let Some(name) = &program.user {
        let user = User::from_name(name)
            .map_err(|errno| Error::Lookup { name: name.clone(), source: errno.into() })?
            .ok_or_else(|| Error::User(name.clone()))?;
        // Supplementary groups go with the user: the standard library drops them.
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    Ok(command)
}

async fn write(mut stdin: ChildStdin, mut lines: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = lines.recv().await {
        if stdin.write_all(&line).await.is_err() {
            break;
        }
    }
}

async fn read(stdout: ChildStdout, lines: mpsc::Sender<Line>) {
    let mut stdout = BufReader::new(stdout);
    while let Ok(Some(line)) = line::read(&mut stdout, MAX_LINE).await {
        if lines.send(line).await.is_err() {
            break;
        }
    }
}

/// Logs its standard error, so much in a time.
async fn log(stderr: ChildStderr, name: Arc<str>) {
    let mut stderr = BufReader::new(stderr);
    let (mut left, mut end) = (LOG_LINES, Instant::now() + LOG_SPAN);
    while let Ok(Some(line)) = line::read(&mut stderr, MAX_LOG).await {
        if Instant::now() >= end {
            (left, end) = (LOG_LINES, Instant::now() + LOG_SPAN);
        }
        let text = String::from_utf8_lossy(&line.octets);
        tracing::info!(program = %name, cut = line.cut, "{}", text.escape_debug());
        left -= 1;
        if left == 0 {
            tracing::warn!(program = %name, "the program writes too much to its standard error: it has to wait");
            sleep_until(end).await;
            (left, end) = (LOG_LINES, Instant::now() + LOG_SPAN);
        }
    }
}
