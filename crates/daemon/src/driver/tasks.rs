//! Each task of the lifecycle as a future that asks the platform or the surrogate.

use std::{collections::BTreeMap, future::Future, net::IpAddr, sync::Arc, time::Duration};

use dormouse_machine::{lifecycle::Task, meter, spec::MachineSpec};
use dormouse_platform::Instance;
use dormouse_surrogate::{ExternalRule, HandoverKind, Limits, Port, Replay, Sleeper, Status};
use dormouse_types::{MacAddr, MachineName};
use dormouse_wire::{Persona, Policy};
use tokio::sync::watch;

use super::Shared;
use crate::{
    chain::chain,
    config::Config,
    fault::{Edge, Step},
};

/// What a task needs to know, as it was when the task was given.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) shared: Shared,
    pub(super) instance: Arc<dyn Instance>,
    pub(super) spec: Arc<MachineSpec>,
    pub(super) learned: BTreeMap<MacAddr, Vec<IpAddr>>,
    pub(super) personas: BTreeMap<MacAddr, Persona>,
    /// How long a guest may take to shut down.
    pub(super) patience: Duration,
    /// Counts how often the guest was heard first, or is no longer waited for.
    pub(super) heard: watch::Receiver<u64>,
    /// The interfaces go when the machine is dismissed.
    pub(super) detach: bool,
    /// It sleeps at depth off, or is on its way there or from there.
    pub(super) will_boot: bool,
}

/// What a task found out.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// The interfaces, if they were attached.
    pub(super) ports: Option<Vec<dormouse_platform::Port>>,
    /// What the surrogate did in the sleep that is over.
    pub(super) status: Option<Status>,
    /// Why some of the interfaces are not stood in for, though others are.
    pub(super) unanswered: Option<String>,
    /// What was measured.
    pub(super) figures: BTreeMap<String, f64>,
}

pub(super) type Outcome = Result<Output, Failure>;

/// Why a task failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) why: String,
    /// The platform went away: it may be done all the same.
    pub(super) is_unanswered: bool,
}

impl Failure {
    pub(super) const fn new(why: String) -> Self {
        Self { why, is_unanswered: false }
    }

    /// What a platform or the surrogate says.
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let is_unanswered =
            matches!(error.downcast_ref(), Some(dormouse_platform::Error::Unreachable { .. }));
        Self { why: chain(error), is_unanswered }
    }
}

/// Interfaces that are there, or are known.
struct Attached(Vec<dormouse_platform::Port>);

impl Attached {
    fn output(self) -> Output {
        Output { ports: Some(self.0), ..Output::default() }
    }
}

impl Context {
    /// Carries out a task other than `Journal`.
    pub(super) async fn carry_out(self, task: Task) -> Outcome {
        let fault = self.shared.fault;
        fault.reach(Step::Task(task), Edge::Before);
        let output = self.dispatch(task).await?;
        fault.reach(Step::Task(task), Edge::After);
        Ok(output)
    }

    async fn dispatch(self, task: Task) -> Outcome {
        let instance = Arc::clone(&self.instance);
        match task {
            // The driver writes the record itself.
            Task::Journal => Ok(Output::default()),
            Task::Watch => self.watch().await,
            Task::Capture => self.capture().await,
            Task::Drain => self.drain().await,
            Task::StandIn => self.stand_in().await,
            Task::Prepare => self.prepare().await,
            Task::Release => self.release().await,
            Task::Dismiss => self.dismiss().await,
            Task::AwaitGuest => self.await_guest().await,
            Task::Boot => self.boot().await,
            Task::Load => plain(instance.load()).await,
            Task::Resume => plain(instance.resume()).await,
            Task::Pause => plain(instance.pause()).await,
            Task::Suspend => plain(instance.suspend(self.patience)).await,
            Task::Save => plain(instance.save()).await,
            Task::Flush => plain(instance.flush()).await,
            Task::Quit => self.quit().await,
            Task::PowerDown => plain(instance.power_down(self.patience)).await,
            Task::Kill => plain(instance.kill()).await,
            Task::DiscardState => plain(instance.discard_state()).await,
        }
    }

    fn name(&self) -> &MachineName {
        &self.spec.name
    }

    /// The interfaces on the host, made if they are missing. Cheap when they are there.
    async fn attach(&self) -> Result<Attached, Failure> {
        self.instance.attach().await.map(Attached).map_err(|e| Failure::of(&e))
    }

