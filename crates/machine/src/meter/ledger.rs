//! One machine's account.

use std::{collections::BTreeMap, time::Duration};

use dormouse_types::{MachineName, Timestamp, nanos};

use super::{Account, Bucket, Class, Grid, Open, Posting, Tags};
use crate::lifecycle::State;

/// The longest gap that is counted by what was before and after it.
pub const LONGEST_GAP: Duration = Duration::from_secs(31 * 86_400);
/// A gap that is counted by what was before it, whatever comes after: a restart of the daemon.
pub const SHORT_GAP: Duration = Duration::from_secs(60);
/// A step of the wall clock that is taken for its steering, not for its being set.
const STEERED: Duration = Duration::from_secs(1);
/// Buckets that wait to be durable at most; the oldest two are joined then.
const WAITING: usize = 1024;

/// An instant, by both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock.
    pub wall: Timestamp,
    /// A clock that is never set, from whatever beginning.
    pub steady: Duration,
}

/// What a ledger is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The machine entered a state.
    Entered(&'a State),
    /// Its memory was measured: bytes of the host that it occupies.
    Occupied(u64),
    /// A sleeper's process ended: what was occupied just before it, and what is left.
    Freed {
        /// Bytes that the machine occupied.
        before: u64,
        /// Bytes that it still occupies.
        after: u64,
    },
    /// What its guest sees changed, or became known: bytes.
    Configured(u64),
    /// The counter of its processors' time was read. One that is smaller than before began anew.
    Counter(Duration),
    /// It is another's from now on.
    Tagged(Tags),
    /// Time passed.
    Tick,
}

/// A machine as its account is begun or taken up.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// Its name.
    pub machine: MachineName,
    /// Whose it is.
    pub tags: Tags,
    /// Bytes that its guest sees.
    pub configured: u64,
    /// Where it is in its life.
    pub state: &'a State,
    /// Where it was by its record, which was written with its account.
    pub journalled: &'a State,
    /// The boot of the host, if that is known.
    pub boot: Option<&'a str>,
}

/// One machine's account: the newest bucket, and those that are not known to be durable.
#[derive(Clone, Debug)]
pub struct Ledger {
    machine: MachineName,
    grid: Grid,
    bucket: Bucket,
    open: Open,
    /// Up to when all is counted.
    at: Moment,
    /// Closed buckets, and the serial with which each was given out.
    waiting: Vec<(Bucket, Option<u64>)>,
    serial: u64,
    nudge: u64,
    /// Something happened since it was last posted.
    changed: bool,
    /// Its last posting has been given out.
    closed: bool,
}

impl Ledger {
    /// The account of a machine that is new at `now`; `last` is what is stored under its name, of one that is
    /// no more.
    #[must_use]
    pub fn new(subject: Subject<'_>, last: Option<&Account>, grid: Grid, now: Moment) -> Self {
        let Subject { machine, tags, configured, state, boot, .. } = subject;
        let class = Class::of(state);
        let counter = class.is_without_process().then_some(0);
        let open = Open {
            class,
            configured,
            occupied: 0,
            before: None,
            counter,
            reason: None,
            boot: boot.map(Into::into),
        };
        // It may begin at the instant at which a bucket of its namesake did.
        let serial = last.map_or(0, |last| last.serial + 1);
        let start = Timestamp(now.wall.0.saturating_add(serial));
        Self {
            machine,
            grid,
            bucket: Bucket::empty(start, tags),
            open,
            at: now,
            waiting: Vec::new(),
            serial,
            nudge: serial,
            changed: true,
            closed: false,
        }
    }

    /// Takes up the account of a machine that is found in a state at `now`.
    #[must_use]
    pub fn resume(subject: Subject<'_>, last: Account, grid: Grid, now: Moment) -> Self {
        let Some(open) = last.open else { return Self::new(subject, Some(&last), grid, now) };
        let Account { serial, nudge, bucket, .. } = last;
        let Subject { machine, tags, configured, state, journalled, boot } = subject;
        let has_rebooted = open.boot.as_deref().zip(boot).is_some_and(|(was, is)| was != is);
        let at = Moment { wall: bucket.end, steady: now.steady };
        let waiting = Vec::new();
        let (changed, closed) = (true, false);
        let mut ledger = Self { machine, grid, bucket, open, at, waiting, serial, nudge, changed, closed };
        ledger.fall_asleep(journalled);
        if has_rebooted {
            ledger.pass_boot(Class::of(state), now.wall);
        } else {
            ledger.pass_gap(Class::of(state), now.wall);
        }
        ledger.open.boot = boot.map(Into::into);
        ledger.handle(Event::Tagged(tags), now);
        ledger.handle(Event::Configured(configured), now);
        ledger.enter(state);
        ledger
    }

