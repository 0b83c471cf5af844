//! What is true of the one machine `web`, and a log of all that was asked, by whomever. Neighbours are worlds
//! of their own.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use dormouse_daemon::{
    clock::{Clock, SystemClock},
    inhibit::Inhibitors,
    platforms::Platforms,
    presence::Presence,
};
use dormouse_machine::{
    lifecycle::{Observed, Process, Shape, State, StateOnDisk},
    spec::{LibvirtSpec, MachineSpec},
};
use dormouse_platform::{
    Candidate, Capabilities, Counters, Error, Facts, Finding, Instance, NotFound, Obstacle,
};
use dormouse_registry::{Change, Entry, Registry, Revision, Transaction};
use dormouse_surrogate as surrogate;
use dormouse_types::{Depth, MacAddr, MachineName, Timestamp};
use tokio::sync::watch;

/// The state is kept across hosts, so that one can end and another find it.
pub struct World {
    inner: Mutex<Inner>,
    /// Counts changes, for who waits.
    changed: watch::Sender<u64>,
    pub clock: Arc<SetClock>,
    /// Where the locks are that others hold.
    pub inhibitors: Mutex<Arc<Inhibitors>>,
}

struct Inner {
    process: Process,
    saved: bool,
    captured: bool,
    /// How often a guest ran on from one and the same saved state.
    resumed_from_state: u32,
    calls: Vec<String>,
    fails: HashSet<String>,
    /// Steps during which the platform goes away, once.
    cuts: HashSet<String>,
    panics: HashSet<String>,
    /// Steps that wait until they are let go.
    gates: HashSet<String>,
    waiting: HashSet<String>,
    /// The sleeper as it was last captured, or stood in for.
    sleeper: Option<surrogate::Sleeper>,
    counters: Counters,
    /// How often a running save or flush was to end early.
    hurries: u64,
    /// The guest's TCP connections.
    connections: Vec<dormouse_wire::Followed>,
    /// See [`World::ambush`].
    ambush: Option<Duration>,
    counters_read: Option<std::time::Instant>,
    /// What the guest says of its use.
    inside: Option<dormouse_platform::Inside>,
    /// It has no interfaces.
    unplugged: bool,
    /// One of its bridges is not there.
    partly: bool,
    /// What others have defined.
    domains: Vec<Candidate>,
    /// Others look after the machine too.
    shared: bool,
    clock: Arc<dyn Clock>,
    /// The share of a processor that the guest uses, and since when that is counted.
    load: (f64, Timestamp),
    /// What stands in the way of its sleep, and what its instance knows of that since it was asked last.
    obstacles: Vec<Obstacle>,
    known_obstacles: Vec<Obstacle>,
    /// Its platform has no such depth.
    lacks: Option<Depth>,
    /// Its platform cannot ask the guest.
    mute: bool,
    neighbours: BTreeMap<MachineName, Arc<World>>,
}

/// The host's clocks, of which the wall clock can be set.
#[derive(Debug, Default)]
pub struct SetClock(AtomicI64);

impl SetClock {
    /// Sets the wall clock so many seconds on, or back.
    pub fn step(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0.saturating_add_signed(self.0.load(Ordering::SeqCst)))
    }

    fn steady(&self) -> Duration {
        SystemClock.steady()
    }
}

impl Default for World {
    fn default() -> Self {
        let clock = Arc::new(SetClock::default());
        let inner = Inner {
            process: Process::Absent,
            saved: false,
            captured: false,
            resumed_from_state: 0,
            calls: Vec::new(),
            fails: HashSet::new(),
            cuts: HashSet::new(),
            panics: HashSet::new(),
            gates: HashSet::new(),
            waiting: HashSet::new(),
            sleeper: None,
            counters: Counters::default(),
            hurries: 0,
            connections: Vec::new(),
            ambush: None,
            counters_read: None,
            inside: None,
            unplugged: false,
            partly: false,
            domains: Vec::new(),
            shared: false,
            clock: Arc::clone(&clock) as _,
            load: (0.0, Timestamp::default()),
            obstacles: Vec::new(),
            known_obstacles: Vec::new(),
            lacks: None,
            mute: false,
            neighbours: BTreeMap::new(),
        };
        Self { inner: Mutex::new(inner), changed: watch::Sender::new(0), clock, inhibitors: Mutex::default() }
    }
}

