//! A request to a guest that is awake, while the daemon runs and while it does not.
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
use std::{net::SocketAddr, thread, time::Duration};

const PATIENCE: Duration = Duration::from_secs(30);
const BLOCK: usize = 200;

/// Measures blocks of requests, alternating.
pub(crate) fn measure(machine: &Machine, blocks: usize) -> Result<Table> {
    eprintln!("awake: booting");
    let mut rival = Dormouse::boot(machine)?;
    let client = rival.client();
    let (mut with, mut without) = (Sample::default(), Sample::default());
    block(&client)?;
    for n in 1..=blocks {
        rival.daemon.restart()?;
        rival.daemon.wait_state(Dormouse::NAME, MachineState::Active, PATIENCE)?;
        // The start itself, which adopts the guest, is not what is measured.
        thread::sleep(Duration::from_secs(1));
        with.extend(block(&client)?);
        rival.daemon.kill9()?;
        thread::sleep(Duration::from_secs(1));
        without.extend(block(&client)?);
        eprintln!("  {n}/{blocks}");
    }
    Ok(table(&with, &without))
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
