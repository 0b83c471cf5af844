//! What is known of a machine, as the API tells it.

use std::collections::BTreeMap;

use dormouse_api_types::{
    Abilities, Held, Hold, Ignored, Interface, Keep, LastWake, MachineDetail, MachineSummary, Problem,
    ProblemKind, Service, Signal, Time, WakeTest, WakeTestRequest, WakeVerdict, Why, millis,
};
use dormouse_machine::{hold, idle, lifecycle::State};
use dormouse_platform::Facts;
use dormouse_surrogate::{Noted, Port, Rehearsal, Sleeper, Status};
use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{Identity, frame_from_text};

use crate::driver::{Handle, Shared, View, addresses, cause_parts, state_of};

/// A machine in a list.
pub(super) async fn summary(shared: &Shared, handle: &Handle) -> MachineSummary {
    let facts = handle.instance.facts().await;
    summarize(handle, &handle.view(), &facts, shared.clock.now())
}

fn summarize(handle: &Handle, view: &View, facts: &Facts, now: Timestamp) -> MachineSummary {
    let interfaces = handle.spec.interfaces.iter();
    let idle_since = view.idle.as_ref().and_then(|verdict| verdict.idle_since);
    MachineSummary {
        name: handle.name.clone(),
        state: state_of(&view.state),
        depth: view.depth(),
        since: view.since.into(),
        platform: Some(handle.spec.platform.word().into()),
        memory_bytes: handle.spec.platform.memory(),
        resident_bytes: facts.resident_bytes,
        standby_bytes: facts.standby_bytes,
        absent: view.absent.clone(),
        idle_for_ms: idle_since.map(|since| millis(now.since(since))),
        holds: u64::try_from(view.holds.blocking(now).count()).unwrap_or(u64::MAX),
        addresses: interfaces.flat_map(|i| addresses(&handle.spec, &view.learned, i.mac)).collect(),
    }
}

/// All that is known of a machine.
pub(super) async fn detail(shared: &Shared, handle: &Handle) -> MachineDetail {
    let facts = handle.instance.facts().await;
    let (view, now) = (handle.view(), shared.clock.now());
    let interface = |i: &dormouse_machine::spec::InterfaceSpec| Interface {
        mac: i.mac,
        bridge: i.bridge.clone(),
        tap: view.taps.get(&i.mac).cloned(),
        addresses: addresses(&handle.spec, &view.learned, i.mac),
    };
    let abilities = handle.instance.capabilities();
    let (toml, base) = view.file.clone();
    MachineDetail {
        summary: summarize(handle, &view, &facts, now),
        failure: view.failure(),
        unreachable: unreachable(&view),
        owner: handle.spec.owner.clone(),
        labels: handle.spec.labels.clone(),
        toml,
        base,
        pid: facts.pid,
        disk_bytes: facts.disk_bytes,
        console: facts.console,
        interfaces: handle.spec.interfaces.iter().map(interface).collect(),
        hold_list: holds(&view, now),
        abilities: Abilities {
            depths: abilities.depths,
            obstacles: abilities.obstacles.iter().map(ToString::to_string).collect(),
            lazy_memory: abilities.lazy_memory,
        },
    }
}

/// Since when a machine's platform cannot be asked, and why, if that is so.
fn unreachable(view: &View) -> Option<String> {
    let (since, why) = view.unreachable.as_ref()?;
    Some(format!("its platform cannot be asked since {}: {why}", Time::from(*since)))
}

/// Why a machine is where it is.
pub(super) async fn why(shared: &Shared, handle: &Handle) -> Why {
    let status = shared.presence.status(&handle.name).await;
    let (view, now) = (handle.view(), shared.clock.now());
    let status = status.or_else(|| view.last_status.clone());
    let verdict = view.idle.as_ref();
    let is_unaddressed = view.state == State::Active && view.unaddressed.all();
    let unaddressed = view.unaddressed.explain().filter(|_| is_unaddressed);
    Why {
        machine: handle.name.clone(),
        state: state_of(&view.state),
        depth: view.depth(),
        since: view.since.into(),
        cause: view.reason.clone(),
        failure: view.failure(),
        signals: verdict.map_or_else(Vec::new, |verdict| verdict.signals.iter().map(signal).collect()),
        holds: holds(&view, now),
        keeps: view.keeps.iter().map(keep).collect(),
        obstacles: unreachable(&view)
            .into_iter()
            .chain(view.absent.clone())
            .chain(unaddressed)
            .chain(view.no_room.clone())
            .collect(),
        budgets: Vec::new(),
        makes_room: None,
        needs_room: None,
        would_sleep_at: view.sleeps_at.map(|(at, _)| at.into()),
        would_sleep_depth: view.sleeps_at.map(|(_, depth)| depth),
        policy: view.plan.clone(),
        would_wake_at: view.wakes_at.map(Time::from),
        last_wake: last_wake(&view),
        would_wake: would_wake(handle, &view.state),
        answered: status.as_ref().map_or_else(BTreeMap::new, answered),
        ignored: status.as_ref().map_or_else(Vec::new, ignored),
        services: handle.spec.services.iter().map(service).collect(),
        held: held(status.as_ref(), &view),
        dropped: status.as_ref().map_or_else(BTreeMap::new, dropped),
    }
}