impl Inner {
    /// The guest has worked until now.
    fn work_on(&mut self) -> Timestamp {
        let now = self.clock.now();
        let (share, since) = self.load;
        if share > 0.0 {
            self.counters.cpu += now.since(since).mul_f64(share);
        }
        self.load.1 = now;
        now
    }
}

impl World {
    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let value = change(&mut self.inner.lock().unwrap());
        self.changed.send_modify(|n| *n += 1);
        value
    }

    pub fn set(&self, process: Process, saved: bool) {
        self.with(|w| (w.process, w.saved) = (process, saved));
    }

    /// Others, who look after the machine too, have made something that keeps it from this depth. Nobody is told.
    pub fn bar(&self, depth: Depth, why: &str) {
        self.with(|w| {
            w.shared = true;
            w.obstacles.push(Obstacle::to(&[depth], "device", why));
        });
    }

    /// Its platform has no such depth.
    pub fn lack(&self, depth: Depth) {
        self.with(|w| w.lacks = Some(depth));
    }

    /// Its platform cannot ask the guest.
    pub fn mute(&self) {
        self.with(|w| w.mute = true);
    }

    /// What others have defined.
    pub fn define(&self, domains: Vec<Candidate>) {
        self.with(|w| (w.domains, w.shared) = (domains, true));
    }

    /// A machine beside `web`, of which other things are true.
    pub fn neighbour(&self, name: &MachineName) -> Arc<Self> {
        self.with(|w| {
            let clock = Arc::clone(&w.clock);
            let world = w.neighbours.entry(name.clone()).or_default();
            world.set_clock(clock);
            Arc::clone(world)
        })
    }

    /// The world of a machine.
    fn at(&self, name: &MachineName) -> Place<'_> {
        self.with(|w| w.neighbours.get(name).cloned()).map_or(Place::Here(self), Place::There)
    }

    pub fn process(&self) -> Process {
        self.with(|w| w.process)
    }

    pub fn resumes(&self) -> u32 {
        self.with(|w| w.resumed_from_state)
    }

    pub fn is_captured(&self) -> bool {
        self.with(|w| w.captured)
    }

    pub fn take_calls(&self) -> Vec<String> {
        self.with(|w| std::mem::take(&mut w.calls))
    }

    pub fn addresses(&self, mac: MacAddr) -> Vec<IpAddr> {
        let ports = self.sleeper().ports.into_iter();
        ports.filter(|port| port.mac == mac).flat_map(|port| port.addresses).collect()
    }

    /// The sleeper as it was last captured, or stood in for.
    #[allow(clippy::expect_used)]
    pub fn sleeper(&self) -> surrogate::Sleeper {
        self.with(|w| w.sleeper.clone()).expect("nobody was captured")
    }

    /// From now on this step fails, until told otherwise.
    pub fn fail(&self, step: &str, fails: bool) {
        self.with(|w| if fails { w.fails.insert(step.into()) } else { w.fails.remove(step) });
    }

    /// From now on it can be stood in for on some of its interfaces only.
    pub fn stand_in_partly(&self) {
        self.with(|w| w.partly = true);
    }

    /// The platform goes away during this step, which is not done, and is back at once.
    pub fn cut(&self, step: &str) {
        self.with(|w| w.cuts.insert(step.into()));
    }

    /// This step panics, once.
    pub fn panic_at(&self, step: &str) {
        self.with(|w| w.panics.insert(step.into()));
    }

    /// This step waits until it is let go.
    pub fn gate(&self, step: &str) {
        self.with(|w| w.gates.insert(step.into()));
    }

    pub fn let_go(&self, step: &str) {
        self.with(|w| w.gates.remove(step));
    }

    pub fn let_all_go(&self) {
        self.with(|w| {
            w.gates.clear();
            w.waiting.clear();
        });
    }

    /// Returns once the step waits at its gate.
    pub async fn reached(&self, step: &str) {
        let mut changed = self.changed.subscribe();
        super::within(&format!("step {step}"), async {
            while !self.inner.lock().unwrap().waiting.contains(step) {
                changed.changed().await.unwrap();
            }
        })
        .await;
    }

    /// From now on the machine has no interfaces.
    pub fn unplug(&self) {
        self.with(|w| w.unplugged = true);
    }

    pub fn work(&self, cpu: Duration) {
        self.with(|w| w.counters.cpu += cpu);
    }

    /// Counters are read by this clock.
    pub fn set_clock(&self, clock: Arc<dyn Clock>) {
        self.with(|w| w.clock = clock);
    }

    /// From now on the guest uses this share of a processor.
    pub fn load(&self, share: f64) {
        self.with(|w| {
            w.work_on();
            w.load.0 = share;
        });
    }

    /// The guest works so long just before its counters are read for the second time in a row: ticks are
    /// 100 ms apart, and the last look before a sleep follows its tick at once.
    pub fn ambush(&self, cpu: Duration) {
        self.with(|w| w.ambush = Some(cpu));
    }

    /// A client has a connection to this port.
    pub fn connect(&self, port: u16) {
        let [local, remote] =
            [([10, 9, 0, 2], port), ([10, 9, 0, 1], 40_000)].map(std::net::SocketAddr::from);
        let (snd_nxt, rcv_nxt, window, tsval, heard) = (1, 1, 1, None, dormouse_types::Timestamp(1));
        let flow = dormouse_wire::Flow { local, remote, snd_nxt, rcv_nxt, window, tsval, heard };
        self.with(|w| w.connections = vec![dormouse_wire::Followed { flow, closing: false }]);
    }

    /// It has none any more.
    pub fn disconnect(&self) {
        self.with(|w| w.connections.clear());
    }

    /// Notes a step, waits at its gate, and says whether it is to fail.
    async fn step(&self, step: &str) -> Result<(), String> {
        let (panics, hurries) = self.with(|w| {
            w.calls.push(step.into());
            (w.panics.remove(step), w.hurries)
        });
        assert!(!panics, "a planted fault in {step}");
        let mut changed = self.changed.subscribe();
        while self.is_gated(step) {
            let hurried = self.inner.lock().unwrap().hurries > hurries;
            if hurried && matches!(step, "save" | "flush") {
                return Err("was interrupted".into());
            }
            changed.changed().await.map_err(|e| e.to_string())?;
        }
        if self.with(|w| w.fails.contains(step)) { Err(format!("{step} was made to fail")) } else { Ok(()) }
    }

    /// Does the step have to wait? Notes that it does, for who waits for that.
    fn is_gated(&self, step: &str) -> bool {
        let mut w = self.inner.lock().unwrap();
        let is_gated = w.gates.contains(step);
        let is_news = if is_gated { w.waiting.insert(step.into()) } else { w.waiting.remove(step) };
        drop(w);
        if is_news {
            self.changed.send_modify(|n| *n += 1);
        }
        is_gated
    }

    async fn act(
        &self,
        step: &str,
        change: impl FnOnce(&mut Inner) -> Result<(), String>,
    ) -> Result<(), Error> {
        self.step(step).await.map_err(Error::Unsupported)?;
        if self.with(|w| w.cuts.remove(step)) {
            return Err(Error::Unreachable { whom: "libvirt".into(), why: "end of file".into() });
        }
        self.with(change).map_err(Error::Unsupported)
    }

    /// An act that has no rules.
    async fn set_by(&self, step: &str, change: impl FnOnce(&mut Inner)) -> Result<(), Error> {
        self.step(step).await.map_err(Error::Unsupported)?;
        self.with(change);
        Ok(())
    }

    async fn stand(&self, step: &str, captured: Option<bool>) -> Result<(), surrogate::Error> {
        self.step(step).await.map_err(surrogate::Error::Ended)?;
        self.with(|w| w.captured = captured.unwrap_or(w.captured));
        Ok(())
    }
}

