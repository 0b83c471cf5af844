//! Counters and facts of a domain.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use dormouse_platform::{Counters, Error, Facts};
use dormouse_sys::libvirt::{self as more, Value};

use super::Inner;
use crate::{clock::now, hub::Lane, uri::is_local_qemu};

/// `VIR_DOMAIN_STATS_VCPU`, `_INTERFACE`, `_BLOCK`
const GROUPS: u32 = 8 | 16 | 32;
/// `VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT`: of a domain that something is done with, what is known without a
/// question to QEMU.
pub(super) const NOWAIT: u32 = 1 << 29;
/// How long a fact that is nice to know may take.
const FACT: Duration = Duration::from_millis(500);

impl Inner {
    pub(super) async fn count(&self) -> Result<Counters, Error> {
        let stats = self.ask(Lane::Guest, |domain| Ok(more::stats(domain, GROUPS, NOWAIT)?)).await;
        Ok(counters(&stats.map_err(self.failed("count what is done by"))?))
    }

    pub(super) async fn tell(&self) -> Facts {
        // Who lists machines does not wait for a libvirtd that hangs.
        let pid = tokio::time::timeout(FACT, self.pid()).await.ok().flatten();
        let files = self.ram_file_bytes();
        // Of a process that nobody sees it is not known what it occupies.
        let is_known = self.known().pid.is_some();
        let resident_bytes = is_known.then(|| pid.map_or(0, resident_bytes).saturating_add(files.resident));
        let disk_bytes = self.managed_save().map_or(0, |path| allocated(&path)).saturating_add(files.on_disk);
        Facts { pid, resident_bytes, disk_bytes, ..Facts::default() }
    }

    /// The domain's QEMU process, if it is on this host and in our view of it.
    pub(super) async fn pid(&self) -> Option<u32> {
        if let Some(pid) = self.known().pid {
            return pid.filter(|pid| Path::new(&format!("/proc/{pid}")).exists());
        }
        if !is_local_qemu(self.hub.uri()) {
            return None;
        }
        let age = self.age();
        let uuid = self.ask(Lane::Quick, |domain| Ok((domain.is_active()?, domain.get_uuid_string()?)));
        let found = match uuid.await {
            Ok((true, uuid)) => {
                let look = move || find(|line| has(line, "-uuid", &uuid));
                // It is there, if not to be seen from here.
                Some(tokio::task::spawn_blocking(look).await.ok().flatten()?)
            }
            Ok((false, _)) => None,
            Err(_) => return None,
        };
        self.note(age, |known| known.pid = Some(found));
        found
    }

    /// Is there a process of it, by what libvirt gives its QEMUs to know them by? libvirt is not asked.
    pub(super) async fn has_process_here(&self) -> bool {
        if !is_local_qemu(self.hub.uri()) {
            return false;
        }
        let who = self.who.clone();
        let found = tokio::task::spawn_blocking(move || {
            find(|line| match &who.uuid {
                Some(uuid) => has(line, "-uuid", &uuid.to_string()),
                None => has(line, "-name", &format!("guest={},debug-threads=on", who.name)),
            })
        });
        found.await.is_ok_and(|pid| pid.is_some())
    }

    /// Where libvirt keeps its managed save, if that is where it keeps them.
    fn managed_save(&self) -> Option<PathBuf> {
        let path = Path::new("/var/lib/libvirt/qemu/save").join(format!("{}.save", self.who.name));
        Some(path).filter(|_| is_local_qemu(self.hub.uri()))
    }
}

