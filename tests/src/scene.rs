//! A lab with a daemon and one guest, and the questions that all tests ask.

use crate::{LONG, SECOND};
use dormouse_lab::{
    Client, Daemon, EventLog, Guest, HttpAnswer, Lab, MemoryCheck, SinkStats,
    api::{Event, EventKind, Failure, MachineState, Outcome},
    guest::Image,
    wait_until,
};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    thread,
    time::Duration,
};

/// A lab, a daemon and a guest. All of it goes when it is dropped.
#[derive(Debug)]
pub struct Scene {
    /// The daemon's events since it was started last.
    pub events: EventLog,
    /// The daemon.
    pub daemon: Daemon,
    /// Someone on the network.
    pub client: Client,
    /// The guest.
    pub guest: Guest,
    /// What it boots.
    pub image: Image,
    /// Last, so that it goes last and takes down what is still there.
    pub lab: Lab,
}

/// What must be the same after a sleep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// Differs after every boot.
    pub boot_id: String,
    /// The memory that was filled at boot.
    pub memory: MemoryCheck,
}

impl Scene {
    /// A daemon, and a guest that is created but does not run.
    ///
    /// # Panics
    ///
    /// When something of it cannot be made.
    #[track_caller]
    #[must_use]
    pub fn new(prefix: &str, config: &str, guest: Guest) -> Self {
        let lab = Lab::new(prefix).unwrap();
        let daemon = Daemon::start_with(&lab, config, &[]).unwrap();
        Self::with(lab, daemon, guest)
    }

    /// As [`Scene::new`] in a lab with a daemon that are there already.
    ///
    /// # Panics
    ///
    /// When the guest cannot be created.
    #[track_caller]
    #[must_use]
    pub fn with(lab: Lab, daemon: Daemon, guest: Guest) -> Self {
        let image = Image::build().unwrap();
        let events = daemon.events().unwrap();
        daemon.create(&lab, &image, &guest).unwrap();
        Self { events, daemon, client: lab.client(), guest, image, lab }
    }

    /// As [`Scene::new`], with the guest booted.
    ///
    /// # Panics
    ///
    /// When it does not boot.
    #[track_caller]
    #[must_use]
    pub fn boot(prefix: &str, config: &str, guest: Guest) -> Self {
        let scene = Self::new(prefix, config, guest);
        scene.start(&[]);
        scene
    }

    /// Starts the guest and waits until its services run. (A boot begins a new console log.)
    ///
    /// # Panics
    ///
    /// When it does not boot.
    #[track_caller]
    pub fn start(&self, options: &[&str]) {
        self.daemon.run(&[&["start"], options, &[self.name()]].concat()).unwrap();
        self.daemon.wait_ready(&self.guest, 1).unwrap();
    }

