//! Signals, their hysteresis, and what keeps a machine awake whatever its use.

use super::*;
use proptest::prelude::*;

fn policy(idle_after: u64) -> IdlePolicy {
    IdlePolicy::new(&SleepSpec { idle_after: Some(secs(idle_after)), ..SleepSpec::default() })
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::default() + secs(1_000 + seconds)
}

/// A sample a second, with `network` bytes in that second.
fn run(policy: &mut IdlePolicy, traffic: &[u64]) -> Vec<Verdict> {
    let mut network_bytes = 0;
    let mut verdicts = Vec::new();
    for (i, bytes) in traffic.iter().enumerate() {
        network_bytes += bytes;
        verdicts.push(policy.sample(Sample { at: at(i as u64), network_bytes, ..Sample::default() }));
    }
    verdicts
}

#[test]
fn quiet_is_due_after_idle_after() {
    let verdicts = run(&mut policy(60), &[0; 100]);
    assert_eq!(verdicts[0].idle_since, None, "one sample tells nothing");
    assert_eq!(verdicts[50].idle_since, Some(at(1)));
    assert_eq!(verdicts[50].due, Some(at(61)));
    assert!(!verdicts[50].is_due(at(60)) && verdicts[50].is_due(at(61)));
    assert_eq!(verdicts[50].explain(), "idle for 49s; sleeps after 1m");
}

#[test]
fn threshold_and_half_of_it_are_the_edges() {
    let mut traffic = vec![0; 20];
    traffic.extend([1000; 20]); // below 1 KiB/s: stays quiet
    traffic.extend([1024; 20]); // busy once the window is full of it
    traffic.extend([600; 20]); // above the half: stays busy
    traffic.extend([500; 20]); // below the half: quiet again
    let verdicts = run(&mut policy(60), &traffic);
    let busy: Vec<_> = verdicts.iter().map(|v| v.signals[1].busy).collect();
    assert!(!busy[1..49].contains(&true));
    assert!(!busy[50..80].contains(&false));
    assert!(!busy[90..].contains(&true));
    assert_eq!(verdicts[49].signals[1].value, Some(1024.0));
    assert!(verdicts[70].explain().starts_with("busy: network 600.0 B/s (idle below 512.0) for "));
}

#[test]
fn each_signal_alone_keeps_awake() {
    for busy in 0..3 {
        let mut policy = policy(10);
        let mut verdict = None;
        for i in 0..60 {
            let grown = |signal, per_second: u64| if signal == busy { i * per_second } else { 0 };
            let cpu = Duration::from_millis(grown(0, 100));
            let sample =
                Sample { at: at(i), cpu, network_bytes: grown(1, 1024), disk_bytes: grown(2, 16384) };
            verdict = Some(policy.sample(sample));
        }
        let verdict = verdict.unwrap();
        assert_eq!(verdict.due, None, "{}", verdict.explain());
        let is_busy: Vec<_> = verdict.signals.iter().map(|s| s.busy).collect();
        assert_eq!(is_busy, [busy == 0, busy == 1, busy == 2]);
    }
}

#[test]
fn starts_afresh_when_it_cannot_know() {
    let sample = |seconds, network_bytes| Sample { at: at(seconds), network_bytes, ..Sample::default() };
    // A counter went back, the clock was set back, nobody looked for too long.
    for next in [sample(21, 4), sample(10, 9), sample(21 + MAX_GAP.as_secs(), 5)] {
        let mut policy = policy(10);
        for i in 0..=20 {
            policy.sample(sample(i, 5));
        }
        assert_eq!(policy.sample(sample(20, 5)).due, Some(at(11)), "the same sample changes nothing");
        assert_eq!(policy.sample(next).idle_since, None, "{next:?}");
    }
}

#[test]
fn never_means_only_when_told() {
    let mut policy = IdlePolicy::new(&SleepSpec { idle_after: None, ..SleepSpec::default() });
    let verdicts = run(&mut policy, &[0; 100]);
    assert!(verdicts.iter().all(|v| v.due.is_none()));
    assert_eq!(verdicts[99].explain(), "idle for 1m 38s; sleeps only when told");
    policy.reset();
    assert_eq!(policy.sample(Sample { at: at(100), ..Sample::default() }).idle_since, None);
}