/// Where a machine is.
enum Place<'a> {
    Here(&'a World),
    There(Arc<World>),
}

impl std::ops::Deref for Place<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        match self {
            Self::Here(world) => world,
            Self::There(world) => world,
        }
    }
}

/// Makes instances of the machines.
pub struct Maker(pub Arc<World>);

#[async_trait]
impl Platforms for Maker {
    fn instance(&self, spec: &MachineSpec) -> Result<Arc<dyn Instance>, Error> {
        let neighbour = self.0.with(|w| w.neighbours.get(&spec.name).cloned());
        Ok(Arc::new(Machine(neighbour.unwrap_or_else(|| Arc::clone(&self.0)))))
    }

    async fn domains(&self, uri: Option<&str>, names: Vec<String>) -> Result<Vec<Finding>, Error> {
        if uri.is_some() {
            return Err(Error::Unreachable { whom: "libvirt".into(), why: "it is away".into() });
        }
        let all = self.0.with(|w| w.domains.clone());
        if names.is_empty() {
            return Ok(all.into_iter().map(|c| Finding { name: c.name.clone(), found: Ok(c) }).collect());
        }
        let find =
            |name: &String| all.iter().find(|c| c.name == *name || c.uuid.as_ref() == Some(name)).cloned();
        let found = |name: String| Finding { found: find(&name).ok_or(NotFound::Missing), name };
        Ok(names.into_iter().map(found).collect())
    }

