//! A world in which a machine lives: a simulated platform, surrogate and disk that carry out the
//! lifecycle's actions, fail at will, crash and restart, and check the invariants at every step.

use std::collections::VecDeque;
use std::time::Duration;

use dormouse_machine::lifecycle::{
    Action, Cause, Command, Event, Lifecycle, Observed, Process, Shape, State, StateOnDisk, Task,
};
use dormouse_types::{Depth, Timestamp};

/// A platform that is nobody else's, and where all can be done at any time.
pub(crate) const PLAIN: Shape = Shape { late_interfaces: false, save_ends_process: false, shared: false };
/// One that keeps what is saved itself.
pub(crate) const KEEPER: Shape = Shape { late_interfaces: true, save_ends_process: true, shared: false };

/// One that others use, too, as libvirt.
pub(crate) const SHARED: Shape = Shape { shared: true, ..KEEPER };

/// The platforms there are.
pub(crate) const SHAPES: [Shape; 6] = [
    PLAIN,
    Shape { late_interfaces: true, ..PLAIN },
    Shape { save_ends_process: true, ..PLAIN },
    KEEPER,
    Shape { shared: true, late_interfaces: true, ..PLAIN },
    SHARED,
];

/// What others do to a machine by its platform's own means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// From its saved state, if there is one.
    Start,
    /// As `Start`, and its guest does not run.
    StartPaused,
    Suspend,
    Resume,
    Destroy,
    Save,
    RemoveState,
}

impl Act {
    pub(crate) const ALL: [Self; 7] = [
        Self::Start,
        Self::StartPaused,
        Self::Suspend,
        Self::Resume,
        Self::Destroy,
        Self::Save,
        Self::RemoveState,
    ];
}

/// How a task is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It did what it should, if it can.
    Good,
    /// It failed and changed nothing (a save: left half a state).
    Failed,
    /// It did what it should, and yet reports a failure.
    FailedLate,
    /// The connection to the platform ended before it was done, and is back.
    Lost,
    /// As `Lost`, after it was done.
    LostLate,
    /// A `StandIn` did what it should for some of the interfaces; another task is good.
    Partly,
}

/// The saved state on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum File {
    None,
    Partial,
    /// The guest's memory as it was at this age.
    Whole(u64),
}

/// What the surrogate does for the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Frames go to the guest.
    Direct,
    /// Frames are held; nothing is answered.
    Holding,
    /// Frames are held, or answered in the guest's stead.
    Answering,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) life: Lifecycle,
    pub(crate) now: Timestamp,
    /// What the journal says.
    pub(crate) disk: State,
    pub(crate) pending: Vec<(Task, Option<State>)>,
    pub(crate) process: Process,
    /// Age of the memory in the process; grows whenever the guest runs.
    age: u64,
    /// The greatest age that any memory of this machine ever had.
    latest: u64,
    pub(crate) file: File,
    /// The file was given to a process, of which nobody noted that its guest never ran.
    taken: bool,
    pub(crate) mode: Mode,
    held: VecDeque<u64>,
    sent: u64,
    received: Vec<u64>,
    dropped: u64,
    /// How often a process came to be or went: one guest "runs on" while this stays.
    pub(crate) births: u32,
    pub(crate) boots: u32,
    /// States entered, in order.
    pub(crate) history: Vec<State>,
    pub(crate) hurried: bool,
    /// The platform was asked what is so, and has not answered.
    pub(crate) looking: bool,
    /// The platform can be asked.
    reachable: bool,
    /// Others did something of which nobody was told yet.
    untold: bool,
    /// Others let the guest run, perhaps while the surrogate answers for it: it cannot know at once.
    run_by_others: bool,
    /// A discard reported a failure and yet took effect: the one way for a kept state to be gone.
    discarded_late: bool,
}

impl World {
    pub(crate) fn stopped() -> Self {
        Self::stopped_on(PLAIN)
    }

    pub(crate) fn stopped_on(shape: Shape) -> Self {
        Self {
            shape,
            life: Lifecycle::new(State::Stopped, shape),
            now: Timestamp(1),
            disk: State::Stopped,
            pending: Vec::new(),
            process: Process::Absent,
            age: 0,
            latest: 0,
            file: File::None,
            taken: false,
            mode: Mode::Direct,
            held: VecDeque::new(),
            sent: 0,
            received: Vec::new(),
            dropped: 0,
            births: 0,
            boots: 0,
            history: vec![State::Stopped],
            hurried: false,
            looking: false,
            reachable: true,
            untold: false,
            run_by_others: false,
            discarded_late: false,
        }
    }

