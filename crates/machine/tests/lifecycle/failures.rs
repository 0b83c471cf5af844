//! Any two tasks of any flow fail, and the daemon may be killed afterwards: the rarest double faults,
//! which random walks hardly meet. The world checks the invariants at every step.

use dormouse_machine::lifecycle::{Cause, Command, Event, Process, Shape, State, Task};
use dormouse_types::Depth;

use crate::world::{Outcome, PLAIN, SHAPES, World};

/// More tasks than any flow has.
const LONGEST: usize = 12;

fn wanted() -> Event {
    Event::Wanted(Cause::Hold("backup".into()))
}

/// Asleep on disk, and failed to wake: the saved state is kept.
fn failed_but_kept(shape: Shape) -> World {
    let mut world = World::asleep_on(shape, Depth::Saved);
    world.event(wanted());
    world.answer(0, Outcome::Failed);
    world.calm();
    assert!(matches!(world.state(), State::Failed { state_kept: true, .. }));
    world
}

/// The beginning of every flow.
fn flows(shape: Shape) -> Vec<(String, World)> {
    let mut flows = Vec::new();
    for depth in Depth::ALL {
        for steps in 0..8 {
            let mut world = World::active_on(shape);
            world.event(Event::Idle(depth));
            (0..steps).for_each(|_| world.answer(0, Outcome::Good));
            flows.push((format!("{depth}, {steps} steps"), world.clone()));
            world.event(wanted());
            flows.push((format!("{depth}, wanted after {steps} steps"), world));
        }
        let mut waking = World::asleep_on(shape, depth);
        waking.event(wanted());
        flows.push((format!("waking from {depth}"), waking));
        let mut stopping = World::asleep_on(shape, depth);
        stopping.command(Command::Stop { force: true }).unwrap();
        flows.push((format!("stopping from {depth}"), stopping));
    }
    for command in [Command::Wake, Command::Start { cold: true }, Command::Stop { force: true }] {
        let mut world = failed_but_kept(shape);
        world.command(command).unwrap();
        flows.push((format!("failed, then {command:?}"), world));
    }
    flows
}

/// The flow with the tasks `first` and `second` failing, up to the answer after the second.
fn fail_two(flow: &World, first: usize, second: usize, outcome: Outcome) -> World {
    let mut world = flow.clone();
    for step in 0..=second {
        world.answer(0, if step == first || step == second { outcome } else { Outcome::Good });
    }
    world
}

#[test]
fn any_two_tasks_may_fail() {
    let mut refused = 0;
    for (name, flow) in SHAPES.into_iter().flat_map(flows) {
        for second in 0..LONGEST {
            for first in 0..=second {
                for outcome in [Outcome::Failed, Outcome::FailedLate] {
                    let world = fail_two(&flow, first, second, outcome);
                    let mut killed = world.clone();
                    killed.crash(0);
                    killed.calm();
                    let mut world = world;
                    world.calm();
                    let State::Failed { why, .. } = world.state() else { continue };
                    assert!(why.starts_with("cannot "), "{name}: {why}");
                    refused += usize::from(why.contains("could neither be discarded nor"));
                }
            }
        }
    }
    assert!(refused > 0, "the guest was never kept from running beside a state that could still be used");
}

/// When neither the write nor the discard can be had, the state is kept instead of the process.
#[test]
fn an_undo_that_cannot_void_the_state_keeps_it() {
    let mut world = World::active();
    world.event(Event::Idle(Depth::Saved));
    (0..6).for_each(|_| world.answer(0, Outcome::Good));
    world.event(wanted());
    world.answer(0, Outcome::Good);
    assert_eq!(world.state().word(), "undoing");
    world.answer(0, Outcome::Failed); // the write of it
    world.answer(0, Outcome::Failed); // the discard
    world.calm();
    assert!(matches!(world.state(), State::Failed { state_kept: true, .. }), "{:?}", world.state());
    assert_eq!(world.process, Process::Absent);
    let boots = world.boots;
    world.command(Command::Wake).unwrap();
    world.calm();
    assert_eq!((world.state(), world.boots), (&State::Active, boots));
}

/// One failure of two is enough to go on: a cold start needs the write or the discard, not both.
#[test]
fn a_cold_start_needs_the_old_state_void() {
    for (journal, discard, runs) in [
        (Outcome::Good, Outcome::Failed, true),
        (Outcome::Failed, Outcome::Good, true),
        (Outcome::Failed, Outcome::Failed, false),
    ] {
        let mut world = failed_but_kept(PLAIN);
        world.command(Command::Start { cold: true }).unwrap();
        for (task, outcome) in
            [(Task::Kill, Outcome::Good), (Task::Journal, journal), (Task::DiscardState, discard)]
        {
            assert!(world.is_pending(task));
            world.answer(0, outcome);
        }
        assert_eq!(world.is_pending(Task::Boot), runs);
        world.calm();
        assert_eq!(world.state() == &State::Active, runs, "{:?}", world.state());
    }
}

/// A load that failed may have left a process.
#[test]
fn nothing_is_left_of_a_wake_that_failed() {
    for (depth, task) in [(Depth::Saved, Task::Load), (Depth::Saved, Task::Resume), (Depth::Off, Task::Boot)]
    {
        let mut world = World::asleep(depth);
        world.event(wanted());
        while !world.is_pending(task) {
            world.answer(0, Outcome::Good);
        }
        world.answer(0, Outcome::FailedLate);
        world.calm();
        assert_eq!((world.state().word(), world.process), ("failed", Process::Absent), "{task:?}");
    }
}
