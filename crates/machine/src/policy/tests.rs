//! Each policy over edges of use, and over any edges at all.

use super::*;
use proptest::prelude::*;

const MINUTE: u64 = 60_000_000_000;
/// A Monday, midnight.
const MONDAY: u64 = 1_299_456_000_000_000_000;

fn at(minute: u64) -> Timestamp {
    Timestamp(MONDAY + minute * MINUTE)
}

fn build(kind: Kind, memory: Option<&serde_json::Value>) -> Box<dyn Policy> {
    Settings { kind, ..Settings::default() }.build(TimeZone::UTC, memory)
}

#[test]
fn fixed_sleeps_after_its_time() {
    let mut policy = build(Kind::Fixed, None);
    assert_eq!(policy.sleep_at(at(0)), None, "a machine is in use until told otherwise");
    policy.turned(false, at(3));
    policy.turned(false, at(9));
    assert_eq!(policy.sleep_at(at(9)).unwrap().at, at(18), "said again, it changes nothing");
    policy.turned(true, at(10));
    assert_eq!(policy.sleep_at(at(10)), None);
    assert_eq!(policy.wake_at(at(10)), None);
}

#[test]
fn never_means_never() {
    for kind in Kind::ALL {
        let mut policy =
            Settings { kind, idle_after: None, ..Settings::default() }.build(TimeZone::UTC, None);
        policy.turned(false, at(0));
        assert_eq!(policy.sleep_at(at(1_000)), None, "{kind}");
        assert_eq!(policy.wake_at(at(1_000)), None, "{kind}");
    }
}

#[test]
fn parameters_are_set_by_name() {
    let mut settings = Settings::default();
    for key in Settings::KEYS {
        settings.set(key, "4m").unwrap();
        for wrong in ["7", "", "-1s", "2y", "soon"] {
            let error = settings.set(key, wrong).unwrap_err();
            assert!(error.starts_with(&format!("{key} = {wrong:?}: must be a time")), "{error}");
            assert!(error.contains("with its unit, as \"20s\""), "{error}");
        }
    }
    let span = Duration::from_secs(240);
    let Settings { idle_after, idle_most, wake_cost, lead, idle_least, .. } = settings;
    assert_eq!([idle_after, Some(idle_most), Some(wake_cost), Some(lead), Some(idle_least)], [Some(span); 5]);
    settings.set("idle_after", "never").unwrap();
    assert_eq!(settings.idle_after, None);
    assert!(settings.set("lead", "never").unwrap_err().contains("at most 5m"));
    assert!(settings.set("lead", "6m").unwrap_err().contains("at most 5m"));
    assert!(settings.set("idle_after", "0s").unwrap_err().contains("from 1s to a year"));
    assert!(settings.set("idle", "7m").unwrap_err().contains("idle_after, idle_most"));
    assert!(Kind::ALL.iter().flat_map(|kind| kind.keys()).all(|key| Settings::KEYS.contains(key)));
}

#[test]
fn hysteresis_doubles_after_short_sleeps_and_halves_after_long_ones() {
    let mut policy = build(Kind::Hysteresis, None);
    let mut now = 0;
    let mut seen = Vec::new();
    for sleep in [1, 1, 1, 1, 1, 10_000, 10_000, 10_000, 10_000] {
        policy.turned(false, at(now));
        let plan = policy.sleep_at(at(now)).unwrap().at;
        seen.push(plan.since(at(now)).as_secs() / 60);
        policy.slept(plan);
        now = (plan.0 - MONDAY) / MINUTE + sleep;
        policy.turned(true, at(now));
    }
    assert_eq!(seen, [15, 30, 60, 120, 120, 120, 60, 30, 15]);
}

#[test]
fn hysteresis_keeps_what_it_learned_within_its_bounds() {
    let memory = serde_json::json!({ "version": 1, "idle_after": { "secs": 3_000_000, "nanos": 0 } });
    let mut policy = build(Kind::Hysteresis, Some(&memory));
    policy.turned(false, at(0));
    assert_eq!(policy.sleep_at(at(0)).unwrap().at, at(120));
    assert!(policy.sleep_at(at(0)).unwrap().why.contains("2h"));
}

/// In use from `from` to `to` o'clock on working days, for weeks.
fn works(policy: &mut dyn Policy, weeks: u64, from: u64, to: u64) {
    for day in (0..weeks * 7).filter(|day| day % 7 < 5) {
        policy.turned(true, at(day * 1440 + from * 60));
        policy.turned(false, at(day * 1440 + to * 60));
    }
}

