//! The asynchronous side: does in order what goes by netlink, and asks the threads for the rest.

mod following;
mod ports;
mod serve;

use std::{
    collections::{HashMap, HashSet, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use dormouse_external::External;
use dormouse_net::{Flooding, Net, Switch, Vlans};
use dormouse_types::{MacAddr, MachineName};
use dormouse_wire::{Flow, Identity, Persona, junk_frame};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::following::Following;
use crate::{
    Capabilities, Drops, Error, HandoverKind, Noted, Notice, Port, Rehearsal, Replay, Settings, Sleeper,
    Status,
    clock::{clock, shown},
    error::chain,
    judge::{Asked, Manners, WireJudge},
    links::{self, Pair},
    presence::Waker,
    queue::{Budget, HostBudget, ReplayQueue},
    release::PortReplay,
    taps,
    thread::Thread,
    worker::Capture,
};

/// Ports that are stood in for at a time, as after a restart: the answers of the kernel to thousands
/// would overrun the netlink socket.
const STANDING_IN: usize = 8;

/// The MTU of a bridge that is not there.
const ETHERNET_MTU: u16 = 1500;

/// After a barrier: by then frames that left the bridge are in the socket, if processors keep up
/// with their backlogs. For those that do not see [`crate::late`].
const SETTLE: Duration = Duration::from_millis(2);

/// A frame that left the bridge so long ago and has not come is lost. On a busy host it can lie in
/// a processor's backlog for as long as that processor's softirq thread does not run.
const ARRIVAL_PATIENCE: Duration = Duration::from_millis(100);

/// The stand-in for the sleepers of this host. Cheap to clone; see the crate's description.
#[derive(Clone, Debug)]
pub struct Surrogate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    net: Net,
    notices: UnboundedSender<Notice>,
    capabilities: Capabilities,
    /// The programs of [`Settings::externals`], by name.
    externals: HashMap<String, External>,
    /// See [`dormouse_standin::Settings::secret`].
    secret: [u8; 16],
    bridges: Mutex<HashMap<String, Arc<Bridge>>>,
    /// Held while a bridge is set up or taken out.
    setting_up: tokio::sync::Mutex<()>,
    /// Those who are being stood in for: see [`STANDING_IN`].
    standing_in: tokio::sync::Semaphore,
    /// Ports of guests that were woken while their bridge was not there.
    unplugged: Mutex<Vec<Port>>,
    /// Bridges that were lost, or asked for in vain, and are not there.
    missed: Mutex<HashSet<String>>,
    machines: Mutex<HashMap<MachineName, Machine>>,
    /// What is held for all of them.
    held: Arc<HostBudget>,
}

/// A bridge that is served.
#[derive(Debug)]
struct Bridge {
    switch: Switch,
    pair: Pair,
    thread: Thread,
    following: Following,
}

/// A captured machine.
#[derive(Clone, Debug)]
struct Machine {
    ports: Vec<Port>,
    manners: Arc<Manners>,
    budget: Arc<Budget>,
    waker: Waker,
}

impl Surrogate {
    /// Starts in the calling thread's network namespace, within a tokio runtime. The receiver
    /// gets what is told without being asked.
    ///
    /// # Errors
    /// When netlink or packet sockets cannot be had, or a setting is out of range.
    pub async fn start(settings: Settings) -> Result<(Self, UnboundedReceiver<Notice>), Error> {
        serve::check(&settings)?;
        let net = Net::connect().map_err(Error::net("start the surrogate"))?;
        let capabilities = serve::probe(&net, &settings).await?;
        let (notices, told) = unbounded_channel();
        let program =
            |program: &dormouse_external::Program| (program.name.clone(), External::new(program.clone()));
        let externals = settings.externals.iter().map(program).collect();
        let inner = Inner {
            held: HostBudget::new(settings.held_total),
            settings,
            net,
            notices,
            capabilities,
            externals,
            secret: serve::secret()?,
            bridges: Mutex::default(),
            setting_up: tokio::sync::Mutex::default(),
            standing_in: tokio::sync::Semaphore::new(STANDING_IN),
            unplugged: Mutex::default(),
            missed: Mutex::default(),
            machines: Mutex::default(),
        };
        let surrogate = Self(Arc::new(inner));
        surrogate.watch_links()?;
        Ok((surrogate, told))
    }

    /// What this host lets the surrogate do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// Listens to a running guest: tells when it is first heard, and which addresses it uses.
    ///
    /// # Errors
    /// When a bridge or tap is missing.
    pub async fn watch(&self, name: &MachineName, ports: &[Port]) -> Result<(), Error> {
        let captured = self.machine(name).is_some();
        for port in ports {
            if !captured {
                self.open(port).await?;
            }
            self.watch_port(name, port, true).await?;
        }
        Ok(())
    }

    /// Listens to a guest no longer. No error if it is not listened to.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub async fn unwatch(&self, name: &MachineName) -> Result<(), Error> {
        let mut unwatched = Ok(());
        for bridge in self.bridges() {
            let name = name.clone();
            match bridge.thread.ask(move |worker| worker.unwatch_all(&name)).await {
                Ok(ports) => ports.into_iter().for_each(|mac| bridge.unfollow(mac)),
                Err(error) => unwatched = Err(error),
            }
        }
        unwatched
    }

    /// Holds every frame that comes for the machine from now on. The guest still runs, and
    /// nothing is answered for it; a frame that its wake rules name is told.
    ///
    /// # Errors
    /// When a bridge or tap is missing. What was captured by then stays so: undo it by
    /// [`Surrogate::release`].
    pub async fn capture(&self, sleeper: &Sleeper) -> Result<(), Error> {
        let machine = self.enter(sleeper);
        for port in &sleeper.ports {
            let bridge = self.bridge(&port.bridge).await?;
            let vlans = self.vlans(port, &bridge).await?;
            let diverted = vlans.clone();
            let flows = bridge.flows_of(port.mac);
            let capture = capture_of((sleeper, port), &machine, vlans, flows);
            let tap = port.tap.clone();
            bridge
                .thread
                .ask(move |worker| worker.capture(capture, &tap))
                .await?
                .map_err(Error::socket(&port.tap))?;
            self.flood(port, &bridge, Flooding::Nothing).await?;
            self.divert(port, &bridge, diverted.as_ref()).await?;
        }
        barrier().await;
        Ok(())
    }

    /// Waits until the guest has read all that its taps hold, which its capture has cut off.
    ///
    /// Where a tap's queue cannot be had this only sees that the guest takes no more frames.
    ///
    /// # Errors
    /// [`Error::NotDrained`] when it has not within `grace`.
    pub async fn drain(&self, sleeper: &Sleeper, grace: Duration) -> Result<(), Error> {
        let undrained = taps::undrained(&self.0.net, &sleeper.ports, Instant::now() + grace).await?;
        match undrained.first() {
            Some(port) => Err(Error::NotDrained { tap: port.tap.clone(), grace }),
            None => Ok(()),
        }
    }

    /// Answers for a machine whose guest stands still, and judges what was held for it. Takes its
    /// taps down. Also for a machine that was not captured, after a restart.
    ///
    /// # Errors
    /// When no bridge of the machine can be had. A tap may be missing. If only some of its ports cannot be
    /// stood in for: why not. Can be called again, as when a bridge was lost and is there again
    /// ([`Notice::BridgeBack`]), and changes nothing for ports that are stood in for; what was held
    /// on a lost bridge is lost with it.
    pub async fn stand_in(&self, sleeper: &Sleeper) -> Result<Option<Error>, Error> {
        let machine = self.enter(sleeper);
        let (mut stood_in, mut missing) = (sleeper.ports.is_empty(), None);
        for port in &sleeper.ports {
            // One that cannot be had is no reason to leave the others alone.
            match self.stand_in_port(sleeper, port, &machine).await {
                Ok(()) => stood_in = true,
                Err(error) => missing = missing.or(Some(error)),
            }
        }
        match missing {
            Some(error) if !stood_in => Err(error),
            missing => Ok(missing),
        }
    }

    /// Makes the taps ready for a guest that will read them soon. It is still answered for, so
    /// that whoever woke it goes on, but no wake is told any more. Captures a machine that was
    /// not captured, after a restart.
    ///
    /// # Errors
    /// When a bridge or tap is missing.
    pub async fn prepare(&self, sleeper: &Sleeper) -> Result<(), Error> {
        if self.machine(&sleeper.name).is_none() {
            self.stand_in(sleeper).await?;
        }
        for port in &sleeper.ports {
            let Some(bridge) = self.bridge_of(sleeper, port).await? else { continue };
            let tap = self.index(port).await?;
            let what = || format!("make ready tap {}", port.tap);
            let net = &self.0.net;
            // Only now, and never back: on a tap that is up the kernel drops frames meanwhile.
            net.set_txqlen(tap, self.0.settings.replay_queue).await.map_err(Error::net(what()))?;
            self.join(port, &bridge, tap).await?;
            self.flood(port, &bridge, Flooding::Nothing).await?;
            net.set_up(tap).await.map_err(Error::net(what()))?;
            let (mac, tap) = (port.mac, port.tap.clone());
            let prepared = bridge.thread.ask(move |worker| worker.prepare(mac, &tap, &junk_frame(mac)));
            prepared.await?.map_err(Error::socket(&port.tap))?;
            self.watch_port(&sleeper.name, port, true).await?;
        }
        Ok(())
    }

    /// The guest runs: gives it all that was held, in order, and has the bridge send it the rest.
    /// Then listens to it. For a machine that was not captured: puts the bridge right.
    ///
    /// # Errors
    /// When a bridge or tap is missing; can be called again.
    pub async fn release(&self, sleeper: &Sleeper) -> Result<Replay, Error> {
        let start = Instant::now();
        let mut replay = Replay {
            frames: 0,
            bytes: 0,
            dropped: Drops::default(),
            duplicates_suppressed: 0,
            handover: HandoverKind::Ebpf,
            took: Duration::ZERO,
        };
        let mut turned = Vec::new();
        for port in &sleeper.ports {
            let Some(bridge) = self.bridge_of(sleeper, port).await? else {
                self.0.unplugged().push(forgetful(port));
                continue;
            };
            if let Some(kind) = self.replay(port, &bridge).await? {
                replay.handover = replay.handover.max(kind);
            }
            turned.push((port, bridge));
        }
        barrier().await;
        for (port, bridge) in turned {
            let mac = port.mac;
            arrival(mac, &bridge).await?;
            let finished = bridge.thread.ask(move |worker| worker.finish(mac)).await?;
            // No answer: it was not captured.
            if let Ok(part) = finished.await {
                add(&mut replay, &part);
            }
            self.watch_port(&sleeper.name, port, false).await?;
        }
        self.machines().remove(&sleeper.name);
        self.ordinary_later(sleeper);
        replay.took = start.elapsed();
        Ok(replay)
    }

    /// Forgets a machine, and drops what was held for it; says how many frames that were. Its
    /// addresses are the bridge's to find out again. Its taps, if they are there, are put back
    /// into their bridges, for a guest that shall run without the surrogate.
    ///
    /// # Errors
    /// When the bridge cannot be changed.
    pub async fn dismiss(&self, name: &MachineName) -> Result<u64, Error> {
        if let Err(error) = self.unwatch(name).await {
            tracing::debug!(machine = %name, error = chain(&error), "a bridge cannot be asked to stop listening");
        }
        let Some(machine) = self.machines().remove(name) else { return Ok(0) };
        let mut dropped = Ok(0);
        for port in &machine.ports {
            let part = self.dismiss_port(port).await;
            // The tap may be gone with the machine.
            if let Err(error) = self.put_back(port).await {
                tracing::debug!(tap = port.tap, error = chain(&error), "a tap is not put back");
            }
            dropped = dropped.and_then(|frames| Ok(frames + part?));
        }
        dropped
    }

    /// A captured machine's numbers.
    pub async fn status(&self, name: &MachineName) -> Option<Status> {
        let machine = self.machine(name)?;
        let mut sum: Option<Status> = None;
        for port in &machine.ports {
            let Some(bridge) = self.0.bridges().get(&port.bridge).cloned() else { continue };
            let mac = port.mac;
            let Ok(Some(part)) = bridge.thread.ask(move |worker| worker.status(mac)).await else { continue };
            match &mut sum {
                None => sum = Some(part),
                Some(sum) => merge(sum, part),
            }
        }
        let (held_frames, held_bytes) = machine.budget.used();
        let last_wake = machine.waker.get().map(|(at, why)| (shown(*at), why.clone()));
        sum.map(|sum| Status { held_frames, held_bytes, last_wake, ..sum })
    }

    /// What would become of a frame if it came now for the interface `mac` of a machine asleep. Changes
    /// nothing, asks no program, and takes no source for a scanner.
    pub async fn rehearse(&self, sleeper: &Sleeper, mac: MacAddr, ethernet: &[u8]) -> Rehearsal {
        let Some(port) = sleeper.ports.iter().find(|port| port.mac == mac) else {
            return Rehearsal::Ignored(format!("{} has no interface {mac}", sleeper.name));
        };
        let (mut persona, mut mtu) = (port.persona.clone(), ETHERNET_MTU);
        let bridge = self.0.bridges().get(&port.bridge).cloned();
        if let Some(bridge) = bridge {
            let given = persona.clone();
            let known = bridge.thread.ask(move |worker| (worker.persona(mac, given), worker.mtu())).await;
            (persona, mtu) = known.unwrap_or((persona, mtu));
            persona.flows = bridge.flows_of(mac).unwrap_or(persona.flows);
        }
        let who = Identity { mac, addresses: port.addresses.clone(), configured: port.configured };
        let (now, manners) = (clock(), Arc::new(self.manners(sleeper)));
        WireJudge::new(who, persona, manners, mtu, now).rehearse(ethernet, now)
    }

    /// After a restart, once every sleeper is stood in for: forgets the addresses that an earlier
    /// process stood in for and that nobody claims. Says how many.
    ///
    /// # Errors
    /// When the bridges cannot be asked or changed.
    pub async fn settle(&self) -> Result<usize, Error> {
        let what = "look for what an earlier process stood in for";
        let links = self.0.net.links().await.map_err(Error::net(what))?;
        let mut forgotten = 0;
        for port in links.iter().filter(|link| links::is_port(&self.0.settings.prefix, &link.name)) {
            let switch = self.0.net.switch_of(port).await.map_err(Error::net(what))?;
            let Some(switch) = switch else { continue };
            let claimed = self.claimed(port.index).await?;
            for mac in switch.diverted(port.index).await.map_err(Error::net(what))? {
                if !claimed.contains(&mac) {
                    switch.forget(mac, port.index).await.map_err(Error::net(what))?;
                    forgotten += 1;
                }
            }
        }
        Ok(forgotten)
    }
}

