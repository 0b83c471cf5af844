//! Others start, suspend, resume, save and destroy a machine by its platform's own means, at rest and
//! half-way: the lifecycle follows, and never fights.

use dormouse_machine::lifecycle::{Cause, Command, Event, Process, State, Task};
use dormouse_types::Depth;

use crate::world::{Act, File, Mode, Outcome, SHARED, World};

fn active() -> World {
    World::active_on(SHARED)
}

fn asleep(depth: Depth) -> World {
    World::asleep_on(SHARED, depth)
}

fn stopped() -> World {
    World::stopped_on(SHARED)
}

fn suspended() -> World {
    let mut world = active();
    world.others(Act::Suspend, true);
    world.calm();
    world
}

fn packet() -> Event {
    Event::Wanted(Cause::Packet("tcp SYN".into()))
}

fn what_is_asked(mut world: World) -> (World, Vec<Task>) {
    let mut asked = Vec::new();
    for _ in 0..40 {
        asked.extend(world.pending.first().map(|(task, _)| *task));
        world.answer(0, Outcome::Good);
        if world.pending.is_empty() && world.life.next_deadline().is_some() {
            world.tick();
        }
    }
    (world, asked)
}

#[test]
fn what_others_do_at_rest_is_followed_as_documented() {
    let saved = Depth::Saved;
    let table = [
        (active(), Act::Suspend, "suspended", "Journal"),
        (active(), Act::Destroy, "stopped", "Dismiss Journal"),
        (active(), Act::Save, "stopped", "Dismiss Journal"),
        (suspended(), Act::Resume, "active", "Watch Journal"),
        (suspended(), Act::Destroy, "stopped", "Dismiss Journal"),
        (stopped(), Act::Start, "active", "Watch Journal"),
        (stopped(), Act::StartPaused, "suspended", "Journal"),
        (asleep(saved), Act::Start, "active", "Journal Prepare Release Journal"),
        (asleep(saved), Act::StartPaused, "suspended", "Dismiss Journal"),
        (asleep(saved), Act::RemoveState, "stopped", "Dismiss Journal"),
        (asleep(Depth::Off), Act::Start, "active", "Journal Prepare AwaitGuest Release Journal"),
        (asleep(Depth::Off), Act::StartPaused, "suspended", "Dismiss Journal"),
        (asleep(Depth::Paused), Act::Resume, "active", "Journal Prepare Release Journal"),
        (asleep(Depth::Paused), Act::Destroy, "stopped", "Dismiss Journal"),
        (asleep(Depth::Paused), Act::Save, "stopped", "Dismiss Journal"),
        (asleep(Depth::Pmsuspended), Act::Resume, "active", "Journal Prepare Release Journal"),
        (asleep(Depth::Pmsuspended), Act::Destroy, "stopped", "Dismiss Journal"),
    ];
    for (mut world, act, state, tasks) in table {
        let was = world.state().clone();
        world.others(act, true);
        let (world, asked) = what_is_asked(world);
        let asked: Vec<_> = asked.iter().map(|task| format!("{task:?}")).collect();
        assert_eq!((world.state().word(), asked.join(" ").as_str()), (state, tasks), "{was:?} {act:?}");
        assert!(world.life.settled());
    }
}

/// Held frames go to the guest that others have started.
#[test]
fn what_is_held_goes_to_the_guest_that_others_started() {
    let mut world = asleep(Depth::Saved);
    (0..3).for_each(|_| world.frame(false));
    world.others(Act::Start, true);
    world.calm();
    assert_eq!((world.state(), world.process), (&State::Active, Process::Running));
    assert_eq!(world.received(), 3);
    let by =
        |state: &State| matches!(state, State::Waking { cause: Cause::Others(by), .. } if by == "somebody");
    assert!(world.history.iter().any(by), "{:#?}", world.history);
}

