//! What `dormouse why` prints.

use super::*;
use dormouse_api_types::{Failure, Held, Hold, Time};
use dormouse_types::Depth;
use proptest::prelude::*;

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
        budgets: vec![],
        makes_room: None,
        needs_room: None,
        would_sleep_at: None,
        would_sleep_depth: None,
        policy: None,
        would_wake_at: None,
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
        budgets: vec![
            AwakeBudget { owner: Some("alice".into()), bytes: 8 << 30, awake_bytes: 2 << 30, strict: false },
            AwakeBudget { owner: None, bytes: 16 << 30, awake_bytes: 12 << 30, strict: false },
        ],
        makes_room: Some(MakesRoom {
            depth: Depth::Saved,
            from: Some(Timestamp(NOW.0 + 7_140_000_000_000).into()),
            after: 2,
        }),
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
  will sleep  not while this lasts: cpu
  use         cpu   12.3 %, busy from 5: busy for 30 s
              disk  0 B/s, busy from 4096: quiet for 30 s
  holds       #3 \"backup\", placed 1m ago, for another 1h 59m
  budget      2.0 GiB awake of 8.0 GiB (alice), 12 GiB awake of 16 GiB
              would make room (saved), after 2 others, not for another 1h 59m
  woken by    packet tcp 10.9.0.1:40000 > 10.9.0.2:80 SYN, 3m 12s ago, ran after
              31 ms
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
    assert!(plain(&why).contains("  will sleep  in 4m 10s if nothing changes (saved)\n"));
}

fn later(seconds: u64) -> Option<Time> {
    Some(Timestamp(NOW.0 + seconds * 1_000_000_000).into())
}

#[test]
fn all_that_keeps_awake() {
    let signal = |name: &str, value, unit: &str| Signal {
        name: name.into(),
        value,
        threshold: Some(1.0),
        unit: unit.into(),
        busy: true,
        since: Some(ago(30)),
        until: None,
        detail: None,
    };
    let session = Signal {
        until: later(1620),
        detail: Some("10.9.0.1:40000 > :22, data 3m ago".into()),
        ..signal("connections tcp:22", Some(1.0), "open")
    };
    let open =
        Signal { threshold: None, busy: false, detail: None, ..signal("connections", Some(2.0), "open") };
    let keep = |kind: &str, why: &str, until| Keep { kind: kind.into(), why: why.into(), until };
    let why = Why {
        signals: vec![session, open, signal("load", None, "")],
        keeps: vec![
            keep("schedule", "stay_awake mon-fri 08:00-19:00, until fri 19:00", later(3600)),
            keep("inhibitor", "\"backup\", lock of process 42", None),
        ],
        ..base(MachineState::Active)
    };
    let expected = "\
web is active for 3m 12s
  will sleep  not while this lasts: load, inhibitor
  use         connections tcp:22  1 open, busy from 1: busy for 30 s, for ano...
              connections         2 open
              load                unknown, busy from 1: busy for 30 s
  kept awake  schedule: stay_awake mon-fri 08:00-19:00, until fri 19:00, for ...
              inhibitor: \"backup\", lock of process 42
  wakes on    tcp:22,80, any-unicast, dormouse wake web
";
    assert_eq!(plain(&why), expected);
}

#[test]
fn what_it_waits_for() {
    let awake = base(MachineState::Active);
    let says = |why: &Why, words| assert!(plain(why).contains(words), "{}", plain(why));
    says(&awake, "not known yet");
    says(&Why { obstacles: vec!["no address".into()], ..awake.clone() }, "not while there are obstacles");
    let hold = Hold { id: 7, reason: "x".into(), since: ago(1), until: None };
    says(&Why { holds: vec![hold], ..awake }, "not while this lasts: hold #7");
}

#[test]
fn what_its_wake_costs_others() {
    let says = |sleep: &[&str], lacking_bytes, strict, words| {
        let sleep = sleep.iter().map(|name| name.parse().unwrap()).collect();
        let budget = AwakeBudget { owner: None, bytes: 8 << 30, awake_bytes: 8 << 30, strict };
        let why = Why {
            budgets: vec![budget],
            needs_room: Some(NeedsRoom { sleep, lacking_bytes }),
            ..base(MachineState::Asleep)
        };
        let page = plain(&why);
        assert!(page.contains(&format!("  budget    {words}\n")), "{page}");
    };
    says(&["db", "mail"], 0, true, "its wake would put to sleep: db, mail");
    says(&[], 1 << 30, true, "cannot wake: 1.0 GiB of awake memory are lacking");
    says(&[], 1 << 30, false, "its wake would exceed it by 1.0 GiB");
}

