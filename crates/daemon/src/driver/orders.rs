//! What users order, and what came of it once the machine has settled.

use std::time::Duration;

use dormouse_api_types::{Outcome, Problem, ProblemKind, millis};
use dormouse_machine::lifecycle::{Command, Refusal, State};
use dormouse_types::{Depth, MachineName, Timestamp};
use tokio::sync::oneshot;

use super::{
    room::Wish,
    run::Driver,
    view::{View, state_of, unaddressed},
};

/// What an order that was taken is meant to come to, its hold, and a remark.
pub(super) type Taken = (Goal, Option<u64>, String);

/// What a user can order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run it.
    Start {
        /// Give up a saved state.
        cold: bool,
    },
    /// Shut it down.
    Stop {
        /// Do not ask the guest.
        force: bool,
        /// How long the guest may take; the configuration's when absent.
        patience: Option<Duration>,
    },
    /// Put it to sleep; as deep as its file says when absent.
    Sleep {
        /// How deep.
        depth: Option<Depth>,
    },
    /// Wake it.
    Wake,
    /// Keep it awake.
    Hold {
        /// Why.
        reason: String,
        /// Who places it.
        by: String,
        /// For how long.
        span: Option<Duration>,
        /// Whoever places it releases it when a connection ends, and a later daemon does at once.
        tied: bool,
    },
    /// Let it sleep again.
    Release {
        /// Which hold; all when absent.
        hold: Option<u64>,
    },
}

/// What came of an order that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Has the machine settled?
    pub settled: bool,
    /// Where it is now.
    pub outcome: Outcome,
}

/// What an order is meant to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    Awake,
    Asleep,
    Stopped,
    /// Stopped, and then forgotten.
    Removed,
    /// Awake or off, and then forgotten: it is others' as well, and goes on as it is.
    LetGo,
    /// Whatever state it is in.
    Any,
}

/// An order that is answered when the machine has settled.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) goal: Goal,
    pub(super) started: Timestamp,
    pub(super) hold: Option<u64>,
    pub(super) detail: String,
    pub(super) reply: Reply,
}

/// Who waits.
#[derive(Debug)]
pub(super) enum Reply {
    Order(oneshot::Sender<Result<Given, Problem>>),
    Remove(oneshot::Sender<Result<(), Problem>>),
}

impl Order {
    /// The verb, as users write it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Sleep { .. } => "sleep",
            Self::Wake => "wake",
            Self::Hold { .. } => "hold",
            Self::Release { .. } => "release",
        }
    }

    /// What the lifecycle is told, if it is told anything.
    pub(super) fn command(&self, default_depth: Depth) -> Option<(Command, Goal)> {
        match self {
            Self::Start { cold } => Some((Command::Start { cold: *cold }, Goal::Awake)),
            Self::Stop { force, .. } => Some((Command::Stop { force: *force }, Goal::Stopped)),
            Self::Sleep { depth } => Some((Command::Sleep(depth.unwrap_or(default_depth)), Goal::Asleep)),
            Self::Wake => Some((Command::Wake, Goal::Awake)),
            Self::Hold { .. } | Self::Release { .. } => None,
        }
    }
}

impl Given {
    /// The answer to one who does not wait, or has waited long enough.
    pub(super) fn unsettled(view: &View, waited: Duration) -> Self {
        let detail = if waited.is_zero() { String::new() } else { "it has not settled yet".into() };
        Self { settled: false, outcome: outcome(view, waited, None, detail) }
    }
}

/// Where a machine is, as the answer to an order.
pub(super) fn outcome(view: &View, took: Duration, hold: Option<u64>, detail: String) -> Outcome {
    Outcome {
        machine: view.name.clone(),
        state: state_of(&view.state),
        depth: view.depth(),
        took_ms: millis(took),
        hold,
        detail,
    }
}

/// What came of an order, now that the machine has settled.
pub(super) fn judge(goal: Goal, view: &View, undone: Option<&str>) -> Result<(), Problem> {
    let reached = match goal {
        Goal::Any => true,
        Goal::Awake => view.state == State::Active,
        Goal::Asleep => matches!(view.state, State::Asleep { .. }),
        Goal::Stopped | Goal::Removed => view.state == State::Stopped,
        Goal::LetGo => can_be_let_go(&view.state),
    };
    if reached {
        return Ok(());
    }
    if goal == Goal::LetGo
        && let Some(obstacle) = obstacle_to_removal(view, true)
    {
        return Err(obstacle);
    }
    if let Some(failure) = view.failure() {
        let fix = if failure.state_kept {
            "its saved state is kept: put the cause right and wake it, or start it with --cold"
        } else {
            "put the cause right and start it with --cold"
        };
        let detail = format!("{}: failed while {}: {}", view.name, failure.during, failure.why);
        return Err(Problem::new(ProblemKind::Failed, detail).fix(fix));
    }
    let why = undone.or(view.absent.as_deref()).map_or_else(String::new, |cause| format!(" ({cause})"));
    let detail = match goal {
        Goal::Asleep => format!("{} did not stay asleep{why}", view.name),
        _ => format!("{} is {} now{why}", view.name, state_of(&view.state)),
    };
    Err(Problem::new(ProblemKind::Refused, detail).fix("see `dormouse why` for what keeps it there"))
}

