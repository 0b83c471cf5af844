//! Sleeping and waking: how long, and how much memory it gives back, for each rival and size.

use crate::{
    files,
    report::{Table, mib, ratio},
    rival::{self, Kind, Machine, Rival},
    stats::Sample,
};
use anyhow::{Result, ensure};
use dormouse_lab::{HostMemory, guest::Image};
use std::{collections::BTreeMap, time::Instant};

/// What is measured, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rivals: Vec<Kind>,
    /// Bytes of guest memory.
    pub(crate) sizes: Vec<u64>,
    pub(crate) dirty: u8,
    /// Of each kind: with saved memory in the page cache, and without.
    pub(crate) cycles: usize,
}

/// All that was measured of one rival with one size.
#[derive(Clone, Debug, Default)]
struct Measured {
    warm: Sample,
    evicted: Sample,
    warm_byte: Sample,
    evicted_byte: Sample,
    gone: Sample,
    durable: Sample,
    own_account: Sample,
    awake: Vec<HostMemory>,
    asleep: Vec<HostMemory>,
}

type Results = BTreeMap<(u64, Kind), Result<Measured>>;

/// Measures, and returns the tables of waking and of sleeping.
pub(crate) fn measure(plan: &Plan, image: &Image) -> Result<(Table, Table)> {
    let mut results = Results::new();
    for &memory in &plan.sizes {
        let machine = Machine { image: image.clone(), memory, dirty: plan.dirty };
        for &kind in &plan.rivals {
            eprintln!("{}: {} MiB, booting", kind.title(), machine.mib());
            let measured = kind.boot(&machine).and_then(|mut rival| cycles(&mut *rival, plan.cycles));
            match &measured {
                Ok(m) => eprintln!("  SYN-ACK warm {}, evicted {}; to sleep {}", m.warm, m.evicted, m.gone),
                Err(error) => eprintln!("  failed: {error:#}"),
            }
            results.insert((memory, kind), measured);
        }
    }
    Ok((waking(&results), sleeping(&results)))
}

fn cycles(rival: &mut dyn Rival, cycles: usize) -> Result<Measured> {
    let mut measured = Measured::default();
    let identity = rival::identity(rival)?;
    for cycle in 1..=cycles {
        for warm in [true, false] {
            one(rival, warm, &mut measured)?;
        }
        eprintln!("  {cycle}/{cycles}");
    }
    let now = rival::identity(rival)?;
    ensure!(now == identity, "it is not what it was: {identity:?}, then {now:?}");
    Ok(measured)
}

fn one(rival: &mut dyn Rival, warm: bool, measured: &mut Measured) -> Result<()> {
    measured.awake.push(rival.lab().host_memory(&rival.dir())?);
    let start = Instant::now();
    rival.sleep()?;
    let gone = start.elapsed();
    measured.gone.push(gone);
    measured.own_account.extend(rival.own_account().into_iter().collect());
    measured.durable.push(gone + files::flush(&rival.dir())?);
    measured.asleep.push(rival.lab().host_memory(&rival.dir())?);
    if warm { files::warm(&rival.dir()) } else { files::evict(&rival.dir()) }?;
    let wake = rival::wake(rival)?;
    let (syn_ack, first_byte) = if warm {
        (&mut measured.warm, &mut measured.warm_byte)
    } else {
        (&mut measured.evicted, &mut measured.evicted_byte)
    };
    syn_ack.push(wake.syn_ack);
    first_byte.push(wake.first_byte);
    Ok(())
}

fn waking(results: &Results) -> Table {
    let mut table = Table::new(&[
        "guest",
        "by",
        "SYN-ACK, warm",
        "×",
        "SYN-ACK, evicted",
        "×",
        "first HTTP byte, warm",
        "evicted",
    ]);
    each(results, &mut table, |m, base| {
        vec![
            m.warm.to_string(),
            ratio(base.and_then(|base| m.warm.ratio(&base.warm))),
            m.evicted.to_string(),
            ratio(base.and_then(|base| m.evicted.ratio(&base.evicted))),
            m.warm_byte.to_string(),
            m.evicted_byte.to_string(),
        ]
    });
    table
}

fn sleeping(results: &Results) -> Table {
    let mut table = Table::new(&[
        "guest",
        "by",
        "command to process gone",
        "×",
        "and all on disk",
        "by its own account",
        "host memory awake",
        "asleep",
    ]);
    each(results, &mut table, |m, base| {
        vec![
            m.gone.to_string(),
            ratio(base.and_then(|base| m.gone.ratio(&base.gone))),
            m.durable.to_string(),
            m.own_account.to_string(),
            median_memory(&m.awake),
            median_memory(&m.asleep),
        ]
    });
    table
}

/// A row for every result; the rest of it from the result and Dormouse's own of the same size.
fn each(results: &Results, table: &mut Table, cells: impl Fn(&Measured, Option<&Measured>) -> Vec<String>) {
    for ((memory, kind), measured) in results {
        let base = results.get(&(*memory, Kind::Dormouse)).and_then(|base| base.as_ref().ok());
        let mut row = vec![mib(*memory), kind.title().to_owned()];
        match measured {
            Ok(measured) => row.extend(cells(measured, base)),
            Err(error) => row.push(format!("failed: {error:#}")),
        }
        table.push(row);
    }
}

fn median_memory(all: &[HostMemory]) -> String {
    let mut totals: Vec<u64> = all.iter().map(HostMemory::total).collect();
    totals.sort_unstable();
    totals.get(totals.len() / 2).map_or_else(|| "–".into(), |bytes| mib(*bytes))
}
