//! From a SYN for one sleeper until its wake is told, while another is flooded.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use dormouse_lab::{Lab, Namespace};
use dormouse_sys::{PacketSocket, VnetHdr};
use nix::time::{ClockId, clock_gettime};

use super::{
    frames,
    process::StandIn,
    sender::{self, Traffic},
    stand::Said,
};
use crate::{
    report::Table,
    stats::{Sample, millis},
};

const SLEEPERS: u32 = 20;
/// The one that is flooded.
const VICTIM: u32 = 0;
const PATIENCE: Duration = Duration::from_secs(5);
/// A flood begins before what it may disturb.
const LEAD: Duration = Duration::from_millis(300);

/// Measures `wakes` wakes at rest, and under floods of each rate, of frames that are held and of
/// frames that are answered.
pub(crate) fn measure(rates: &[u32], wakes: usize) -> Result<Table> {
    let mut table = Table::new(&[
        "flood to another sleeper",
        "frames sent a second",
        "answered a second",
        "wakes",
        "told after, ms, median",
        "99 %",
        "longest",
        "99 % more than at rest",
        "not told within 5 s",
    ]);
    let lab = Lab::new("flood")?;
    let client = lab.client_namespace();
    let asker = sender::own_mac(client)?;
    let mut stand_in = StandIn::start(lab.switch(), SLEEPERS)?;
    eprintln!("flood: at rest");
    let rest = wake_all(client, asker, &mut stand_in, wakes)?;
    table.push(row("none", None, &rest, &rest));
    for (what, frame) in [
        ("held: UDP that wakes nobody", frames::datagram(asker, VICTIM)),
        ("answered: echo requests", frames::echo_request(asker, super::mac(VICTIM), VICTIM)),
    ] {
        for &rate in rates {
            eprintln!("flood: {what}, {rate} a second");
            let (traffic, measured) =
                during(client, &frame, rate, || wake_all(client, asker, &mut stand_in, wakes))?;
            table.push(row(what, Some(traffic), &measured, &rest));
            stand_in.again(VICTIM)?;
        }
    }
    Ok(table)
}

/// How long wakes took to be told, and how many were not.
struct Wakes {
    sample: Sample,
    missing: usize,
}

fn wake_all(client: &Namespace, asker: [u8; 6], stand_in: &mut StandIn, wakes: usize) -> Result<Wakes> {
    let mut measured = Wakes { sample: Sample::default(), missing: 0 };
    let socket = client.run(|| PacketSocket::open_inject(Lab::CLIENT_INTERFACE, true, 1 << 20))??;
    for wake in 0..wakes {
        let number = 1 + u32::try_from(wake)? % (SLEEPERS - 1);
        stand_in.again(number)?;
        let port = 20_000 + u16::try_from(wake % 40_000)?;
        let frame = frames::syn(asker, number, port);
        let sent = now()?;
        socket.send(&VnetHdr::PLAIN, &frame)?;
        match told(stand_in, number)? {
            Some(at) => measured.sample.push(at.saturating_sub(sent)),
            None => measured.missing += 1,
        }
    }
    Ok(measured)
}

fn told(stand_in: &mut StandIn, wanted: u32) -> Result<Option<Duration>> {
    while let Some(said) = stand_in.next(PATIENCE)? {
        match said {
            Said::Wake { number, at_ns } if number == wanted => return Ok(Some(Duration::from_nanos(at_ns))),
            Said::Wake { .. } => {}
            other => bail!("unexpected: {other:?}"),
        }
    }
    Ok(None)
}

/// Does `work` while the frame is sent at a rate.
fn during<T>(
    client: &Namespace,
    frame: &[u8],
    rate: u32,
    work: impl FnOnce() -> Result<T>,
) -> Result<(Traffic, T)> {
    let done = AtomicBool::new(false);
    let frames = [frame.to_vec()];
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut sum: Option<Traffic> = None;
            while !done.load(Ordering::Relaxed) {
                let part = sender::send(client, &frames, Some(rate), Duration::from_millis(500))?;
                sum = Some(sum.map_or(part, |sum| sum + part));
            }
            sum.context("no flood")
        });
        thread::sleep(LEAD);
        let measured = work();
        done.store(true, Ordering::Relaxed);
        let traffic = flood.join().unwrap_or_else(|_| bail!("the flood panicked"))?;
        Ok((traffic, measured?))
    })
}

fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

fn row(what: &str, traffic: Option<Traffic>, measured: &Wakes, rest: &Wakes) -> Vec<String> {
    let quantile = |wakes: &Wakes, percent| wakes.sample.quantile(percent);
    let text = |span: Option<Duration>| span.map_or_else(|| "–".into(), millis);
    let more = quantile(measured, 99)
        .zip(quantile(rest, 99))
        .map(|(loaded, quiet)| (loaded.as_secs_f64() - quiet.as_secs_f64()) * 1e3);
    let a_second =
        |per: fn(&Traffic) -> f64| traffic.map_or_else(|| "–".into(), |t| format!("{:.0}", per(&t)));
    vec![
        what.into(),
        a_second(Traffic::rate),
        a_second(Traffic::answers),
        measured.sample.count().to_string(),
        text(measured.sample.median()),
        text(quantile(measured, 99)),
        text(quantile(measured, 100)),
        more.map_or_else(|| "–".into(), |ms| format!("{ms:+.1} ms")),
        measured.missing.to_string(),
    ]
}
