//! Why a machine is awake, what woke it, what would wake it.

use std::collections::BTreeMap;
use std::time::Duration;

use anstyle::AnsiColor;
use dormouse_api_types::{Ignored, LastWake, MachineState, Service, Signal, WakeTest, WakeVerdict, Why};
use dormouse_types::Timestamp;

use super::table::{Cell, fields};
use super::{BOLD, PLAIN, ago, clean, coloured, hold, human, state_style, state_words};

/// The page of `why`.
pub(crate) fn why(why: &Why, now: Timestamp) -> String {
    let style = state_style(why.state);
    let state = state_words(why.state, why.depth);
    let cause = why.cause.as_ref().map(|cause| format!(": {}", clean(cause))).unwrap_or_default();
    let since = human::span(now.since(why.since.timestamp()));
    let page = fields(&[
        ("failed", failed(why)),
        ("awake by", why.signals.iter().map(|s| signal(s, now)).collect()),
        (
            "obstacles",
            why.obstacles.iter().map(|o| Cell::styled(o.clone(), coloured(AnsiColor::Yellow))).collect(),
        ),
        ("holds", why.holds.iter().map(|h| hold(h, now).into()).collect()),
        ("will sleep", will_sleep(why, now)),
        ("woken by", why.last_wake.iter().map(|wake| woken(wake, now).into()).collect()),
        ("wakes on", wakes_on(why)),
        ("services", why.services.iter().map(|s| service(s).into()).collect()),
        ("answered", counts(&why.answered)),
        ("ignored", why.ignored.iter().map(|i| ignored(i, now).into()).collect()),
        ("held", held(why)),
        ("dropped", counts(&why.dropped)),
    ]);
    format!("{BOLD}{}{BOLD:#} is {style}{state}{style:#} for {since}{cause}\n{page}", why.machine)
}

fn failed(why: &Why) -> Vec<Cell> {
    let Some(failure) = &why.failure else { return Vec::new() };
    let red = coloured(AnsiColor::Red);
    let way = if failure.state_kept {
        format!(
            "the saved state is kept: dormouse wake {0}; or give it up: dormouse start --cold {0}",
            why.machine
        )
    } else {
        format!("boot it afresh: dormouse start --cold {}", why.machine)
    };
    vec![Cell::styled(format!("while {}: {}", failure.during, failure.why), red), way.into()]
}

fn signal(signal: &Signal, now: Timestamp) -> Cell {
    let (word, style) = if signal.busy { ("busy", coloured(AnsiColor::Yellow)) } else { ("quiet", PLAIN) };
    let since =
        signal.since.map(|at| format!(" for {}", human::span(now.since(at.timestamp())))).unwrap_or_default();
    let (value, threshold) = (
        human::figure(signal.value.unwrap_or_default()),
        human::figure(signal.threshold.unwrap_or_default()),
    );
    let unit = &signal.unit;
    Cell::styled(
        format!("{} {word}{since}: {value} {unit}, busy from {threshold} {unit}", signal.name),
        style,
    )
}

fn will_sleep(why: &Why, now: Timestamp) -> Vec<Cell> {
    if why.state != MachineState::Active {
        let deeper = why.would_sleep_at.zip(why.would_sleep_depth);
        let deeper = deeper
            .map(|(at, depth)| format!("deeper ({depth}) in {}", human::span(at.timestamp().since(now))));
        return deeper.into_iter().map(Cell::from).collect();
    }
    let Some(at) = why.would_sleep_at else {
        let unknown = why.signals.is_empty() && why.obstacles.is_empty() && why.holds.is_empty();
        let words =
            if unknown { "not known yet: its counters were not read twice" } else { "not while this lasts" };
        return vec![words.into()];
    };
    let depth = why.would_sleep_depth.map(|depth| format!(" ({depth})")).unwrap_or_default();
    vec![format!("in {} if it stays quiet{depth}", human::span(at.timestamp().since(now))).into()]
}

fn woken(wake: &LastWake, now: Timestamp) -> String {
    let frame = wake.frame.as_ref().map(|frame| format!(" {frame}")).unwrap_or_default();
    let took = wake.took_ms.map(|ms| format!(", ran after {}", human::span(Duration::from_millis(ms))));
    format!("{}{frame}, {}{}", wake.cause, ago(wake.at, now), took.unwrap_or_default())
}

