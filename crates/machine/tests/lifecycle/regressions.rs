//! Walks that random tests once found to break an invariant, by what they are about.

use dormouse_machine::lifecycle::{Cause, Command, Event, Process, Shape, State, Task};
use dormouse_types::Depth;

use crate::world::{Act, Mode, Outcome, PLAIN, SHARED, World};

/// Others may act on it, and its states are kept by Dormouse.
const KEPT_BY_US: Shape = Shape { shared: true, late_interfaces: true, ..PLAIN };

fn answer_until(world: &mut World, task: Task) {
    while !world.is_pending(task) {
        world.answer(0, Outcome::Good);
    }
}

/// The guest was let run, though the platform says that it was not, and shuts down: its old state is used.
#[test]
fn a_state_whose_guest_ran_unnoticed_is_not_kept() {
    let mut world = World::asleep_on(KEPT_BY_US, Depth::Saved);
    world.event(Event::Wanted(Cause::Command));
    answer_until(&mut world, Task::Resume);
    world.answer(0, Outcome::FailedLate);
    world.shut_down_guest();
    world.calm();
    assert_eq!(world.state(), &State::Stopped, "{:#?}", world.history);
}

/// What a lost answer would have told is so; and yet others have gone on from there.
#[test]
fn one_who_is_started_while_its_state_is_discarded_runs() {
    let mut world = World::asleep_on(SHARED, Depth::Saved);
    world.command(Command::Stop { force: true }).unwrap();
    answer_until(&mut world, Task::DiscardState);
    world.cut_off();
    world.others(Act::Start, false);
    world.answer(0, Outcome::Good);
    world.calm();
    assert_eq!((world.state(), world.process), (&State::Active, Process::Running));
}

/// It is not asleep any more before it could be written that it is.
#[test]
fn one_who_is_started_as_soon_as_it_is_saved_is_suspended() {
    let mut world = World::active_on(SHARED);
    world.event(Event::Idle(Depth::Saved));
    answer_until(&mut world, Task::Save);
    world.answer(0, Outcome::Good);
    assert!(world.is_pending(Task::Journal));
    world.others(Act::StartPaused, false);
    world.calm();
    assert_eq!((world.state().word(), world.process), ("suspended", Process::Still));
}

/// A process that waits for its state keeps nobody from ending it.
#[test]
fn half_a_wake_can_be_stopped() {
    let mut world = World::asleep_on(KEPT_BY_US, Depth::Saved);
    world.event(Event::Wanted(Cause::Command));
    answer_until(&mut world, Task::Journal);
    world.crash(1);
    assert_eq!(world.process, Process::Incoming);
    world.command(Command::Stop { force: true }).unwrap();
    world.calm();
    assert_eq!((world.state(), world.process), (&State::Stopped, Process::Absent));
}

/// What is left of a wake that failed is in the way of the next one, and nobody else's.
#[test]
fn half_a_wake_is_ended_before_the_next() {
    let mut world = World::asleep_on(KEPT_BY_US, Depth::Saved);
    let boots = world.boots;
    world.event(Event::Wanted(Cause::Command));
    answer_until(&mut world, Task::Journal);
    world.answer(0, Outcome::Failed);
    assert!(world.is_pending(Task::Kill));
    world.answer(0, Outcome::Failed);
    world.calm();
    assert!(matches!(world.state(), State::Failed { state_kept: true, .. }), "{:?}", world.state());
    assert_eq!(world.process, Process::Incoming);
    world.command(Command::Start { cold: false }).unwrap();
    world.calm();
    assert_eq!((world.state(), world.boots), (&State::Active, boots));
}

/// A process that could not be ended is let run by others: it is not tried again to end it.
#[test]
fn one_who_is_to_be_ended_is_spared_once_others_let_it_run() {
    let mut world = World::stopped_on(SHARED);
    world.command(Command::Start { cold: false }).unwrap();
    answer_until(&mut world, Task::Resume);
    world.answer(0, Outcome::Failed);
    world.answer_look();
    assert!(world.is_pending(Task::Kill));
    world.answer(0, Outcome::Failed);
    world.others(Act::Resume, false);
    world.calm();
    assert_eq!((world.state(), world.process), (&State::Active, Process::Running));
}

/// A bridge is lost while a sleeper is saved, and it is not saved: it is stood in for again.
#[test]
fn one_who_is_not_stood_in_for_is_so_again_after_a_failed_save() {
    let mut world = World::asleep(Depth::Paused);
    world.event(Event::Deeper(Depth::Saved));
    assert!(world.is_pending(Task::Journal));
    world.lose_bridge();
    world.answer(0, Outcome::Failed);
    assert_eq!(world.state(), &State::Asleep { depth: Depth::Paused });
    assert!(world.life.absent().is_some());
    world.calm();
    assert_eq!(world.mode, Mode::Answering);
}

/// It shut down as it was asked to, though the answer is lost, and runs again when it can be looked at.
#[test]
fn one_who_is_started_while_it_is_shut_down_runs() {
    let mut world = World::active_on(SHARED);
    world.event(Event::Idle(Depth::Off));
    answer_until(&mut world, Task::PowerDown);
    world.cut_off();
    world.shut_down_guest();
    world.answer(0, Outcome::Good);
    world.others(Act::Start, false);
    world.calm();
    assert_eq!((world.state(), world.process), (&State::Active, Process::Running));
}