#[test]
fn predictive_is_awake_when_work_begins_and_not_on_sunday() {
    let mut policy = build(Kind::Predictive, None);
    policy.turned(false, at(0));
    works(&mut *policy, 4, 8, 18);
    // Friday evening of the fourth week.
    let friday = (3 * 7 + 4) * 1440 + 18 * 60;
    let plan = policy.sleep_at(at(friday)).unwrap();
    assert!(plan.at <= at(friday + 1), "the night is long: {plan:?}");
    let wake = policy.wake_at(at(friday + 60)).unwrap();
    let monday = 4 * 7 * 1440 + 8 * 60;
    assert!(wake.at < at(monday) && wake.at >= at(monday - 10), "{wake:?}");
    assert!(wake.why.contains("hour of the week"), "{wake:?}");
    // Nobody came: it sleeps again within the hour.
    let plan = policy.sleep_at(wake.at).unwrap();
    assert!(plan.at > wake.at && plan.at <= at(monday + 30), "{plan:?}");
}

#[test]
fn predictive_stays_awake_where_use_comes_and_goes_and_sleeps_where_it_does_not() {
    let mut restless = build(Kind::Predictive, None);
    let mut calm = build(Kind::Predictive, None);
    for hour in 0..20 {
        for i in 0..4 {
            restless.turned(false, at(hour * 60 + i * 15));
            restless.turned(true, at(hour * 60 + i * 15 + 10));
        }
        calm.turned(false, at(hour * 600 + 10));
        calm.turned(true, at(hour * 600 + 600));
    }
    restless.turned(false, at(20_000));
    calm.turned(false, at(20_000));
    let wake = restless.wake_at(at(20_000)).unwrap();
    assert!(wake.at <= at(20_010), "{wake:?}");
    assert!(calm.sleep_at(at(20_000)).unwrap().at <= at(20_001));
    let later = calm.wake_at(at(20_000)).map(|plan| plan.at);
    assert!(later.is_none_or(|wake| wake > at(20_060)), "{later:?}");
}

