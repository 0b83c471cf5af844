//! The design's invariants under random events, failures and crashes.

use dormouse_machine::lifecycle::{Cause, Command, Event, Process, State, Task};
use dormouse_types::Depth;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use crate::world::{Act, Outcome, SHAPES, SHARED, World};

#[derive(Clone, Debug)]
enum Op {
    Answer(usize, Outcome),
    Idle(Depth),
    Deeper(Depth),
    Hold,
    Command(Command),
    Frame(bool),
    Spawned,
    GuestShutdown,
    Die,
    Tick,
    LoseBridge,
    Back,
    Crash(u32),
    /// Others do something; is it told at once?
    Others(Act, bool),
    Tell,
    CutOff,
    Reconnect,
    AnswerLook,
}

fn depth() -> impl Strategy<Value = Depth> {
    prop::sample::select(Depth::ALL.to_vec())
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => Just(Command::Start { cold: false }),
        1 => Just(Command::Start { cold: true }),
        1 => any::<bool>().prop_map(|force| Command::Stop { force }),
        3 => depth().prop_map(Command::Sleep),
        2 => Just(Command::Wake),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        40 => (0usize..4).prop_map(|i| Op::Answer(i, Outcome::Good)),
        2 => (0usize..4).prop_map(|i| Op::Answer(i, Outcome::Failed)),
        2 => (0usize..4).prop_map(|i| Op::Answer(i, Outcome::FailedLate)),
        3 => (0usize..4).prop_map(|i| Op::Answer(i, Outcome::Partly)),
        4 => depth().prop_map(Op::Idle),
        2 => depth().prop_map(Op::Deeper),
        1 => Just(Op::Hold),
        4 => command().prop_map(Op::Command),
        6 => any::<bool>().prop_map(Op::Frame),
        1 => Just(Op::Spawned),
        1 => Just(Op::GuestShutdown),
        1 => Just(Op::Die),
        1 => Just(Op::Tick),
        1 => Just(Op::LoseBridge),
        1 => Just(Op::Back),
        1 => any::<u32>().prop_map(Op::Crash),
        4 => Just(Op::AnswerLook),
    ]
}

/// What may happen on a platform that others use as well.
fn shared_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => op(),
        2 => (prop::sample::select(Act::ALL.to_vec()), any::<bool>()).prop_map(|(act, told)| Op::Others(act, told)),
        1 => (0usize..4, prop::sample::select(vec![Outcome::Lost, Outcome::LostLate]))
            .prop_map(|(i, outcome)| Op::Answer(i, outcome)),
        1 => Just(Op::Tell),
        1 => Just(Op::CutOff),
        1 => Just(Op::Reconnect),
    ]
}

fn apply(world: &mut World, op: Op) {
    match op {
        Op::Answer(index, outcome) => world.answer(index, outcome),
        Op::Idle(depth) => world.event(Event::Idle(depth)),
        Op::Deeper(depth) => world.event(Event::Deeper(depth)),
        Op::Hold => world.event(Event::Wanted(Cause::Hold("backup".into()))),
        Op::Command(command) => drop(world.command(command)),
        Op::Frame(wakes) => world.frame(wakes),
        Op::Spawned => world.event(Event::Spawned),
        Op::GuestShutdown => world.shut_down_guest(),
        Op::Die => world.die(),
        Op::Tick => world.tick(),
        Op::LoseBridge => world.lose_bridge(),
        Op::Back => world.event(Event::Back),
        Op::Crash(done) => world.crash(done),
        Op::Others(act, told) => world.others(act, told),
        Op::Tell => world.tell(),
        Op::CutOff => world.cut_off(),
        Op::Reconnect => world.reconnect(),
        Op::AnswerLook => world.answer_look(),
    }
}