fn counters(stats: &BTreeMap<String, Value>) -> Counters {
    let sum = |prefix: &str, ends: &[&str]| {
        let ours = stats.iter().filter(|(key, _)| {
            key.strip_prefix(prefix)
                .and_then(|rest| rest.split_once('.'))
                .is_some_and(|(n, end)| n.bytes().all(|b| b.is_ascii_digit()) && ends.contains(&end))
        });
        ours.filter_map(|(_, value)| value.count()).fold(0, u64::saturating_add)
    };
    Counters {
        at: now(),
        cpu: Duration::from_nanos(sum("vcpu.", &["time"])),
        // The guest's word, not the tap's. What it receives may all be broadcasts.
        network_bytes: sum("net.", &["tx.bytes"]),
        disk_bytes: sum("block.", &["rd.bytes", "wr.bytes"]),
    }
}

/// The process with such a command line.
fn find(is_it: impl Fn(&[u8]) -> bool) -> Option<u32> {
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.into_iter().find(|pid: &u32| {
        // It may be gone.
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| is_it(&line)) && is_beside_us(*pid)
    })
}

/// Is it in our network namespace, where its taps would be? Another libvirtd may have a domain of the name.
fn is_beside_us(pid: u32) -> bool {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
    namespace(&pid.to_string()).is_some_and(|theirs| Some(theirs) == namespace("self"))
}

/// Is there `option` with this `value`, as libvirt gives QEMU `-uuid UUID`?
fn has(command_line: &[u8], option: &str, value: &str) -> bool {
    let mut words = command_line.split(|octet| *octet == 0);
    words.any(|word| word == option.as_bytes()) && words.next() == Some(value.as_bytes())
}

pub(super) fn allocated(path: &Path) -> u64 {
    // st_blocks is in units of 512 bytes; stat(2).
    fs::metadata(path).map_or(0, |m| m.blocks().saturating_mul(512))
}

/// Bytes of the process's own memory, that which it shares (memfd) included.
fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    ["RssAnon:", "RssShmem:"]
        .into_iter()
        .filter_map(|key| kibibytes(&status, key))
        .fold(0, u64::saturating_add)
}

/// proc_pid_status(5): `RssAnon:     1234 kB`.
fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_processors_interfaces_and_disks() {
        let stats = [
            ("vcpu.current", 2),
            ("vcpu.0.time", 1_000_000_000),
            ("vcpu.1.time", 500_000_000),
            ("vcpu.1.wait", 7),
            ("net.count", 1),
            ("net.0.rx.bytes", 1000),
            ("net.0.tx.bytes", 30),
            ("block.0.rd.bytes", 5),
            ("block.0.wr.bytes", 6),
            ("block.1.rd.bytes", 100),
            ("block.1.fl.times", 9),
        ];
        let stats = stats.map(|(key, value)| (key.to_owned(), Value::Unsigned(value))).into();
        let Counters { cpu, network_bytes, disk_bytes, .. } = counters(&stats);
        assert_eq!((cpu, network_bytes, disk_bytes), (Duration::from_millis(1500), 30, 111));
    }

    #[test]
    fn finds_the_process_by_what_libvirt_gave_it() {
        let uuid = "c7a5fdbd-edaf-9455-926a-d65c16db1809";
        let line = format!("qemu\0-name\0guest=web,debug-threads=on\0-uuid\0{uuid}\0-display\0none\0");
        assert!(has(line.as_bytes(), "-uuid", uuid));
        assert!(has(line.as_bytes(), "-name", "guest=web,debug-threads=on"));
        assert!(!has(line.as_bytes(), "-name", "guest=we,debug-threads=on"));
        assert!(!has(line.as_bytes(), "-uuid", "c7a5fdbd-edaf-9455-926a-d65c16db1800"));
        assert!(!has(format!("grep\0{uuid}\0").as_bytes(), "-uuid", uuid));
        assert!(!has(b"qemu\0-uuid", "-uuid", uuid));
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let status = "VmRSS:\t 9 kB\nRssAnon:\t    12 kB\nRssShmem:\t 1 kB\n";
        assert_eq!(kibibytes(status, "RssAnon:"), Some(12 * 1024));
        assert_eq!(kibibytes("", "RssAnon:"), None);
    }
}