#[test]
fn memories_of_others_are_passed_over() {
    for memory in [
        serde_json::json!(null),
        serde_json::json!({ "version": 2, "idle_after": 5 }),
        serde_json::json!({ "version": 1, "ages": [1e30], "hours": {}, "used": { "share": 0.1, "at": null } }),
        serde_json::json!({ "version": 1, "ages": vec![0; 65], "hours": {}, "used": { "share": 0.1, "at": null } }),
        serde_json::json!({ "version": 1, "ages": [], "hours": { "672": [1, 1] }, "used": { "share": 0.1, "at": null } }),
        serde_json::json!({ "version": 1, "ages": [], "hours": { "1": [1, 2] }, "used": { "share": 0.1, "at": null } }),
        serde_json::json!({ "version": 1, "ages": [], "hours": {}, "used": { "share": 7, "at": null } }),
    ] {
        for kind in Kind::ALL {
            let with = build(kind, Some(&memory));
            assert_eq!(with.memory(), build(kind, None).memory(), "{kind}: {memory}");
        }
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

/// Edges in the order that they are told, each with its minute: mostly forwards, now and then back.
fn edges() -> impl Strategy<Value = Vec<(bool, u64)>> {
    let step = prop_oneof![8 => 0i64..90, 2 => 0i64..3_000, 1 => -5_000i64..0];
    prop::collection::vec((any::<bool>(), step), 0..50).prop_map(|steps| {
        let mut now = 20_000u64;
        let walk = |(busy, step)| {
            now = now.saturating_add_signed(step);
            (busy, now)
        };
        steps.into_iter().map(walk).collect()
    })
}

proptest! {
    #[test]
    fn never_sleeps_while_busy_nor_in_the_past(kind in kinds(), edges in edges(), looks in prop::collection::vec(0u64..4_000, 1..3)) {
        let mut policy = build(kind, None);
        let mut idle_since = None;
        for (busy, minute) in edges {
            policy.turned(busy, at(minute));
            idle_since = if busy { None } else { idle_since.or(Some(minute)) };
            for look in &looks {
                let now = at(minute + look);
                let sleep = policy.sleep_at(now);
                prop_assert!(idle_since.is_some() || (sleep.is_none() && policy.wake_at(now).is_none()));
                if let Some(since) = idle_since {
                    if let Some(plan) = &sleep {
                        prop_assert!(plan.at >= at(since), "{plan:?}");
                        prop_assert!(!plan.why.is_empty());
                    }
                    if let Some(wake) = policy.wake_at(now) {
                        prop_assert!(wake.at + Duration::from_secs(30) >= now, "{wake:?} at {now:?}");
                    }
                }
            }
        }
    }

    /// As time passes with no edge, what is planned does not come nearer the beginning, and what is
    /// due stays due until its own bin is over.
    #[test]
    fn plans_to_sleep_only_move_on(kind in kinds(), edges in edges(), step in 1u64..40) {
        let mut policy = build(kind, None);
        for (busy, minute) in &edges {
            policy.turned(*busy, at(*minute));
        }
        let last = edges.last().map_or(0, |(_, minute)| *minute);
        policy.turned(false, at(last));
        let mut before = None;
        for i in 0..30 {
            let plan = policy.sleep_at(at(last + i * step)).map(|plan| plan.at);
            prop_assert!(plan.is_some() && plan >= before, "{plan:?} after {before:?}");
            before = plan;
        }
    }

    /// A policy that was told to sleep is not woken for the very time it went to sleep in.
    #[test]
    fn wakes_come_after_sleeps(kind in kinds(), edges in edges()) {
        let mut policy = build(kind, None);
        for (busy, minute) in &edges {
            policy.turned(*busy, at(*minute));
        }
        let last = edges.last().map_or(0, |(_, minute)| *minute);
        policy.turned(false, at(last));
        let mut now = at(last);
        for _ in 0..10 {
            let Some(sleep) = policy.sleep_at(now) else { break };
            now = now.max(sleep.at);
            let Some(wake) = policy.wake_at(now) else { break };
            prop_assert!(wake.at > now, "sleeps at {now:?}, woken at {wake:?}");
            now = wake.at;
        }
    }

    /// A restart between any two edges changes nothing that is decided later.
    #[test]
    fn memory_makes_the_round_trip(kind in kinds(), edges in edges(), cut in 0usize..50) {
        let mut through = build(kind, None);
        let cut = cut.min(edges.len());
        for (busy, minute) in &edges[..cut] {
            through.turned(*busy, at(*minute));
        }
        // The daemon stops: what ran is found in use.
        let last = edges[..cut].last().map_or(20_000, |(_, minute)| *minute);
        through.turned(true, at(last));
        let text = through.memory().map(|memory| memory.to_string());
        let memory = text.map(|text| serde_json::from_str(&text).unwrap());
        let mut restarted = build(kind, memory.as_ref());
        for (busy, minute) in &edges[cut..] {
            through.turned(*busy, at(*minute));
            restarted.turned(*busy, at(*minute));
            prop_assert_eq!(through.sleep_at(at(*minute)), restarted.sleep_at(at(*minute)));
            prop_assert_eq!(through.wake_at(at(*minute)), restarted.wake_at(at(*minute)));
        }
        prop_assert_eq!(through.memory(), restarted.memory());
    }

    #[test]
    fn memory_is_bounded(kind in kinds(), edges in prop::collection::vec((any::<bool>(), any::<u64>()), 0..150)) {
        let mut policy = build(kind, None);
        for (busy, time) in edges {
            policy.turned(busy, Timestamp(time));
            policy.slept(Timestamp(time));
        }
        let size = policy.memory().map_or(0, |memory| memory.to_string().len());
        prop_assert!(size < 32 << 10, "{size}");
    }

    #[test]
    fn any_times_give_sane_plans(kind in kinds(), edges in prop::collection::vec((any::<bool>(), any::<u64>()), 0..40), now: u64) {
        let mut policy = build(kind, None);
        for (busy, time) in edges {
            policy.turned(busy, Timestamp(time));
            let _ = (policy.sleep_at(Timestamp(now)), policy.wake_at(Timestamp(now)));
        }
    }
}

#[test]
fn who_comes_like_clockwork_is_expected() {
    let mut policy = build(Kind::Predictive, None);
    for visit in 0..20 {
        policy.turned(true, at(visit * 30));
        policy.turned(false, at(visit * 30 + 5));
    }
    let idle = at(19 * 30 + 5);
    policy.slept(idle);
    let plan = policy.wake_at(at(19 * 30 + 16)).unwrap();
    assert_eq!(plan.at, Timestamp(at(600).0 - MINUTE / 2), "{plan:?}");
}

#[test]
fn a_memory_of_another_version_is_not_read() {
    for kind in [Kind::Hysteresis, Kind::Predictive] {
        let mut memory = build(kind, None).memory().unwrap();
        assert!(kind.reads(&memory));
        memory["version"] = 99.into();
        assert!(!kind.reads(&memory));
    }
}