proptest! {
    /// Traffic of one sample that alone fills a whole window to its threshold resets the
    /// clock; without such, and with quiet windows, `due` never moves earlier.
    #[test]
    fn never_due_before_idle_after_of_quiet(
        traffic in prop::collection::vec(prop_oneof![3 => 0u64..100, 1 => 100u64..50_000], 1..200),
        idle_after in 2u64..40,
    ) {
        let mut policy = policy(idle_after);
        let window = WINDOW.min(secs(idle_after) / 2).as_secs() + 1;
        let verdicts = run(&mut policy, &traffic);
        let mut last_busy = 0;
        let mut last_idle_since = None;
        for (i, verdict) in verdicts.iter().enumerate() {
            if traffic[i] >= 1024 * window && i > 0 {
                last_busy = i;
                prop_assert!(verdict.signals[1].busy, "{i}: {:?}", verdict);
            }
            if let Some(due) = verdict.due {
                prop_assert!(due >= at(last_busy as u64 + idle_after), "{i}: {:?}", verdict);
                prop_assert!(verdict.idle_since >= last_idle_since);
                last_idle_since = verdict.idle_since;
                prop_assert!(verdict.signals.iter().all(|s| !s.busy && s.value < s.threshold));
            }
        }
    }

    #[test]
    fn any_samples_give_a_verdict(samples in prop::collection::vec(any::<(u64, u64, u64, u64)>(), 0..50)) {
        let mut policy = policy(10);
        for (t, cpu, network_bytes, disk_bytes) in samples {
            let sample = Sample { at: Timestamp(t), cpu: Duration::from_nanos(cpu), network_bytes, disk_bytes };
            let verdict = policy.sample(sample);
            prop_assert!(verdict.signals.iter().all(|s| s.value.is_some_and(|value| value.is_finite() && value >= 0.0)));
            prop_assert!(!verdict.is_due(Timestamp(t)) || verdict.idle_since.is_some());
        }
    }
}

mod connections {
    use super::*;
    use crate::spec::ConnectionRule;
    use std::net::SocketAddr;

    fn rule(matcher: &str, keep_awake: bool, idle_after: Option<u64>) -> ConnectionRule {
        ConnectionRule { matcher: matcher.parse().unwrap(), keep_awake, idle_after: idle_after.map(secs) }
    }

    fn judge(rules: Vec<ConnectionRule>) -> IdlePolicy {
        let mut spec = SleepSpec { idle_after: Some(secs(600)), ..SleepSpec::default() };
        spec.keep.connections = rules;
        IdlePolicy::new(&spec)
    }

    /// A connection to `port` on which so many octets were sent, heard at `heard`.
    fn open(port: u16, sent: u32, heard: u64) -> Connection {
        let [local, remote] = [([10, 9, 0, 2], port), ([10, 9, 0, 1], 40_000)].map(SocketAddr::from);
        Connection { local, remote, numbers: (sent, 7), heard: at(heard), open: true }
    }

    /// Quiet counters each second, and these connections.
    fn run(policy: &mut IdlePolicy, seconds: std::ops::Range<u64>, open: &[Connection]) -> Verdict {
        let judged = seconds.map(|now| {
            policy.connections(open, at(now));
            policy.sample(Sample { at: at(now), ..Sample::default() })
        });
        judged.last().unwrap()
    }

    #[test]
    fn an_open_session_keeps_awake_until_it_is_closed() {
        let mut policy = judge(vec![rule("tcp:22", true, None)]);
        let verdict = run(&mut policy, 1..2000, &[open(22, 5, 1)]);
        let signal = &verdict.signals[3];
        assert_eq!((signal.value, signal.busy, signal.ends), (Some(1.0), true, None));
        assert_eq!(signal.name, "connections tcp:22");
        assert_eq!((verdict.due, verdict.expected), (None, None));
        assert_eq!(signal.detail.as_deref(), Some("10.9.0.1:40000 > :22, data 33m 18s ago"));
        // Its use was over when it was closed.
        let verdict = run(&mut policy, 2000..2001, &[]);
        assert_eq!((verdict.idle_since, verdict.due), (Some(at(2000)), Some(at(2600))));
    }

    #[test]
    fn a_silent_session_keeps_awake_for_its_time() {
        let mut policy = judge(vec![rule("tcp:22", true, Some(1800))]);
        let verdict = run(&mut policy, 50..100, &[open(22, 5, 50)]);
        assert!(verdict.signals[3].busy);
        assert_eq!((verdict.due, verdict.expected), (None, Some(at(1850))));
        // A keepalive probe is heard and moves no data; an octet does.
        let verdict = run(&mut policy, 100..200, &[open(22, 5, 150)]);
        assert_eq!(verdict.expected, Some(at(1850)));
        let verdict = run(&mut policy, 200..300, &[open(22, 6, 200)]);
        assert_eq!(verdict.expected, Some(at(2000)));
        // It falls silent: its use was over with its last data, which is longer ago than idle_after.
        let verdict = run(&mut policy, 300..2000, &[open(22, 6, 200)]);
        assert!(verdict.signals[3].busy && !verdict.is_due(at(1999)));
        let verdict = run(&mut policy, 2000..2001, &[open(22, 6, 200)]);
        assert_eq!(verdict.idle_since, Some(at(200)));
        assert!(verdict.is_due(at(2000)));
    }