/// A refusal of the lifecycle as an answer.
pub(super) fn refused(name: &MachineName, refusal: &Refusal) -> Problem {
    let Refusal { verb, state, fix } = refusal;
    Problem::new(ProblemKind::Refused, format!("cannot {verb} {name} while it is {state}")).fix(*fix)
}

/// The driver has ended before it answered.
pub(super) fn gone(name: &MachineName) -> Problem {
    Problem::new(
        ProblemKind::Unavailable,
        format!("{name} is not driven now: dormoused ends, or it was removed"),
    )
    .fix("try again")
}

/// Nothing of it depends on Dormouse.
const fn can_be_let_go(state: &State) -> bool {
    matches!(state, State::Active | State::Suspended { .. } | State::Stopped)
}

/// Why a machine is not forgotten without force, if so; one that is `shared` with others can go on without us.
pub(super) fn obstacle_to_removal(view: &View, shared: bool) -> Option<Problem> {
    let loss = match &view.state {
        State::Stopped | State::Failed { state_kept: false, .. } => return None,
        State::Asleep { depth: Depth::Off } => "nothing but its presence on the network is lost with it",
        State::Asleep { depth: Depth::Saved } | State::Failed { .. } => {
            "what it has in memory is in its saved state, and is lost with it"
        }
        _ => "what it has in memory is lost with it, as by a power cut",
    };
    let (state, name) = (state_of(&view.state), &view.name);
    let first = if shared {
        format!("wake it first (`dormouse wake {name}`): then it is let go and runs on")
    } else {
        format!("stop it first (`dormouse stop {name}`)")
    };
    let fix = format!("{first}; or remove it with --force: {loss}; its disks stay");
    Some(Problem::new(ProblemKind::Refused, format!("cannot remove {name} while it is {state}")).fix(fix))
}

impl Driver {
    /// Takes an order.
    pub(super) fn order(&mut self, order: Order, wait: bool, reply: oneshot::Sender<Result<Given, Problem>>) {
        let taken = match &order {
            Order::Hold { reason, by, span, tied } => self.place_hold(reason, by, (*span, *tied)),
            Order::Release { hold } => self.release_hold(*hold),
            command => self.command(command),
        };
        match taken {
            Err(problem) => drop(reply.send(Err(problem))),
            Ok((goal, hold, detail)) => {
                if wait {
                    self.wait(goal, hold, detail, Reply::Order(reply));
                } else {
                    let outcome = outcome(&self.view(false), Duration::ZERO, hold, detail);
                    let _ = reply.send(Ok(Given { settled: false, outcome }));
                }
            }
        }
    }

    fn command(&mut self, order: &Order) -> Result<Taken, Problem> {
        let Some((command, goal)) = order.command(self.subject.spec.sleep.depth) else {
            return Ok((Goal::Any, None, String::new()));
        };
        self.patience = match order {
            Order::Stop { patience: Some(patience), .. } => *patience,
            _ => self.shared.config.sleep.stop_timeout.get(),
        };
        if let Command::Sleep(depth) = command {
            self.can_sleep(depth)?;
        }
        let name = self.subject.spec.name.clone();
        let was = state_of(self.life.state());
        let now = self.now();
        if goal == Goal::Awake && self.needs_room() {
            // A refusal is better said at once.
            self.life.clone().command(command, now).map_err(|refusal| refused(&name, &refusal))?;
            self.story.wanted(now);
            self.ask_for_room(Wish::Command(command));
            return Ok((goal, None, String::new()));
        }
        let actions = self.life.command(command, now).map_err(|refusal| refused(&name, &refusal))?;
        if goal == Goal::Stopped {
            self.room.give_up();
        }
        let detail = match command {
            _ if actions.is_empty() && self.life.settled() => format!("was {was} already"),
            Command::Sleep(_) => self.warn_unaddressed(),
            _ => String::new(),
        };
        if goal == Goal::Awake {
            self.story.wanted(now);
        }
        self.hitch = None;
        self.act(actions);
        Ok((goal, None, detail))
    }