impl Surrogate {
    async fn stand_in_port(&self, sleeper: &Sleeper, port: &Port, machine: &Machine) -> Result<(), Error> {
        let bridge = self.bridge(&port.bridge).await?;
        // It is never closed.
        let _turn = self.0.standing_in.acquire().await;
        let tap = self.0.net.link(&port.tap).await.map_err(Error::net(format!("find tap {}", port.tap)))?;
        // The kernel takes milliseconds to take one down, and nobody else can change a link
        // meanwhile: not one that is down, as most are after a restart.
        if let Some(tap) = tap.as_ref().filter(|tap| tap.up)
            && let Err(error) = self.0.net.set_down(tap.index).await
        {
            tracing::warn!(machine = %sleeper.name, tap = port.tap, error = chain(&error),
                "cannot take down the tap of a sleeper");
        }
        let vlans = self.vlans_of(tap.as_ref(), &bridge).await?;
        // Tried again for another port: what is spoken and held for this one goes on.
        let (name, mac) = (sleeper.name.clone(), port.mac);
        if !bridge.thread.ask(move |worker| worker.stands_in(&name, mac)).await? {
            let older = taps::leftovers(port)?;
            if sleeper.will_boot {
                bridge.unfollow(port.mac);
            }
            let flows = bridge.flows_of(port.mac);
            let capture = capture_of((sleeper, port), machine, vlans.clone(), flows);
            let capture = Capture { anew: sleeper.will_boot, ..capture };
            bridge.thread.ask(move |worker| worker.stand_in(capture, older)).await?;
        }
        self.divert(port, &bridge, vlans.as_ref()).await
    }

