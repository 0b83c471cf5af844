//! What a guest used, told by `dormouse usage`, through a sleep, a wake by a packet and daemons that are killed.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, LONG, Scene};
use dormouse_lab::{
    Guest,
    api::{Event, EventKind, MachineState, Usage, UsageReport},
    wait_until,
};
use std::{collections::BTreeMap, time::Instant};

/// What is told is rounded to the millisecond.
const ROUNDED: f64 = 0.02;

/// Longer than a record takes to be written.
const WRITTEN: f64 = 0.5;
/// An event's time is that of its telling.
const TOLD: f64 = 0.3;

/// A report, and when it was asked for and there.
struct Report {
    asked: Instant,
    told: Instant,
    usage: Usage,
}

const BY: [&str; 3] = ["usage", "--by", "machine,owner,label:project"];

#[track_caller]
fn report(scene: &Scene) -> Report {
    let asked = Instant::now();
    let report: UsageReport = scene.daemon.json(&BY).unwrap();
    let told = Instant::now();
    let [line] = &*report.lines else { panic!("{report:?}") };
    let expected = [("label:project", "shop"), ("machine", "web"), ("owner", "alice")];
    let expected: BTreeMap<_, _> = expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    assert_eq!((&line.group, &line.usage), (&expected, &report.total));
    adds_up(&line.usage);
    Report { asked, told, usage: report.total }
}

/// Every second is counted once.
#[track_caller]
fn adds_up(usage: &Usage) {
    let depths = [usage.paused_seconds, usage.pmsuspended_seconds, usage.saved_seconds, usage.off_seconds];
    let asleep: f64 = depths.iter().sum();
    let others = [
        usage.awake_seconds,
        usage.waking_seconds,
        usage.suspended_seconds,
        usage.stopped_seconds,
        usage.failed_seconds,
        usage.unknown_seconds,
    ];
    let sum: f64 = others.iter().sum();
    assert!((asleep - usage.asleep_seconds).abs() < ROUNDED, "{usage:?}");
    assert!((sum + asleep - usage.total_seconds).abs() < ROUNDED, "{usage:?}");
}

/// Between two reports as much was counted as passed.
#[track_caller]
fn all_was_counted(before: &Report, after: &Report) {
    let counted = after.usage.total_seconds - before.usage.total_seconds;
    let (least, most) = (after.asked - before.told, after.told - before.asked);
    let span = least.as_secs_f64() - ROUNDED..=most.as_secs_f64() + ROUNDED;
    assert!(span.contains(&counted), "{counted} is not in {span:?}");
    assert!(after.usage.unknown_seconds < ROUNDED, "{:?}", after.usage);
}

/// As long as the events say that it slept and woke. They are told a little after what they tell of.
#[track_caller]
fn as_the_events_tell(scene: &Scene, usage: &Usage) {
    let events: Vec<_> = scene.events.all().into_iter().filter(|e| e.kind == EventKind::State).collect();
    let seconds = |from: &Event, to: &Event| to.at.timestamp().since(from.at.timestamp()).as_secs_f64();
    let of = |state| events.iter().filter(move |event| event.to == Some(state)).collect::<Vec<_>>();
    let [boots, wakes] = &*of(MachineState::Waking) else { panic!("{events:?}") };
    let [booted, awake] = &*of(MachineState::Active) else { panic!("{events:?}") };
    let ([settles], [asleep]) = (&*of(MachineState::Settling), &*of(MachineState::Asleep)) else {
        panic!("{events:?}")
    };
    let waking = seconds(boots, booted) + seconds(wakes, awake);
    let saved = seconds(settles, wakes) - asleep.figures["took_ms"] / 1000.0;
    for (counted, told) in [(usage.waking_seconds, waking), (usage.saved_seconds, saved)] {
        assert!((counted - told).abs() < TOLD, "{counted}, {told}: {usage:?}, {events:?}");
    }
}

/// The fields of a line of CSV without quoted ones, by their names.
fn fields(csv: &str) -> BTreeMap<&str, &str> {
    let mut lines = csv.split("\r\n").map(|line| line.split(',').collect::<Vec<_>>());
    let (head, line) = (lines.next().unwrap(), lines.next().unwrap());
    assert_eq!(head.len(), line.len(), "{csv}");
    head.into_iter().zip(line).collect()
}