    fn closed(port: u16, heard: u64) -> Connection {
        Connection { open: false, ..open(port, 9, heard) }
    }

    #[test]
    fn one_that_came_and_went_restarts_the_clock() {
        for rules in [vec![], vec![rule("tcp:22", true, None)], vec![rule("tcp:80", true, None)]] {
            let mut policy = judge(rules.clone());
            assert_eq!(run(&mut policy, 1..100, &[]).idle_since.map(|since| since < at(3)), Some(true));
            // It lingers in the table, and is one use.
            let verdict = run(&mut policy, 100..590, &[closed(22, 99)]);
            assert_eq!(verdict.idle_since, Some(at(99)), "{rules:?}");
            assert!(!verdict.is_due(at(650)) && verdict.is_due(at(699)));
            // The same client with the same port once more, still open when somebody looks.
            let verdict = run(&mut policy, 590..591, &[open(22, 10, 590)]);
            let verdict = verdict.idle_since.or(run(&mut policy, 591..592, &[closed(22, 590)]).idle_since);
            assert!(verdict.is_some_and(|since| since >= at(590)), "{rules:?}");
            assert!(run(&mut policy, 592..600, &[]).idle_since.is_some_and(|since| since >= at(590)));
        }
    }

    #[test]
    fn one_that_is_to_keep_nobody_awake_restarts_no_clock() {
        let mut policy = judge(vec![rule("tcp:9100", false, None)]);
        let before = run(&mut policy, 1..100, &[]).idle_since;
        assert_eq!(run(&mut policy, 100..200, &[closed(9100, 150)]).idle_since, before);
    }

    #[test]
    fn what_was_there_before_anybody_looked_did_not_come() {
        let mut policy = judge(Vec::new());
        let verdict = run(&mut policy, 100..101, &[closed(22, 99), open(22, 5, 99)]);
        assert!(verdict.signals.iter().all(|signal| signal.name != "new connections"));
    }

    #[test]
    fn the_first_rule_that_names_one_decides() {
        let mut policy = judge(vec![rule("tcp:22 from 10.9.0.1", false, None), rule("tcp", true, None)]);
        let verdict = run(&mut policy, 0..100, &[open(22, 5, 1)]);
        assert_eq!(verdict.signals.len(), 4, "what keeps nobody awake is no signal");
        assert!(!verdict.signals[3].busy && verdict.due.is_some());
        let verdict = run(&mut policy, 100..110, &[open(22, 5, 1), open(80, 5, 1)]);
        assert_eq!((verdict.signals[3].value, verdict.due), (Some(1.0), None));
    }

    #[test]
    fn without_rules_they_are_counted_and_keep_nobody_awake() {
        let mut policy = judge(Vec::new());
        let verdict = run(&mut policy, 0..100, &[open(22, 5, 1), open(80, 5, 1)]);
        let signal = &verdict.signals[3];
        assert_eq!((signal.value, signal.threshold, signal.busy), (Some(2.0), None, false));
        assert_eq!(verdict.due, Some(at(601)));
        assert_eq!(run(&mut policy, 100..110, &[]).signals.len(), 3);
    }