    pub(crate) fn active() -> Self {
        Self::active_on(PLAIN)
    }

    pub(crate) fn active_on(shape: Shape) -> Self {
        let mut world = Self::stopped_on(shape);
        world.command(Command::Start { cold: false }).unwrap();
        world.calm();
        assert_eq!(world.state(), &State::Active);
        world
    }

    pub(crate) fn asleep(depth: Depth) -> Self {
        Self::asleep_on(PLAIN, depth)
    }

    pub(crate) fn asleep_on(shape: Shape, depth: Depth) -> Self {
        let mut world = Self::active_on(shape);
        world.event(Event::Idle(depth));
        world.calm();
        assert_eq!(world.state(), &State::Asleep { depth });
        world
    }

    pub(crate) fn state(&self) -> &State {
        self.life.state()
    }

    pub(crate) fn event(&mut self, event: Event) {
        let actions = self.life.handle(event, self.now);
        self.carry_out(actions);
    }

    pub(crate) fn command(&mut self, command: Command) -> Result<(), String> {
        let before = self.life.state().clone();
        match self.life.command(command, self.now) {
            Ok(actions) => self.carry_out(actions),
            Err(refusal) => {
                assert_eq!(&before, self.life.state(), "a refusal changes nothing");
                return Err(refusal.to_string());
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Journal(state) => self.ask(Task::Journal, Some(state)),
                Action::Do(task) => self.ask(task, None),
                Action::Hurry => {
                    assert!(self.is_pending(Task::Save) || self.is_pending(Task::Flush));
                    self.hurried = true;
                }
                Action::Look => {
                    assert!(!self.looking, "a look is asked for twice");
                    self.looking = true;
                }
                Action::Announce { from, to, .. } => {
                    assert_eq!(self.history.last(), Some(&from), "announcements join up");
                    self.history.push(to);
                }
            }
        }
        assert_eq!(self.history.last(), Some(self.life.state()), "every transition is announced");
        let pending: std::collections::BTreeSet<_> = self.pending.iter().map(|(task, _)| *task).collect();
        assert_eq!(pending, self.life.pending());
        self.check();
    }

    fn ask(&mut self, task: Task, state: Option<State>) {
        assert!(!self.is_pending(task), "{task:?} is asked for twice");
        if task == Task::Resume || task == Task::Boot {
            // Others may have saved it anew, which is still to be told.
            assert!(self.untold || !self.offers(), "the guest is to run while the disk offers its old state");
        }
        self.pending.push((task, state));
    }

    pub(crate) fn is_pending(&self, task: Task) -> bool {
        self.pending.iter().any(|(t, _)| *t == task)
    }

    /// Would a restart of everything resume from the state on disk?
    fn offers(&self) -> bool {
        let offers = matches!(
            self.disk,
            State::Asleep { depth: Depth::Saved } | State::Failed { state_kept: true, .. }
        );
        offers && self.file != File::None
    }