proptest! {
    // A thousand by default; `PROPTEST_CASES=25000` makes it a hundred thousand.
    #![proptest_config(Config { cases: Config::default().cases * 4, ..Config::default() })]

    /// Invariants 1, 2, 4 and 5 are checked by the world at every step; and it always settles.
    #[test]
    fn hold_whatever_happens(
        shape in prop::sample::select(SHAPES.to_vec()),
        ops in prop::collection::vec(op(), 0..150),
    ) {
        let mut world = World::active_on(shape);
        for op in ops {
            apply(&mut world, op);
        }
        world.calm();
    }
}

proptest! {
    #![proptest_config(Config { cases: Config::default().cases * 4, ..Config::default() })]

    /// As above, with others who do what they like: nothing runs twice from one state, no frame is lost
    /// uncounted, and the lifecycle ends where the world is.
    #[test]
    fn hold_whatever_others_do(ops in prop::collection::vec(shared_op(), 0..150)) {
        let mut world = World::active_on(SHARED);
        for op in ops {
            apply(&mut world, op);
        }
        world.calm();
    }
}

/// Every instant of every sleep, with the number of its tasks that were answered.
fn settling() -> impl Iterator<Item = (Depth, usize, World)> {
    let kinds = SHAPES.into_iter().flat_map(|shape| Depth::ALL.map(|depth| (shape, depth)));
    kinds.flat_map(|(shape, depth)| {
        let mut world = World::active_on(shape);
        world.event(Event::Idle(depth));
        let next = |world: &World| {
            let mut world = world.clone();
            world.answer(0, Outcome::Good);
            Some(world)
        };
        let instants = std::iter::successors(Some(world), next).enumerate();
        instants
            .take_while(|(_, world)| world.state().word() == "settling")
            .map(move |(steps, world)| (depth, steps, world))
    })
}

/// Invariant 3: wanted at any step before the point of no return, the guest runs on.
#[test]
fn a_wanted_sleep_is_undone() {
    for (depth, steps, start) in settling() {
        for packet in [false, true] {
            let mut world = start.clone();
            if packet {
                world.frame(true);
            } else {
                world.event(Event::Wanted(Cause::Command));
            }
            world.calm();
            // A packet that comes before the capture goes to the guest and wakes nothing.
            if packet && steps < 2 {
                assert_eq!(world.state(), &State::Asleep { depth });
                continue;
            }
            assert_eq!(world.state(), &State::Active, "{depth} {steps}: {:#?}", world.history);
            let is_over = steps >= 5 && start.shape.save_ends_process && depth == Depth::Saved;
            if !is_over && (depth != Depth::Off || steps < 2) {
                assert_eq!(world.births, start.births);
                assert!(world.history.iter().any(|state| state.word() == "undoing"));
            }
        }
    }
}

/// Invariant 3: whichever step fails before the point of no return, the guest runs on.
#[test]
fn a_failed_sleep_is_undone() {
    for (depth, steps, start) in settling() {
        for outcome in [Outcome::Failed, Outcome::FailedLate] {
            // A guest that shut down, though late, cannot run on.
            if depth == Depth::Off && (steps > 2 || (steps == 2 && outcome == Outcome::FailedLate)) {
                continue;
            }
            // Nor can one whose process its save has ended: it sleeps.
            if start.process == Process::Absent {
                continue;
            }
            let mut world = start.clone();
            world.answer(0, outcome);
            world.calm();
            assert_eq!(world.state(), &State::Active, "{depth} {steps}: {:#?}", world.history);
            assert_eq!((world.births, world.process), (start.births, Process::Running));
        }
    }
}