    proptest! {
        /// Whatever comes and goes: what is expected is what happens if nothing more does.
        #[test]
        fn what_is_expected_comes_true(
            steps in prop::collection::vec((prop::collection::vec((1u16..4, any::<bool>()), 0..4), 1u64..400), 1..20),
            idle_after in prop::option::of(1u64..2000),
        ) {
            let mut policy = judge(vec![rule("tcp:1", false, None), rule("tcp:1-2", true, idle_after)]);
            let (mut now, mut sent) = (0, 0);
            let mut last = Vec::new();
            let mut verdict = None;
            for (ports, pause) in &steps {
                let ports: std::collections::BTreeMap<u16, bool> = ports.iter().copied().collect();
                sent += 1;
                last = ports.iter().map(|(port, talks)| open(*port, if *talks { sent } else { 0 }, now)).collect();
                for _ in 0..2 {
                    now += pause / 2 + 1;
                    verdict = Some(run(&mut policy, now..now + 1, &last));
                }
            }
            let verdict = verdict.unwrap();
            prop_assert!(verdict.signals.iter().all(|signal| signal.since <= verdict.at));
            match (verdict.expected, idle_after) {
                (Some(expected), _) => {
                    // Sampled often enough that the rates do not start afresh, and just before.
                    let due = expected.since(at(0)).as_secs();
                    let times = (now..due).step_by(97).skip(1).chain([due - 1, due]);
                    for time in times.filter(|time| *time > now) {
                        let verdict = run(&mut policy, time..time + 1, &last);
                        prop_assert_eq!(verdict.is_due(at(time)), time >= due);
                    }
                }
                (None, forever) => {
                    let is_open = last.iter().any(|c| c.local.port() == 2);
                    let rates = verdict.signals[..3].iter().any(|signal| signal.busy);
                    prop_assert!(rates || forever.is_none() && is_open);
                }
            }
        }
    }
}

mod guest {
    use super::*;

    fn judge(users: bool, load_below: Option<f64>) -> IdlePolicy {
        let mut spec = SleepSpec { idle_after: Some(secs(600)), ..SleepSpec::default() };
        (spec.keep.users, spec.keep.load_below) = (users, load_below);
        IdlePolicy::new(&spec)
    }

    fn word(now: u64, users: &[&str], load: f64) -> Option<GuestWord> {
        let users = users.iter().map(ToString::to_string).collect();
        Some(GuestWord { at: at(now), users, load: Some(load) })
    }

    fn step(policy: &mut IdlePolicy, now: u64, word: Option<GuestWord>) -> Verdict {
        policy.guest(word, at(now));
        policy.sample(Sample { at: at(now), ..Sample::default() })
    }

    #[test]
    fn is_asked_only_if_the_file_says() {
        assert!(!judge(false, None).asks_guest());
        assert!(judge(true, None).asks_guest() && judge(false, Some(1.0)).asks_guest());
        let mut policy = judge(false, None);
        assert_eq!(step(&mut policy, 0, word(0, &["alice"], 9.0)).signals.len(), 3);
    }

    #[test]
    fn users_keep_awake_until_they_log_out() {
        let mut policy = judge(true, None);
        step(&mut policy, 0, word(0, &["alice (pts/0)", "bob (tty1)"], 0.0));
        let verdict = step(&mut policy, 5, word(5, &["alice (pts/0)", "bob (tty1)"], 0.0));
        assert_eq!(verdict.signals[3].detail.as_deref(), Some("alice (pts/0), bob (tty1)"));
        assert_eq!((verdict.signals[3].value, verdict.due, verdict.expected), (Some(2.0), None, None));
        assert_eq!(step(&mut policy, 10, word(10, &[], 0.0)).due, Some(at(610)));
    }

    #[test]
    fn load_has_hysteresis() {
        let mut policy = judge(false, Some(0.5));
        let busy: Vec<_> = [0.1, 0.4, 0.5, 0.3, 0.25, 0.2, 0.4]
            .iter()
            .zip(0..)
            .map(|(load, now)| step(&mut policy, now, word(now, &[], *load)).signals[3].busy)
            .collect();
        assert_eq!(busy, [false, false, true, true, true, false, false]);
    }

    #[test]
    fn a_guest_that_does_not_say_is_in_use() {
        let mut policy = judge(true, Some(0.5));
        step(&mut policy, 0, None);
        let verdict = step(&mut policy, 1, None);
        assert!(verdict.signals[3..].iter().all(|signal| signal.busy && signal.value.is_none()));
        assert!(verdict.explain().contains("users unknown"), "{}", verdict.explain());
        assert!(step(&mut policy, 2, word(2, &[], 0.0)).due.is_some());
        // Its last word counts for a while.
        assert!(step(&mut policy, 100, None).due.is_some());
        assert!(step(&mut policy, 2 + STALE.as_secs(), None).due.is_none());
    }
}

mod keeps {
    use super::*;
    use crate::{schedule::Spans, spec::KeepSpec};
    use jiff::tz::TimeZone;

    fn schedule(stay_awake: &[&str], sleep_only: &[&str], ahead: Option<u64>) -> Schedule {
        let spans = |texts: &[&str]| Spans::new(texts.iter().map(|text| text.parse().unwrap()).collect());
        let spec = KeepSpec {
            stay_awake: spans(stay_awake),
            sleep_only: spans(sleep_only),
            wake_ahead: ahead.map(secs),
            ..KeepSpec::default()
        };
        Schedule::new(&spec, TimeZone::UTC)
    }