    /// A machine is asleep as soon as that is durable: the account that was written with it still has it on its way.
    fn fall_asleep(&mut self, journalled: &State) {
        let is_on_its_way = self.open.class == Class::Awake && self.open.reason.is_some();
        let is = Class::of(journalled);
        if is.is_asleep() && is != self.open.class && (is_on_its_way || self.open.class.is_asleep()) {
            self.enter(journalled);
        }
    }

    /// Counts what passed while nobody watched, of which only the wall clock tells.
    fn pass_gap(&mut self, found: Class, now: Timestamp) {
        let gap = now.since(self.at.wall);
        let was = self.open.class;
        let same = was == found || (was.is_awake() && found.is_awake());
        if gap <= SHORT_GAP {
            return self.pass(gap, now);
        }
        if same && gap <= LONGEST_GAP {
            // A wake takes a moment, and was not still going on all the while.
            self.open.class = if was == found { was } else { Class::Awake };
            return self.pass(gap, now);
        }
        self.pass_unknown(now);
    }

    /// Counts a gap in which the host was down, or booted: nothing ran, and no memory was there to be saved.
    fn pass_boot(&mut self, found: Class, now: Timestamp) {
        let slept = self.open.class == found && found.is_without_process();
        if !slept || now.since(self.at.wall) > LONGEST_GAP {
            return self.pass_unknown(now);
        }
        let before = self.open.before.take();
        self.open.occupied = 0;
        self.pass(now.since(self.at.wall), now);
        // The host is there again, and has its memory.
        self.open.before = before;
    }

    fn pass_unknown(&mut self, now: Timestamp) {
        let gap = now.since(self.at.wall);
        (self.open.class, self.open.occupied) = (Class::Unknown, 0);
        (self.open.before, self.open.counter) = (None, None);
        if gap <= LONGEST_GAP {
            return self.pass(gap, now);
        }
        // In one piece: its hours are of no interest.
        self.begin(self.at.wall);
        self.count(gap);
        self.bucket.end = now;
        self.begin(now);
        self.at.wall = now;
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, event: Event<'_>, now: Moment) {
        self.pass(now.steady.saturating_sub(self.at.steady), now.wall);
        self.at = now;
        match event {
            Event::Tick => return,
            Event::Entered(state) => self.enter(state),
            Event::Occupied(bytes) => {
                self.open.occupied = bytes;
                self.changed |= !self.open.class.is_awake();
                return;
            }
            Event::Freed { before, after } => {
                self.open.before = self.open.before.map(|_| before);
                self.open.occupied = after;
            }
            Event::Configured(bytes) => self.open.configured = bytes,
            Event::Counter(counter) => return self.counted(counter),
            Event::Tagged(tags) if tags == self.bucket.tags => return,
            Event::Tagged(tags) => {
                self.begin(now.wall);
                self.bucket.tags = tags;
            }
        }
        self.changed = true;
    }

    fn enter(&mut self, state: &State) {
        let (was, is) = (self.open.class, Class::of(state));
        let amounts = &mut self.bucket.amounts;
        match state {
            State::Settling { reason, .. } if is == Class::Awake => {
                self.open.reason = Some(reason.word().into())
            }
            State::Waking { cause, .. } | State::Undoing { cause } if was.is_asleep() => {
                count(&mut amounts.wakes, cause.word());
            }
            _ if was.is_asleep() && is == Class::Awake => count(&mut amounts.wakes, "others"),
            _ if was == Class::Stopped && is.is_awake() => amounts.starts += 1,
            _ if is.is_asleep() && was.is_awake() => {
                count(&mut amounts.sleeps, self.open.reason.take().as_deref().unwrap_or("others"));
            }
            _ => {}
        }
        if !is.is_asleep() {
            self.open.before = None;
        } else if !was.is_asleep() {
            self.open.before = Some(self.open.occupied);
        }
        if matches!(is, Class::Stopped | Class::Failed) {
            self.open.occupied = 0;
        }
        // What runs next has a process of its own, whose counter begins at zero.
        if is.is_without_process() {
            self.open.counter = Some(0);
        }
        self.open.class = is;
    }

    fn counted(&mut self, counter: Duration) {
        let counter = nanos(counter);
        if let Some(last) = self.open.counter {
            let used = counter.checked_sub(last).unwrap_or(counter);
            self.bucket.amounts.cpu = self.bucket.amounts.cpu.saturating_add(used);
        }
        self.open.counter = Some(counter);
    }