    /// Warns of interfaces on which nobody can answer for it; also whoever asked for the sleep.
    fn warn_unaddressed(&self) -> String {
        let unaddressed = unaddressed(&self.subject.spec, &self.journal.record().learned);
        let Some(why) = unaddressed.explain() else { return String::new() };
        let warning = format!("nobody will answer for it there while it sleeps: {why}");
        self.warn(warning.clone());
        warning
    }

    /// A depth that the platform cannot reach, and a hold, are better said at once.
    fn can_sleep(&self, depth: Depth) -> Result<(), Problem> {
        let abilities = self.subject.instance.capabilities();
        let name = &self.subject.spec.name;
        if let Some(why) = abilities.why_not(depth) {
            let detail = format!("{name} cannot sleep at depth {depth}: {why}");
            return Err(Problem::new(ProblemKind::Refused, detail).fix("choose another depth"));
        }
        let held = self.journal.record().holds.blocking(self.now()).next();
        held.map_or(Ok(()), |hold| {
            let detail = format!("{name} is held awake by hold {} ({})", hold.id, hold.reason);
            Err(Problem::new(ProblemKind::Refused, detail)
                .fix(format!("release it: `dormouse release {name}`")))
        })
    }

    /// Takes the order to forget the machine.
    pub(super) fn remove(&mut self, force: bool, reply: oneshot::Sender<Result<(), Problem>>) {
        let (view, shared) = (self.view(false), self.subject.instance.shape().shared);
        if shared && !force && (can_be_let_go(&view.state) || !view.settled) {
            return self.wait(Goal::LetGo, None, String::new(), Reply::Remove(reply));
        }
        let obstacle = obstacle_to_removal(&view, shared).filter(|_| !force);
        let stopped = obstacle.map_or(Ok(()), Err).and_then(|()| {
            let now = self.now();
            let name = self.subject.spec.name.clone();
            let command = Command::Stop { force: true };
            self.life.command(command, now).map_err(|refusal| refused(&name, &refusal))
        });
        match stopped {
            Err(problem) => drop(reply.send(Err(problem))),
            Ok(actions) => {
                self.room.give_up();
                self.act(actions);
                self.wait(Goal::Removed, None, String::new(), Reply::Remove(reply));
            }
        }
    }

    /// The machine has settled: whoever waited for that is answered.
    pub(super) fn answer_waiters(&mut self) {
        let (view, now) = (self.view(true), self.now());
        let undone = self.undone.take();
        for waiter in std::mem::take(&mut self.waiters) {
            let judged = judge(waiter.goal, &view, undone.as_deref());
            match (judged, waiter) {
                (Ok(()), waiter @ Waiter { goal: Goal::Removed | Goal::LetGo, .. }) => self.forget(waiter),
                (Ok(()), Waiter { started, hold, detail, reply, .. }) => {
                    let outcome = outcome(&view, now.since(started), hold, detail);
                    reply.send(Ok(Given { settled: true, outcome }));
                }
                (Err(problem), waiter) => waiter.reply.send(Err(problem)),
            }
        }
    }

    /// The machine rests, though its record cannot be written: whoever waited in vain is answered now,
    /// for a full disk may stay full.
    pub(super) fn answer_disappointed(&mut self) {
        if self.waiters.is_empty() {
            return;
        }
        let view = self.view(false);
        for waiter in std::mem::take(&mut self.waiters) {
            match judge(waiter.goal, &view, self.undone.as_deref()) {
                Ok(()) => self.waiters.push(waiter),
                Err(problem) => waiter.reply.send(Err(problem)),
            }
        }
    }

    /// Forgets the machine, which is stopped or can be let go. The driver's last act, so it may take its time.
    fn forget(&mut self, waiter: Waiter) {
        self.removal = Some(waiter.reply);
    }
}

impl Reply {
    pub(super) fn send(self, answer: Result<Given, Problem>) {
        // Whoever asked may be gone.
        match self {
            Self::Order(reply) => drop(reply.send(answer)),
            Self::Remove(reply) => drop(reply.send(answer.map(drop))),
        }
    }

    pub(super) fn removed(self, answer: Result<(), Problem>) {
        match (self, answer) {
            (Self::Remove(reply), answer) => drop(reply.send(answer)),
            (order, Err(problem)) => order.send(Err(problem)),
            (_, Ok(())) => {}
        }
    }
}
