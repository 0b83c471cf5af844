//! What must hold of accounts, whatever happens; and examples.

use std::time::Duration;

use dormouse_types::{Depth, MachineName, Timestamp};
use proptest::prelude::*;

use super::report::{Key, Line, Table, Value};
use super::*;
use crate::lifecycle::{Cause, SleepReason, State};

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
/// A whole hour of UTC, in 2026.
const START: u64 = 1_795_244_400 * SECOND;
const GIB: u64 = 1 << 30;
const SAVED: State = State::Asleep { depth: Depth::Saved };

fn web() -> MachineName {
    "web".parse().unwrap()
}

fn subject(state: &State) -> Subject<'_> {
    Subject {
        machine: web(),
        tags: Tags::default(),
        configured: GIB,
        state,
        journalled: state,
        boot: Some("1"),
    }
}

/// So many seconds after the start, by clocks that agree.
fn at(seconds: u64) -> Moment {
    moment(START + seconds * SECOND, seconds)
}

fn moment(wall: u64, steady: u64) -> Moment {
    Moment { wall: Timestamp(wall), steady: Duration::from_secs(steady) }
}

fn begin(state: &State) -> Ledger {
    Ledger::new(subject(state), None, Grid::default(), at(0))
}

fn packet() -> State {
    State::Waking { from: Some(Depth::Saved), state_used: true, cause: Cause::Packet("tcp".into()) }
}

fn settling(reason: SleepReason) -> State {
    State::Settling { depth: Depth::Saved, reason }
}

fn total<'a>(buckets: impl Iterator<Item = &'a Bucket>) -> Amounts {
    let mut sum = Amounts::default();
    buckets.for_each(|bucket| sum.merge(&bucket.amounts));
    sum
}

fn seconds(amounts: &Amounts, class: Class) -> u64 {
    amounts.span(class).as_secs()
}

#[test]
fn a_day_in_the_life_of_a_machine() {
    let mut ledger = begin(&State::Stopped);
    ledger.handle(
        Event::Entered(&State::Waking { from: None, state_used: false, cause: Cause::Command }),
        at(60),
    );
    ledger.handle(Event::Entered(&State::Active), at(62));
    ledger.handle(Event::Counter(Duration::from_secs(2)), at(62));
    ledger.handle(Event::Occupied(GIB / 2), at(62));
    ledger.handle(Event::Counter(Duration::from_secs(32)), at(100));
    ledger.handle(Event::Entered(&settling(SleepReason::Idle)), at(162));
    ledger.handle(Event::Entered(&SAVED), at(162));
    // It occupied as much, in the end, as was known of it.
    ledger.handle(Event::Freed { before: GIB / 2, after: GIB / 8 }, at(162));
    ledger.handle(Event::Entered(&packet()), at(162 + 1000));
    ledger.handle(Event::Entered(&State::Active), at(1163));
    // A new process, whose counter began at zero.
    ledger.handle(Event::Counter(Duration::from_secs(40)), at(1203));
    let sum = total(ledger.buckets());
    let classes = [Class::Stopped, Class::Waking, Class::Awake, Class::Saved];
    assert_eq!(classes.map(|class| seconds(&sum, class)), [60, 3, 140, 1000]);
    assert_eq!(sum.total(), Duration::from_secs(1203));
    assert_eq!(sum.cpu, 72 * SECOND);
    let gib_seconds = |n: u64| u128::from(n) * u128::from(GIB) * u128::from(SECOND);
    assert_eq!(sum.configured, gib_seconds(1143));
    assert_eq!(sum.configured_awake, gib_seconds(143));
    assert_eq!(sum.occupied, gib_seconds(50) + gib_seconds(1000) / 8 + gib_seconds(41) / 8);
    assert_eq!(sum.saved, gib_seconds(1000) * 3 / 8);
    assert_eq!(
        (sum.starts, &sum.wakes, &sum.sleeps),
        (1, &[("packet".into(), 1)].into(), &[("idle".into(), 1)].into())
    );
}