    /// The bridge of a port of a guest that is woken. `None`: it is not there, but others are.
    async fn bridge_of(&self, sleeper: &Sleeper, port: &Port) -> Result<Option<Arc<Bridge>>, Error> {
        let missing = match self.bridge(&port.bridge).await {
            Ok(bridge) => return Ok(Some(bridge)),
            Err(error) => error,
        };
        for other in sleeper.ports.iter().filter(|other| other.bridge != port.bridge) {
            if self.bridge(&other.bridge).await.is_ok() {
                tracing::warn!(machine = %sleeper.name, error = chain(&missing),
                    "it is woken without one of its bridges");
                return Ok(None);
            }
        }
        Err(missing)
    }

    async fn watch_port(&self, name: &MachineName, port: &Port, afresh: bool) -> Result<(), Error> {
        let bridge = self.bridge(&port.bridge).await?;
        bridge.follow(port);
        let (name, mac, tap, persona) = (name.clone(), port.mac, port.tap.clone(), port.persona.clone());
        let watched =
            bridge.thread.ask(move |worker| worker.watch(name, mac, &tap, (persona, afresh))).await?;
        watched.map_err(Error::socket(&port.tap))
    }

    /// The addresses that are captured on the bridge with this `s0`.
    async fn claimed(&self, s0: u32) -> Result<HashSet<MacAddr>, Error> {
        for bridge in self.bridges() {
            if bridge.pair.s0 == s0 {
                return Ok(bridge.thread.ask(|worker| worker.captured()).await?.into_iter().collect());
            }
        }
        Ok(HashSet::new())
    }

