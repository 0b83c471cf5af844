//! The task that asks one program.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use crate::{Program, Room, line::Line, process::Process, protocol};

/// The pause before a program is started again, doubled with each failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A program that ran for so long did not fail at its start.
const STEADY: Duration = Duration::from_secs(60);
/// Lines that are no answer to an open question, beyond one for each question, before it is ended.
const MAX_JUNK: u64 = 100;
/// Of those lines, one in this span is logged.
const JUNK_SPAN: Duration = Duration::from_secs(10);

/// A question on its way.
pub(crate) struct Asked {
    /// The line that asks, by its number.
    pub(crate) line: Box<dyn FnOnce(u64) -> serde_json::Result<Vec<u8>> + Send>,
    /// What becomes of the answer.
    pub(crate) ear: Box<dyn Hear>,
    /// Its place among those outstanding.
    pub(crate) room: Room,
}

/// Takes an answer in.
pub(crate) trait Hear: Send {
    /// Gives it to whoever asked; an error if the line is none.
    fn hear(&mut self, line: &[u8]) -> Result<(), protocol::Error>;
}

/// Reads answers of one kind.
pub(crate) struct Ear<A> {
    pub(crate) read: fn(&[u8]) -> Result<A, protocol::Error>,
    pub(crate) answer: Option<oneshot::Sender<A>>,
}

impl<A: Send> Hear for Ear<A> {
    fn hear(&mut self, line: &[u8]) -> Result<(), protocol::Error> {
        let read = (self.read)(line)?;
        if let Some(answer) = self.answer.take() {
            // Whoever asked may be gone.
            let _ = answer.send(read);
        }
        Ok(())
    }
}

/// A question that the program has.
struct Open {
    ear: Box<dyn Hear>,
    until: Instant,
    _room: Room,
}

/// A program that runs.
struct Running {
    process: Process,
    since: Instant,
    /// Lines that it may still write without being asked.
    allowance: u64,
}

/// What happens next.
enum Event {
    Asked(Option<Asked>),
    Line(Option<Line>),
    Late,
}

struct Task {
    program: Program,
    running: Option<Running>,
    open: BTreeMap<u64, Open>,
    next_id: u64,
    /// How often it ended early.
    failures: u32,
    not_before: Option<Instant>,
    junk_logged: Option<Instant>,
}

/// Asks until nobody can ask any more.
pub(crate) async fn run(program: Program, mut questions: mpsc::Receiver<Asked>) {
    let mut task = Task {
        program,
        running: None,
        open: BTreeMap::new(),
        next_id: 0,
        failures: 0,
        not_before: None,
        junk_logged: None,
    };
    loop {
        // All have the same time, so that the first asked is the first that is late.
        let until = task.open.values().next().map(|open| open.until);
        let event = tokio::select! {
            asked = questions.recv() => Event::Asked(asked),
            line = line(&mut task.running) => Event::Line(line),
            () = at(until) => Event::Late,
        };
        match event {
            Event::Asked(Some(asked)) => task.ask(asked).await,
            Event::Asked(None) => break,
            Event::Line(Some(line)) => task.hear(&line).await,
            Event::Line(None) => task.end("it ended").await,
            Event::Late => task.give_up(),
        }
    }
}

async fn line(running: &mut Option<Running>) -> Option<Line> {
    match running {
        Some(running) => running.process.line().await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Task {
    /// Asks the program, which is started if it does not run and may run again.
    async fn ask(&mut self, asked: Asked) {
        let now = Instant::now();
        if self.running.is_none() && self.not_before.is_none_or(|at| now >= at) {
            self.start(now);
        }
        let id = self.next_id;
        self.next_id += 1;
        let told = match (&mut self.running, (asked.line)(id)) {
            (Some(running), Ok(line)) => {
                running.allowance = running.allowance.saturating_add(1);
                running.process.tell(line)
            }
            _ => false,
        };
        // Else the channel is closed with it: nothing will be said.
        if told {
            let until = now + self.program.timeout;
            self.open.insert(id, Open { ear: asked.ear, until, _room: asked.room });
        }
    }

    fn start(&mut self, now: Instant) {
        match Process::start(&self.program) {
            Ok(process) => {
                let name = &self.program.name;
                tracing::info!(program = %name, path = %self.program.program.display(), "program started");
                self.running = Some(Running { process, since: now, allowance: MAX_JUNK });
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let pause = self.pause(now);
                let name = &self.program.name;
                tracing::error!(program = %name, cause, ?pause, "program: {error}");
            }
        }
    }

    /// Puts off the next start, ever more.
    fn pause(&mut self, now: Instant) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause);
        pause
    }

    async fn hear(&mut self, line: &Line) {
        let wrong = match protocol::id(&line.octets) {
            _ if line.cut => "it is longer than a mebibyte".into(),
            Ok(id) => match self.open.get_mut(&id).map(|open| open.ear.hear(&line.octets)) {
                Some(Ok(())) => {
                    self.open.remove(&id);
                    return;
                }
                Some(Err(error)) => error.to_string(),
                None => format!("no question {id} is open: it was answered, or is late"),
            },
            Err(error) => error.to_string(),
        };
        self.note(&line.octets, &wrong);
        let Some(running) = &mut self.running else { return };
        running.allowance = running.allowance.saturating_sub(1);
        if running.allowance == 0 {
            self.end("it writes what nobody asked for").await;
        }
    }

    /// Logs a line that is of no use.
    fn note(&mut self, octets: &[u8], wrong: &str) {
        let now = Instant::now();
        if self.junk_logged.is_some_and(|at| now < at + JUNK_SPAN) {
            return;
        }
        self.junk_logged = Some(now);
        let (start, _) = octets.split_at(octets.len().min(100));
        let line = String::from_utf8_lossy(start);
        tracing::warn!(program = %self.program.name, line = ?line, "a line of the program is ignored: {wrong}");
    }

    /// Ends the program, which says nothing of what it was asked.
    async fn end(&mut self, why: &str) {
        let Some(running) = self.running.take() else { return };
        self.open.clear();
        let now = Instant::now();
        if now.saturating_duration_since(running.since) >= STEADY {
            self.failures = 0;
        }
        let pause = self.pause(now);
        let status = running.process.end().await;
        tracing::warn!(program = %self.program.name, %status, ?pause, "program ended ({why}); it is started again when it is asked after the pause");
    }

    /// Gives up what the program took too long for.
    fn give_up(&mut self) {
        let now = Instant::now();
        while let Some(open) = self.open.first_entry().filter(|open| open.get().until <= now) {
            open.remove();
        }
    }
}
