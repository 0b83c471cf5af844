//! Frames of every kind through every change, and what becomes of each.

use proptest::prelude::*;

use super::*;
use crate::Limits;

/// A frame that carries its number and, at the front, whether it is a group frame.
fn packet(number: u32, group: bool, len: usize) -> Packet {
    let mut frame = vec![u8::from(group); 14 + 4 + len];
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    Packet::new(dormouse_sys::VnetHdr::PLAIN, &frame).unwrap()
}

fn number(packet: &Packet) -> u32 {
    u32::from_be_bytes(packet.ethernet()[14..18].try_into().unwrap())
}

fn digest(packet: &Packet) -> u64 {
    u64::from(number(packet))
}

#[derive(Clone, Debug)]
enum Step {
    Unicast(usize, Worth),
    Group {
        len: usize,
        also_at_tap: bool,
        worth: Worth,
    },
    Open,
    Look,
    Close,
    Pop,
    Answer,
    /// Something is known of one of the frames that have tickets.
    Remove(prop::sample::Index),
    Freshen(prop::sample::Index),
}

fn worth() -> impl Strategy<Value = Worth> {
    prop_oneof![4 => Just(Worth::Stale), 1 => Just(Worth::Close), 3 => Just(Worth::Fresh)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..100, worth()).prop_map(|(len, worth)| Step::Unicast(len, worth)),
        4 => (0_usize..100, any::<bool>(), worth())
            .prop_map(|(len, also_at_tap, worth)| Step::Group { len, also_at_tap, worth }),
        1 => Just(Step::Open),
        2 => Just(Step::Look),
        1 => Just(Step::Close),
        2 => Just(Step::Pop),
        1 => Just(Step::Answer),
        1 => any::<prop::sample::Index>().prop_map(Step::Remove),
        1 => any::<prop::sample::Index>().prop_map(Step::Freshen),
    ]
}

/// What became of every frame.
#[derive(Default)]
struct Fates {
    out: Vec<u32>,
    answered: u64,
    at_tap: Vec<u32>,
}

fn run(queue: &mut ReplayQueue, steps: &[Step]) -> (Fates, u32) {
    let (mut fates, mut next, mut open) = (Fates::default(), 0, false);
    // Every third frame has one.
    let mut tickets: Vec<(u32, Ticket)> = Vec::new();
    let ticket = |number: u32, tickets: &mut Vec<(u32, Ticket)>| {
        let ticket = number.is_multiple_of(3).then(Ticket::new);
        tickets.extend(ticket.map(|ticket| (number, ticket)));
        ticket
    };
    for step in steps {
        match *step {
            Step::Unicast(len, worth) => {
                queue.push(packet(next, false, len), worth, ticket(next, &mut tickets));
                next += 1;
            }
            Step::Group { len, also_at_tap, worth } => {
                queue.push_group(packet(next, true, len), worth, ticket(next, &mut tickets));
                if also_at_tap && open {
                    fates.at_tap.push(next);
                    queue.seen_at_tap(u64::from(next));
                }
                next += 1;
            }
            Step::Open => {
                open = true;
                queue.open_boundary();
            }
            Step::Look => queue.look(digest),
            Step::Close => {
                open = false;
                queue.close_boundary(digest);
            }
            Step::Remove(which) if !tickets.is_empty() => {
                let (number_of, ticket) = tickets.swap_remove(which.index(tickets.len()));
                let held = queue.get(ticket).map(number);
                assert_eq!(queue.remove(ticket).as_ref().map(number), held);
                assert!(held.is_none_or(|held| held == number_of));
                fates.answered += u64::from(held.is_some());
            }
            Step::Freshen(which) if !tickets.is_empty() => {
                queue.freshen(tickets[which.index(tickets.len())].1);
            }
            Step::Remove(_) | Step::Freshen(_) => {}
            Step::Pop => fates.out.extend(queue.pop().as_ref().map(number)),
            Step::Answer => {
                for packet in queue.take_all() {
                    match number(&packet) % 5 {
                        0 => fates.answered += 1,
                        _ => {
                            queue.push(packet, Worth::Stale, None);
                        }
                    }
                }
            }
        }
    }
    queue.close_boundary(digest);
    while let Some(packet) = queue.pop() {
        fates.out.push(number(&packet));
    }
    (fates, next)
}