    /// Starts a machine's capture, or goes on with it by what it wants now.
    fn enter(&self, sleeper: &Sleeper) -> Machine {
        let manners = Arc::new(self.manners(sleeper));
        let ports = sleeper.ports.iter().map(forgetful).collect();
        let mut machines = self.machines();
        let machine = machines.entry(sleeper.name.clone()).or_insert_with(|| Machine {
            ports: Vec::new(),
            manners: manners.clone(),
            budget: Budget::new(sleeper.limits, self.0.held.clone()),
            waker: Waker::default(),
        });
        machine.budget.limit(sleeper.limits);
        (machine.ports, machine.manners) = (ports, manners);
        machine.clone()
    }

    fn manners(&self, sleeper: &Sleeper) -> Manners {
        let programs = sleeper.externals.iter().filter_map(|rule| {
            let program = self.0.externals.get(&rule.program);
            if program.is_none() {
                tracing::warn!(machine = %sleeper.name, program = rule.program, "no such responder");
            }
            let frames = rule.frames.as_slice().into();
            program.map(|program| Asked { name: rule.program.clone(), frames, program: program.clone() })
        });
        Manners {
            name: sleeper.name.clone(),
            wake: sleeper.wake.as_slice().into(),
            ignore: sleeper.ignore.as_slice().into(),
            services: sleeper.services.as_slice().into(),
            programs: programs.collect(),
            policy: sleeper.policy,
            secret: self.0.secret,
        }
    }