/// The random walks reach every corner; else the invariants above would hold for nothing.
#[test]
fn random_walks_go_everywhere() {
    let mut runner = TestRunner::deterministic();
    let walks = prop::collection::vec(op(), 150);
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for walk in 0..1400 {
        let mut world = World::active_on(SHAPES[walk % SHAPES.len()]);
        for op in walks.new_tree(&mut runner).unwrap().current() {
            apply(&mut world, op);
        }
        world.calm();
        for pair in world.history.windows(2) {
            *seen.entry(format!("{} {}", describe(&pair[0]), describe(&pair[1]))).or_default() += 1;
        }
        if world.hurried {
            *seen.entry("hurry".into()).or_default() += 1;
        }
    }
    for expected in [
        "hurry",
        "settling-paused undoing",
        "settling-pmsuspended undoing",
        "asleep-pmsuspended waking-pmsuspended",
        "waking-pmsuspended active",
        "settling-saved undoing",
        "settling-off undoing",
        "settling-paused asleep-paused",
        "settling-saved asleep-saved",
        "settling-off asleep-off",
        "asleep-paused waking-paused",
        "asleep-paused settling-saved",
        "settling-saved asleep-paused",
        "asleep-saved waking-saved",
        "asleep-off waking-off",
        "waking-paused active",
        "waking-saved active",
        "waking-off active",
        "waking-stopped active",
        "waking-saved failed-kept",
        "waking-saved failed-lost",
        "waking-off failed-lost",
        "failed-kept waking-saved",
        "failed-lost waking-stopped",
        "undoing failed-lost",
        "undoing active",
        "active stopped",
        "active failed-lost",
        "stopping active",
        "stopping stopped",
    ] {
        assert!(seen.contains_key(expected), "{expected} is not reached: {seen:#?}");
    }
}

fn describe(state: &State) -> String {
    match state {
        State::Settling { depth, .. } | State::Asleep { depth } => format!("{state}-{depth}"),
        State::Waking { from, .. } => {
            format!("{state}-{}", from.map_or("stopped", Depth::as_str))
        }
        State::Failed { state_kept, .. } => format!("{state}-{}", if *state_kept { "kept" } else { "lost" }),
        _ => state.to_string(),
    }
}

/// A guest that dies or shuts down at any step leaves nothing dangling, and what was committed is kept.
#[test]
fn a_guest_may_end_at_any_step() {
    for (shape, depth) in SHAPES.into_iter().flat_map(|shape| Depth::ALL.map(|depth| (shape, depth))) {
        for steps in 0..24 {
            for shutdown in [false, true] {
                let mut world = World::active_on(shape);
                world.event(Event::Idle(depth));
                for step in 0..steps {
                    if step == 12 {
                        world.event(Event::Wanted(Cause::Command));
                    }
                    world.answer(0, Outcome::Good);
                }
                let process = world.process;
                if shutdown {
                    world.shut_down_guest()
                } else {
                    world.die()
                }
                world.calm();
                let saved = matches!(world.state(), State::Asleep { depth: Depth::Saved });
                let kept = matches!(world.state(), State::Failed { state_kept: true, .. });
                let ended = matches!(world.state(), State::Stopped | State::Failed { .. });
                let powering_down = depth == Depth::Off && matches!(world.state(), State::Asleep { .. });
                let unaffected = process == Process::Absent || shutdown && process != Process::Running;
                assert!(
                    unaffected || saved || kept || ended || powering_down,
                    "{depth} {steps} {:#?}",
                    world.history
                );
            }
        }
    }
}

#[test]
fn a_failed_write_of_what_is_so_is_tried_again() {
    let mut world = World::stopped();
    world.command(Command::Start { cold: false }).unwrap();
    while world.pending.first().is_none_or(|(_, state)| state != &Some(State::Active)) {
        world.answer(0, Outcome::Good);
    }
    world.answer(0, Outcome::Failed);
    assert_eq!(world.state(), &State::Active);
    assert!(!world.life.settled() && world.pending.is_empty());
    assert!(world.life.next_deadline().unwrap() > world.now);
    world.event(Event::Tick);
    assert!(world.pending.is_empty(), "not before its time");
    let before = world.clone();
    world.tick();
    assert!(world.is_pending(Task::Journal));
    world.calm();
    // A clock that was set back by a day delays it no longer than that.
    let mut world = before;
    world.now = dormouse_types::Timestamp(0);
    world.event(Event::Tick);
    assert!(world.is_pending(Task::Journal));
    world.calm();
}
