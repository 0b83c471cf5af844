//! The daemon is killed at every step of every sleep and every wake, with every subset of the
//! unanswered tasks having taken effect: no machine is lost.

use dormouse_machine::lifecycle::{Cause, Event, Shape, State};
use dormouse_types::Depth;

use crate::world::{Outcome, PLAIN, SHAPES, World};

fn kinds() -> impl Iterator<Item = (Shape, Depth)> {
    SHAPES.into_iter().flat_map(|shape| Depth::ALL.map(|depth| (shape, depth)))
}

/// Every instant from `event` on until all is settled.
fn instants(mut world: World, event: Event) -> Vec<World> {
    world.event(event);
    let mut instants = vec![world.clone()];
    while !world.life.settled() {
        world.answer(0, Outcome::Good);
        instants.push(world.clone());
    }
    instants
}

/// Every way to be killed at each instant, and all that comes of it.
fn kill_at_each(start: &World, event: &Event, check: impl Fn(&World, &State)) -> usize {
    let mut kills = 0;
    for instant in instants(start.clone(), event.clone()) {
        for done in 0..1 << instant.pending.len() {
            // Twice: the second kill comes `later` steps into the recovery.
            for later in 0..8 {
                let mut world = instant.clone();
                world.crash(done);
                (0..later).for_each(|_| world.answer(0, Outcome::Good));
                if later > 0 {
                    world.crash(0);
                }
                world.calm();
                check(&world, instant.state());
                kills += 1;
            }
        }
    }
    kills
}

#[test]
fn a_kill_during_a_sleep_loses_nothing() {
    for (shape, depth) in kinds() {
        let start = World::active_on(shape);
        let kills = kill_at_each(&start, &Event::Idle(depth), |world, _| {
            let good = matches!(world.state(), State::Active | State::Asleep { .. });
            assert!(good, "{depth}: {:#?}", world.history);
            assert_eq!(world.boots, start.boots);
        });
        assert!(kills > 50, "{kills}");
    }
}

#[test]
fn a_kill_during_a_wake_loses_nothing() {
    for (shape, depth) in kinds() {
        let start = World::asleep_on(shape, depth);
        let wanted = Event::Wanted(Cause::Packet("tcp SYN".into()));
        let kills = kill_at_each(&start, &wanted, |world, _| {
            let good = matches!(world.state(), State::Active | State::Asleep { .. });
            assert!(good, "{depth}: {:#?}", world.history);
            assert!(world.boots == start.boots || depth == Depth::Off);
        });
        assert!(kills > 50, "{kills}");
    }
}

#[test]
fn a_kill_during_an_undo_loses_nothing() {
    for (shape, depth) in kinds().filter(|(_, depth)| *depth != Depth::Off) {
        for steps in 0..7 {
            let mut start = World::active_on(shape);
            start.event(Event::Idle(depth));
            (0..steps).for_each(|_| start.answer(0, Outcome::Good));
            if !matches!(start.state(), State::Settling { .. }) {
                continue;
            }
            kill_at_each(&start, &Event::Wanted(Cause::Hold("backup".into())), |world, _| {
                let good = matches!(world.state(), State::Active | State::Asleep { .. });
                assert!(good, "{depth}: {:#?}", world.history);
                assert_eq!(world.boots, start.boots);
            });
        }
    }
}

/// The load's early notice lets the write of "state used" go on beside it, and loses nothing either.
#[test]
fn a_kill_beside_a_load_loses_nothing() {
    let mut start = World::asleep(Depth::Saved);
    start.event(Event::Wanted(Cause::Command));
    start.answer(0, Outcome::Good);
    for done in 0..4 {
        let mut world = start.clone();
        world.event(Event::Spawned);
        assert_eq!(world.pending.len(), 2, "load and journal at the same time");
        // Having spawned, the process is there and loads on whoever watches.
        world.crash(done | 1);
        world.calm();
        assert!(matches!(world.state(), State::Active | State::Asleep { .. }), "{:#?}", world.history);
    }
}

/// The power fails at every step of a wake: until the journal says that the state was used, the
/// machine is as good as before; after that it has failed, and its old state is not used.
#[test]
fn a_power_cut_during_a_wake_loses_nothing_until_the_state_is_used() {
    let start = World::asleep_on(PLAIN, Depth::Saved);
    let (mut good, mut used) = (0, 0);
    for instant in instants(start.clone(), Event::Wanted(Cause::Command)) {
        for done in 0..1 << instant.pending.len() {
            let mut world = instant.clone();
            world.cut_power(done);
            let offered = matches!(world.disk, State::Asleep { .. });
            world.calm();
            if offered {
                assert_eq!(world.state(), &State::Asleep { depth: Depth::Saved }, "{:#?}", world.history);
                world.event(Event::Wanted(Cause::Command));
                world.calm();
                assert_eq!((world.state(), world.boots), (&State::Active, start.boots));
                good += 1;
            } else {
                let lost = matches!(world.state(), State::Failed { state_kept: false, .. } | State::Stopped);
                assert!(lost, "{:#?}", world.history);
                used += 1;
            }
        }
    }
    assert!(good > 4 && used > 2, "{good} {used}");
}

/// The state was journalled as used, then its load failed, and the daemon is killed or the power
/// fails before it can say so.
#[test]
fn a_kill_after_a_failed_load_loses_nothing() {
    let mut start = World::asleep(Depth::Saved);
    start.event(Event::Wanted(Cause::Command));
    start.answer(0, Outcome::Good);
    start.event(Event::Spawned);
    start.answer(1, Outcome::Good);
    start.answer(0, Outcome::Failed);
    assert!(matches!(start.state(), State::Failed { state_kept: true, .. }), "{:?}", start.state());
    assert!(matches!(start.disk, State::Waking { state_used: true, .. }), "{:?}", start.disk);
    for cut in [World::crash, World::cut_power] {
        let mut world = start.clone();
        cut(&mut world, 0);
        world.calm();
        assert_eq!(world.state(), &State::Asleep { depth: Depth::Saved }, "{:#?}", world.history);
        world.event(Event::Wanted(Cause::Command));
        world.calm();
        assert_eq!((world.state(), world.boots), (&State::Active, start.boots));
    }
}