    fn is_captured(&self, mac: MacAddr) -> bool {
        self.machines().values().flat_map(|machine| &machine.ports).any(|port| port.mac == mac)
    }

    fn machine(&self, name: &MachineName) -> Option<Machine> {
        self.machines().get(name).cloned()
    }

    fn machines(&self) -> MutexGuard<'_, HashMap<MachineName, Machine>> {
        self.0.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port as it is kept. A descriptor of a queue keeps the tap in use, so that it is only held while
/// it is looked at; and the persona is with the port's thread.
fn forgetful(port: &Port) -> Port {
    Port { queue: None, persona: Persona::default(), ..port.clone() }
}

/// The same for all ports of a sleeper.
fn without_queues(sleeper: &Sleeper) -> Sleeper {
    let mut sleeper = sleeper.clone();
    sleeper.ports.iter_mut().for_each(|port| *port = forgetful(port));
    sleeper
}

fn capture_of(
    (sleeper, port): (&Sleeper, &Port),
    machine: &Machine,
    vlans: Option<Vlans>,
    flows: Option<Vec<Flow>>,
) -> Capture {
    Capture {
        name: sleeper.name.clone(),
        who: Identity { mac: port.mac, addresses: port.addresses.clone(), configured: port.configured },
        vlans,
        persona: port.persona.clone(),
        anew: false,
        flows,
        manners: machine.manners.clone(),
        queue: ReplayQueue::new(machine.budget.clone()),
        waker: machine.waker.clone(),
    }
}

/// Adds a port's numbers to those of the machine.
fn merge(sum: &mut Status, part: Status) {
    sum.dropped.merge(&part.dropped);
    for (by, frames) in part.answered {
        *sum.answered.entry(by).or_default() += frames;
    }
    for (kind, noted) in part.ignored {
        match sum.ignored.entry(kind) {
            Entry::Vacant(none) => drop(none.insert(noted)),
            Entry::Occupied(mut sum) => {
                let frames = sum.get().frames + noted.frames;
                let last = if noted.at >= sum.get().at { noted } else { sum.get().clone() };
                sum.insert(Noted { frames, ..last });
            }
        }
    }
}

fn add(replay: &mut Replay, part: &PortReplay) {
    replay.frames += part.frames;
    replay.bytes += part.bytes;
    replay.dropped.merge(&part.dropped);
    replay.duplicates_suppressed += part.suppressed;
}

/// Until the frames counted on the bridge port have come, or are taken for lost.
async fn arrival(mac: MacAddr, bridge: &Bridge) -> Result<(), Error> {
    let deadline = Instant::now() + ARRIVAL_PATIENCE;
    while bridge.thread.ask(move |worker| worker.under_way(mac)).await?.is_some_and(|frames| frames > 0) {
        if Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(SETTLE).await;
    }
    Ok(())
}

/// Until frames that were being forwarded by an earlier state of the bridge have arrived.
async fn barrier() {
    let waited = tokio::task::spawn_blocking(dormouse_sys::membarrier_global).await;
    if !matches!(waited, Ok(Ok(()))) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(SETTLE).await;
}