#[test]
fn hours_begin_with_the_grid_and_owners_have_buckets_of_their_own() {
    // As in India, whose hours begin at half past.
    let grid = Grid::of_offset(5 * 3600 + 1800);
    let mut ledger = Ledger::new(subject(&State::Active), None, grid, at(0));
    let alice = Tags { owner: Some("alice".into()), ..Tags::default() };
    ledger.handle(Event::Tagged(alice.clone()), at(600));
    ledger.handle(Event::Tick, at(2 * 3600));
    let starts: Vec<_> = ledger.buckets().map(|b| (b.start.0 - START) / SECOND).collect();
    assert_eq!(starts, [0, 600, 1800, 5400]);
    let spans: Vec<_> = ledger.buckets().map(|b| b.amounts.total().as_secs()).collect();
    assert_eq!(spans, [600, 1200, 3600, 1800]);
    assert!(ledger.buckets().skip(1).all(|b| b.tags == alice));
}

#[test]
fn a_sleep_that_goes_deeper_is_one() {
    let mut ledger = begin(&State::Active);
    let deeper = settling(SleepReason::Deeper(Depth::Paused));
    let paused = State::Asleep { depth: Depth::Paused };
    for (second, state) in [(1, settling(SleepReason::Idle)), (2, paused), (12, deeper), (13, SAVED)] {
        ledger.handle(Event::Entered(&state), at(second));
    }
    ledger.handle(Event::Tick, at(33));
    let sum = total(ledger.buckets());
    assert_eq!([Class::Awake, Class::Paused, Class::Saved].map(|class| seconds(&sum, class)), [2, 11, 20]);
    assert_eq!((&sum.sleeps, &sum.wakes), (&[("idle".into(), 1)].into(), &[].into()));
}

#[test]
fn what_others_do_is_counted_as_theirs() {
    let mut ledger = begin(&State::Active);
    for state in [SAVED, State::Active, State::Stopped, State::Active] {
        ledger.handle(Event::Entered(&state), at(1));
    }
    let sum = total(ledger.buckets());
    let others = [("others".to_owned(), 1)].into();
    assert_eq!((&sum.sleeps, &sum.wakes, sum.starts), (&others, &others, 1));
}

#[test]
fn a_clock_that_is_set_neither_adds_nor_takes_time() {
    let mut ledger = begin(&State::Active);
    ledger.handle(Event::Tick, at(100));
    // A day forward, two years back, and an hour forward again.
    let day = moment(START + 24 * HOUR, 200);
    ledger.handle(Event::Tick, day);
    ledger.handle(Event::Tick, moment(START - 2 * 366 * 24 * HOUR, 300));
    ledger.handle(Event::Tick, moment(START - 2 * 366 * 24 * HOUR + HOUR, 400));
    let sum = total(ledger.buckets());
    assert_eq!(sum.total(), Duration::from_secs(400));
    assert!(ledger.buckets().count() <= 5, "hours that did not happen have no buckets");
}

#[test]
fn hours_that_come_twice_have_two_buckets() {
    let mut ledger = begin(&State::Active);
    ledger.handle(Event::Tick, at(2 * 3600));
    ledger.handle(Event::Tick, moment(START, 2 * 3600));
    ledger.handle(Event::Tick, moment(START + 2 * HOUR, 4 * 3600));
    let mut starts: Vec<_> = ledger.buckets().map(|b| b.start).collect();
    assert_eq!(total(ledger.buckets()).total(), Duration::from_secs(4 * 3600));
    starts.sort();
    let distinct = starts.len();
    starts.dedup();
    assert_eq!(starts.len(), distinct);
}

/// An account as it is stored, taken up so many seconds later in a state.
fn after(mut ledger: Ledger, gap: u64, state: &State) -> Amounts {
    let posting = ledger.post();
    let now = Moment { wall: posting.account.bucket.end + Duration::from_secs(gap), steady: Duration::ZERO };
    let resumed = Ledger::resume(subject(state), posting.account, Grid::default(), now);
    total(posting.closed.iter().chain(resumed.buckets()))
}

#[test]
fn a_gap_is_what_it_was_before_and_after_or_unknown() {
    let day = 24 * 3600;
    let asleep = || {
        let mut ledger = begin(&State::Active);
        ledger.handle(Event::Occupied(GIB), at(0));
        ledger.handle(Event::Entered(&SAVED), at(10));
        ledger.handle(Event::Occupied(0), at(10));
        ledger
    };
    let slept = after(asleep(), day, &SAVED);
    assert_eq!(
        (seconds(&slept, Class::Saved), slept.saved),
        (day, u128::from(GIB) * u128::from(day * SECOND))
    );
    let changed = after(asleep(), day, &State::Active);
    assert_eq!(
        (seconds(&changed, Class::Unknown), changed.saved, changed.total().as_secs()),
        (day, 0, day + 10)
    );
    // A restart of the daemon, in which a wake went on.
    let waking = after(asleep(), 2, &packet());
    assert_eq!((seconds(&waking, Class::Saved), seconds(&waking, Class::Unknown)), (2, 0));
    let long = after(asleep(), 40 * day, &SAVED);
    assert_eq!((seconds(&long, Class::Unknown), long.total().as_secs()), (40 * day, 40 * day + 10));
    let mut waking = begin(&packet());
    waking.handle(Event::Tick, at(1));
    assert_eq!(seconds(&after(waking, day, &State::Active), Class::Awake), day);
}

