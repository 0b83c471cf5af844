//! Is the host short of memory?

use std::fs;

/// With less of its memory available, in parts of a hundred, the host is short of it.
const AVAILABLE: u64 = 10;
/// Parts of a hundred of the last ten seconds in which some task waited for memory.
const STALLED: f64 = 10.0;

/// Says so by what is available and by what waits; where the kernel does not tell, it is not.
#[must_use]
pub(crate) fn is_tight() -> bool {
    let short = fs::read_to_string("/proc/meminfo").ok().and_then(|text| is_short(&text));
    let stalls = fs::read_to_string("/proc/pressure/memory").ok().and_then(|text| stalled(&text));
    short.unwrap_or(false) || stalls.is_some_and(|share| share >= STALLED)
}

/// Bytes of memory of this host.
#[must_use]
pub(crate) fn total_memory() -> Option<u64> {
    kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal")?.checked_mul(1024)
}

/// proc_meminfo(5): a value, in kB.
fn kilobytes(meminfo: &str, key: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn is_short(meminfo: &str) -> Option<bool> {
    let (total, available) = (kilobytes(meminfo, "MemTotal")?, kilobytes(meminfo, "MemAvailable")?);
    Some(available < total / 100 * AVAILABLE)
}

/// The kernel's `Documentation/accounting/psi.rst`: `some avg10=0.00 avg60=...`.
fn stalled(pressure: &str) -> Option<f64> {
    let line = pressure.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let meminfo =
            |available| format!("MemTotal:  1000000 kB\nMemFree: 1 kB\nMemAvailable:  {available} kB\n");
        assert_eq!(is_short(&meminfo(100_000)), Some(false));
        assert_eq!(is_short(&meminfo(99_999)), Some(true));
        assert_eq!(is_short("MemTotal: x kB\n"), None);
        let pressure = "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=1.00 avg60=0.00\n";
        assert_eq!(stalled(pressure), Some(12.5));
        assert_eq!(stalled("full avg10=1.00\n"), None);
    }
}