    fn ports(&self, attached: &Attached) -> Vec<Port> {
        let known = Known { learned: &self.learned, personas: &self.personas };
        let port = |port: &dormouse_platform::Port| Port {
            bridge: port.bridge.clone(),
            tap: port.tap.clone(),
            queue: port.queue.clone(),
            ..known.port(&self.spec, port.mac)
        };
        attached.0.iter().map(port).collect()
    }

    fn sleeper(&self, attached: &Attached) -> Sleeper {
        let sleeper = sleeper(&self.spec, &self.shared.config, self.ports(attached));
        Sleeper { will_boot: self.will_boot, ..sleeper }
    }

    async fn boot(self) -> Outcome {
        let late = self.instance.shape().late_interfaces;
        let early = if late { None } else { Some(self.attach().await?) };
        self.instance.boot().await.map_err(|e| Failure::of(&e))?;
        let attached = match early {
            Some(attached) => attached,
            None => self.attach().await?,
        };
        Ok(attached.output())
    }

    async fn watch(self) -> Outcome {
        let attached = self.attach().await?;
        let ports = self.ports(&attached);
        self.shared.presence.watch(self.name(), &ports).await.map_err(|e| Failure::of(&e))?;
        Ok(attached.output())
    }

    async fn capture(self) -> Outcome {
        let attached = self.attach().await?;
        let sleeper = self.sleeper(&attached);
        self.shared.presence.capture(&sleeper).await.map_err(|e| Failure::of(&e))?;
        // What it used since it was sampled: its process may be gone before it is again.
        if let Ok(counters) = self.instance.counters().await {
            self.shared.meters.tell(self.name(), meter::Event::Counter(counters.cpu));
        }
        Ok(attached.output())
    }

    async fn drain(self) -> Outcome {
        let attached = self.attach().await?;
        let grace = self.spec.sleep.grace.unwrap_or(self.shared.config.sleep.drain_grace.get());
        plain(self.shared.presence.drain(&self.sleeper(&attached), grace)).await
    }

    async fn stand_in(self) -> Outcome {
        let attached = self.instance.ports().await.map(Attached).map_err(|e| Failure::of(&e))?;
        let sleeper = self.sleeper(&attached);
        let missing = self.shared.presence.stand_in(&sleeper).await.map_err(|e| Failure::of(&e))?;
        Ok(Output { unanswered: missing.map(|e| chain(&e)), ..attached.output() })
    }

    async fn prepare(self) -> Outcome {
        let attached = self.attach().await?;
        plain(self.shared.presence.prepare(&self.sleeper(&attached))).await
    }

    async fn release(self) -> Outcome {
        let attached = self.attach().await?;
        let sleeper = self.sleeper(&attached);
        let status = self.shared.presence.status(self.name()).await;
        let replay = self.shared.presence.release(&sleeper).await.map_err(|e| Failure::of(&e))?;
        let status = status.map(|status| Status { dropped: replay.dropped.clone(), ..status });
        Ok(Output { figures: replay_figures(&replay), status, ..attached.output() })
    }

    async fn dismiss(self) -> Outcome {
        let dropped = self.shared.presence.dismiss(self.name()).await.map_err(|e| Failure::of(&e))?;
        if self.detach
            && let Err(error) = self.instance.detach().await
        {
            // What is left over is found and used by the next start.
            tracing::warn!(machine = %self.name(), error = chain(&error), "interfaces were left behind");
        }
        let figures = BTreeMap::from([("dropped_frames".to_owned(), float(dropped))]);
        let ports = self.detach.then(Vec::new);
        Ok(Output { figures, ports, ..Output::default() })
    }

    async fn await_guest(mut self) -> Outcome {
        let ports = self.ports(&self.attach().await?);
        if ports.is_empty() {
            // It will never be heard.
            return Ok(Output::default());
        }
        self.heard.mark_unchanged();
        self.shared.presence.watch(self.name(), &ports).await.map_err(|e| Failure::of(&e))?;
        let patience = self.spec.wake.boot_timeout.unwrap_or(self.shared.config.sleep.boot_timeout.get());
        let heard = tokio::time::timeout(patience, self.heard.changed()).await.is_ok();
        if !heard {
            tracing::warn!(machine = %self.name(), ?patience, "was not heard on the network since its boot");
        }
        Ok(Output::default())
    }