    async fn definition(&self, libvirt: &LibvirtSpec) -> Result<Finding, Error> {
        let name = libvirt.uuid.map_or_else(|| libvirt.domain.clone(), |uuid| uuid.to_string());
        self.domains(None, vec![name]).await.map(|mut found| found.remove(0))
    }
}

/// The machine, with rules as a real one has them.
struct Machine(Arc<World>);

fn require(holds: bool, why: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.into()) }
}

#[async_trait]
impl Instance for Machine {
    fn capabilities(&self) -> Capabilities {
        let panics = self.0.with(|w| w.panics.remove("capabilities"));
        assert!(!panics, "a planted fault in the driver itself");
        let (obstacles, lacks) = self.0.with(|w| (w.known_obstacles.clone(), w.lacks));
        let has = |depth: &Depth| lacks != Some(*depth) && !obstacles.iter().any(|bar| bar.bars(*depth));
        Capabilities { depths: Depth::ALL.into_iter().filter(has).collect(), obstacles, lazy_memory: true }
    }

    async fn obstacles(&self) -> Vec<Obstacle> {
        self.0.with(|w| {
            w.known_obstacles.clone_from(&w.obstacles);
            w.obstacles.clone()
        })
    }

    fn asks_guest(&self) -> bool {
        self.0.with(|w| !w.mute)
    }

    fn shape(&self) -> Shape {
        Shape { shared: self.0.with(|w| w.shared), ..Shape::default() }
    }

    async fn observe(&self) -> Result<Observed, Error> {
        self.0.step("observe").await.map_err(Error::Unsupported)?;
        let on_disk = |saved| if saved { StateOnDisk::Whole } else { StateOnDisk::None };
        Ok(self.0.with(|w| Observed { process: w.process, saved_state: on_disk(w.saved) }))
    }

    async fn attach(&self) -> Result<Vec<dormouse_platform::Port>, Error> {
        if self.0.with(|w| w.unplugged) {
            return Ok(Vec::new());
        }
        let mac = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
        Ok(vec![dormouse_platform::Port { mac, bridge: "br0".into(), tap: "tap0".into(), queue: None }])
    }

    async fn ports(&self) -> Result<Vec<dormouse_platform::Port>, Error> {
        self.attach().await
    }

