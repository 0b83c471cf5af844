//! Spans and sizes as people say them.

use std::borrow::Cow;
use std::time::Duration;

/// A span by its two largest units: `850 ms`, `2.4 s`, `3m 12s`, `2h 5m`, `4d 3h`.
pub(super) fn span(span: Duration) -> String {
    let ms = span.as_millis();
    let s = span.as_secs();
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    match () {
        () if ms < 1000 => format!("{ms} ms"),
        () if s < 10 => format!("{s}.{} s", ms % 1000 / 100),
        () if s < 60 => format!("{s} s"),
        () if h == 0 => two(m, 'm', s % 60, 's'),
        () if d == 0 => two(h, 'h', m % 60, 'm'),
        () => two(d, 'd', h % 24, 'h'),
    }
}

fn two(large: u64, large_unit: char, small: u64, small_unit: char) -> String {
    match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit} {small}{small_unit}"),
    }
}

/// A size in binary units, with three digits at most: `512 B`, `1.5 GiB`, `596 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut rest = bytes;
    let mut tenths = 0;
    let mut unit = "B";
    for next in UNITS {
        if rest < 1000 {
            break;
        }
        (rest, tenths, unit) = (rest / 1024, rest % 1024 * 10 / 1024, next);
    }
    if rest < 10 && unit != "B" { format!("{rest}.{tenths} {unit}") } else { format!("{rest} {unit}") }
}

/// A figure without needless digits: `12.3`, `4096`, `0.05`.
pub(super) fn figure(value: f64) -> String {
    let text = if value.abs() < 1.0 { format!("{value:.2}") } else { format!("{value:.1}") };
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" { "0".into() } else { text.into() }
}

/// The text with control characters escaped, so that it cannot drive the terminal.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans() {
        let says = |ms| span(Duration::from_millis(ms));
        assert_eq!(says(0), "0 ms");
        assert_eq!(says(999), "999 ms");
        assert_eq!(says(2_449), "2.4 s");
        assert_eq!(says(59_999), "59 s");
        assert_eq!(says(192_000), "3m 12s");
        assert_eq!(says(7_200_000), "2h");
        assert_eq!(says(86_400_000 * 4 + 3_600_000 * 3), "4d 3h");
    }

    #[test]
    fn sizes() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1000), "0.9 KiB");
        assert_eq!(size(1 << 30), "1.0 GiB");
        assert_eq!(size(596 << 20), "596 MiB");
        assert_eq!(size(u64::MAX), "15 EiB");
    }

    #[test]
    fn figures() {
        assert_eq!([0.0, 12.34, 4096.0, 0.05, 100.0].map(figure), ["0", "12.3", "4096", "0.05", "100"]);
    }

    proptest! {
        #[test]
        fn sizes_stay_short(bytes: u64) {
            prop_assert!(size(bytes).len() <= "1023 KiB".len());
        }

        #[test]
        fn cleaned_text_cannot_drive_the_terminal(text: String) {
            prop_assert!(!clean(&text).chars().any(char::is_control));
        }
    }
}
