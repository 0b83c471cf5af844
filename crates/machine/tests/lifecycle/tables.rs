//! The step tables of the documentation, and what users are told.

use dormouse_machine::lifecycle::{
    Cause, Command, Event, Lifecycle, Process, Shape, SleepReason, State, Task,
};
use dormouse_types::{Depth, Timestamp};

use crate::world::{KEEPER, Outcome, PLAIN, World};

/// Answers everything well; the tasks in the order in which they were asked for, and `!` where the
/// state changed for good.
fn trace(mut world: World, event: Event) -> (World, String) {
    world.event(event);
    let mut words = Vec::new();
    let mut states = world.history.len();
    while let Some((task, _)) = world.pending.first().cloned() {
        words.push(format!("{task:?}"));
        world.answer(0, Outcome::Good);
        words.extend(world.history[states..].iter().map(|state| format!("={state}")));
        states = world.history.len();
    }
    (world, words.join(" "))
}

#[test]
fn sleeps_as_documented() {
    let table = [
        (PLAIN, Depth::Saved, "Journal Capture Drain Save StandIn Flush Journal =asleep Quit"),
        (PLAIN, Depth::Paused, "Journal Capture Drain Pause StandIn Journal =asleep"),
        (PLAIN, Depth::Pmsuspended, "Journal Capture Drain Suspend StandIn Journal =asleep"),
        (PLAIN, Depth::Off, "Journal Capture PowerDown StandIn Journal =asleep"),
        (KEEPER, Depth::Saved, "Journal Capture Drain Pause StandIn Save Journal =asleep"),
        (KEEPER, Depth::Paused, "Journal Capture Drain Pause StandIn Journal =asleep"),
        (KEEPER, Depth::Pmsuspended, "Journal Capture Drain Suspend StandIn Journal =asleep"),
        (KEEPER, Depth::Off, "Journal Capture PowerDown StandIn Journal =asleep"),
    ];
    for (shape, depth, steps) in table {
        assert_eq!(trace(World::active_on(shape), Event::Idle(depth)).1, steps);
    }
}

#[test]
fn wakes_as_documented() {
    let table = [
        (PLAIN, Depth::Saved, "Prepare Load Journal Resume Release =active Journal"),
        (PLAIN, Depth::Paused, "Journal Prepare Resume Release =active Journal"),
        (PLAIN, Depth::Pmsuspended, "Journal Prepare Resume Release =active Journal"),
        (PLAIN, Depth::Off, "Journal Prepare Boot AwaitGuest Release =active Journal"),
        (KEEPER, Depth::Saved, "Load Journal Prepare Resume Release =active Journal"),
        (KEEPER, Depth::Paused, "Journal Prepare Resume Release =active Journal"),
        (KEEPER, Depth::Pmsuspended, "Journal Prepare Resume Release =active Journal"),
        (KEEPER, Depth::Off, "Journal Boot Prepare Resume AwaitGuest Release =active Journal"),
    ];
    for (shape, depth, steps) in table {
        assert_eq!(trace(World::asleep_on(shape, depth), Event::Wanted(Cause::Command)).1, steps);
    }
}

#[test]
fn starts_as_documented() {
    for (shape, tasks) in [(PLAIN, "Journal Boot Watch"), (KEEPER, "Journal Boot Watch Resume")] {
        let mut world = World::stopped_on(shape);
        world.command(Command::Start { cold: false }).unwrap();
        let (_, steps) = trace(world, Event::Tick);
        assert_eq!(steps, format!("{tasks} =active Journal"));
    }
}

/// What others keep is theirs to remove: the process that has it is all that is left of the machine.
#[test]
fn what_was_loaded_from_a_keeper_is_not_ended_when_a_step_fails() {
    for (task, after) in [(Task::Journal, "active"), (Task::Prepare, "active"), (Task::Resume, "failed")] {
        let world = fail_at(World::asleep_on(KEEPER, Depth::Saved), Event::Wanted(Cause::Command), task);
        assert_eq!(world.state().word(), after, "{task:?}");
        assert_ne!(world.process, Process::Absent, "{task:?}");
    }
}