    async fn detach(&self) -> Result<(), Error> {
        self.0.act("detach", |_| Ok(())).await
    }

    async fn boot(&self) -> Result<(), Error> {
        let boots = |w: &mut Inner| {
            require(w.process == Process::Absent, "there is a process already")?;
            require(!w.saved, "a saved state would be lost")?;
            w.process = Process::Running;
            Ok(())
        };
        self.0.act("boot", boots).await
    }

    async fn load(&self) -> Result<(), Error> {
        let loads = |w: &mut Inner| {
            require(w.process == Process::Absent, "there is a process already")?;
            require(w.saved, "there is no saved state")?;
            w.process = Process::Incoming;
            Ok(())
        };
        self.0.act("load", loads).await
    }

    async fn resume(&self) -> Result<(), Error> {
        let resumes = |w: &mut Inner| {
            match w.process {
                Process::Incoming => {
                    w.saved = false;
                    w.resumed_from_state += 1;
                }
                Process::Still => require(!w.saved, "a whole saved state would be used again")?,
                Process::Running => {}
                Process::Absent => return Err("there is no process".into()),
            }
            w.process = Process::Running;
            Ok(())
        };
        self.0.act("resume", resumes).await
    }

    async fn pause(&self) -> Result<(), Error> {
        self.0.set_by("pause", |w| w.process = Process::Still).await
    }

    async fn save(&self) -> Result<(), Error> {
        let saves = |w: &mut Inner| {
            require(w.process != Process::Absent, "there is no process")?;
            require(w.captured, "frames would be lost")?;
            w.process = Process::Still;
            Ok(())
        };
        self.0.act("save", saves).await
    }

    async fn flush(&self) -> Result<(), Error> {
        self.0.set_by("flush", |w| w.saved = true).await
    }

    async fn hurry(&self) {
        self.0.with(|w| {
            w.calls.push("hurry".into());
            w.hurries += 1;
        });
    }

    async fn quit(&self) -> Result<(), Error> {
        self.0.set_by("quit", |w| w.process = Process::Absent).await
    }

    async fn power_down(&self, _: Duration) -> Result<(), Error> {
        self.0.set_by("power-down", |w| w.process = Process::Absent).await
    }

    async fn kill(&self) -> Result<(), Error> {
        self.0.set_by("kill", |w| w.process = Process::Absent).await
    }

    async fn discard_state(&self) -> Result<(), Error> {
        self.0.set_by("discard-state", |w| w.saved = false).await
    }

    async fn erase(&self) -> Result<(), Error> {
        let erases = |w: &mut Inner| {
            require(w.shared || w.process == Process::Absent, "there is a process")?;
            w.saved = false;
            Ok(())
        };
        self.0.act("erase", erases).await
    }

    async fn counters(&self) -> Result<Counters, Error> {
        let counters = self.0.with(|w| {
            let read = w.counters_read.replace(std::time::Instant::now());
            let is_last = read.is_some_and(|at| at.elapsed() < Duration::from_millis(50));
            w.counters.cpu += w.ambush.take_if(|_| is_last).unwrap_or_default();
            let at = w.work_on();
            Counters { at, ..w.counters }
        });
        Ok(counters)
    }

    async fn inside(&self) -> Option<dormouse_platform::Inside> {
        self.0.with(|w| w.inside.clone())
    }

    async fn facts(&self) -> Facts {
        let resident_bytes = if self.0.process() == Process::Absent { 0 } else { 64 << 20 };
        Facts { resident_bytes: Some(resident_bytes), ..Facts::default() }
    }
}

#[async_trait]
impl Presence for World {
    async fn watch(&self, name: &MachineName, _: &[surrogate::Port]) -> Result<(), surrogate::Error> {
        self.at(name).stand("watch", None).await
    }

    async fn capture(&self, sleeper: &surrogate::Sleeper) -> Result<(), surrogate::Error> {
        let there = self.at(&sleeper.name);
        there.with(|w| w.sleeper = Some(sleeper.clone()));
        there.stand("capture", Some(true)).await
    }

