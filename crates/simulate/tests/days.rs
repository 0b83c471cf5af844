//! Simulations of small traces whose outcome is known by counting.

use std::time::Duration;

use dormouse_machine::policy::{Kind, Settings};
use dormouse_simulate::{Options, Simulation};
use dormouse_types::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;

fn options(kinds: &[Kind]) -> Options {
    let policies =
        kinds.iter().map(|kind| (kind.to_string(), Settings { kind: *kind, ..Settings::default() }));
    Options {
        cpu_below: 10.0,
        interval: Duration::from_secs(300),
        start: Timestamp::default() + Duration::from_secs(4 * 86_400),
        warm_up: Duration::ZERO,
        sleep_takes: Duration::ZERO,
        wake_takes: Duration::ZERO,
        separate: false,
        zone: TimeZone::UTC,
        policies: policies.collect(),
    }
}

fn line(name: &str, values: &[u8]) -> String {
    let values: Vec<String> = values.iter().map(u8::to_string).collect();
    format!("{name},{}\n", values.join(","))
}

#[test]
fn a_fixed_time_by_hand() {
    let mut simulation = Simulation::new(options(&[Kind::Fixed]));
    // Below 10 but not below its half is still use; idle for four intervals and then for two.
    let values = [50, 7, 4, 9, 0, 9, 10, 0, 0, 30];
    simulation.file("day", line("web", &values).as_bytes()).unwrap();
    let rows = simulation.report().rows();
    let [oracle, fixed, always_on] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(oracle.asleep_hours, 0.5);
    assert_eq!((fixed.asleep_hours * 60.0).round(), 5.0, "the fourth interval");
    assert_eq!((fixed.user_hits, fixed.wakes, fixed.ahead), (1, 1, 0));
    assert_eq!((oracle.user_hits, oracle.wakes), (0, 2));
    assert_eq!((always_on.asleep_hours, always_on.wasted_hours), (0.0, 0.5));
}

#[test]
fn who_falls_asleep_is_not_asleep_and_who_comes_meanwhile_waits() {
    let asleep = |sleep_takes, values: &[u8]| {
        let mut simulation = Simulation::new(Options {
            sleep_takes: Duration::from_secs(sleep_takes),
            ..options(&[Kind::Fixed])
        });
        simulation.file("day", line("web", values).as_bytes()).unwrap();
        let fixed = simulation.report().rows().swap_remove(1);
        ((fixed.asleep_hours * 3600.0).round(), fixed.user_hits)
    };
    assert_eq!(asleep(0, &[50, 0, 0, 0, 0, 0, 50]), (600.0, 1));
    assert_eq!(asleep(20, &[50, 0, 0, 0, 0, 0, 50]), (580.0, 1));
    assert_eq!(asleep(400, &[50, 0, 0, 0, 0, 0, 50]), (200.0, 1), "across the end of an interval");
    assert_eq!(asleep(700, &[50, 0, 0, 0, 0, 0, 50]), (0.0, 1), "wanted on its way to sleep");
    assert_eq!(asleep(0, &[50, 0, 0, 0, 50, 0]), (0.0, 0), "use and the timer at once: use comes first");
}

#[test]
fn a_wake_ahead_must_be_over_when_use_begins() {
    let hits = |lead, wake_takes| {
        let mut settings = Settings { kind: Kind::Predictive, ..Settings::default() };
        settings.lead = Duration::from_secs(lead);
        let mut simulation = Simulation::new(Options {
            wake_takes: Duration::from_secs(wake_takes),
            warm_up: Duration::from_secs(12 * 3600),
            policies: vec![("predictive".into(), settings)],
            ..options(&[])
        });
        simulation.file("day", line("clock", &[60, 0, 0, 0, 0, 0].repeat(48)).as_bytes()).unwrap();
        let row = simulation.report().rows().swap_remove(1);
        assert!(row.ahead > 20 || lead == 0, "{row:?}");
        row.user_hits
    };
    assert_eq!(hits(30, 0), 0);
    assert_eq!(hits(30, 30), 0, "just in time");
    assert_eq!(hits(30, 31), 24, "a second late each time");
    assert_eq!(hits(0, 0), 24, "a wake at the instant of the use is too late");
}

/// A month of working days with lunch, from a seed of its own: use begins within a quarter of eight o'clock.
fn month(machine: u64) -> Vec<Vec<u8>> {
    let noise = |n: u64| (n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(machine) >> 33) % 100;
    (0..28u64)
        .map(|day| {
            let begin = 96 + noise(day * 3) % 3;
            let used = |slot: u64| day % 7 < 5 && (begin..216).contains(&slot) && !(144..150).contains(&slot);
            (0..288).map(|slot| if used(slot) { 60 } else { 1 }).collect()
        })
        .collect()
}

#[test]
fn days_in_several_files_are_learned_from() {
    let mut simulation = Simulation::new(Options {
        warm_up: Duration::from_secs(14 * 86_400),
        ..options(&[Kind::Fixed, Kind::Predictive])
    });
    let machines: Vec<_> = (1..=5).map(month).collect();
    for day in 0..28 {
        let named = machines.iter().enumerate();
        let lines: String = named.map(|(n, days)| line(&format!("desk{n}"), &days[day])).collect();
        simulation.file("day", lines.as_bytes()).unwrap();
    }
    let rows = simulation.report().rows();
    let (fixed, predictive) = (&rows[1], &rows[2]);
    assert!(predictive.of_oracle_percent > 95.0, "{predictive:?}");
    assert!(predictive.user_hits * 4 < fixed.user_hits, "{predictive:?} {fixed:?}");
    assert!(simulation.svg().contains("predictive"));
}

#[test]
fn a_machine_twice_in_a_file_is_refused() {
    let error = Simulation::new(options(&[Kind::Fixed])).file("a.csv", &b"web,1\nweb,2\n"[..]).unwrap_err();
    assert!(error.to_string().contains("a.csv, line 2, column 1: \"web\" is there a second time"), "{error}");
    let error = Simulation::new(options(&[Kind::Fixed])).file("a.csv", &b"\n"[..]).unwrap_err();
    assert!(error.to_string().contains("no machine"), "{error}");
}

proptest! {
    /// Whatever the trace: nobody sleeps in use, what is asleep and wasted is what was idle, and every use
    /// is hit or not.
    #[test]
    fn times_add_up(days in prop::collection::vec(prop::collection::vec(0u8..30, 1..80), 1..4), separate: bool) {
        let mut simulation = Simulation::new(Options { separate, ..options(&Kind::ALL) });
        for day in &days {
            simulation.file("day", (line("a", day) + &line("b", &day[..1])).as_bytes()).unwrap();
        }
        let rows = simulation.report().rows();
        let idle = rows[0].asleep_hours;
        for row in &rows {
            prop_assert!((row.asleep_hours + row.wasted_hours - idle).abs() < 1e-6, "{row:?} {idle}");
            prop_assert!(row.user_hits <= simulation.report().uses() && row.ahead_in_vain <= row.ahead);
            prop_assert_eq!(row.wakes, row.user_hits + row.ahead);
        }
        prop_assert!(simulation.svg().ends_with("</svg>\n"));
    }
}