#[test]
fn a_save_that_ends_the_process_is_undone_until_it_has() {
    let table = [
        (3, "Pause =undoing Resume Release =active Journal"),
        (4, "StandIn =undoing Prepare Resume Release =active Journal"),
        (6, "Journal =asleep =waking Load Journal Prepare Resume Release =active Journal"),
    ];
    for (steps, expected) in table {
        let mut world = World::active_on(KEEPER);
        world.event(Event::Idle(Depth::Saved));
        (0..steps).for_each(|_| world.answer(0, Outcome::Good));
        assert_eq!(trace(world, Event::Wanted(Cause::Command)).1, expected);
    }
    // Hurried while it saves: it stops saving, or has saved already.
    let mut world = World::active_on(KEEPER);
    world.event(Event::Idle(Depth::Saved));
    (0..5).for_each(|_| world.answer(0, Outcome::Good));
    world.event(Event::Wanted(Cause::Command));
    assert!(world.hurried && world.is_pending(Task::Save));
    world.answer(0, Outcome::Failed);
    assert_eq!(trace(world, Event::Tick).1, "DiscardState Prepare Resume Release =active Journal");
}

#[test]
fn undoes_as_documented() {
    let table = [
        (0, "Journal =undoing =active Journal"),
        (1, "Capture =undoing Release =active Journal"),
        (2, "Drain =undoing Release =active Journal"),
        (3, "Save =undoing DiscardState Resume Release =active Journal"),
        (4, "StandIn =undoing DiscardState Prepare Resume Release =active Journal"),
        (5, "Flush =undoing DiscardState Prepare Resume Release =active Journal"),
        (6, "Journal =undoing Journal DiscardState Prepare Resume Release =active Journal"),
    ];
    for (steps, expected) in table {
        let mut world = World::active();
        world.event(Event::Idle(Depth::Saved));
        (0..steps).for_each(|_| world.answer(0, Outcome::Good));
        let (world, found) = trace(world, Event::Wanted(Cause::Hold("backup".into())));
        assert_eq!(found, expected);
        assert_eq!(world.hurried, steps == 3 || steps == 5);
        let undoing = State::Undoing { cause: Cause::Hold("backup".into()) };
        assert!(world.history.contains(&undoing));
    }
}

#[test]
fn a_wish_past_the_point_of_no_return_wakes() {
    let mut world = World::active();
    world.event(Event::Idle(Depth::Saved));
    (0..7).for_each(|_| world.answer(0, Outcome::Good));
    assert!(world.is_pending(Task::Quit));
    let (_, steps) = trace(world, Event::Wanted(Cause::Command));
    assert_eq!(steps, "Quit =waking Prepare Load Journal Resume Release =active Journal");
}

/// Fails the first pending `task` after `event`, everything else goes well.
fn fail_at(mut world: World, event: Event, task: Task) -> World {
    world.event(event);
    while !world.is_pending(task) {
        world.answer(0, Outcome::Good);
    }
    let index = world.pending.iter().position(|(t, _)| *t == task).unwrap();
    world.answer(index, Outcome::Failed);
    world.calm();
    world
}

#[test]
fn a_wake_that_fails_says_so_and_keeps_what_it_can() {
    let wanted = || Event::Wanted(Cause::Command);
    for (depth, task, kept) in [
        (Depth::Saved, Task::Prepare, true),
        (Depth::Saved, Task::Load, true),
        (Depth::Saved, Task::Journal, true),
        (Depth::Saved, Task::Resume, false),
        (Depth::Paused, Task::Resume, false),
        (Depth::Off, Task::Prepare, false),
        (Depth::Off, Task::Boot, false),
    ] {
        let mut world = fail_at(World::asleep(depth), wanted(), task);
        let State::Failed { during, why, state_kept } = world.state().clone() else {
            panic!("{depth} {task:?}: {:#?}", world.history);
        };
        assert_eq!((&*during, state_kept), ("waking", kept), "{depth} {task:?}");
        assert_eq!(why, format!("cannot {task}: it broke"));
        let again = world.command(Command::Wake);
        world.calm();
        if kept {
            assert_eq!((again, world.state()), (Ok(()), &State::Active));
        } else {
            assert!(again.unwrap_err().contains("start --cold"));
            world.command(Command::Start { cold: true }).unwrap();
            world.calm();
            assert_eq!(world.state(), &State::Active);
        }
    }
}