fn wakes_on(why: &Why) -> Vec<Cell> {
    let rules = why.would_wake.iter().map(String::as_str);
    let command = format!("dormouse wake {}", why.machine);
    vec![rules.chain([command.as_str()]).collect::<Vec<_>>().join(", ").into()]
}

fn service(service: &Service) -> String {
    let wakes = if service.wakes { ", whose use wakes it" } else { "" };
    format!("tcp:{} {}{wakes}", service.port, service.answer)
}

fn ignored(ignored: &Ignored, now: Timestamp) -> String {
    let Ignored { reason, frames, last, at } = ignored;
    format!("{frames} {reason}: last {last}, {}", ago(*at, now))
}

/// What a frame would do, in two lines.
pub(crate) fn wake_test(test: &WakeTest) -> String {
    let (colour, words) = match test.verdict {
        WakeVerdict::Wakes => (AnsiColor::Green, "wakes it, by"),
        WakeVerdict::Answered => (AnsiColor::Blue, "is answered without it, by"),
        WakeVerdict::Held => (AnsiColor::Yellow, "is held and does not wake it:"),
        WakeVerdict::Ignored => (AnsiColor::Yellow, "is ignored:"),
        WakeVerdict::Asked => (AnsiColor::Blue, "is for a program to decide,"),
        WakeVerdict::Unknown => (AnsiColor::Yellow, "does what this version does not know:"),
    };
    let style = coloured(colour);
    let (frame, by) = (clean(&test.frame), clean(&test.by));
    format!("{BOLD}{}{BOLD:#}: {frame}\n  {style}{words}{style:#} {by}\n", test.machine)
}

fn held(why: &Why) -> Vec<Cell> {
    match why.held.frames {
        0 => Vec::new(),
        1 => vec![format!("1 frame, {}", human::size(why.held.bytes)).into()],
        frames => vec![format!("{frames} frames, {}", human::size(why.held.bytes)).into()],
    }
}