#[test]
fn who_is_killed_as_its_machine_falls_asleep_has_counted_the_sleep() {
    let day = 24 * 3600;
    let mut ledger = begin(&State::Active);
    ledger.handle(Event::Entered(&settling(SleepReason::Idle)), at(8));
    ledger.handle(Event::Tick, at(10));
    for gap in [2, day] {
        let used = after(ledger.clone(), gap, &SAVED);
        assert_eq!((seconds(&used, Class::Awake), seconds(&used, Class::Saved)), (10, gap));
        assert_eq!(used.sleeps, [("idle".to_owned(), 1)].into());
    }
    // One that was undone, and one that began to wake: what is durable came before what was counted.
    ledger.handle(Event::Entered(&State::Active), at(11));
    assert_eq!(seconds(&after(ledger.clone(), 2, &State::Active), Class::Awake), 13);
    ledger.handle(Event::Entered(&SAVED), at(11));
    ledger.handle(Event::Entered(&packet()), at(12));
    let used = after(ledger, 2, &SAVED);
    assert_eq!((seconds(&used, Class::Waking), seconds(&used, Class::Saved)), (2, 1));
}

#[test]
fn while_the_host_is_down_nothing_is_saved() {
    let day = 24 * 3600;
    let asleep = |state| {
        let mut ledger = begin(&State::Active);
        ledger.handle(Event::Occupied(GIB), at(0));
        ledger.handle(Event::Entered(state), at(10));
        ledger.handle(Event::Occupied(0), at(10));
        ledger.post().account
    };
    let gone_by = |last: Account, boot, state: &State| {
        let then = moment(last.bucket.end.0 + day * SECOND, 0);
        let subject = Subject { boot: Some(boot), ..subject(state) };
        let mut ledger = Ledger::resume(subject, last, Grid::default(), then);
        ledger.handle(Event::Tick, moment(then.wall.0 + 10 * SECOND, 10));
        total(ledger.buckets())
    };
    let used = gone_by(asleep(&SAVED), "2", &SAVED);
    assert_eq!(used.saved, u128::from(GIB) * u128::from(10 * SECOND), "since the host is back");
    assert_eq!(seconds(&used, Class::Unknown), 0);
    let same = gone_by(asleep(&SAVED), "1", &SAVED);
    assert_eq!(same.saved, u128::from(GIB) * u128::from((day + 10) * SECOND));
    // What is found as it was cannot have been so all the while.
    let paused = State::Asleep { depth: Depth::Paused };
    let used = gone_by(asleep(&paused), "2", &paused);
    assert!(used.saved == 0 && seconds(&used, Class::Unknown) == day, "{used:?}");
}

#[test]
fn one_that_is_closed_gives_out_nothing_more_unless_it_stays() {
    let mut ledger = begin(&State::Active);
    let last = ledger.close(at(1)).account;
    ledger.handle(Event::Entered(&State::Stopped), at(2));
    assert!(ledger.is_closed() && !ledger.is_changed());
    ledger.reopen();
    let account = ledger.post().account;
    assert!(account.open.is_some() && account.serial > last.serial);
    assert_eq!(seconds(&total(ledger.buckets()), Class::Awake), 2);
}

#[test]
fn a_sleep_that_a_restart_interrupts_keeps_its_reason() {
    let mut ledger = begin(&State::Active);
    ledger.handle(Event::Entered(&settling(SleepReason::Command)), at(1));
    assert_eq!(after(ledger, 1, &SAVED).sleeps, [("command".into(), 1)].into());
}

