//! What idleness is judged by.

use std::{
    fs::{self, OpenOptions},
    path::Path,
    time::Duration,
};

use serde_json::Value;

use super::{Qemu, ports::tap_name, running::Running};
use crate::{Counters, Error, now};

/// `USER_HZ`: fixed by the kernel's interface on every architecture that QEMU's host can be.
const TICKS_PER_SECOND: u64 = 100;
/// Bytes of a console's log: a guest that writes without end shall not fill the disk.
const CONSOLE_LIMIT: u64 = 16 << 20;

impl Qemu {
    pub(super) async fn count(&self) -> Result<Counters, Error> {
        let running = self.running().await?;
        bound(&self.dir.console());
        let threads = running.threads.get_or_try_init(|| threads(&running)).await?;
        let blocks = running.execute("query-blockstats", Value::Null).await?;
        Ok(Counters {
            at: now(),
            cpu: threads.iter().map(|tid| thread_time(running.process.pid, *tid)).sum(),
            network_bytes: self.network_bytes().await,
            disk_bytes: disk_bytes(&blocks),
        })
    }

    /// What the guest sent, which the tap received. Not what it was sent: in the tap's counter of
    /// that are broadcasts and what the bridge flooded, and none tells them apart.
    async fn network_bytes(&self) -> u64 {
        let mut sum = 0_u64;
        for n in 0..self.config.interfaces.len() {
            let link = self.net.link(&tap_name(&self.config.name, n)).await.ok().flatten();
            sum = sum.saturating_add(link.map_or(0, |l| l.counters.received_bytes));
        }
        sum
    }
}

/// Threads of the virtual processors; with one-threaded TCG they share one.
async fn threads(running: &Running) -> Result<Vec<u32>, Error> {
    let cpus = running.execute("query-cpus-fast", Value::Null).await?;
    let ids = cpus.as_array().into_iter().flatten().filter_map(|cpu| cpu["thread-id"].as_u64());
    let mut ids: Vec<u32> = ids.filter_map(|id| id.try_into().ok()).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

fn thread_time(pid: u32, tid: u32) -> Duration {
    let task = format!("/proc/{pid}/task/{tid}");
    // schedstat counts in nanoseconds, but not every kernel has it.
    fs::read_to_string(format!("{task}/schedstat"))
        .ok()
        .and_then(|text| parse_schedstat(&text))
        .or_else(|| parse_stat(&fs::read_to_string(format!("{task}/stat")).ok()?))
        .unwrap_or_default()
}

/// proc_pid_schedstat(5): the first number is the time on a processor, in nanoseconds.
fn parse_schedstat(text: &str) -> Option<Duration> {
    let time = text.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(time)).filter(|t| !t.is_zero())
}

/// proc_pid_stat(5): fields 14 and 15 are utime and stime; the name in parentheses may hold anything.
fn parse_stat(text: &str) -> Option<Duration> {
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(user.checked_add(system)?.checked_mul(1000 / TICKS_PER_SECOND)?))
}

/// `query-blockstats`: of all devices, what was read and written.
fn disk_bytes(answer: &Value) -> u64 {
    let devices = answer.as_array().into_iter().flatten();
    let bytes = |device: &Value, key: &str| device["stats"][key].as_u64().unwrap_or(0);
    devices
        .fold(0, |sum: u64, d| sum.saturating_add(bytes(d, "rd_bytes")).saturating_add(bytes(d, "wr_bytes")))
}

/// Empties a console's log that the guest has made too long; QEMU appends, so it goes on at the start.
fn bound(console: &Path) {
    let too_long = fs::metadata(console).is_ok_and(|m| m.len() > CONSOLE_LIMIT);
    if too_long && let Err(error) = OpenOptions::new().write(true).open(console).and_then(|f| f.set_len(0)) {
        tracing::warn!(%error, path = %console.display(), "cannot empty the console's log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "12 (CPU 0/(TCG) x) S 1 1 1 0 -1 1 0 0 0 0 250 50 0 0 20 0 5 0 1 1 1";
        assert_eq!(parse_stat(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse_schedstat("1500000000 7 3\n"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_schedstat("0 0 0\n"), None);
    }

    #[test]
    fn adds_up_all_disks() {
        let stats = json!([{"stats": {"rd_bytes": 1, "wr_bytes": 2}}, {"stats": {"rd_bytes": 10}}, {}]);
        assert_eq!(disk_bytes(&stats), 13);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = (parse_stat(&text), parse_schedstat(&text));
        }
    }
}