#[test]
fn what_is_not_fatal_does_not_stop_a_wake() {
    let wanted = || Event::Wanted(Cause::Command);
    for (depth, task) in [
        (Depth::Saved, Task::Release),
        (Depth::Paused, Task::Journal),
        (Depth::Paused, Task::Prepare),
        (Depth::Paused, Task::Release),
        (Depth::Off, Task::Journal),
        (Depth::Off, Task::AwaitGuest),
        (Depth::Off, Task::Release),
    ] {
        let world = fail_at(World::asleep(depth), wanted(), task);
        assert_eq!(world.state(), &State::Active, "{depth} {task:?}");
    }
}

#[test]
fn a_saved_machine_whose_process_will_not_quit_is_killed() {
    let world = fail_at(World::active(), Event::Idle(Depth::Saved), Task::Quit);
    assert_eq!(world.state(), &State::Asleep { depth: Depth::Saved });
    assert_eq!(world.process, Process::Absent);
}

#[test]
fn a_guest_that_will_not_shut_down_stays_active() {
    let mut world = World::active();
    world.command(Command::Stop { force: false }).unwrap();
    while !world.is_pending(Task::PowerDown) {
        world.answer(0, Outcome::Good);
    }
    let mut forced = world.clone();
    world.answer(0, Outcome::Failed);
    world.calm();
    assert_eq!(world.state(), &State::Active);
    // Force does not wait for the guest's answer.
    forced.command(Command::Stop { force: true }).unwrap();
    forced.answer(1, Outcome::Good);
    assert!(forced.is_pending(Task::PowerDown) && forced.is_pending(Task::Kill));
    forced.calm();
    assert_eq!(forced.state(), &State::Stopped);
}

#[test]
fn refusals_name_the_fix() {
    let sleeper = |depth| World::asleep(depth);
    let table = [
        (sleeper(Depth::Saved), Command::Stop { force: false }, "--force"),
        (sleeper(Depth::Paused), Command::Stop { force: false }, "--force"),
        (sleeper(Depth::Saved), Command::Sleep(Depth::Off), "wake it first"),
        (sleeper(Depth::Saved), Command::Start { cold: true }, "--force"),
        (World::active(), Command::Start { cold: true }, "stop it first"),
        (World::stopped(), Command::Sleep(Depth::Saved), "start it first"),
    ];
    for (mut world, command, fix) in table {
        let refusal = world.command(command).unwrap_err();
        assert!(refusal.contains(fix), "{refusal}");
    }
}

#[test]
fn what_is_already_so_is_accepted() {
    let table = [
        (World::asleep(Depth::Saved), Command::Sleep(Depth::Saved)),
        (World::active(), Command::Wake),
        (World::active(), Command::Start { cold: false }),
        (World::stopped(), Command::Stop { force: true }),
    ];
    for (mut world, command) in table {
        world.command(command).unwrap();
        assert!(world.life.settled());
    }
}

#[test]
fn stops_from_every_rest() {
    for depth in Depth::ALL {
        let mut world = World::asleep(depth);
        world.command(Command::Stop { force: depth != Depth::Off }).unwrap();
        world.calm();
        assert_eq!(world.state(), &State::Stopped);
        assert_eq!(world.file, crate::world::File::None);
    }
}

#[test]
fn a_sleep_that_nobody_asked_for_says_why_and_waits_for_nothing() {
    let reason = || SleepReason::Budget("to make room for db".into());
    let sleep = || Event::Sleep(Depth::Saved, reason());
    let mut life = Lifecycle::new(State::Active, Shape::default());
    assert!(!life.handle(sleep(), Timestamp(1)).is_empty());
    assert_eq!(*life.state(), State::Settling { depth: Depth::Saved, reason: reason() });
    // A second one, while the first goes on, is no news.
    assert_eq!(life.handle(sleep(), Timestamp(2)), []);
    for state in [State::Stopped, State::Asleep { depth: Depth::Paused }, State::Stopping] {
        let mut life = Lifecycle::new(state.clone(), Shape::default());
        assert_eq!(life.handle(sleep(), Timestamp(1)), []);
        assert_eq!(*life.state(), state);
    }
}
