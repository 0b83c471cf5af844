//! Numbered datagrams, sent while a guest goes to sleep, sleeps and wakes: is every one there, once,
//! in order?
//!
//! The control is the same stream to the same guest that stays awake: what is lost there, the guest
//! and its tap lose by themselves at such a rate.

use crate::{
    report::Table,
    rival::{Dormouse, IP, Machine, Rival},
};
use anyhow::{Context, Result, bail, ensure};
use dormouse_lab::{Client, SinkStats};
use std::{net::SocketAddr, thread, time::Duration};

const SIZE: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a stream runs before the sleep, while asleep, and after the packet that wakes.
#[derive(Clone, Copy, Debug)]
struct Phases {
    before: Duration,
    asleep: Duration,
    after: Duration,
}

impl Phases {
    /// The faster, the shorter: a guest under emulation must be able to take it all in at last.
    fn of(rate: u32) -> Self {
        let share = |at_slow: u64| Duration::from_millis(if rate > 50_000 { at_slow / 5 } else { at_slow });
        Self { before: share(250), asleep: share(250), after: share(500) }
    }
}

/// Counts over all cycles at one rate.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    sent: u64,
    held: u64,
    lost: u64,
    twice: u64,
    reordered: u64,
    dropped_by_guest: u64,
}

impl Counts {
    fn add(&mut self, sent: u64, held: u64, before: &SinkStats, after: &SinkStats) {
        self.sent += sent;
        self.held += held;
        self.lost += sent.saturating_sub(after.received);
        self.twice += after.duplicates;
        self.reordered += after.reordered;
        self.dropped_by_guest += after.rcvbuf_errors - before.rcvbuf_errors;
    }
}

/// The guest sends too, all the time: one echo request after the other.
const CHATTER: &str = "(while :; do ping -c 1 -W 1 10.9.0.1; done) >/dev/null 2>&1 </dev/null &";

/// Measures sleeps at each rate, `cycles` or, at the highest, five times as many, and `cycles` controls.
pub(crate) fn measure(machine: &Machine, rates: &[u32], cycles: usize) -> Result<Table> {
    let mut table = Table::new(&[
        "datagrams a second",
        "",
        "sent",
        "held meanwhile",
        "lost",
        "twice",
        "out of order",
        "lost by the guest's socket",
    ]);
    eprintln!("stream: booting");
    let mut rival = Dormouse::boot(machine)?;
    rival.client().ssh(&machine.image, IP)?.run(CHATTER)?;
    for &rate in rates {
        eprintln!("stream: {rate} a second");
        let (mut control, mut slept) = (Counts::default(), Counts::default());
        let sleeps = if Some(&rate) == rates.iter().max() { 5 * cycles } else { cycles };
        let heard = rival.client().echoes_asked()?;
        for _ in 0..cycles {
            awake_cycle(&rival, rate, &mut control)?;
        }
        for sleep in 1..=sleeps {
            sleep_cycle(&mut rival, rate, &mut slept)?;
            eprintln!("  {sleep}/{sleeps}");
        }
        let heard = rival.client().echoes_asked()? - heard;
        ensure!(heard > 0, "the guest does not send");
        table.push(row(rate, &format!("awake throughout, {cycles} times"), &control));
        table.push(row(rate, &format!("{sleeps} sleeps and wakes"), &slept));
    }
    Ok(table)
}

fn awake_cycle(rival: &Dormouse, rate: u32, counts: &mut Counts) -> Result<()> {
    let client = rival.client();
    let phases = Phases::of(rate);
    client.reset_sink(IP)?;
    let before = client.sink(IP)?;
    let stream = client.udp_stream(IP, rate, SIZE)?;
    thread::sleep(phases.before + phases.asleep + phases.after);
    let sent = stream.stop().datagrams;
    counts.add(sent, 0, &before, &settled(&client, sent)?);
    Ok(())
}

fn sleep_cycle(rival: &mut Dormouse, rate: u32, counts: &mut Counts) -> Result<()> {
    let client = rival.client();
    let phases = Phases::of(rate);
    client.reset_sink(IP)?;
    let before = client.sink(IP)?;
    let stream = client.udp_stream(IP, rate, SIZE)?;
    thread::sleep(phases.before);
    rival.sleep()?;
    thread::sleep(phases.asleep);
    let held = rival.daemon.why(Dormouse::NAME)?.held.frames;
    // The connection waits behind all that is held: the stream must not wait for it.
    let sent = thread::scope(|scope| {
        let waking = scope.spawn(|| client.http_get(SocketAddr::new(IP.into(), 80), "/", PATIENCE));
        thread::sleep(phases.after);
        let sent = stream.stop().datagrams;
        match waking.join() {
            Ok(page) => page.map(|_| sent).context("the sleeper did not wake"),
            Err(_) => bail!("the connection panicked"),
        }
    })?;
    rival.settle()?;
    counts.add(sent, held, &before, &settled(&client, sent)?);
    Ok(())
}

/// The sink's account once it has all, or gets no more.
fn settled(client: &Client, sent: u64) -> Result<SinkStats> {
    let mut last = client.sink(IP)?;
    while last.received < sent {
        thread::sleep(Duration::from_millis(500));
        let now = client.sink(IP)?;
        if now.received == last.received {
            break;
        }
        last = now;
    }
    Ok(last)
}

fn row(rate: u32, what: &str, counts: &Counts) -> Vec<String> {
    let Counts { sent, held, lost, twice, reordered, dropped_by_guest } = counts;
    let numbers = [sent, held, lost, twice, reordered, dropped_by_guest];
    [rate.to_string(), what.to_owned()].into_iter().chain(numbers.map(ToString::to_string)).collect()
}