    async fn connections(&self, bridge: &str, mac: MacAddr) -> Vec<dormouse_wire::Followed> {
        let is_ours = (bridge, mac) == ("br0", MacAddr([0x52, 0x54, 0, 0, 0, 2]));
        self.with(|w| if is_ours { w.connections.clone() } else { Vec::new() })
    }

    async fn drain(&self, sleeper: &surrogate::Sleeper, _: Duration) -> Result<(), surrogate::Error> {
        self.at(&sleeper.name).stand("drain", None).await
    }

    async fn stand_in(
        &self,
        sleeper: &surrogate::Sleeper,
    ) -> Result<Option<surrogate::Error>, surrogate::Error> {
        let there = self.at(&sleeper.name);
        there.with(|w| w.sleeper = Some(sleeper.clone()));
        there.stand("stand-in", Some(true)).await?;
        Ok(there.with(|w| w.partly).then(|| surrogate::Error::Ended("br1".into())))
    }

    async fn prepare(&self, sleeper: &surrogate::Sleeper) -> Result<(), surrogate::Error> {
        self.at(&sleeper.name).stand("prepare", None).await
    }

    async fn release(&self, sleeper: &surrogate::Sleeper) -> Result<surrogate::Replay, surrogate::Error> {
        self.at(&sleeper.name).stand("release", Some(false)).await?;
        Ok(surrogate::Replay {
            frames: 3,
            bytes: 180,
            dropped: surrogate::Drops::default(),
            duplicates_suppressed: 0,
            handover: surrogate::HandoverKind::Ebpf,
            took: Duration::from_millis(1),
        })
    }

    async fn dismiss(&self, name: &MachineName) -> Result<u64, surrogate::Error> {
        self.at(name).stand("dismiss", Some(false)).await.map(|()| 0)
    }

    async fn settle(&self) -> Result<usize, surrogate::Error> {
        self.stand("settle", None).await.map(|()| 0)
    }

    async fn rehearse(
        &self,
        sleeper: &surrogate::Sleeper,
        mac: MacAddr,
        ethernet: &[u8],
    ) -> surrogate::Rehearsal {
        let is_to = ethernet.get(..6) == Some(&mac.0);
        let rules: Vec<_> = sleeper.wake.iter().map(ToString::to_string).collect();
        if is_to {
            surrogate::Rehearsal::Wakes(rules.join("; "))
        } else {
            surrogate::Rehearsal::Held("group".into())
        }
    }

    async fn status(&self, _: &MachineName) -> Option<surrogate::Status> {
        None
    }

    async fn capabilities(&self) -> surrogate::Capabilities {
        surrogate::Capabilities {
            handover: surrogate::HandoverKind::Ebpf,
            obstacle: None,
            flows: surrogate::FollowKind::Ebpf,
            flows_obstacle: None,
        }
    }
}

/// A registry whose writes of states are steps of the world too: `journal:STATE`.
pub struct Journalled<R> {
    inner: R,
    world: Arc<World>,
    last: Mutex<BTreeMap<MachineName, State>>,
}

impl<R> Journalled<R> {
    pub fn new(inner: R, world: Arc<World>) -> Self {
        Self { inner, world, last: Mutex::default() }
    }
}

#[async_trait]
impl<R: Registry> Registry for Journalled<R> {
    async fn load(&self) -> Result<Vec<Entry>, dormouse_registry::Error> {
        self.inner.load().await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, dormouse_registry::Error> {
        for change in transaction.changes() {
            let Change::Put(record) = change else { continue };
            let is_new = self.last.lock().unwrap().get(&record.name) != Some(&record.state);
            if is_new {
                let step = format!("journal:{}", record.state.word());
                self.world
                    .at(&record.name)
                    .step(&step)
                    .await
                    .map_err(|_| dormouse_registry::Error::Closed)?;
                self.last.lock().unwrap().insert(record.name.clone(), record.state.clone());
            }
        }
        self.inner.commit(transaction).await
    }
}