    /// The guest's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.guest.name()
    }

    /// Its web server.
    #[must_use]
    pub fn web(&self) -> SocketAddr {
        SocketAddr::new(self.guest.ip().into(), 80)
    }

    /// Its directory: memory, state and logs.
    #[must_use]
    pub fn machine_dir(&self) -> PathBuf {
        self.daemon.state_dir().join("machines").join(self.name())
    }

    /// Where it is in its life.
    ///
    /// # Panics
    ///
    /// When the daemon does not answer.
    #[track_caller]
    #[must_use]
    pub fn state(&self) -> MachineState {
        self.daemon.state(self.name()).unwrap()
    }

    /// Waits until it is in a state.
    ///
    /// # Panics
    ///
    /// When it is not in time.
    #[track_caller]
    pub fn wait(&self, state: MachineState) {
        self.daemon.wait_state(self.name(), state, LONG).unwrap();
    }

    /// Waits until it rests, awake or asleep, and returns which.
    ///
    /// # Panics
    ///
    /// When it does neither in time.
    #[track_caller]
    pub fn wait_sound(&self) -> MachineState {
        let sound = [MachineState::Active, MachineState::Asleep];
        let rests = |m: &dormouse_lab::api::MachineDetail| sound.contains(&m.summary.state);
        let (machine, _) = self.daemon.wait_machine(self.name(), "active or asleep", LONG, rests).unwrap();
        machine.summary.state
    }

    /// Puts it to sleep as its file says.
    ///
    /// # Panics
    ///
    /// When it does not sleep then.
    #[track_caller]
    pub fn sleep(&self) -> Outcome {
        let outcome = self.daemon.sleep_after_traffic(self.name()).unwrap();
        assert_eq!(outcome.state, MachineState::Asleep, "{outcome:?}");
        outcome
    }

    /// Waits until a process stands by for its wake; returns that.
    ///
    /// # Panics
    ///
    /// When none does in time.
    #[track_caller]
    pub fn wait_standby(&self) -> i32 {
        let stands_by = |m: &dormouse_lab::api::MachineDetail| m.summary.standby_bytes.is_some();
        let (machine, _) =
            self.daemon.wait_machine(self.name(), "asleep with a standby", LONG, stands_by).unwrap();
        assert_eq!((machine.summary.state, machine.pid), (MachineState::Asleep, None));
        self.qemu()
    }

    /// Waits until no QEMU process is left.
    ///
    /// # Panics
    ///
    /// When one is, after a while.
    #[track_caller]
    pub fn wait_no_qemu(&self) {
        wait_until("QEMU to be gone", LONG, || Ok(self.lab.qemu_pids()?.is_empty())).unwrap();
    }

    /// Its QEMU process.
    ///
    /// # Panics
    ///
    /// When there is none, or more than one.
    #[track_caller]
    #[must_use]
    pub fn qemu(&self) -> i32 {
        let pids = self.lab.qemu_pids().unwrap();
        assert_eq!(pids.len(), 1, "{pids:?}");
        pids[0]
    }

    /// Fetches a page, which wakes it if its rules say so.
    ///
    /// # Panics
    ///
    /// When there is no good answer.
    #[track_caller]
    pub fn page(&self) -> HttpAnswer {
        let page = self.client.http_get(self.web(), "/cgi-bin/uptime", LONG).unwrap();
        assert_eq!(page.status, 200, "{page:?}");
        page
    }

    /// Connects while it sleeps: the first SYN wakes it and is delivered. Returns the page that it asked for.
    ///
    /// # Panics
    ///
    /// When a SYN had to be sent again although the guest was awake long before TCP's first timeout,
    /// which is a second (RFC 6298): a busy machine may be slower.
    #[track_caller]
    pub fn wakes_at_the_first_syn(&self) -> HttpAnswer {
        let mark = self.mark();
        let page = self.page();
        let awake = self.entered(mark, MachineState::Active);
        let slow = awake.figures.get("took_ms").is_none_or(|took| *took > 500.0);
        assert!(page.syn_retransmits == 0 || slow, "{page:?}: {awake:?}");
        page
    }

    /// Is an echo request answered?
    #[must_use]
    pub fn pings(&self, ip: impl Into<IpAddr>) -> bool {
        self.client.ping(ip, SECOND).is_ok()
    }

    /// What must be the same after a sleep. Asking wakes it.
    ///
    /// # Panics
    ///
    /// When the guest does not answer, or its memory is damaged.
    #[track_caller]
    #[must_use]
    pub fn before(&self) -> Before {
        let memory = self.client.verify_memory(self.guest.ip()).unwrap();
        assert_eq!(memory.bad, 0, "{memory:?}");
        Before { boot_id: self.sink().boot_id, memory }
    }

    /// What the guest's sink has. Asking wakes it.
    ///
    /// # Panics
    ///
    /// When the guest does not answer.
    #[track_caller]
    #[must_use]
    pub fn sink(&self) -> SinkStats {
        self.client.sink(self.guest.ip()).unwrap()
    }

    /// What the sink has once it has `sent`, or gets no more.
    ///
    /// # Panics
    ///
    /// When the guest does not answer.
    #[track_caller]
    #[must_use]
    pub fn settled_sink(&self, sent: u64) -> SinkStats {
        let mut last = self.sink();
        while last.received < sent {
            thread::sleep(SECOND / 2);
            let now = self.sink();
            if now.received == last.received {
                break;
            }
            last = now;
        }
        last
    }

    /// Frames that the kernel itself dropped on the switch: at a tap whose guest gets no processor, or
    /// before the bridge. (Some of them were offered again.)
    ///
    /// # Panics
    ///
    /// When `ip` says something else than it should.
    #[track_caller]
    #[must_use]
    pub fn dropped_by_the_kernel(&self) -> u64 {
        let out = self.lab.switch().command("ip").args(["-s", "-j", "link"]).output().unwrap();
        let links: Vec<serde_json::Value> = serde_json::from_slice(&out.stdout).unwrap();
        let of = |link: &serde_json::Value, way: &str| link["stats64"][way]["dropped"].as_u64().unwrap();
        links.iter().map(|link| of(link, "rx") + of(link, "tx")).sum()
    }

    /// The number of the last event; a mark for what comes after.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.events.all().last().map_or(0, |event| event.seq)
    }

    /// Waits for an event after the mark.
    ///
    /// # Panics
    ///
    /// When it does not come.
    #[track_caller]
    pub fn event(&self, mark: u64, what: &str, is_it: impl Fn(&Event) -> bool) -> Event {
        self.events.wait(what, LONG, |event| event.seq > mark && is_it(event)).unwrap()
    }

    /// Waits for the event of entering a state, after the mark.
    ///
    /// # Panics
    ///
    /// When it does not come.
    #[track_caller]
    pub fn entered(&self, mark: u64, state: MachineState) -> Event {
        self.event(mark, &format!("the event {state}"), |event| {
            event.kind == EventKind::State && event.to == Some(state)
        })
    }

    /// Restarts the daemon, as after a crash, with a crash planted; none with an empty text.
    /// Returns how long it took until it answered.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[track_caller]
    pub fn restart(&mut self, abort_at: &str) -> Duration {
        self.daemon.set_env("DORMOUSE_ABORT_AT", abort_at);
        let took = self.daemon.restart().unwrap();
        self.events = self.daemon.events().unwrap();
        took
    }

    /// It sleeps, and nothing has begun to wake it since the mark.
    ///
    /// # Panics
    ///
    /// When something has.
    #[track_caller]
    pub fn slept_on(&self, mark: u64) {
        let why = self.daemon.why(self.name()).unwrap();
        assert_eq!(why.state, MachineState::Asleep, "{why:?}");
        let woke = |event: &Event| event.seq > mark && event.to == Some(MachineState::Waking);
        assert_eq!(self.events.all().into_iter().find(woke), None);
        assert!(self.lab.qemu_pids().unwrap().is_empty());
    }

    /// Runs `dormouse`, which must end with this status; returns what it said to stderr.
    ///
    /// # Panics
    ///
    /// When it ends otherwise.
    #[track_caller]
    pub fn refused(&self, args: &[&str], code: i32) -> String {
        let out = self.daemon.cli(args).unwrap();
        assert_eq!(out.code, Some(code), "{args:?}: {out:?}");
        out.stderr
    }

    /// Waits until it has failed, and checks all that a failure must be: a state with its reason,
    /// an event and a line of the log with the chain of causes, and a daemon that goes on.
    ///
    /// # Panics
    ///
    /// When any of it is not so.
    #[track_caller]
    pub fn failed(&self, mark: u64, parts: &[&str]) -> Failure {
        self.wait(MachineState::Failed);
        let failure = self.daemon.show(self.name()).unwrap().failure.unwrap();
        let event = self.entered(mark, MachineState::Failed);
        assert!(!failure.during.is_empty() && !failure.why.is_empty(), "{failure:?}");
        for part in parts {
            assert!(failure.why.contains(part), "{failure:?} lacks {part:?}");
            assert!(event.cause.as_ref().is_some_and(|c| c.contains(part)), "{event:?} lacks {part:?}");
        }
        self.logged(parts);
        self.goes_on();
        failure
    }

    /// Waits for a warning after the mark whose chain of causes has these parts, in the log too.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[track_caller]
    pub fn warned(&self, mark: u64, parts: &[&str]) -> Event {
        let has = |cause: &String| parts.iter().all(|part| cause.contains(part));
        let event = self.event(mark, &format!("a warning with {parts:?}"), |event| {
            event.kind == EventKind::Warning && event.cause.as_ref().is_some_and(has)
        });
        self.logged(parts);
        event
    }

    /// One line of the daemon's log has all of these parts.
    ///
    /// # Panics
    ///
    /// When none has.
    #[track_caller]
    pub fn logged(&self, parts: &[&str]) {
        let log = self.daemon.log();
        let found = log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line of the log has {parts:?}");
    }

    /// The daemon still serves: it lists its machines.
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn goes_on(&self) {
        assert!(self.daemon.run(&["ls"]).unwrap().contains(self.name()));
    }

    fn print_logs(&self) {
        let console = self.machine_dir().join("console.log");
        for path in [self.daemon.log_path(), self.machine_dir().join("qemu.log"), console] {
            let bytes = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("--- the end of {}\n{end}", path.display());
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if thread::panicking() {
            self.print_logs();
        }
    }
}
