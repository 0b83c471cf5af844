//! Requests and bulk data to and from a guest that is awake, while the daemon runs and while it does not.
//!
//! A kernel before Linux 6.6 keeps the daemon's program on the tap when the daemon is killed: there the
//! two differ by nothing that is measured here.
//!
//! The same guest all the time: the daemon is killed and started again around it, block by block,
//! so that whatever else happens on the machine meets both alike.

use crate::{
    report::{Table, ratio},
    rival::{Dormouse, IP, Machine},
    stats::{Sample, millis},
};
use anyhow::Result;
use dormouse_lab::{Client, EchoSession, api::MachineState};
use std::{
    io::{Read, Write},
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(30);
const BLOCK: usize = 200;
/// Octets that go to the guest and come back in one measurement of throughput.
const BULK: usize = 4 << 20;
/// Such measurements in a block.
const BULKS: usize = 3;

/// Measures blocks of requests and of bulk data, alternating; gives the tables of both.
pub(crate) fn measure(machine: &Machine, blocks: usize) -> Result<(Table, Table)> {
    eprintln!("awake: booting");
    let mut rival = Dormouse::boot(machine)?;
    let client = rival.client();
    let (mut with, mut without) = (Sample::default(), Sample::default());
    let (mut bulk_with, mut bulk_without) = (Sample::default(), Sample::default());
    block(&client)?;
    bulk(&client)?;
    for n in 1..=blocks {
        rival.daemon.restart()?;
        rival.daemon.wait_state(Dormouse::NAME, MachineState::Active, PATIENCE)?;
        // The start itself, which adopts the guest, is not what is measured.
        thread::sleep(Duration::from_secs(1));
        with.extend(block(&client)?);
        bulk_with.extend(bulk(&client)?);
        rival.daemon.kill9()?;
        thread::sleep(Duration::from_secs(1));
        without.extend(block(&client)?);
        bulk_without.extend(bulk(&client)?);
        eprintln!("  {n}/{blocks}");
    }
    Ok((table(&with, &without), bulk_table(&bulk_with, &bulk_without)))
}

/// As many octets as fit go to the guest, and all of them come back meanwhile.
fn bulk(client: &Client) -> Result<Sample> {
    let round = |_| {
        let opened = client.tcp_connect(SocketAddr::new(IP.into(), 7), PATIENCE)?;
        let mut writer = opened.stream.try_clone()?;
        let mut reader = opened.stream;
        reader.set_read_timeout(Some(PATIENCE))?;
        let start = Instant::now();
        thread::scope(|scope| {
            let writing = scope.spawn(move || writer.write_all(&vec![0x55; BULK]));
            reader.read_exact(&mut vec![0; BULK])?;
            writing.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()))?;
            Ok(start.elapsed())
        })
    };
    (0..BULKS).map(round).collect()
}

fn bulk_table(with: &Sample, without: &Sample) -> Table {
    let mut table =
        Table::new(&["4 MiB to an awake guest and back, ms", "n", "min / median / max", "median, ×"]);
    for (what, sample) in [("without Dormouse", without), ("with Dormouse", with)] {
        let ratio = ratio(sample.ratio(without));
        table.push(vec![what.into(), sample.count().to_string(), sample.to_string(), ratio]);
    }
    table
}

/// Connect, one question, one answer: as a short TCP request goes.
fn block(client: &Client) -> Result<Sample> {
    let request = |_| {
        let opened = client.tcp_connect(SocketAddr::new(IP.into(), 7), PATIENCE)?;
        let mut session = EchoSession::new(opened.stream)?;
        Ok(opened.elapsed + session.say("a question of a usual length, which comes back")?)
    };
    (0..BLOCK).map(request).collect()
}

fn table(with: &Sample, without: &Sample) -> Table {
    let mut table =
        Table::new(&["TCP request to an awake guest", "n", "median", "90 %", "99 %", "median, ×"]);
    for (what, sample) in [("without Dormouse", without), ("with Dormouse", with)] {
        let quantile = |percent| sample.quantile(percent).map_or_else(|| "–".into(), millis);
        table.push(vec![
            what.into(),
            sample.count().to_string(),
            sample.median().map_or_else(|| "–".into(), millis),
            quantile(90),
            quantile(99),
            ratio(sample.ratio(without)),
        ]);
    }
    table
}