    /// Counts a span that ends where the wall clock is `now`, whatever it was before.
    fn pass(&mut self, span: Duration, now: Timestamp) {
        let mut from = now - span;
        if self.at.wall.since(from) > STEERED {
            // Set back. No bucket ever began so many nanoseconds after a whole hour.
            self.serial += 1;
            self.nudge = self.serial;
            self.begin(from);
        } else if from.since(self.at.wall) > STEERED && self.grid.hour_end(self.bucket.start) <= from {
            // Set forward: the hours between did not happen.
            self.begin(from);
        }
        let mut left = span;
        loop {
            let end = self.grid.hour_end(self.bucket.start);
            if end > now {
                break;
            }
            let before = left.min(end.since(from));
            self.count(before);
            left = left.saturating_sub(before);
            from = from.max(end);
            self.bucket.end = end;
            self.begin(end);
        }
        self.count(left);
        self.bucket.end = self.bucket.end.max(now);
        self.at.wall = now;
    }

    /// Counts a stretch of time in the present class.
    fn count(&mut self, span: Duration) {
        if span.is_zero() {
            return;
        }
        let (open, amounts) = (&self.open, &mut self.bucket.amounts);
        let span = nanos(span);
        let sum = amounts.spans.entry(open.class).or_default();
        *sum = sum.saturating_add(span);
        let of = |bytes: u64| u128::from(bytes) * u128::from(span);
        if open.class.is_allotted() {
            amounts.configured += of(open.configured);
        }
        if open.class.is_awake() {
            amounts.configured_awake += of(open.configured);
        }
        amounts.occupied += of(open.occupied);
        amounts.saved += of(open.before.map_or(0, |before| before.saturating_sub(open.occupied)));
    }

    /// Closes the bucket, and begins another one.
    fn begin(&mut self, start: Timestamp) {
        let filled = start;
        let mut start = Timestamp(start.0.saturating_add(self.nudge));
        if start == self.bucket.start {
            start.0 = start.0.saturating_add(1);
        }
        // The nudge is a name, not time: what is counted from here on begins at the true instant.
        let next = Bucket { end: filled, ..Bucket::empty(start, self.bucket.tags.clone()) };
        let done = std::mem::replace(&mut self.bucket, next);
        if done.amounts.is_empty() {
            return;
        }
        self.changed = true;
        self.waiting.push((done, None));
        if self.waiting.len() > WAITING {
            let (oldest, _) = self.waiting.remove(0);
            if let Some((next, given)) = self.waiting.first_mut() {
                next.amounts.merge(&oldest.amounts);
                *given = None;
            }
        }
    }

    /// What is to be written.
    pub fn post(&mut self) -> Posting {
        self.changed = false;
        self.posting(true)
    }

    /// What is to be written when the machine is forgotten.
    pub fn close(&mut self, now: Moment) -> Posting {
        self.handle(Event::Tick, now);
        self.begin(now.wall);
        self.closed = true;
        self.posting(false)
    }

    /// It was not forgotten after all.
    pub fn reopen(&mut self) {
        (self.closed, self.changed) = (false, true);
    }

    fn posting(&mut self, goes_on: bool) -> Posting {
        self.serial += 1;
        let serial = self.serial;
        self.waiting.iter_mut().for_each(|(_, given)| *given = given.or(Some(serial)));
        let closed = self.waiting.iter().map(|(bucket, _)| bucket.clone()).collect();
        let open = goes_on.then(|| self.open.clone());
        let account = Account { serial, nudge: self.nudge, bucket: self.bucket.clone(), open };
        Posting { machine: self.machine.clone(), closed, account }
    }

    /// The posting with this serial is durable, and so are those before it.
    pub fn posted(&mut self, serial: u64) {
        self.waiting.retain(|(_, given)| given.is_none_or(|given| given > serial));
    }

    /// The buckets that are not known to be durable, the newest last.
    pub fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.waiting.iter().map(|(bucket, _)| bucket).chain([&self.bucket])
    }

    /// Has its last posting been given out? No other may follow.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Is there something to write at once? Time alone is none: who slept, and is found asleep, has slept all
    /// the while. Nor is what is measured again and again while a machine is awake.
    #[must_use]
    pub const fn is_changed(&self) -> bool {
        self.changed && !self.closed
    }

    /// What time is counted as.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.open.class
    }
}

fn count(counts: &mut BTreeMap<String, u64>, word: &str) {
    *counts.entry(word.to_owned()).or_default() += 1;
}