#[test]
fn processor_time_goes_on_over_a_restart_unless_nothing_is_known() {
    let read = |ledger: Ledger, gap, state: &State| {
        let mut ledger = ledger;
        let account = ledger.post().account;
        let now = Moment { wall: account.bucket.end + Duration::from_secs(gap), steady: Duration::ZERO };
        let mut resumed = Ledger::resume(subject(state), account, Grid::default(), now);
        resumed.handle(Event::Counter(Duration::from_secs(500)), now);
        total(resumed.buckets()).cpu / SECOND
    };
    let mut ledger = begin(&State::Active);
    ledger.handle(Event::Counter(Duration::from_secs(400)), at(1));
    assert_eq!(read(ledger.clone(), 1000, &State::Active), 100);
    ledger.handle(Event::Entered(&State::Stopped), at(2));
    assert_eq!(read(ledger, 1000, &State::Active), 0);
}

#[test]
fn a_namesake_of_one_that_is_no_more_has_buckets_of_its_own() {
    let mut ledger = begin(&State::Active);
    let last = ledger.close(at(10));
    assert_eq!((last.closed.len(), last.account.open.is_none()), (1, true));
    let again = Ledger::resume(subject(&State::Stopped), last.account, Grid::default(), at(0));
    assert_ne!(again.buckets().next().unwrap().start, last.closed[0].start);
    assert_eq!(total(again.buckets()), Amounts::default());
}

#[test]
fn what_is_durable_is_not_given_out_again() {
    let mut ledger = begin(&State::Active);
    ledger.handle(Event::Tick, at(2 * 3600 + 1));
    let first = ledger.post();
    assert_eq!(first.closed.len(), 2);
    let second = ledger.post();
    assert_eq!(second.closed, first.closed);
    assert!(second.account.serial > first.account.serial);
    ledger.posted(first.account.serial);
    assert_eq!((ledger.post().closed.len(), ledger.is_changed()), (0, false));
}

#[test]
fn old_hours_become_days() {
    let row = |hour: u64, owner: &str| {
        let start = Timestamp(START + hour * HOUR);
        let mut amounts = Amounts::default();
        amounts.spans.insert(Class::Awake, HOUR);
        let tags = Tags { owner: Some(owner.into()), ..Tags::default() };
        Row { machine: web(), bucket: Bucket { start, end: Timestamp(start.0 + HOUR), tags, amounts } }
    };
    let rows = [row(25, "alice"), row(0, "alice"), row(1, "bob"), row(2, "alice"), row(3, "bob")];
    let day = |at: Timestamp| Timestamp(at.0 / (24 * HOUR) * (24 * HOUR));
    let done = compact(&rows, day);
    assert_eq!(done.remove, [(web(), rows[3].bucket.start), (web(), rows[4].bucket.start)]);
    let spans: Vec<_> =
        done.put.iter().map(|r| (r.bucket.start, r.bucket.amounts.total().as_secs())).collect();
    assert_eq!(spans, [(rows[1].bucket.start, 7200), (rows[2].bucket.start, 7200)]);
    assert_eq!(done.put[0].bucket.end, rows[3].bucket.end);
    assert_eq!(compact(&done.put, day), Compaction::default());
}

#[test]
fn energy_is_as_the_model_says() {
    let energy = Energy { memory_watts: 0.5, idle_watts: 1.0, busy_watts: 3.0, cpus: 8, memory: 16 * GIB };
    let gib_hour = u128::from(GIB) * u128::from(HOUR);
    let amounts = Amounts { cpu: HOUR, occupied: 2 * gib_hour, saved: gib_hour, ..Amounts::default() };
    // 2 GiB x (0.5 W + 8 W / 16) for an hour, and a busy processor.
    assert!((energy.used(&amounts) - (2.0 + 3.0) * 3600.0).abs() < 1e-6);
    assert!((energy.saved(&amounts) - 3600.0).abs() < 1e-6);
    assert_eq!(Energy { memory: 0, ..energy }.saved(&Amounts::default()), 0.0);
}

#[test]
fn is_summed_by_what_is_asked_for() {
    let mut ledger = begin(&State::Active);
    let labels = [("project".to_owned(), "shop".to_owned())].into();
    ledger.handle(Event::Tagged(Tags { owner: Some("alice".into()), labels }), at(600));
    ledger.handle(Event::Tick, at(5400));
    let rows: Vec<_> = ledger.buckets().map(|b| Row { machine: web(), bucket: b.clone() }).collect();
    let hour = |at| Grid::default().hour_start(at);
    let by = |keys: &[Key]| {
        let mut table = Table::new(keys);
        rows.iter().for_each(|row| table.add(row, hour, hour));
        let lines = table.lines().into_iter();
        lines.map(|Line { values, amounts }| (values, amounts.total().as_secs())).collect::<Vec<_>>()
    };
    let name = |name: &str| Value::Name(name.into());
    let time = |hour| Value::Time(Timestamp(START + hour * HOUR));
    assert_eq!(by(&[]), [(vec![], 5400)]);
    assert_eq!(by(&[Key::Owner]), [(vec![name("")], 600), (vec![name("alice")], 4800)]);
    let project = Key::Label("project".into());
    assert_eq!(by(&[project]), [(vec![name("")], 600), (vec![name("shop")], 4800)]);
    let both = [(vec![name("web"), time(0)], 3600), (vec![name("web"), time(1)], 1800)];
    assert_eq!(by(&[Key::Machine, Key::Hour]), both);
    for text in ["machine", "owner", "label:a.b", "day", "hour"] {
        assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
    }
    assert!("label:".parse::<Key>().is_err() && "month".parse::<Key>().is_err());
}

