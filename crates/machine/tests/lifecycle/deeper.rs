//! Sleepers that go deeper with time: nobody is woken, nothing is lost, and what wants them wins.

use dormouse_machine::lifecycle::{Cause, Command, Event, Process, Shape, State};
use dormouse_types::Depth;

use crate::world::{Outcome, SHAPES, World};

const SAVED: State = State::Asleep { depth: Depth::Saved };

/// Every instant on the way from a depth that keeps the process to `saved`.
fn instants() -> Vec<(Shape, Depth, World)> {
    let kinds = SHAPES.into_iter().flat_map(|shape| [Depth::Paused, Depth::Pmsuspended].map(|d| (shape, d)));
    let mut instants = Vec::new();
    for (shape, from) in kinds {
        let mut world = World::asleep_on(shape, from);
        (0..2).for_each(|_| world.frame(false));
        world.event(Event::Deeper(Depth::Saved));
        while world.state().word() == "settling" {
            instants.push((shape, from, world.clone()));
            world.answer(0, Outcome::Good);
        }
        world.calm();
        assert_eq!((world.state(), world.process), (&SAVED, Process::Absent));
        world.event(Event::Wanted(Cause::Command));
        world.calm();
        assert_eq!((world.state(), world.received()), (&State::Active, 2));
    }
    instants
}

#[test]
fn what_wants_one_that_goes_deeper_undoes_it() {
    for (_, from, mut world) in instants() {
        let boots = world.boots;
        world.frame(true);
        world.calm();
        assert_eq!((world.state(), world.received()), (&State::Active, 3), "{from}: {:#?}", world.history);
        assert_eq!(world.boots, boots);
    }
}

#[test]
fn a_failure_wakes_nobody() {
    for (shape, from, start) in instants() {
        for outcome in [Outcome::Failed, Outcome::FailedLate] {
            let mut world = start.clone();
            let age = world.oldest();
            let is_saved = shape.save_ends_process && world.process == Process::Absent;
            world.answer(0, outcome);
            world.calm();
            let expected = if is_saved { SAVED } else { State::Asleep { depth: from } };
            assert_eq!(world.state(), &expected, "{shape:?} {:#?}", world.history);
            assert_eq!(world.oldest(), age, "the guest ran");
            // And it is tried again later.
            world.event(Event::Deeper(Depth::Saved));
            world.calm();
            assert_eq!((world.state(), world.oldest()), (&SAVED, age));
        }
    }
}

#[test]
fn a_kill_wakes_nobody() {
    for (shape, from, start) in instants() {
        for done in 0..2 {
            let mut world = start.clone();
            let age = world.oldest();
            world.crash(done);
            world.calm();
            let is_asleep = [SAVED, State::Asleep { depth: from }].contains(world.state());
            assert!(is_asleep, "{shape:?} {done} {:#?}", world.history);
            assert_eq!(world.oldest(), age, "the guest ran");
        }
    }
}

#[test]
fn one_goes_off_by_its_own_shutdown() {
    for (shape, from) in SHAPES.into_iter().flat_map(|s| [(s, Depth::Saved), (s, Depth::Paused)]) {
        let mut world = World::asleep_on(shape, from);
        world.event(Event::Deeper(Depth::Off));
        world.calm();
        assert_eq!(world.state(), &State::Asleep { depth: Depth::Off }, "{:#?}", world.history);
        assert_eq!(world.process, Process::Absent);
    }
}

#[test]
fn a_guest_that_does_not_shut_down_sleeps_as_before() {
    for shape in SHAPES {
        let mut world = World::asleep_on(shape, Depth::Saved);
        world.event(Event::Deeper(Depth::Off));
        while !world.is_pending(dormouse_machine::lifecycle::Task::PowerDown) {
            world.answer(0, Outcome::Good);
        }
        world.answer(0, Outcome::Failed);
        world.calm();
        assert_eq!(world.state(), &SAVED, "{:#?}", world.history);
    }
}

/// Who comes while a machine is awake only to be shut down finds it awake.
#[test]
fn use_and_holds_win_over_going_off() {
    for steps in 0..12 {
        for command in [false, true] {
            let mut world = World::asleep(Depth::Saved);
            world.event(Event::Deeper(Depth::Off));
            (0..steps).for_each(|_| world.answer(0, Outcome::Good));
            if command {
                world.command(Command::Wake).unwrap();
            } else {
                world.event(Event::Wanted(Cause::Hold("backup".into())));
            }
            world.calm();
            assert_eq!(world.state(), &State::Active, "{steps} {:#?}", world.history);
        }
    }
}

#[test]
fn only_a_sleeper_at_rest_goes_deeper() {
    for (mut world, to) in [
        (World::active(), Depth::Saved),
        (World::stopped(), Depth::Off),
        (World::asleep(Depth::Saved), Depth::Saved),
        (World::asleep(Depth::Saved), Depth::Paused),
        (World::asleep(Depth::Off), Depth::Saved),
    ] {
        world.event(Event::Deeper(to));
        assert!(world.pending.is_empty());
    }
    let mut world = World::asleep(Depth::Paused);
    world.lose_bridge();
    world.event(Event::Deeper(Depth::Saved));
    assert!(world.pending.is_empty(), "who is not stood in for is not made harder to wake");
}