proptest! {
    #[test]
    fn every_frame_has_exactly_one_fate(
        steps in prop::collection::vec(step(), 0..200),
        frames in 0_u64..40,
        bytes in 0_u64..4000,
    ) {
        let budget = Budget::alone(Limits { frames, bytes });
        let mut queue = ReplayQueue::new(budget.clone());
        let (fates, pushed) = run(&mut queue, &steps);
        let sum = fates.out.len() as u64 + queue.drops().lost() + fates.answered + queue.suppressed();
        prop_assert_eq!(u64::from(pushed), sum);
        prop_assert_eq!(budget.used(), (0, 0));
        let mut once = fates.out.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!(once.len(), fates.out.len());
        prop_assert!(fates.out.iter().all(|n| !fates.at_tap.contains(n)), "delivered twice");
    }

    #[test]
    fn each_kind_stays_in_order(steps in prop::collection::vec(step(), 0..200)) {
        let mut queue = ReplayQueue::new(Budget::alone(Limits { frames: 1000, bytes: 1 << 20 }));
        let groups: Vec<bool> = steps
            .iter()
            .filter_map(|s| match s {
                Step::Unicast(..) => Some(false),
                Step::Group { .. } => Some(true),
                _ => None,
            })
            .collect();
        let (fates, _) = run(&mut queue, &steps);
        for kind in [false, true] {
            let of_kind: Vec<u32> =
                fates.out.iter().copied().filter(|n| groups[*n as usize] == kind).collect();
            prop_assert!(of_kind.is_sorted());
        }
    }

    #[test]
    fn all_stay_in_order_while_the_boundary_is_closed(
        steps in prop::collection::vec(step(), 0..200),
        frames in 1_u64..40,
    ) {
        let mut queue = ReplayQueue::new(Budget::alone(Limits { frames, bytes: 1 << 20 }));
        let closed: Vec<_> = steps.into_iter().filter(|step| !matches!(step, Step::Open)).collect();
        let (fates, _) = run(&mut queue, &closed);
        prop_assert!(fates.out.is_sorted(), "{:?}", fates.out);
    }

    #[test]
    fn group_frames_take_no_room_from_what_is_for_the_machine(
        steps in prop::collection::vec((any::<bool>(), worth()), 0..200),
        unicast in 0_usize..20,
    ) {
        let mut queue = ReplayQueue::new(Budget::alone(Limits { frames: 20, bytes: 1 << 20 }));
        let mut all = 0;
        for (group, worth) in steps.into_iter().filter(|(_, worth)| *worth != Worth::Fresh) {
            if group {
                queue.push_group(packet(0, true, 0), worth, None);
            } else if all < unicast {
                all += 1;
                prop_assert!(queue.push(packet(0, false, 0), worth, None).is_held());
            }
        }
        // Nor do those that come when it is wanted.
        (0..50).for_each(|_| _ = queue.push_group(packet(0, true, 0), Worth::Fresh, None));
        let kept = queue.take_all().iter().filter(|packet| !packet.is_group()).count();
        prop_assert_eq!(kept, all);
    }

    #[test]
    fn octets_are_accounted_exactly(lens in prop::collection::vec(0_usize..200, 0..50), limit in 0_u64..5000) {
        let budget = Budget::alone(Limits { frames: 20, bytes: limit });
        let mut queue = ReplayQueue::new(budget.clone());
        let mut model: Vec<u64> = Vec::new();
        for len in lens {
            let packet = packet(0, false, len);
            let cost = packet.cost();
            let full = if model.len() == 20 {
                Some(Reason::FrameLimit)
            } else {
                (model.iter().sum::<u64>() + cost > limit).then_some(Reason::ByteLimit)
            };
            let before = queue.drops().clone();
            queue.push(packet, Worth::Fresh, None);
            match full {
                Some(reason) => prop_assert_eq!(queue.drops().of(reason), before.of(reason) + 1),
                None => {
                    prop_assert_eq!(queue.drops(), &before);
                    model.push(cost);
                }
            }
            prop_assert_eq!(budget.used(), (model.len() as u64, model.iter().sum()));
        }
    }

    #[test]
    fn the_boundary_suppresses_as_often_as_seen(copies in 0_u32..6, seen in 0_u32..6) {
        let mut queue = ReplayQueue::new(Budget::alone(Limits { frames: 100, bytes: 1 << 20 }));
        queue.open_boundary();
        (0..seen).for_each(|_| queue.seen_at_tap(7));
        assert!((0..copies).all(|_| queue.push_group(packet(7, true, 0), Worth::Fresh, None).is_held()));
        prop_assert_eq!(queue.close_boundary(digest), u64::from(copies.min(seen)));
        prop_assert_eq!(queue.len(), (copies - copies.min(seen)) as usize);
    }
}

#[test]
fn what_is_in_doubt_waits_for_two_looks_and_no_longer() {
    let mut queue = ReplayQueue::new(Budget::alone(Limits { frames: 9, bytes: 1000 }));
    queue.open_boundary();
    queue.push_group(packet(1, true, 0), Worth::Fresh, None);
    queue.look(digest);
    assert!(queue.front().is_none());
    queue.push_group(packet(2, true, 0), Worth::Fresh, None);
    queue.seen_at_tap(2);
    queue.look(digest);
    assert_eq!(queue.pop().map(|p| number(&p)), Some(1));
    queue.look(digest);
    assert!(queue.pop().is_none());
    assert_eq!((queue.len(), queue.suppressed()), (0, 1));
}