fn counts(counts: &BTreeMap<String, u64>) -> Vec<Cell> {
    let counts: Vec<_> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    if counts.is_empty() { Vec::new() } else { vec![counts.join(", ").into()] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_api_types::{Failure, Held, Hold, Time};
    use dormouse_types::Depth;

    const NOW: Timestamp = Timestamp(1_795_245_600_000_000_000);

    fn ago(seconds: u64) -> Time {
        Timestamp(NOW.0 - seconds * 1_000_000_000).into()
    }

    fn base(state: MachineState) -> Why {
        Why {
            machine: "web".parse().unwrap(),
            state,
            depth: None,
            since: ago(192),
            cause: None,
            failure: None,
            signals: vec![],
            obstacles: vec![],
            holds: vec![],
            keeps: vec![],
            would_sleep_at: None,
            would_sleep_depth: None,
            last_wake: None,
            would_wake: vec!["tcp:22,80".into(), "any-unicast".into()],
            answered: BTreeMap::new(),
            ignored: vec![],
            services: vec![],
            held: Held::default(),
            dropped: BTreeMap::new(),
        }
    }

    fn plain(why: &Why) -> String {
        anstream::adapter::strip_str(&super::why(why, NOW)).to_string()
    }

    #[test]
    fn awake() {
        let signal = |name: &str, value, threshold, unit: &str, busy| Signal {
            name: name.into(),
            value: Some(value),
            threshold: Some(threshold),
            unit: unit.into(),
            busy,
            since: Some(ago(30)),
            until: None,
            detail: None,
        };
        let why = Why {
            cause: Some("tcp 10.9.0.1:40000 > 10.9.0.2:80 SYN".into()),
            signals: vec![signal("cpu", 12.34, 5.0, "%", true), signal("disk", 0.0, 4096.0, "B/s", false)],
            holds: vec![Hold {
                id: 3,
                reason: "backup".into(),
                since: ago(60),
                until: Some(Timestamp(NOW.0 + 7_140_000_000_000).into()),
            }],
            would_sleep_at: None,
            last_wake: Some(LastWake {
                cause: "packet".into(),
                frame: Some("tcp 10.9.0.1:40000 > 10.9.0.2:80 SYN".into()),
                at: ago(192),
                took_ms: Some(31),
            }),
            ..base(MachineState::Active)
        };
        let expected = "\
web is active for 3m 12s: tcp 10.9.0.1:40000 > 10.9.0.2:80 SYN
  awake by    cpu busy for 30 s: 12.3 %, busy from 5 %
              disk quiet for 30 s: 0 B/s, busy from 4096 B/s
  holds       #3 \"backup\", placed 1m ago, for another 1h 59m
  will sleep  not while this lasts
  woken by    packet tcp 10.9.0.1:40000 > 10.9.0.2:80 SYN, 3m 12s ago, ran after 31 ms
  wakes on    tcp:22,80, any-unicast, dormouse wake web
";
        assert_eq!(plain(&why), expected);
    }

    #[test]
    fn quiet() {
        let why = Why {
            would_sleep_at: Some(Timestamp(NOW.0 + 250_000_000_000).into()),
            would_sleep_depth: Some(Depth::Saved),
            ..base(MachineState::Active)
        };
        assert!(plain(&why).contains("  will sleep  in 4m 10s if it stays quiet (saved)\n"));
    }

    #[test]
    fn asleep() {
        let why = Why {
            depth: Some(Depth::Saved),
            cause: Some("idle".into()),
            answered: [("arp".into(), 120), ("echo".into(), 45)].into(),
            ignored: vec![Ignored {
                reason: "scanner".into(),
                frames: 3,
                last: "tcp 10.9.0.9:40000 > 10.9.0.2:81 [S]".into(),
                at: ago(12),
            }],
            services: vec![
                Service { port: 80, answer: "waking-page".into(), wakes: true },
                Service { port: 7, answer: "echo".into(), wakes: false },
            ],
            held: Held { frames: 2, bytes: 3000 },
            dropped: [("limit".into(), 3)].into(),
            ..base(MachineState::Asleep)
        };
        let expected = "\
web is asleep (saved) for 3m 12s: idle
  wakes on  tcp:22,80, any-unicast, dormouse wake web
  services  tcp:80 waking-page, whose use wakes it
            tcp:7 echo
  answered  120 arp, 45 echo
  ignored   3 scanner: last tcp 10.9.0.9:40000 > 10.9.0.2:81 [S], 12 s ago
  held      2 frames, 2.9 KiB
  dropped   3 limit
";
        assert_eq!(plain(&why), expected);
    }

    #[test]
    fn failed() {
        let failure =
            |state_kept| Some(Failure { during: "load".into(), why: "checksum".into(), state_kept });
        let kept = plain(&Why { failure: failure(true), ..base(MachineState::Failed) });
        assert!(kept.contains("dormouse wake web; or give it up: dormouse start --cold web"), "{kept}");
        let lost = plain(&Why { failure: failure(false), ..base(MachineState::Failed) });
        assert!(lost.contains("boot it afresh: dormouse start --cold web"), "{lost}");
    }

    #[test]
    fn what_a_frame_would_do() {
        let test = |verdict, by: &str| WakeTest {
            machine: "web".parse().unwrap(),
            interface: "52:54:00:00:00:02".parse().unwrap(),
            frame: "tcp 10.0.0.9:5555 > 10.9.0.2:22 [S]".into(),
            verdict,
            by: by.into(),
        };
        let plain = |test| anstream::adapter::strip_str(&wake_test(&test)).to_string();
        let frame = "web: tcp 10.0.0.9:5555 > 10.9.0.2:22 [S]\n";
        assert_eq!(plain(test(WakeVerdict::Wakes, "tcp:22")), format!("{frame}  wakes it, by tcp:22\n"));
        let held = format!("{frame}  is held and does not wake it: tcp:22 rate 2/3s\n");
        assert_eq!(plain(test(WakeVerdict::Held, "tcp:22 rate 2/3s")), held);
        assert!(plain(test(WakeVerdict::Ignored, "\x1b[2J")).contains("\\u{1b}"));
    }

    #[test]
    fn a_machine_just_started_was_not_measured_yet() {
        let fresh = why(&base(MachineState::Active), NOW);
        assert!(fresh.contains("not known yet"), "{fresh}");
    }
}