    /// Answers the pending task `index` (modulo their number).
    pub(crate) fn answer(&mut self, index: usize, outcome: Outcome) {
        if self.pending.is_empty() {
            return self.answer_look();
        }
        let (task, state) = self.pending.remove(index % self.pending.len());
        let of_platform = !matches!(
            task,
            Task::Journal
                | Task::Watch
                | Task::Capture
                | Task::Drain
                | Task::StandIn
                | Task::Prepare
                | Task::Release
                | Task::Dismiss
                | Task::AwaitGuest
        );
        let is_lost =
            of_platform && (!self.reachable || matches!(outcome, Outcome::Lost | Outcome::LostLate));
        let result = match outcome {
            // The connection broke before or after.
            _ if is_lost => {
                if matches!(outcome, Outcome::FailedLate | Outcome::LostLate) {
                    let _ = self.effect(task, state);
                }
                Err("the platform cannot be asked")
            }
            Outcome::Lost | Outcome::LostLate => self.effect(task, state),
            Outcome::Good | Outcome::Partly => self.effect(task, state),
            Outcome::Failed => {
                self.half_effect(task);
                Err("it broke")
            }
            // What fails there has changed nothing.
            Outcome::FailedLate
                if self.shape.save_ends_process && matches!(task, Task::Save | Task::Load)
                    || self.shape.shared && matches!(task, Task::Load | Task::Boot) =>
            {
                Err("it broke late")
            }
            Outcome::FailedLate => {
                self.discarded_late |= task == Task::DiscardState;
                self.effect(task, state).and(Err("it broke late"))
            }
        };
        self.live();
        self.run_by_others &= self.process == Process::Running;
        let too_late = task == Task::PowerDown && result.is_err() && self.process == Process::Absent;
        let partly = outcome == Outcome::Partly && task == Task::StandIn && result.is_ok();
        self.event(match result {
            Ok(()) if partly => Event::Partly("br1 is gone".into()),
            Err(why) if is_lost => Event::Unanswered(task, why.into()),
            result => Event::Done(task, result.map_err(Into::into)),
        });
        if too_late {
            // The guest shut down after we had ceased to wait, so the platform tells it as news.
            self.event(Event::GuestShutdown);
        }
    }

    /// The platform answers what it was asked.
    pub(crate) fn answer_look(&mut self) {
        if std::mem::take(&mut self.looking) {
            let seen = if self.reachable { Ok(self.observed()) } else { Err("no connection".to_owned()) };
            self.event(Event::Found(seen));
        }
    }

    fn observed(&self) -> Observed {
        let saved_state = match self.file {
            File::Whole(_) if self.taken && self.process == Process::Absent => StateOnDisk::Taken,
            File::Whole(_) => StateOnDisk::Whole,
            _ => StateOnDisk::None,
        };
        Observed { process: self.process, saved_state }
    }

    /// Others do something, if it can be done; `told` if it becomes known at once.
    pub(crate) fn others(&mut self, act: Act, told: bool) {
        let before = (self.process, self.file);
        match (act, self.process) {
            (Act::Start | Act::StartPaused, Process::Absent) => {
                self.age = match self.file {
                    File::Whole(age) => age,
                    _ => self.latest + 1,
                };
                assert!(self.age >= self.latest, "others could use an old state");
                (self.file, self.taken) = (File::None, false);
                self.births += 1;
                self.process = if act == Act::Start { Process::Running } else { Process::Still };
            }
            (Act::Suspend, Process::Running) => self.process = Process::Still,
            (Act::Resume, Process::Still) => self.process = Process::Running,
            (Act::Destroy, _) => self.process = Process::Absent,
            (Act::Save, Process::Running | Process::Still) if self.shape.save_ends_process => {
                (self.process, self.file) = (Process::Absent, File::Whole(self.age));
                self.latest = self.latest.max(self.age);
            }
            (Act::RemoveState, _) if self.shape.save_ends_process => self.file = File::None,
            _ => {}
        }
        if before == (self.process, self.file) {
            return;
        }
        self.run_by_others = self.process == Process::Running;
        self.live();
        self.untold = true;
        if told && self.reachable {
            self.tell();
        }
        self.check();
    }

    /// What others did becomes known.
    pub(crate) fn tell(&mut self) {
        if std::mem::take(&mut self.untold) {
            self.event(Event::Changed("somebody".into()));
        }
    }

    /// The connection to the platform breaks.
    pub(crate) fn cut_off(&mut self) {
        self.reachable = false;
    }

    /// The platform is back.
    pub(crate) fn reconnect(&mut self) {
        if !std::mem::replace(&mut self.reachable, true) {
            self.untold = false;
            self.event(Event::Changed("the connection is back".into()));
        }
    }

    fn half_effect(&mut self, task: Task) {
        match task {
            Task::Save if self.process != Process::Absent && !self.shape.save_ends_process => {
                self.file = File::Partial
            }
            // What a dismissal must do even when it fails.
            Task::Dismiss => drop(self.effect(Task::Dismiss, None)),
            // Only the first frame got through.
            Task::Release if self.process == Process::Running => {
                self.received.extend(self.held.pop_front());
            }
            _ => {}
        }
    }

