//! What the command line says, and how it ends, with the real daemon.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, Scene};
use dormouse_lab::{
    Daemon, Guest,
    api::{CheckStatus, Event, EventKind, MachineDetail, MachineState, MachineSummary, Outcome, Report, Why},
};

#[test]
fn bad_machine_files_are_refused_with_the_key_the_value_and_what_is_allowed() {
    let scene = Scene::new("files", "", Guest::new("web", 2));
    let create = |guest: Guest| {
        let file = guest.write(&scene.lab, &scene.image).unwrap();
        scene.refused(&["create", &file.to_string_lossy()], 1)
    };
    let other = || Guest::new("other", 3);
    for (guest, parts) in [
        (other().set("sleep.idle_afer", "10m"), ["sleep.idle_afer", "idle_after"].as_slice()),
        (other().set("sleep.depth", "deep"), &["sleep.depth", "\"deep\"", "paused", "saved", "off"]),
        (other().set("sleep.idle_after", "10"), &["sleep.idle_after", "\"10\"", "\"20s\""]),
        (other().set("qemu.memory", "lots"), &["qemu.memory", "\"lots\"", "1GiB"]),
        (other().set("qemu.kernel", "no-such-kernel"), &["no-such-kernel"]),
        (other().set("wake.on", vec!["tcp:http".to_owned()]), &["wake.on", "http", "65535"]),
        // Another machine has this Ethernet address.
        (Guest::new("other", 2), &["52:54:00:00:00:02", "web"]),
        // Another machine has this name.
        (Guest::new("web", 3), &["web", "already"]),
    ] {
        let said = create(guest);
        for part in parts {
            assert!(said.contains(part), "{said:?} lacks {part:?}");
        }
    }
    let said = scene.refused(&["create", "/nonexistent.toml"], 1);
    assert!(said.contains("/nonexistent.toml"), "{said}");
    let listed: Vec<MachineSummary> = scene.daemon.json(&["ls"]).unwrap();
    assert_eq!(listed.len(), 1, "a file that was refused left something behind: {listed:?}");
}

#[test]
fn commands_end_with_a_status_that_says_what_happened() {
    let scene = Scene::boot("verbs", FAST_SAMPLES, Guest::new("web", 2));
    let daemon = &scene.daemon;
    for verb in ["show", "why", "start", "stop", "sleep", "wake", "hold", "release", "rm"] {
        let said = scene.refused(&[verb, "nobody"], 3);
        assert!(said.contains("nobody"), "{verb}: {said}");
    }
    scene.refused(&["dance"], 2);
    let said = scene.refused(&["rm", "web"], 4);
    assert!(
        said.contains("active") && said.contains("dormouse stop web") && said.contains("--force"),
        "{said}"
    );
    json_is_read_by_the_types_of_the_api(daemon);

    scene.sleep();
    let said = scene.refused(&["stop", "web"], 4);
    assert!(said.contains("--force"), "{said}");
    let said = scene.refused(&["sleep", "--depth", "paused", "web"], 4);
    assert!(said.contains("wake"), "{said}");
    daemon.run(&["sleep", "web"]).unwrap();
    daemon.run(&["wake", "web"]).unwrap();
    daemon.run(&["wake", "web"]).unwrap();
    daemon.run(&["stop", "web"]).unwrap();
    assert_eq!(scene.state(), MachineState::Stopped);
    assert!(scene.refused(&["sleep", "web"], 4).contains("start"));
    daemon.run(&["rm", "web"]).unwrap();
    scene.refused(&["show", "web"], 3);
    the_events_tell_the_story(&scene);
    without_a_daemon(scene);
}

fn json_is_read_by_the_types_of_the_api(daemon: &Daemon) {
    let listed: Vec<MachineSummary> = daemon.json(&["ls"]).unwrap();
    assert_eq!((listed.len(), listed[0].state), (1, MachineState::Active));
    assert!(listed[0].resident_bytes > Some(10 << 20), "{listed:?}");
    let shown: MachineDetail = daemon.json(&["show", "web"]).unwrap();
    assert!(shown.pid.is_some() && shown.toml.contains("10.9.0.2/24"), "{shown:?}");
    assert_eq!(shown.interfaces[0].bridge, "br0");
    let why: Why = daemon.json(&["why", "web"]).unwrap();
    assert_eq!(why.would_wake, ["any-unicast"]);
    let held: Outcome = daemon.json(&["hold", "--for", "1h", "web"]).unwrap();
    let held = held.hold.unwrap();
    let shown: MachineDetail = daemon.json(&["show", "web"]).unwrap();
    assert_eq!(shown.hold_list.iter().map(|hold| hold.id).collect::<Vec<_>>(), [held]);
    daemon.run(&["release", "web"]).unwrap();
    let report: Report = serde_json::from_str(&daemon.run(&["-o", "json", "doctor"]).unwrap()).unwrap();
    for name in ["daemon", "qemu", "tun"] {
        let check = report.checks.iter().find(|check| check.name == name);
        assert!(check.is_some_and(|check| check.status == CheckStatus::Ok), "{name}: {report:?}");
    }
    assert!(report.checks.iter().all(|check| check.status != CheckStatus::Fail), "{report:?}");
    for (args, word) in
        [(["ls"].as_slice(), "web"), (&["show", "web"], "br0"), (&["why", "web"], "any-unicast")]
    {
        assert!(daemon.run(args).unwrap().contains(word), "{args:?}");
    }
}

/// Followed from before the first step or read afterwards, the events are the same, and in order.
#[track_caller]
fn the_events_tell_the_story(scene: &Scene) {
    scene.event(0, "the removal", |event| event.kind == EventKind::Removed);
    let followed: Vec<Event> = scene.events.all();
    let read = scene.daemon.run(&["-o", "json", "events"]).unwrap();
    let read: Vec<Event> = read.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(followed, read);
    assert!(followed.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq && pair[0].at <= pair[1].at));
    let steps: Vec<String> =
        followed.iter().filter(|event| event.kind != EventKind::Warning).map(step).collect();
    let expected = "created stopped>waking waking>active hold release active>settling settling>asleep \
        asleep>waking waking>active active>stopping stopping>stopped removed";
    assert_eq!(steps.join(" "), expected);
    let after = scene.daemon.run(&["-o", "json", "events", "--after", "3", "web"]).unwrap();
    assert_eq!(after.lines().count(), followed.iter().filter(|event| event.seq > 3).count());
}

fn step(event: &Event) -> String {
    match (event.from, event.to) {
        (Some(from), Some(to)) => format!("{from}>{to}"),
        _ => event.kind.to_string(),
    }
}

fn without_a_daemon(mut scene: Scene) {
    scene.daemon.stop().unwrap();
    let said = scene.refused(&["ls"], 5);
    assert!(said.contains("dormoused"), "{said}");
    let out = scene.daemon.cli(&["doctor"]).unwrap();
    assert!(out.code == Some(1) && out.stdout.contains("daemon"), "{out:?}");
}