/// At every instant of every sleep and wake: the lifecycle asks for nothing that would undo it.
#[test]
fn what_others_do_half_way_is_not_fought() {
    let against = |act: Act| match act {
        Act::Suspend | Act::StartPaused => [Task::Resume, Task::Kill],
        Act::Destroy | Act::Save | Act::RemoveState => [Task::Boot, Task::Load],
        Act::Start | Act::Resume => [Task::Kill, Task::Boot],
    };
    let mut acts = 0;
    for depth in Depth::ALL {
        for (start, event) in [(active(), Event::Idle(depth)), (asleep(depth), packet())] {
            for steps in 0..12 {
                for act in Act::ALL {
                    let mut world = start.clone();
                    world.event(event.clone());
                    (0..steps).for_each(|_| world.answer(0, Outcome::Good));
                    let before = (world.process, world.file);
                    // What the lifecycle stops itself it also lets run again.
                    let ours = world.process == Process::Still && act != Act::Destroy && act != Act::Resume;
                    world.others(act, true);
                    if before == (world.process, world.file) || ours {
                        continue;
                    }
                    acts += 1;
                    let done = world.pending.iter().map(|(task, _)| *task).collect::<Vec<_>>();
                    let (world, asked) = what_is_asked(world);
                    let fought = asked
                        .iter()
                        .filter(|task| !done.contains(task))
                        .any(|task| against(act).contains(task));
                    // A machine that sleeps off, and whose guest others ended, sleeps off.
                    assert!(!fought, "{depth} {steps} {act:?}: {asked:?} {:#?}", world.history);
                    assert!(world.life.settled(), "{depth} {steps} {act:?}: {:#?}", world.life);
                }
            }
        }
    }
    assert!(acts > 100, "{acts}");
}

/// A process that is just being started stands still for a moment.
#[test]
fn one_who_is_being_started_is_waited_for() {
    let mut world = asleep(Depth::Saved);
    world.frame(false);
    world.others(Act::StartPaused, true);
    world.answer_look();
    assert_eq!(world.state(), &State::Asleep { depth: Depth::Saved });
    world.event(packet());
    assert!(world.pending.is_empty(), "nothing is done before it is known");
    world.others(Act::Resume, true);
    world.calm();
    assert_eq!((world.state(), world.received()), (&State::Active, 1));
}

/// A wish for a machine whose platform cannot be asked waits, and what is held stays.
#[test]
fn a_wake_waits_for_a_platform_that_cannot_be_asked() {
    for depth in [Depth::Saved, Depth::Off] {
        let mut world = asleep(depth);
        world.cut_off();
        world.frame(true);
        for _ in 0..8 {
            world.answer(0, Outcome::Good);
        }
        assert_eq!(world.state(), &State::Asleep { depth });
        assert!(world.life.lost_platform().is_some());
        assert_eq!(world.mode, Mode::Answering);
        for _ in 0..5 {
            while !world.looking {
                assert!(world.pending.is_empty() && world.life.settled());
                world.tick();
            }
            world.answer_look();
            assert_eq!(world.state(), &State::Asleep { depth }, "it is still not to be asked");
        }
        world.reconnect();
        world.calm();
        assert_eq!((world.state(), world.received()), (&State::Active, 1));
        assert_eq!(world.life.lost_platform(), None);
    }
}

/// The connection breaks when the load has begun: what it made is not taken for the doing of others.
#[test]
fn a_wake_whose_answer_is_lost_goes_on() {
    for depth in [Depth::Saved, Depth::Off] {
        let mut world = asleep(depth);
        world.event(packet());
        let makes = if depth == Depth::Saved { Task::Load } else { Task::Boot };
        while !world.is_pending(makes) {
            world.answer(0, Outcome::Good);
        }
        world.cut_off();
        world.answer(0, Outcome::FailedLate);
        assert_eq!(world.process, Process::Still);
        world.answer_look();
        assert_eq!(world.state(), &State::Asleep { depth });
        let births = world.births;
        world.calm();
        assert_eq!((world.state(), world.births), (&State::Active, births), "{:#?}", world.history);
    }
}

/// A platform that goes away while it is asked is asked again once it is back, though not for ever.
#[test]
fn a_step_whose_answer_is_lost_is_done_again_if_it_is_not_done() {
    for (depth, makes) in [(Depth::Saved, Task::Load), (Depth::Off, Task::Boot)] {
        for outcome in [Outcome::Lost, Outcome::LostLate] {
            let start = asleep(depth);
            let mut world = start.clone();
            world.frame(false);
            world.event(packet());
            for step in [makes, Task::Resume] {
                while !world.is_pending(step) {
                    world.answer(0, Outcome::Good);
                }
                world.answer(0, outcome);
                assert_eq!(world.state().word(), "waking");
            }
            world.calm();
            assert_eq!((world.state(), world.received()), (&State::Active, 1), "{:#?}", world.history);
            assert_eq!(world.births, start.births + 1);
        }
    }
    let mut world = asleep(Depth::Saved);
    world.event(packet());
    for lost in 0..10 {
        if world.state().word() != "waking" {
            assert!(lost > 2, "{lost}");
            break;
        }
        assert!(world.is_pending(Task::Load));
        world.answer(0, Outcome::Lost);
        world.answer_look();
    }
    world.calm();
    assert!(matches!(world.state(), State::Failed { state_kept: true, .. }), "{:#?}", world.history);
}