    fn effect(&mut self, task: Task, state: Option<State>) -> Result<(), &'static str> {
        let alive = self.process != Process::Absent;
        let needs_ports = matches!(task, Task::Watch | Task::Capture | Task::Prepare);
        if needs_ports && self.shape.late_interfaces && !alive {
            return Err("it has no interfaces");
        }
        match task {
            Task::Journal => self.disk = state.expect("a journal write has a state"),
            Task::Watch | Task::Drain => {}
            Task::Capture | Task::Prepare => self.mode = Mode::Holding,
            Task::StandIn => self.mode = Mode::Answering,
            Task::Release => {
                if self.process == Process::Running {
                    self.received.extend(self.held.drain(..));
                }
                self.leave();
            }
            Task::Dismiss => self.leave(),
            Task::AwaitGuest if self.process == Process::Running => {}
            Task::Boot if !alive => {
                let kept = match self.file {
                    File::Whole(age) if self.shape.save_ends_process => Some(age),
                    _ => None,
                };
                if kept.is_some() {
                    self.file = File::None;
                }
                let made = if self.shape.late_interfaces { Process::Still } else { Process::Running };
                (self.process, self.age) = (made, kept.unwrap_or(self.latest + 1));
                assert!(self.age >= self.latest, "an old state is booted from");
                self.births += 1;
                self.boots += 1;
            }
            Task::Load => match self.file {
                File::Whole(age) if !alive => {
                    (self.process, self.age, self.taken) = (Process::Incoming, age, true);
                    self.births += 1;
                    if self.shape.save_ends_process {
                        // As libvirt has it, by which `paused` is all that can be said of it.
                        (self.process, self.file, self.taken) = (Process::Still, File::None, false);
                    }
                }
                _ => return Err("nothing to load, or there is a process"),
            },
            Task::Resume if alive => {
                assert!(self.age >= self.latest, "a saved state is used after the guest ran on");
                self.process = Process::Running;
            }
            Task::Pause if alive => self.process = Process::Still,
            Task::Suspend if self.process == Process::Running => self.process = Process::Still,
            Task::Save if self.shape.save_ends_process => {
                if self.process != Process::Still {
                    return Err("it is not paused");
                }
                (self.process, self.file) = (Process::Absent, File::Whole(self.age));
                // It may be one that was booted and never ran.
                self.latest = self.latest.max(self.age);
            }
            Task::Save if alive => {
                (self.process, self.file, self.taken) = (Process::Still, File::Whole(self.age), false);
            }
            Task::Flush if matches!(self.file, File::Whole(_)) => {}
            Task::Quit | Task::Kill => {
                self.taken &= self.process != Process::Incoming;
                self.process = Process::Absent;
            }
            Task::PowerDown if matches!(self.process, Process::Running | Process::Absent) => {
                self.process = Process::Absent;
            }
            Task::DiscardState => (self.file, self.taken) = (File::None, false),
            _ => return Err("the process is not there, or is there"),
        }
        Ok(())
    }

    fn leave(&mut self) {
        self.mode = Mode::Direct;
        self.dropped += self.held.len() as u64;
        self.held.clear();
    }

    /// The guest runs a little, if it runs.
    fn live(&mut self) {
        if self.process == Process::Running {
            self.age += 1;
            self.latest = self.latest.max(self.age);
            assert_eq!(self.age, self.latest, "an old guest runs");
        }
    }

    /// A frame comes for the machine; the surrogate may find that it wakes it.
    pub(crate) fn frame(&mut self, wakes: bool) {
        self.sent += 1;
        match (self.mode, self.process) {
            (Mode::Direct, Process::Running) => self.received.push(self.sent),
            // Nobody is there for it: the machine is stopped, failed, or its daemon is down.
            (Mode::Direct, _) => self.dropped += 1,
            _ => {
                self.held.push_back(self.sent);
                if wakes {
                    self.event(Event::Wanted(Cause::Packet("tcp SYN".into())));
                }
            }
        }
        self.check();
    }

    pub(crate) fn shut_down_guest(&mut self) {
        if self.process == Process::Running {
            self.process = Process::Absent;
            self.event(Event::GuestShutdown);
        }
    }

    pub(crate) fn die(&mut self) {
        if self.process != Process::Absent {
            self.process = Process::Absent;
            self.event(Event::Exited("signal 9".into()));
        }
    }

    /// How far the guest has come, which grows whenever it runs.
    pub(crate) fn oldest(&self) -> u64 {
        self.latest
    }

    /// Frames that the guest has got.
    pub(crate) fn received(&self) -> usize {
        self.received.len()
    }

    /// The bridge goes away, and with it all that the surrogate holds.
    pub(crate) fn lose_bridge(&mut self) {
        self.leave();
        self.event(Event::Lost("br0 is gone".into()));
    }

    pub(crate) fn tick(&mut self) {
        self.now = self.now + Duration::from_secs(6);
        self.event(Event::Tick);
    }

    /// The daemon is killed and started again; of the pending tasks those in `done` take effect.
    pub(crate) fn crash(&mut self, done: u32) {
        self.carry_out_some(done);
        self.restart();
    }

    fn carry_out_some(&mut self, done: u32) {
        let pending = std::mem::take(&mut self.pending);
        for (i, (task, state)) in pending.into_iter().enumerate() {
            if done >> i & 1 == 1 {
                let _ = self.effect(task, state);
                self.live();
            }
        }
    }

    fn restart(&mut self) {
        // The surrogate's memory is gone: what it held is lost, and this is the one loss.
        self.leave();
        // It asks until it is told, and what it sees is news to it.
        (self.reachable, self.untold, self.looking) = (true, false, false);
        let seen = self.observed();
        self.history.push(self.disk.clone());
        let (life, actions) = Lifecycle::recover(self.disk.clone(), self.shape, seen, self.now);
        self.life = life;
        self.carry_out(actions);
    }

    /// As [`Self::crash`], and the process is gone with the daemon.
    pub(crate) fn cut_power(&mut self, done: u32) {
        self.carry_out_some(done);
        self.process = Process::Absent;
        self.restart();
    }

    /// From now on everything goes well.
    pub(crate) fn calm(&mut self) {
        self.reconnect();
        self.tell();
        for _ in 0..100 {
            self.answer(0, Outcome::Good);
            if self.pending.is_empty() && self.life.next_deadline().is_some() {
                self.tick();
            }
            if self.life.settled() && self.life.absent().is_none() {
                return self.check_settled();
            }
        }
        panic!("does not settle: {:#?}", self.life);
    }

    /// What holds at any instant.
    fn check(&self) {
        assert!(
            self.run_by_others || !(self.process == Process::Running && self.mode == Mode::Answering),
            "guest and surrogate both answer"
        );
        assert!(self.received.is_sorted_by(|a, b| a < b), "frames are delivered once, in order");
        let known = self.received.len() as u64 + self.dropped + self.held.len() as u64;
        assert_eq!(known, self.sent, "no frame is lost without being counted");
        if self.process == Process::Running {
            assert!(!self.offers(), "the guest runs while the disk offers its old state");
        }
    }

    /// What holds when nothing is going on.
    fn check_settled(&self) {
        let state = self.state();
        assert_eq!(&self.disk, state, "what is on disk is so");
        let sleeps = matches!(state, State::Asleep { .. });
        assert_eq!(self.mode, if sleeps { Mode::Answering } else { Mode::Direct });
        assert!(sleeps || self.held.is_empty());
        match state {
            State::Active => assert_eq!(self.process, Process::Running),
            State::Stopped | State::Asleep { depth: Depth::Off } => {
                assert_eq!(self.process, Process::Absent);
            }
            State::Asleep { depth: Depth::Paused | Depth::Pmsuspended } => {
                assert_eq!(self.process, Process::Still)
            }
            State::Asleep { depth: Depth::Saved } => {
                assert_ne!(self.process, Process::Running);
                assert_eq!(self.file, File::Whole(self.latest), "the whole guest is on disk");
            }
            State::Failed { state_kept: true, .. } if !self.discarded_late => {
                assert_ne!(self.process, Process::Running);
                assert_eq!(self.file, File::Whole(self.latest), "what is kept is whole");
            }
            State::Suspended { .. } => assert_eq!(self.process, Process::Still),
            State::Failed { during, .. } if self.shape.shared && during != "stopping" => {
                assert_ne!(self.process, Process::Running);
            }
            State::Failed { .. } => {}
            _ => panic!("settled on its way: {state:?}"),
        }
    }
}