#[test]
fn is_kept_as_json() {
    let mut ledger = begin(&State::Active);
    ledger.handle(Event::Occupied(u64::MAX), at(0));
    ledger.handle(Event::Entered(&SAVED), at(1_000_000));
    let account = ledger.post().account;
    let json = serde_json::to_string(&account).unwrap();
    assert_eq!(serde_json::from_str::<Account>(&json).unwrap(), account, "{json}");
    // A class of a newer version.
    let newer = json.replace("\"saved\"", "\"hibernated\"");
    assert_eq!(serde_json::from_str::<Account>(&newer).unwrap().open.unwrap().class, Class::Unknown);
}

fn state() -> impl Strategy<Value = State> {
    let depth =
        prop_oneof![Just(Depth::Paused), Just(Depth::Saved), Just(Depth::Off), Just(Depth::Pmsuspended)];
    prop_oneof![
        Just(State::Stopped),
        Just(State::Active),
        Just(State::Stopping),
        Just(packet()),
        Just(settling(SleepReason::Budget(String::new()))),
        Just(State::Undoing { cause: Cause::Restart }),
        Just(State::Suspended { by: String::new() }),
        Just(State::Failed { during: String::new(), why: String::new(), state_kept: true }),
        depth.prop_map(|depth| State::Asleep { depth }),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Enter(State),
    Occupied(u64),
    Counter(u64),
    Owner(u8),
    /// The wall clock is set by so many seconds.
    Set(i64),
    /// The daemon ends, and starts again so many seconds later; whatever was not posted is lost.
    Restart(u64),
    Post(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => state().prop_map(Op::Enter),
        2 => (0..8 * GIB).prop_map(Op::Occupied),
        2 => (0..10_000_u64).prop_map(Op::Counter),
        1 => (0..3_u8).prop_map(Op::Owner),
        1 => (-200_000..200_000_i64).prop_map(Op::Set),
        1 => (0..100_000_u64).prop_map(Op::Restart),
        2 => any::<bool>().prop_map(Op::Post),
    ]
}

/// What is stored, as a registry keeps it.
#[derive(Default)]
struct Stored {
    closed: std::collections::BTreeMap<Timestamp, Bucket>,
    account: Option<Account>,
}

impl Stored {
    fn take(&mut self, posting: Posting) {
        for bucket in posting.closed {
            let before = self.closed.insert(bucket.start, bucket.clone());
            assert!(before.is_none_or(|before| before == bucket), "a closed bucket was changed");
        }
        self.account = Some(posting.account);
    }

    fn total(&self) -> Amounts {
        total(self.closed.values().chain(self.account.iter().map(|account| &account.bucket)))
    }
}

proptest! {
    /// The seconds of all classes are the time that passed, through clocks that are set and restarts; and
    /// what a restart loses is what was counted since the last posting, which its gap makes up for.
    #[test]
    fn spans_add_up_to_the_time_that_passed(ops in prop::collection::vec((0..20_000_u64, op()), 1..60), shift in -43_200..50_400_i32) {
        let grid = Grid::of_offset(shift);
        let (mut wall, mut steady, mut passed) = (START + 400 * 24 * HOUR, 0_u64, 0_u64);
        let now = |wall, steady| moment(wall, steady);
        let mut ledger = Ledger::new(subject(&State::Stopped), None, grid, now(wall, steady));
        let mut stored = Stored::default();
        let mut last = State::Stopped;
        // What passed up to the last posting, and the wall clock then.
        stored.take(ledger.post());
        let mut posted = (0, wall);
        for (wait, op) in ops {
            (wall, steady, passed) = (wall + wait * SECOND, steady + wait, passed + wait);
            match op {
                Op::Enter(state) => {
                    ledger.handle(Event::Entered(&state), now(wall, steady));
                    last = state;
                }
                Op::Occupied(bytes) => ledger.handle(Event::Occupied(bytes), now(wall, steady)),
                Op::Counter(counter) => ledger.handle(Event::Counter(Duration::from_secs(counter)), now(wall, steady)),
                Op::Owner(n) => {
                    let tags = Tags { owner: Some(format!("o{n}")), ..Tags::default() };
                    ledger.handle(Event::Tagged(tags), now(wall, steady));
                }
                Op::Set(by) => wall = wall.saturating_add_signed(by * 1_000_000_000),
                Op::Post(durable) => {
                    ledger.handle(Event::Tick, now(wall, steady));
                    let posting = ledger.post();
                    if durable {
                        ledger.posted(posting.account.serial);
                        stored.take(posting);
                        posted = (passed, wall);
                    }
                }
                Op::Restart(gap) => {
                    wall += gap * SECOND;
                    // From the last posting on, only the wall clock tells.
                    let known = wall.saturating_sub(posted.1) / SECOND;
                    passed = posted.0 + known;
                    steady = 0;
                    let account = stored.account.clone().unwrap();
                    ledger = Ledger::resume(subject(&last), account, grid, now(wall, steady));
                    prop_assert_eq!(total(stored.closed.values().chain(ledger.buckets())).total().as_secs(), passed);
                }
            }
        }
        ledger.handle(Event::Tick, now(wall, steady));
        stored.take(ledger.close(now(wall, steady)));
        let sum = stored.total();
        prop_assert_eq!(sum.total(), Duration::from_secs(passed));
        prop_assert!(sum.saved <= u128::from(8 * GIB) * u128::from(passed * SECOND));
        prop_assert!(sum.configured_awake <= sum.configured);
        for bucket in stored.closed.values() {
            prop_assert!(bucket.end >= bucket.start || bucket.start.0 - bucket.end.0 < SECOND);
        }
    }

    /// Sums do not depend on what is added to what first.
    #[test]
    fn merging_is_associative_and_commutative(amounts in prop::collection::vec(amounts(), 3)) {
        let add = |a: &Amounts, b: &Amounts| { let mut sum = a.clone(); sum.merge(b); sum };
        let [a, b, c] = [&amounts[0], &amounts[1], &amounts[2]];
        prop_assert_eq!(add(&add(a, b), c), add(a, &add(b, c)));
        prop_assert_eq!(add(a, b), add(b, a));
        prop_assert_eq!(add(a, &Amounts::default()), a.clone());
    }

    /// Days have all that their hours had.
    #[test]
    fn compaction_loses_nothing(starts in prop::collection::btree_set(0..200_u64, 1..60), amounts in amounts(), owners in 1..3_u64) {
        let row = |hour: &u64| {
            let start = Timestamp(START + hour * HOUR);
            let tags = Tags { owner: Some((hour % owners).to_string()), ..Tags::default() };
            Row { machine: web(), bucket: Bucket { start, end: start, tags, amounts: amounts.clone() } }
        };
        let rows: Vec<_> = starts.iter().map(row).collect();
        let done = compact(&rows, |at| Timestamp(at.0 / (24 * HOUR)));
        let mut kept: std::collections::BTreeMap<_, _> = rows.iter().map(|row| (row.bucket.start, &row.bucket)).collect();
        for (_, start) in &done.remove {
            prop_assert!(kept.remove(start).is_some());
        }
        kept.extend(done.put.iter().map(|row| (row.bucket.start, &row.bucket)));
        prop_assert_eq!(total(kept.into_values()), total(rows.iter().map(|row| &row.bucket)));
    }
}

fn amounts() -> impl Strategy<Value = Amounts> {
    let class = (0..Class::ALL.len()).prop_map(|n| Class::ALL[n]);
    let spans = prop::collection::btree_map(class, any::<u64>(), 0..4);
    let words = || prop::collection::btree_map("[a-c]", any::<u64>(), 0..3);
    let more = (any::<u64>(), any::<u128>(), any::<u128>(), any::<u128>(), any::<u64>());
    (spans, words(), words(), more).prop_map(
        |(spans, wakes, sleeps, (cpu, configured, occupied, saved, starts))| Amounts {
            spans,
            cpu,
            configured,
            configured_awake: configured / 2,
            occupied,
            saved,
            wakes,
            sleeps,
            starts,
        },
    )
}
