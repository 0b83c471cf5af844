//! Many machines woken at once, beside one after the other and the time of the processors.
//!
//! On a machine that does nothing else, `processors` is what no order of doing things can go below.

use crate::{
    report::Table,
    stats::{Sample, millis},
};
use anyhow::{Context, Result};
use dormouse_lab::{Crowd, wait_until};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

const MEMORY: &str = "96MiB";
/// All of them have room for a process that stands by.
const STANDBY: &str = "[standby]\nmemory = \"16GiB\"\nafter = \"200ms\"\n";
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures crowds of these sizes, each `cycles` times, without standbys and with them.
pub(crate) fn measure(counts: &[u8], cycles: usize) -> Result<Table> {
    let mut table = Table::new(&[
        "machines",
        "standing by",
        "one, SYN to SYN-ACK",
        "all at once, each",
        "the last of them",
        "by the number of them",
        "to the last page",
        "processors",
    ]);
    for &count in counts {
        for (config, stands_by) in [("", false), (STANDBY, true)] {
            eprintln!("parallel: booting {count} machines");
            let crowd = Crowd::boot("parallel", config, count, MEMORY)?;
            let mut one = Sample::default();
            let (mut each, mut last) = (Sample::default(), Sample::default());
            let (mut pages, mut busy) = (Sample::default(), Sample::default());
            for cycle in 1..=cycles {
                asleep(&crowd, stands_by)?;
                for guest in crowd.guests.iter().take(5) {
                    one.push(crowd.wake_one(guest)?.connected);
                }
                asleep(&crowd, stands_by)?;
                let before = Processors::now()?;
                let woken = crowd.wake()?;
                busy.push(before.busy_since()?);
                let connected: Sample = woken.pages.iter().map(|page| page.connected).collect();
                last.extend(connected.quantile(100).into_iter().collect());
                each.extend(connected);
                pages.push(woken.took);
                eprintln!("  {cycle}/{cycles}: {:?}", woken.took);
            }
            let share = last.median().map(|took| millis(took / u32::from(count)));
            table.push(vec![
                count.to_string(),
                if stands_by { "all" } else { "none" }.into(),
                one.to_string(),
                each.to_string(),
                last.to_string(),
                share.unwrap_or_default(),
                pages.to_string(),
                busy.to_string(),
            ]);
        }
    }
    Ok(table)
}

fn asleep(crowd: &Crowd, stands_by: bool) -> Result<()> {
    crowd.sleep()?;
    if stands_by {
        wait_until("all standbys", PATIENCE, || {
            let all = crowd.guests.iter().map(|guest| crowd.daemon.show(guest.name()));
            let all = all.collect::<Result<Vec<_>, _>>()?;
            Ok(all.iter().all(|machine| machine.summary.standby_bytes.is_some()))
        })?;
    }
    // What ended processes leave to be done.
    thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// The processors' time, of which each had its share.
struct Processors {
    at: Instant,
    idle: Duration,
}

impl Processors {
    fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let idle = parse_idle(&stat).context("/proc/stat does not tell the idle time")?;
        Ok(Self { at: Instant::now(), idle })
    }

    /// How long they would have been busy, had all of them been so all the time.
    fn busy_since(&self) -> Result<Duration> {
        let now = Self::now()?;
        let cores = u32::try_from(thread::available_parallelism()?.get())?;
        Ok((now.at - self.at).saturating_sub(now.idle.saturating_sub(self.idle) / cores))
    }
}

/// proc_stat(5): of all processors, `idle` and `iowait`, in hundredths of a second.
fn parse_idle(stat: &str) -> Option<Duration> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().skip(3);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(Duration::from_millis((next()? + next()?) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "cpu  100 0 50 1000 20 0 3 0 0 0\ncpu0 1 1 1 1\n";
        assert_eq!(parse_idle(stat), Some(Duration::from_millis(10_200)));
        assert_eq!(parse_idle("intr 1"), None);
    }
}