proptest! {
    /// Whatever there is to tell fits on a screen.
    #[test]
    fn is_one_screen(
        text in "\\PC{0,200}", words in "([a-z:0-9]{1,12} ){0,60}", many in 0usize..40, awake: bool, has_failed: bool,
    ) {
        let signal = Signal {
            name: text.clone(), value: Some(1e12), threshold: Some(5.0), unit: "B/s".into(), busy: true,
            since: Some(ago(1)), until: later(5), detail: Some(words.clone()),
        };
        let ignored = Ignored { reason: text.clone(), frames: 9, last: words.clone(), at: ago(9) };
        let wake = LastWake { cause: text.clone(), frame: Some(words.clone()), at: ago(1), took_ms: Some(5) };
        let counts: BTreeMap<_, _> = (0..many).map(|n| (format!("{n} {text}"), 7)).collect();
        let state = if awake { MachineState::Active } else { MachineState::Asleep };
        let failed = Failure { during: text.clone(), why: words.clone(), state_kept: true };
        let why = Why {
            cause: Some(words.clone()),
            failure: has_failed.then_some(failed),
            signals: vec![signal; if awake { many } else { 0 }],
            keeps: vec![Keep { kind: text.clone(), why: words.clone(), until: later(9) }; if awake { many } else { 0 }],
            holds: vec![Hold { id: 1, reason: text.clone(), since: ago(1), until: None }; many],
            obstacles: vec![words.clone(); many],
            budgets: vec![AwakeBudget { owner: Some(text.clone()), bytes: 1, awake_bytes: u64::MAX, strict: true }; many],
            makes_room: awake.then_some(MakesRoom { depth: Depth::Saved, from: later(8), after: u64::MAX }),
            needs_room: (!awake).then(|| NeedsRoom { sleep: vec!["web".parse().unwrap(); many], lacking_bytes: 0 }),
            last_wake: Some(wake),
            policy: Some(words.clone()),
            would_wake_at: later(7),
            would_wake: vec![text.clone(); many],
            answered: counts.clone(),
            ignored: vec![ignored; many],
            services: vec![Service { port: 80, answer: text, wakes: true }; many],
            dropped: counts,
            ..base(if has_failed { MachineState::Failed } else { state })
        };
        let page = plain(&why);
        prop_assert!(page.lines().count() <= 24, "{page}");
        prop_assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
    }
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
    let failure = |state_kept| Some(Failure { during: "load".into(), why: "checksum".into(), state_kept });
    let kept = plain(&Why { failure: failure(true), ..base(MachineState::Failed) });
    let kept = kept.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(kept.contains("dormouse wake web; or give it up: dormouse start --cold web"), "{kept}");
    let lost = plain(&Why { failure: failure(false), ..base(MachineState::Failed) });
    assert!(lost.contains("boot it afresh: dormouse start --cold web"), "{lost}");
}

#[test]
fn what_would_wake_it_depends_on_where_it_is() {
    let failure = Some(Failure { during: "load".into(), why: "no space".into(), state_kept: true });
    for (would_wake, state, line) in [
        (vec![], MachineState::Stopped, Some("wakes on  nothing but a start: dormouse start web")),
        (vec![], MachineState::Suspended, Some("wakes on  nothing of Dormouse: virsh resume DOMAIN, or,")),
        (vec![], MachineState::Active, Some("nothing but commands and holds: dormouse wake web")),
        (vec![], MachineState::Asleep, Some("nothing but commands and holds: dormouse wake web")),
        (vec!["tcp".into()], MachineState::Asleep, Some("wakes on  tcp, dormouse wake web")),
        (vec![], MachineState::Failed, None),
    ] {
        let failure = failure.clone().filter(|_| state == MachineState::Failed);
        let page = plain(&Why { would_wake, failure, ..base(state) });
        match line {
            Some(line) => assert!(page.contains(line), "{page}"),
            None => assert!(!page.contains("wakes on"), "{page}"),
        }
    }
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