/// libvirt has the state until a process has it: the one that reads it has come to nothing, and it is read again.
#[test]
fn a_load_that_is_lost_is_waited_for() {
    let mut world = asleep(Depth::Saved);
    world.event(packet());
    let file = world.file;
    world.answer(0, Outcome::Lost);
    world.process = Process::Still;
    world.answer_look();
    assert!(world.pending.is_empty());
    assert_eq!(world.state().word(), "waking");
    world.process = Process::Absent;
    assert_eq!(world.file, file);
    world.calm();
    assert_eq!(world.state(), &State::Active);
}

/// A save whose answer is lost may have ended the process: then it sleeps.
#[test]
fn a_save_whose_answer_is_lost_is_looked_for() {
    for (outcome, state) in
        [(Outcome::FailedLate, State::Asleep { depth: Depth::Saved }), (Outcome::Failed, State::Active)]
    {
        let mut world = active();
        world.event(Event::Idle(Depth::Saved));
        while !world.is_pending(Task::Save) {
            world.answer(0, Outcome::Good);
        }
        world.cut_off();
        world.answer(0, outcome);
        world.calm();
        assert_eq!(world.state(), &state, "{outcome:?}");
    }
}

#[test]
fn a_machine_that_is_undefined_is_stopped() {
    for (mut world, running) in
        [(active(), true), (asleep(Depth::Saved), false), (asleep(Depth::Off), false), (suspended(), true)]
    {
        let was = world.state().clone();
        // libvirt keeps a domain that runs; and removes what it saved of one that does not.
        if !running {
            world.others(Act::RemoveState, false);
        }
        world.event(Event::Undefined("undefined by somebody".into()));
        world.calm();
        let expected = if running { was } else { State::Stopped };
        assert_eq!(world.state(), &expected);
        world.others(Act::Destroy, true);
        world.calm();
        assert_eq!(world.state(), &State::Stopped);
    }
}

#[test]
fn the_suspended_are_left_alone() {
    let mut world = suspended();
    for command in [
        Command::Wake,
        Command::Start { cold: false },
        Command::Sleep(Depth::Saved),
        Command::Stop { force: false },
    ] {
        let refusal = world.command(command).unwrap_err();
        assert!(refusal.contains("virsh resume"), "{refusal}");
        assert!(refusal.contains("virsh dompmwakeup"), "{refusal}");
    }
    world.event(packet());
    world.event(Event::Idle(Depth::Paused));
    assert!(world.pending.is_empty());
    world.crash(0);
    world.calm();
    assert_eq!(world.state().word(), "suspended");
    world.command(Command::Stop { force: true }).unwrap();
    world.calm();
    assert_eq!((world.state(), world.process), (&State::Stopped, Process::Absent));
}

/// While the daemon was down, they did what they liked.
#[test]
fn what_others_did_unwatched_is_followed() {
    let table = [
        (active(), Act::Suspend, "suspended"),
        (active(), Act::Destroy, "stopped"),
        (stopped(), Act::Start, "active"),
        (stopped(), Act::StartPaused, "suspended"),
        (asleep(Depth::Saved), Act::Start, "active"),
        (asleep(Depth::Saved), Act::RemoveState, "stopped"),
        (asleep(Depth::Off), Act::Start, "active"),
        (asleep(Depth::Off), Act::StartPaused, "suspended"),
        (asleep(Depth::Paused), Act::Resume, "active"),
        (asleep(Depth::Paused), Act::Destroy, "stopped"),
        (suspended(), Act::Resume, "active"),
        (suspended(), Act::Destroy, "stopped"),
    ];
    for (mut world, act, state) in table {
        let was = world.state().clone();
        world.others(act, false);
        let (process, file) = (world.process, world.file);
        world.crash(0);
        world.calm();
        assert_eq!(world.state().word(), state, "{was:?} {act:?}");
        assert_eq!((world.process, world.file), (process, file), "nothing was done to it");
        assert!(!matches!(world.file, File::Partial));
    }
}
