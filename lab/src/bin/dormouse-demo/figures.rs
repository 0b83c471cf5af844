//! Measured values in words.

use dormouse_lab::api::{Event, Signal, Why};
use std::time::Duration;

/// Three digits at most, in the unit that reads best: `0.21 ms`, `8.3 ms`, `52 ms`, `2.3 s`.
pub(crate) fn span(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1000.0;
    match ms {
        ..1.0 => format!("{ms:.2} ms"),
        ..10.0 => format!("{ms:.1} ms"),
        ..1000.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1000.0),
    }
}

/// Bytes in MiB.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{} MiB", (bytes + (1 << 19)) >> 20)
}

/// A count with its thousands set apart.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap_or_default()).collect();
    groups.join(",")
}

/// A figure of an event in milliseconds.
pub(crate) fn figure(event: &Event, name: &str) -> Option<Duration> {
    event.figures.get(name).and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok())
}

/// `cpu 1.2 %, network 0 B/s`.
pub(crate) fn signals(why: &Why) -> String {
    let one = |s: &Signal| format!("{} {:.1} {}", s.name, s.value.unwrap_or_default(), s.unit);
    why.signals.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// `2 arp, 3 icmp`.
pub(crate) fn answered(why: &Why) -> String {
    let counts: Vec<_> = why.answered.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    format!("its counters: {}; no QEMU process", counts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_well() {
        assert_eq!(span(Duration::from_micros(214)), "0.21 ms");
        assert_eq!(span(Duration::from_micros(52_400)), "52 ms");
        assert_eq!(span(Duration::from_millis(2_340)), "2.3 s");
        assert_eq!(mib(181 << 20), "181 MiB");
        assert_eq!(count(7), "7");
        assert_eq!(count(1_063_412), "1,063,412");
    }
}