    /// A minute of the week from Monday, 1970-01-05.
    fn monday(hour: u64, minute: u64) -> Timestamp {
        Timestamp::default() + secs(4 * 86_400 + hour * 3600 + minute * 60)
    }

    #[test]
    fn what_is_written_keeps_awake() {
        let work = schedule(&["mon-fri 08:00-19:00"], &[], Some(300));
        assert!(work.keeps(monday(7, 54)).is_empty());
        let ahead = &work.keeps(monday(7, 55))[0];
        assert_eq!((ahead.what, ahead.until), ("schedule", Some(monday(19, 0))));
        assert_eq!(work.keeps(monday(18, 59))[0].why, "stay_awake mon-fri 08:00-19:00, until mon 19:00");
        assert!(work.keeps(monday(19, 0)).is_empty());
        let night = schedule(&[], &["22:00-06:00"], None);
        assert_eq!(night.keeps(monday(12, 0))[0].until, Some(monday(22, 0)));
        assert!(night.keeps(monday(23, 0)).is_empty());
        assert!(schedule(&[], &[], None).keeps(monday(0, 0)).is_empty());
    }

    #[test]
    fn wakes_ahead_of_the_next_span() {
        let work = schedule(&["mon-fri 08:00-19:00"], &[], Some(300));
        let asleep = monday(3, 0);
        assert_eq!(work.wake_at(asleep, asleep), Some(monday(7, 55)));
        assert_eq!(work.wake_at(asleep, monday(7, 55)), Some(monday(7, 55)));
        // The daemon was away for a while.
        assert_eq!(work.wake_at(asleep, monday(9, 30)), Some(monday(9, 30)));
        assert_eq!(work.wake_at(asleep, monday(20, 0)), Some(monday(24 + 7, 55)));
        // Who put it to sleep at noon has a reason.
        assert_eq!(work.wake_at(monday(12, 0), monday(12, 1)), Some(monday(24 + 7, 55)));
        assert_eq!(schedule(&["08:00-19:00"], &[], None).wake_at(asleep, asleep), None);
        assert_eq!(schedule(&["mon-sun"], &[], Some(300)).wake_at(asleep, asleep), None);
    }

    #[test]
    fn the_outlook_counts_what_is_to_come() {
        let both = schedule(&["mon 08:00-10:00"], &["mon 06:00-07:00", "tue 00:00-01:00"], None);
        assert_eq!(both.outlook(Some(monday(6, 10)), &[]), Some(monday(6, 10)));
        assert_eq!(both.outlook(Some(monday(9, 0)), &[]), Some(monday(24, 0)));
        let hold = |until| Keep { what: "hold", why: String::new(), until };
        assert_eq!(both.outlook(Some(monday(6, 10)), &[hold(Some(monday(6, 30)))]), Some(monday(6, 30)));
        assert_eq!(both.outlook(Some(monday(6, 10)), &[hold(None)]), None);
        assert_eq!(both.outlook(None, &[]), None);
        assert_eq!(schedule(&["mon-sun"], &[], None).outlook(Some(monday(0, 0)), &[]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// A machine that falls asleep whenever it may, and wakes when it is to: it is awake in each span.
        #[test]
        fn is_awake_when_it_is_to_be(from in 0u64..24, len in 1u64..24, ahead in 0u64..3600, start in 0u64..7 * 1440) {
            let to = (from + len) % 24;
            let text = format!("tue,wed,sat {from:02}:00-{:02}:00", if to == 0 { 24 } else { to });
            let plan = schedule(&[&text], &[], Some(ahead));
            let mut awake_since = None;
            let mut asleep = monday(0, start);
            for minute in (start..start + 8 * 1440).step_by(20) {
                let now = monday(0, minute);
                match awake_since {
                    None if plan.wake_at(asleep, now).is_some_and(|at| at <= now) => awake_since = Some(now),
                    Some(_) if plan.keeps(now).is_empty() => (awake_since, asleep) = (None, now),
                    _ => {}
                }
                let is_to_be = matches!(plan.keeps(now).first(), Some(keep) if keep.until != Some(now));
                let slept_into_it = asleep == monday(0, start) && awake_since.is_none();
                prop_assert!(!is_to_be || awake_since.is_some() || slept_into_it, "{text} at minute {minute}");
            }
        }
    }
}