#[test]
fn older_frames_come_first() {
    let mut queue = ReplayQueue::new(Budget::alone(Limits { frames: 1, bytes: 1000 }));
    queue.push(packet(3, false, 0), Worth::Fresh, None);
    queue.push_older(vec![packet(1, false, 0), packet(2, false, 0)]);
    let order: Vec<u32> = std::iter::from_fn(|| queue.pop()).map(|p| number(&p)).collect();
    assert_eq!(order, [1, 2, 3]);
}

#[test]
fn stale_frames_give_way_and_fresh_ones_do_not() {
    let mut queue = ReplayQueue::new(Budget::alone(Limits { frames: 3, bytes: 1000 }));
    let mut push = |n, worth| queue.push(packet(n, false, 0), worth, None);
    let room: Vec<Pushed> = (0..5).map(|n| push(n, Worth::Stale)).collect();
    assert_eq!(room, [Pushed::Held, Pushed::Held, Pushed::Held, Pushed::InPlace, Pushed::InPlace]);
    let room: Vec<Pushed> = (5..9).map(|n| push(n, Worth::Fresh)).collect();
    assert_eq!(room, [Pushed::InPlace, Pushed::InPlace, Pushed::InPlace, Pushed::Dropped]);
    let order: Vec<u32> = queue.take_all().iter().map(number).collect();
    assert_eq!(order, [5, 6, 7]);
    assert_eq!(queue.drops().of(Reason::FrameLimit), 6);
}

#[test]
fn a_close_outlives_a_night_of_noise() {
    let mut queue = ReplayQueue::new(Budget::alone(Limits { frames: 4096, bytes: 8 << 20 }));
    queue.push(packet(0, false, 0), Worth::Close, None);
    (1..10_000).for_each(|n| _ = queue.push_group(packet(n, true, 100), Worth::Stale, None));
    (10_000..20_000).for_each(|n| _ = queue.push(packet(n, false, 100), Worth::Stale, None));
    assert_eq!(queue.front().map(number), Some(0));
    assert_eq!(queue.take_all().iter().filter(|packet| packet.is_group()).count(), 0);
}

#[test]
fn only_the_last_group_frames_are_kept() {
    let mut queue = ReplayQueue::new(Budget::alone(Limits { frames: 4096, bytes: 8 << 20 }));
    let pushed: Vec<_> =
        (0..1000).map(|n| queue.push_group(packet(n, true, 60), Worth::Stale, None)).collect();
    assert_eq!(pushed[..128], [Pushed::Held; 128]);
    assert_eq!(pushed[128..], [Pushed::InPlace; 872]);
    assert_eq!(queue.drops().of(Reason::FrameLimit), 872);
    // Long ones are fewer.
    (1000..1100).for_each(|n| _ = queue.push_group(packet(n, true, 9000), Worth::Stale, None));
    assert_eq!(queue.len() as u64, (256 << 10) / packet(0, true, 9000).cost());
    // Those that come when it is wanted are kept like any others.
    (2000..2300).for_each(|n| _ = queue.push_group(packet(n, true, 60), Worth::Fresh, None));
    assert!(queue.len() > 300);
    assert!(queue.take_all().iter().map(number).is_sorted());
}

#[test]
fn machines_share_the_hosts_room() {
    let host = HostBudget::new(100_000);
    let limits = Limits { frames: 4096, bytes: 8 << 20 };
    let mut queues: Vec<_> = (0..3).map(|_| ReplayQueue::new(Budget::new(limits, host.clone()))).collect();
    for queue in &mut queues {
        (0..1000).for_each(|n| _ = queue.push(packet(n, false, 100), Worth::Fresh, None));
        assert!(queue.drops().of(Reason::HostLimit) > 0);
    }
    let held: usize = queues.iter().map(ReplayQueue::len).sum();
    assert!(held as u64 * packet(0, false, 100).cost() < 100_000);
    queues.clear();
    assert_eq!(host.used(), 0);
}

#[test]
fn ports_share_a_budget_and_give_it_back() {
    let budget = Budget::alone(Limits { frames: 1, bytes: 1000 });
    let (mut a, mut b) = (ReplayQueue::new(budget.clone()), ReplayQueue::new(budget.clone()));
    a.push(packet(1, false, 0), Worth::Fresh, None);
    b.push(packet(2, false, 0), Worth::Fresh, None);
    assert_eq!((b.len(), b.drops().of(Reason::FrameLimit)), (0, 1));
    drop(a);
    b.push(packet(2, false, 0), Worth::Fresh, None);
    assert_eq!(budget.used().0, 1);
}