    /// The machine is asleep already, so there is time to see what its end gives back.
    async fn quit(self) -> Outcome {
        let before = self.instance.facts().await.resident_bytes;
        self.instance.quit().await.map_err(|e| Failure::of(&e))?;
        let after = self.instance.facts().await.resident_bytes;
        let (Some(before), Some(after)) = (before, after) else { return Ok(Output::default()) };
        self.shared.meters.tell(self.name(), meter::Event::Freed { before, after });
        let figures = BTreeMap::from([("freed_bytes".to_owned(), float(before.saturating_sub(after)))]);
        Ok(Output { figures, ..Output::default() })
    }
}

/// What is known of a machine's interfaces beside its file.
pub(crate) struct Known<'a> {
    pub(crate) learned: &'a BTreeMap<MacAddr, Vec<IpAddr>>,
    pub(crate) personas: &'a BTreeMap<MacAddr, Persona>,
}

impl Known<'_> {
    /// An interface as far as it is known without its tap.
    pub(crate) fn port(&self, spec: &MachineSpec, mac: MacAddr) -> Port {
        Port {
            mac,
            bridge: String::new(),
            tap: String::new(),
            queue: None,
            addresses: addresses(spec, self.learned, mac),
            configured: !configured(spec, mac).is_empty(),
            persona: self.personas.get(&mac).cloned().unwrap_or_default(),
        }
    }
}

/// A machine as the surrogate is to stand in for it.
pub(crate) fn sleeper(spec: &MachineSpec, config: &Config, ports: Vec<Port>) -> Sleeper {
    let (ours, limits) = (&spec.limits, &config.limits);
    let or = |default| u64::try_from(default).unwrap_or(u64::MAX);
    Sleeper {
        name: spec.name.clone(),
        ports,
        wake: spec.wake.on.clone(),
        ignore: spec.wake.ignore.clone(),
        services: spec.services.clone(),
        externals: externals(spec, config),
        policy: Policy { lease: spec.wake.lease },
        will_boot: false,
        limits: Limits {
            frames: ours.queue_frames.map_or_else(|| or(limits.held_frames), u64::from),
            bytes: ours.queue_bytes.unwrap_or_else(|| or(limits.held_bytes)),
        },
    }
}

async fn plain<E: std::error::Error + 'static>(call: impl Future<Output = Result<(), E>>) -> Outcome {
    call.await.map(|()| Output::default()).map_err(|e| Failure::of(&e))
}

/// The addresses of an interface: those of the machine file, else the learned ones.
pub(crate) fn addresses(
    spec: &MachineSpec,
    learned: &BTreeMap<MacAddr, Vec<IpAddr>>,
    mac: MacAddr,
) -> Vec<IpAddr> {
    let written = Some(configured(spec, mac)).filter(|a| !a.is_empty()).map(<[_]>::to_vec);
    written.or_else(|| learned.get(&mac).cloned()).unwrap_or_default()
}

/// The addresses of an interface that the machine file gives it.
fn configured(spec: &MachineSpec, mac: MacAddr) -> &[IpAddr] {
    spec.interfaces.iter().find(|i| i.mac == mac).map(|i| &*i.addresses).unwrap_or_default()
}

/// The programs that are asked for a machine. One that the configuration no longer knows is not: its
/// frames are held.
fn externals(spec: &MachineSpec, config: &Config) -> Vec<ExternalRule> {
    let known = spec.responders.iter().filter(|responder| config.responder.contains_key(&responder.name));
    known
        .map(|responder| ExternalRule { program: responder.name.clone(), frames: responder.frames.clone() })
        .collect()
}

fn replay_figures(replay: &Replay) -> BTreeMap<String, f64> {
    [
        ("replayed_frames", float(replay.frames)),
        ("replayed_bytes", float(replay.bytes)),
        ("dropped_frames", float(replay.dropped.lost())),
        ("duplicates_suppressed", float(replay.duplicates_suppressed)),
        ("handover_ebpf", f64::from(u8::from(replay.handover == HandoverKind::Ebpf))),
        ("replay_ms", replay.took.as_secs_f64() * 1e3),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// A count as events carry it.
#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53, beyond any count here")]
pub(super) const fn float(count: u64) -> f64 {
    count as f64
}
