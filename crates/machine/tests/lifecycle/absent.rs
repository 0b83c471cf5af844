//! Sleepers that nobody can stand in for sleep on, and are stood in for as soon as can be.

use dormouse_machine::lifecycle::{Cause, Command, Event, Process, State, Task};
use dormouse_types::Depth;

use crate::world::{Mode, Outcome, World};

const DEPTHS: [Depth; 2] = [Depth::Saved, Depth::Off];

/// Found again by a daemon that is started before the bridge is there.
fn found_without_bridge(depth: Depth) -> World {
    let mut world = World::asleep(depth);
    world.crash(0);
    world.answer(0, Outcome::Failed);
    assert_eq!(world.state(), &State::Asleep { depth });
    assert!(world.life.absent().unwrap().contains("it broke"), "{:?}", world.life.absent());
    world
}

#[test]
fn one_whose_bridge_comes_late_is_stood_in_for() {
    for depth in DEPTHS {
        let mut world = found_without_bridge(depth);
        for _ in 0..5 {
            assert!(world.life.settled(), "nothing but time can help");
            world.event(Event::Tick);
            assert!(world.pending.is_empty(), "not before its time");
            (0..2).for_each(|_| world.tick());
            assert!(world.is_pending(Task::StandIn));
            world.answer(0, Outcome::Failed);
        }
        world.event(Event::Back);
        assert!(world.is_pending(Task::StandIn), "at once");
        world.answer(0, Outcome::Good);
        assert_eq!((world.life.absent(), world.mode), (None, Mode::Answering));
        assert_eq!((world.state(), world.life.next_deadline()), (&State::Asleep { depth }, None));
    }
}

#[test]
fn a_lost_bridge_is_no_end_of_a_sleep() {
    for depth in Depth::ALL {
        let mut world = World::asleep(depth);
        world.lose_bridge();
        assert_eq!(world.life.absent(), Some("br0 is gone"));
        world.tick();
        world.answer(0, Outcome::Failed);
        assert_eq!(world.state(), &State::Asleep { depth });
        world.calm();
        assert_eq!((world.state(), world.mode), (&State::Asleep { depth }, Mode::Answering));
    }
}

#[test]
fn a_loss_during_a_try_is_not_forgotten() {
    let mut world = found_without_bridge(Depth::Saved);
    world.event(Event::Back);
    world.lose_bridge();
    world.answer(0, Outcome::Good);
    assert!(world.life.absent().is_some());
    world.calm();
}

/// What wants it is followed when it can be: not before, or what is held would be lost.
#[test]
fn one_that_is_wanted_wakes_when_it_can() {
    for depth in DEPTHS {
        let mut world = found_without_bridge(depth);
        world.event(Event::Wanted(Cause::Hold("backup".into())));
        assert!(world.is_pending(Task::StandIn), "tried at once");
        world.answer(0, Outcome::Failed);
        assert_eq!(world.state(), &State::Asleep { depth });
        world.tick();
        world.answer(0, Outcome::Good);
        world.calm();
        assert_eq!((world.state(), world.process), (&State::Active, Process::Running));
    }
}

#[test]
fn one_that_was_to_boot_again_sleeps_until_it_can() {
    let mut world = World::asleep(Depth::Off);
    world.event(Event::Wanted(Cause::Command));
    world.answer(0, Outcome::Good);
    assert_eq!(world.state().word(), "waking");
    world.crash(0);
    assert!(world.is_pending(Task::StandIn));
    world.answer(0, Outcome::Failed);
    assert_eq!(world.state(), &State::Asleep { depth: Depth::Off });
    world.calm();
    assert_eq!(world.state(), &State::Active, "it is still wanted");
}

#[test]
fn it_can_be_stopped_all_the_same() {
    let mut world = found_without_bridge(Depth::Saved);
    world.command(Command::Stop { force: true }).unwrap();
    world.calm();
    assert_eq!((world.state(), world.life.absent()), (&State::Stopped, None));
}

/// One of its bridges is not there: it is tried again, more and more rarely.
#[test]
fn one_that_is_partly_stood_in_for_wakes_at_once() {
    for depth in Depth::ALL {
        let mut world = World::asleep(depth);
        world.lose_bridge();
        world.tick();
        let mut waits = Vec::new();
        for _ in 0..5 {
            assert!(world.is_pending(Task::StandIn));
            world.answer(0, Outcome::Partly);
            assert!(world.life.is_partly_absent() && world.life.settled());
            waits.push(world.life.next_deadline().unwrap().since(world.now));
            (0..2).for_each(|_| world.tick());
        }
        assert!(waits.is_sorted() && waits[0] < waits[4], "{waits:?}");
        world.answer(0, Outcome::Partly);
        world.event(Event::Wanted(Cause::Packet("tcp SYN".into())));
        if world.is_pending(Task::StandIn) {
            world.answer(0, Outcome::Partly);
        }
        assert_eq!(world.state().word(), "waking");
        world.calm();
        assert_eq!((world.state(), world.life.absent()), (&State::Active, None));
    }
}