#[test]
fn every_second_is_counted_through_sleeps_wakes_and_crashes() {
    let guest = Guest::new("web", 2).set("owner", "alice").set("labels.project", "shop").dirty(10);
    let mut scene = Scene::boot("usage", FAST_SAMPLES, guest);
    // So that its address is known.
    scene.page();
    // What it had in memory is known before it sleeps: it is measured each few seconds.
    wait_until(
        "its memory to be measured",
        LONG,
        || Ok(report(&scene).usage.memory_occupied_gib_hours > 0.0),
    )
    .unwrap();
    let booted = report(&scene);
    scene.sleep();
    scene.wait_no_qemu();
    scene.wakes_at_the_first_syn();
    scene.wait(MachineState::Active);
    let woken = report(&scene);
    all_was_counted(&booted, &woken);
    let usage = &woken.usage;
    assert_eq!((usage.starts, usage.sleeps["command"], usage.wakes["packet"]), (1, 1, 1), "{usage:?}");
    assert!(usage.saved_seconds > 0.0 && usage.vcpu_seconds > 0.0, "{usage:?}");
    assert!(usage.memory_saved_gib_hours > 0.0, "{usage:?}");
    as_the_events_tell(&scene, usage);
    // 256 MiB, for as long as it was awake or about to be.
    let (least, most) = (usage.awake_seconds, usage.awake_seconds + usage.waking_seconds);
    let awake = usage.memory_awake_gib_hours * 3600.0 * 4.0;
    assert!((least - 0.1..=most + 0.1).contains(&awake), "{awake}: {usage:?}");

    // Killed while it is awake, and while it sleeps: nothing is lost, and nothing counted twice.
    scene.restart("");
    let again = report(&scene);
    all_was_counted(&woken, &again);
    assert!(again.usage.awake_seconds > usage.awake_seconds, "{:?}", again.usage);
    // The counter went on, and is counted as soon as it is read again.
    wait_until("what was computed to be counted", LONG, || {
        Ok(report(&scene).usage.vcpu_seconds >= usage.vcpu_seconds - ROUNDED)
    })
    .unwrap();
    scene.sleep();
    scene.wait_no_qemu();
    let asleep = report(&scene);
    scene.restart("");
    let last = report(&scene);
    all_was_counted(&asleep, &last);
    assert!(last.usage.asleep_seconds > asleep.usage.asleep_seconds, "{:?}", last.usage);
    let (awake, was_awake) = (last.usage.awake_seconds, asleep.usage.awake_seconds);
    // It fell asleep as soon as that was durable; what is durable has it from when that began to be written.
    assert!((was_awake - WRITTEN..was_awake + ROUNDED).contains(&awake), "{was_awake}: {:?}", last.usage);
    let counts = (last.usage.starts, last.usage.sleeps["command"], last.usage.wakes["packet"]);
    assert_eq!(counts, (1, 2, 1), "{:?}", last.usage);

    as_csv_and_as_a_table(&scene, &last.usage);
}

#[track_caller]
fn as_csv_and_as_a_table(scene: &Scene, usage: &Usage) {
    let csv = scene.daemon.run(&[&["-o", "csv"], &BY[..]].concat()).unwrap();
    let csv = fields(&csv);
    let texts = ["machine", "owner", "label:project", "starts", "sleeps_command", "wakes_packet", "wakes"];
    assert_eq!(texts.map(|name| csv[name]), ["web", "alice", "shop", "1", "2", "1", "1"], "{csv:?}");
    let figure = |name: &str| csv[name].parse::<f64>().unwrap();
    assert!((figure("awake_seconds") - usage.awake_seconds).abs() < ROUNDED, "{csv:?}");
    assert!(figure("asleep_seconds") >= usage.asleep_seconds, "{csv:?}");
    let table = scene.daemon.run(&BY).unwrap();
    for word in ["OWNER", "LABEL:PROJECT", "alice", "shop", "web"] {
        assert!(table.contains(word), "{word} is not in\n{table}");
    }
}