/// Frames wake who has somebody to stand in for it, and an interface that they come by.
fn would_wake(handle: &Handle, state: &State) -> Vec<String> {
    let is_past_waking = matches!(state, State::Stopped | State::Suspended { .. } | State::Failed { .. });
    if is_past_waking || handle.spec.interfaces.is_empty() {
        return Vec::new();
    }
    handle.spec.wake.on.iter().map(ToString::to_string).collect()
}

fn holds(view: &View, now: Timestamp) -> Vec<Hold> {
    let told = |hold: &hold::Hold| Hold {
        id: hold.id,
        reason: hold.reason.clone(),
        since: hold.since.into(),
        until: hold.until.map(Time::from),
    };
    view.holds.blocking(now).map(told).collect()
}

fn signal(signal: &idle::Signal) -> Signal {
    Signal {
        name: signal.name.clone().into_owned(),
        value: signal.value,
        threshold: signal.threshold,
        unit: signal.unit.into(),
        busy: signal.busy,
        since: Some(signal.since.into()),
        until: signal.ends.map(|(end, _)| end.into()),
        detail: signal.detail.clone(),
    }
}

fn keep(keep: &idle::Keep) -> Keep {
    Keep { kind: keep.what.into(), why: keep.why.clone(), until: keep.until.map(Time::from) }
}

fn last_wake(view: &View) -> Option<LastWake> {
    let wake = view.last_wake.as_ref()?;
    let (cause, detail) = cause_parts(&wake.cause);
    Some(LastWake {
        cause: cause.into(),
        frame: detail.map(str::to_owned),
        at: wake.at.into(),
        took_ms: wake.took.map(millis),
    })
}

fn answered(status: &Status) -> BTreeMap<String, u64> {
    status.answered.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
}

fn ignored(status: &Status) -> Vec<Ignored> {
    let told = |(reason, noted): (&String, &Noted)| Ignored {
        reason: reason.clone(),
        frames: noted.frames,
        last: noted.last.clone(),
        at: noted.at.into(),
    };
    status.ignored.iter().map(told).collect()
}

fn service(service: &dormouse_types::Service) -> Service {
    Service { port: service.port, answer: service.kind.as_str().into(), wakes: service.wakes }
}

/// What would become of the frame that `request` describes, if the machine slept.
pub(super) async fn wake_test(
    shared: &Shared,
    handle: &Handle,
    request: &WakeTestRequest,
) -> Result<WakeTest, Problem> {
    let sleeper = handle.sleeper(&shared.config);
    let port = wake_test_port(&sleeper, request.interface)?;
    let who = Identity { mac: port.mac, addresses: port.addresses.clone(), configured: port.configured };
    let frame = frame_from_text(&request.frame, &who)
        .map_err(|error| Problem::new(ProblemKind::Invalid, error.to_string()).key("frame"))?;
    let (verdict, by) = match shared.presence.rehearse(&sleeper, port.mac, &frame).await {
        Rehearsal::Wakes(by) => (WakeVerdict::Wakes, by),
        Rehearsal::Answered(by) => (WakeVerdict::Answered, by),
        Rehearsal::Held(by) => (WakeVerdict::Held, by),
        Rehearsal::Ignored(by) => (WakeVerdict::Ignored, by),
        Rehearsal::Asked(by) => (WakeVerdict::Asked, by),
    };
    Ok(WakeTest {
        machine: handle.name.clone(),
        interface: port.mac,
        frame: dormouse_wire::summary(&frame),
        verdict,
        by,
    })
}

fn wake_test_port(sleeper: &Sleeper, interface: Option<MacAddr>) -> Result<&Port, Problem> {
    let invalid = |detail| Problem::new(ProblemKind::Invalid, detail).key("interface");
    let macs: Vec<_> = sleeper.ports.iter().map(|port| port.mac.to_string()).collect();
    let name = &sleeper.name;
    match (&*sleeper.ports, interface) {
        ([], _) => Err(invalid(format!("{name} has no interface, so that no frame can come"))),
        ([only], None) => Ok(only),
        (_, None) => {
            Err(invalid(format!("{name} has several interfaces: say which, of {}", macs.join(", "))))
        }
        (ports, Some(mac)) => ports
            .iter()
            .find(|port| port.mac == mac)
            .ok_or_else(|| invalid(format!("{mac} is no interface of {name}; it has {}", macs.join(", ")))),
    }
}

fn dropped(status: &Status) -> BTreeMap<String, u64> {
    status.dropped.iter().map(|(reason, count)| (reason.as_str().to_owned(), count)).collect()
}

/// What is held now: a status that was kept from the last sleep says nothing of that.
fn held(status: Option<&Status>, view: &View) -> Held {
    let is_captured = !matches!(view.state, State::Active | State::Stopped | State::Failed { .. });
    let status = status.filter(|_| is_captured);
    status.map_or_else(Held::default, |s| Held { frames: s.held_frames, bytes: s.held_bytes })
}
