//! What thousands of sleepers cost who does nothing but stand in for them.

use std::{thread, time::Duration};

use anyhow::Result;
use dormouse_lab::Lab;

use super::process::StandIn;
use crate::{
    report::Table,
    stats::{Sample, millis},
};

const REST: Duration = Duration::from_secs(10);

/// Measures at each number of sleepers.
pub(crate) fn measure(sleepers: &[u32], rounds: usize) -> Result<Table> {
    let mut table = Table::new(&[
        "sleepers",
        "taken under care in, ms",
        "after a kill and a restart, ms",
        "memory of the process",
        "for each",
        "busy at rest, of one core",
    ]);
    let none = {
        let lab = Lab::new("scale")?;
        StandIn::start(lab.switch(), 1)?.memory()?
    };
    for &count in sleepers {
        let (mut first, mut again) = (Sample::default(), Sample::default());
        let (mut memory, mut busy) = (0, 0.0);
        for round in 1..=rounds {
            eprintln!("scale: {count} sleepers, {round}/{rounds}");
            let lab = Lab::new("scale")?;
            let mut stand_in = StandIn::start(lab.switch(), count)?;
            first.push(stand_in.took);
            memory = stand_in.memory()?;
            let before = stand_in.cpu()?;
            thread::sleep(REST);
            busy = (stand_in.cpu()? - before).as_secs_f64() / REST.as_secs_f64();
            stand_in.kill()?;
            again.push(StandIn::start(lab.switch(), count)?.ready_after);
        }
        let each = memory.saturating_sub(none) / u64::from(count.saturating_sub(1).max(1));
        table.push(vec![
            count.to_string(),
            first.median().map_or_else(|| "–".into(), millis),
            again.median().map_or_else(|| "–".into(), millis),
            format!("{:.1} MiB", kib(memory) / 1024.0),
            format!("{:.2} KiB", kib(each)),
            format!("{:.2} %", 100.0 * busy),
        ]);
    }
    Ok(table)
}

#[allow(clippy::cast_precision_loss)]
fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0
}
