//! The verbs against a daemon: what is asked, what is printed, and the exit status.
// Clippy knows functions marked #[test] as tests, but not those that they call.
#![allow(missing_docs, clippy::unwrap_used)]

mod fake;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use dormouse_api_types::{
    Check, CheckStatus, Event, EventKind, ImportReport, MachineState, MachineSummary, Outcome, Problem,
    ProblemKind, Report, Time, VersionInfo, WakeTest, WakeVerdict, routes,
};
use dormouse_types::{Depth, Timestamp};
use fake::{Daemon, ended, json, problem};
use serde_json::{Value, json as value};

fn outcome(name: &str, state: MachineState, depth: Option<Depth>) -> Outcome {
    Outcome { machine: name.parse().unwrap(), state, depth, took_ms: 8, hold: None, detail: String::new() }
}

fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_nanos()).unwrap()).into()
}

fn machine(name: &str) -> MachineSummary {
    MachineSummary {
        name: name.parse().unwrap(),
        state: MachineState::Asleep,
        depth: Some(Depth::Saved),
        since: now(),
        platform: Some("qemu".into()),
        memory_bytes: 256 << 20,
        resident_bytes: Some(0),
        standby_bytes: None,
        absent: None,
        idle_for_ms: None,
        holds: 0,
        addresses: vec!["10.9.0.2".parse().unwrap()],
    }
}

#[test]
fn ls_prints_a_table_without_colours() {
    let daemon = Daemon::start([("GET /v1/machines", json(200, &[machine("web")]))]);
    let ended = daemon.run(&["ls"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    let lines: Vec<Vec<_>> =
        ended.out.lines().map(|line| line.split("  ").map(str::trim).collect()).collect();
    let lines: Vec<Vec<_>> =
        lines.into_iter().map(|l| l.into_iter().filter(|c| !c.is_empty()).collect()).collect();
    assert_eq!(
        lines[0],
        ["NAME", "STATE", "PLATFORM", "SINCE", "IDLE", "MEMORY", "RESIDENT", "HOLDS", "ADDRESSES"]
    );
    assert_eq!(lines[1][..2], ["web", "asleep (saved)"]);
    assert_eq!(lines[1][2..3], ["qemu"]);
    assert_eq!(lines[1][4..], ["-", "256 MiB", "0 B", "0", "10.9.0.2"]);
    assert!(!ended.out.contains('\x1b'));
}

#[test]
fn a_wake_test_ends_with_a_status_that_says_whether_it_wakes() {
    let test = |verdict| WakeTest {
        machine: "web".parse().unwrap(),
        interface: "52:54:00:00:00:02".parse().unwrap(),
        frame: "tcp 10.0.0.9:5555 > 10.9.0.2:22 [S]".into(),
        verdict,
        by: "tcp:22".into(),
    };
    for (verdict, code) in
        [(WakeVerdict::Wakes, 0), (WakeVerdict::Answered, 6), (WakeVerdict::Held, 6), (WakeVerdict::Asked, 6)]
    {
        let daemon = Daemon::start([("POST /v1/machines/web/wake-test", json(200, &test(verdict)))]);
        let args = ["wake-test", "web", "tcp 10.0.0.9:5555 > :22", "--interface", "52:54:00:00:00:02"];
        let ended = daemon.run(&args);
        assert_eq!((ended.code, ended.err.as_str()), (code, ""), "{verdict}");
        assert!(ended.out.starts_with("web: tcp 10.0.0.9:5555 > 10.9.0.2:22 [S]\n"), "{}", ended.out);
        let asked = value!({"frame": "tcp 10.0.0.9:5555 > :22", "interface": "52:54:00:00:00:02"});
        assert_eq!(daemon.asked(), [("POST /v1/machines/web/wake-test".into(), asked)]);
    }
}

#[test]
fn json_is_what_the_daemon_said() {
    let body = r#"[{"name":"web","of":"tomorrow"}]"#;
    let daemon = Daemon::start([("GET /v1/machines", (200, "application/json", body.into()))]);
    assert_eq!(daemon.run(&["-o", "json", "ls"]).out, format!("{body}\n"));
}

#[test]
fn commands_print_what_came_of_them_in_the_order_of_the_names() {
    let asleep = |name| json(200, &outcome(name, MachineState::Asleep, Some(Depth::Saved)));
    let daemon = Daemon::start([
        ("POST /v1/machines/web/sleep", asleep("web")),
        ("POST /v1/machines/a/sleep", asleep("a")),
    ]);
    let ended = daemon.run(&["sleep", "--depth", "saved", "web", "a"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert_eq!(ended.out, "web asleep (saved) in 8 ms\na asleep (saved) in 8 ms\n");
    let depth = value!({"depth": "saved"});
    let expected = ["POST /v1/machines/a/sleep", "POST /v1/machines/web/sleep"];
    assert_eq!(daemon.asked(), expected.map(|line| (line.into(), depth.clone())));
}

#[test]
fn each_verb_asks_what_it_says() {
    let cases: [(&[&str], &str, Value); 11] = [
        (&["start", "web"], "start", value!({"cold": false})),
        (&["start", "--cold", "web"], "start", value!({"cold": true})),
        (&["stop", "web"], "stop", value!({"force": false})),
        (&["stop", "--timeout", "1m 30s", "web"], "stop", value!({"force": false, "timeout_ms": 90_000})),
        (&["stop", "--force", "--no-wait", "web"], "stop?wait=false", value!({"force": true})),
        (&["sleep", "web"], "sleep", value!({})),
        (&["wake", "web"], "wake", value!({})),
        (&["hold", "web"], "hold", value!({"reason": "held by ann"})),
        (
            &["hold", "--for", "2h", "--reason", "backup", "web"],
            "hold",
            value!({"reason": "backup", "for_ms": 7_200_000}),
        ),
        (&["release", "web"], "release", value!({})),
        (&["release", "--hold", "3", "web"], "release", value!({"hold": 3})),
    ];
    for (args, path, body) in cases {
        let daemon = Daemon::start([]);
        assert_eq!(daemon.run(args).code, 3, "{args:?}");
        assert_eq!(daemon.asked(), [(format!("POST /v1/machines/web/{path}"), body)], "{args:?}");
    }
}

#[test]
fn a_refusal_says_the_fix_and_ends_with_4() {
    let refused =
        Problem::new(ProblemKind::Refused, "cannot sleep while the machine is stopped").fix("start it first");
    let daemon = Daemon::start([("POST /v1/machines/web/sleep", problem(&refused))]);
    let ended = daemon.run(&["sleep", "web"]);
    assert_eq!((ended.code, ended.out.as_str()), (4, ""));
    assert_eq!(ended.err, "dormouse: cannot sleep while the machine is stopped\n  fix: start it first\n");
}

#[test]
fn one_that_fails_keeps_no_other_from_being_done() {
    let active = json(200, &outcome("web", MachineState::Active, None));
    let daemon = Daemon::start([("POST /v1/machines/web/wake", active)]);
    let ended = daemon.run(&["wake", "gone", "web"]);
    assert_eq!((ended.code, ended.out.as_str()), (3, "web active in 8 ms\n"));
    assert_eq!(ended.err, "dormouse: gone: nothing answers POST /v1/machines/gone/wake\n");
}

#[test]
fn a_sleep_that_was_undone_is_a_failure() {
    let undone = Outcome { detail: "a packet undid it".into(), ..outcome("web", MachineState::Active, None) };
    let daemon = Daemon::start([("POST /v1/machines/web/sleep", json(200, &undone))]);
    let ended = daemon.run(&["sleep", "web"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, "web active in 8 ms: a packet undid it\n"));
    assert_eq!(ended.err, "dormouse: web: it is active, not asleep; ask why: dormouse why web\n");
}

#[test]
fn not_waiting_has_no_goal() {
    let settling = json(202, &outcome("web", MachineState::Settling, Some(Depth::Saved)));
    let daemon = Daemon::start([("POST /v1/machines/web/sleep?wait=false", settling)]);
    let ended = daemon.run(&["sleep", "--no-wait", "web"]);
    assert_eq!((ended.code, ended.out.as_str()), (0, "web settling (to saved)\n"));
}

#[test]
fn a_daemon_that_stops_waiting_is_told() {
    let settling = json(202, &outcome("web", MachineState::Settling, Some(Depth::Saved)));
    let daemon = Daemon::start([("POST /v1/machines/web/sleep", settling)]);
    let ended = daemon.run(&["sleep", "web"]);
    assert_eq!((ended.code, ended.out.as_str()), (1, "web settling (to saved)\n"));
    assert!(ended.err.contains("still settling, and goes on by itself"), "{}", ended.err);
}

#[test]
fn colours_are_for_terminals_unless_asked_for() {
    let daemon = Daemon::start([("GET /v1/machines", json(200, &[machine("web")]))]);
    let with = |key: &str| {
        ended(&daemon.command(&["ls"]).env_remove("NO_COLOR").env(key, "1").output().unwrap()).out
    };
    assert!(with("CLICOLOR_FORCE").contains("\x1b[34masleep (saved)\x1b[0m"));
    assert!(!with("NO_COLOR").contains('\x1b'));
}

#[test]
fn create_sends_the_file_and_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("web.toml");
    std::fs::write(&file, "name = \"web\"\n").unwrap();
    let invalid = Problem::new(ProblemKind::Invalid, "memory: \"lots\" is no size")
        .key("qemu.memory")
        .fix("write 1GiB");
    let daemon = Daemon::start([("POST /v1/machines", problem(&invalid))]);
    let ended = daemon.run(&["create", file.to_str().unwrap()]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert_eq!(ended.err, "dormouse: memory: \"lots\" is no size\n  key: qemu.memory\n  fix: write 1GiB\n");
    let base = folder.path().canonicalize().unwrap();
    let body = value!({"toml": "name = \"web\"\n", "base": base});
    assert_eq!(daemon.asked(), [("POST /v1/machines".into(), body)]);
}

#[test]
fn create_reads_standard_input() {
    let daemon = Daemon::start([]);
    let mut child =
        daemon.command(&["create", "-"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"name = 1").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(daemon.asked()[0].1["toml"], "name = 1");
}

#[test]
fn a_missing_file_is_named() {
    let ended = Daemon::start([]).run(&["create", "/nowhere/web.toml"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.starts_with("dormouse: cannot read the machine file /nowhere/web.toml: No such file"));
}

#[test]
fn rm_says_so_to_people_only() {
    let gone = || (204, "", String::new());
    let daemon =
        Daemon::start([("DELETE /v1/machines/web", gone()), ("DELETE /v1/machines/web?force=true", gone())]);
    assert_eq!(daemon.run(&["rm", "--force", "web"]).out, "web removed\n");
    assert_eq!(daemon.asked()[0].0, "DELETE /v1/machines/web?force=true");
    assert_eq!(daemon.run(&["rm", "web"]).out, "web removed\n");
    let ended = daemon.run(&["rm", "-o", "json", "web"]);
    assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, "", ""));
}

#[test]
fn without_a_daemon_the_status_is_5() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_dormouse"));
    let ended = ended(&command.args(["ls", "--socket"]).arg(folder.path().join("none")).output().unwrap());
    assert_eq!((ended.code, ended.out.as_str()), (5, ""));
    assert!(ended.err.contains("cannot reach the daemon at"), "{}", ended.err);
    assert!(ended.err.contains("fix: start it: systemctl start dormoused"), "{}", ended.err);
}

#[test]
fn an_answer_of_something_else_is_no_answer() {
    let daemon = Daemon::start([
        ("GET /v1/machines", (502, "text/html", "<html>".into())),
        ("GET /v1/machines/web", (200, "text/html", "<html>".into())),
    ]);
    assert_eq!(daemon.run(&["ls"]).code, 1);
    let ended = daemon.run(&["show", "web"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("the daemon's answer is not understood"), "{}", ended.err);
}

fn event(seq: u64) -> Event {
    Event {
        seq,
        at: Timestamp(1_795_245_591_042_000_000).into(),
        machine: Some("web".parse().unwrap()),
        kind: EventKind::State,
        from: Some(MachineState::Settling),
        to: Some(MachineState::Asleep),
        cause: None,
        figures: [("took_ms".into(), 8.0)].into(),
    }
}

const EVENT: &str = "2026-11-21T07:19:51.042Z web settling -> asleep (took 8 ms)\n";

#[test]
fn events_are_printed_one_a_line() {
    let line = serde_json::to_string(&event(1)).unwrap() + "\n";
    let stream = (200, routes::NDJSON, line.clone() + &line);
    let daemon = Daemon::start([
        ("GET /v1/events?follow=false&machine=web&after=7", stream.clone()),
        ("GET /v1/events?follow=false", stream),
    ]);
    let ended = daemon.run(&["events", "--after", "7", "web"]);
    assert_eq!((ended.code, ended.out), (0, EVENT.repeat(2)));
    assert_eq!(daemon.run(&["events", "-o", "json"]).out, line.repeat(2));
}

#[test]
fn followed_events_are_printed_as_they_happen_until_the_daemon_ends() {
    let (send, receive) = tokio::sync::mpsc::channel::<String>(1);
    let stream =
        futures::stream::unfold(receive, async |mut receive: tokio::sync::mpsc::Receiver<String>| {
            receive.recv().await.map(|line| (Ok::<_, std::convert::Infallible>(line), receive))
        });
    let body = Arc::new(Mutex::new(Some(axum::body::Body::from_stream(stream))));
    let body = async move || body.lock().unwrap().take().unwrap();
    let router = axum::Router::new().route(routes::EVENTS, axum::routing::get(body));
    let daemon = Daemon::serve(router, Default::default());
    let mut command = daemon.command(&["events", "--follow"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    for seq in 1..=2 {
        // The second is sent only after the first was read: nothing waits for the stream's end.
        let json = serde_json::to_string(&event(seq)).unwrap();
        let (start, end) = json.split_at(20);
        send.blocking_send(start.into()).unwrap();
        send.blocking_send(format!("{end}\n")).unwrap();
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, EVENT);
    }
    drop(send);
    let ended = ended(&child.wait_with_output().unwrap());
    assert_eq!(ended.code, 5);
    assert!(ended.err.starts_with("dormouse: the daemon ended\n"), "{}", ended.err);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let line = serde_json::to_string(&event(1)).unwrap() + "\n";
    let daemon = Daemon::start([("GET /v1/events?follow=false", (200, routes::NDJSON, line.repeat(10_000)))]);
    let mut command = daemon.command(&["events"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = ended(&child.wait_with_output().unwrap());
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
}

#[test]
fn doctor_joins_what_both_see() {
    let check = |name: &str, status| Check { name: name.into(), status, found: "seen".into(), fix: None };
    let names = ["kvm", "qemu", "tun", "bridge-netfilter", "handover"];
    let report = |status| Report { checks: names.map(|name| check(name, status)).to_vec() };
    let version = VersionInfo { version: "0.1.0".into(), api: vec!["v1".into()] };
    let daemon = |status| {
        Daemon::start([
            ("GET /v1/version", json(200, &version)),
            ("GET /v1/doctor", json(200, &report(status))),
        ])
    };
    let well = daemon(CheckStatus::Warn).run(&["doctor", "-o", "json"]);
    assert_eq!(well.code, 0);
    let mut expected = report(CheckStatus::Warn);
    let ours = Check { found: "dormoused 0.1.0 answers".into(), ..check("daemon", CheckStatus::Ok) };
    expected.checks.insert(0, ours);
    assert_eq!(serde_json::from_str::<Report>(&well.out).unwrap(), expected);
    assert_eq!(daemon(CheckStatus::Fail).run(&["doctor"]).code, 1);
}

#[test]
fn doctor_helps_without_a_daemon() {
    let ended = Daemon::start([]).run(&["--socket", "/nowhere/socket", "doctor"]);
    assert_eq!(ended.code, 1);
    assert!(ended.out.starts_with("fail  daemon "), "{}", ended.out);
    assert!(ended.out.contains("kvm "), "{}", ended.out);
}

#[test]
fn completions_and_man_pages_are_generated() {
    let daemon = Daemon::start([]);
    for shell in ["bash", "zsh", "fish"] {
        let ended = daemon.run(&["completions", shell]);
        assert!(ended.code == 0 && ended.out.contains("release"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert_eq!(daemon.run(&["man", pages.to_str().unwrap()]).code, 0);
    let page = std::fs::read_to_string(pages.join("dormouse-why.1")).unwrap();
    assert!(page.contains("what woke them"), "{page}");
    assert!(std::fs::read_to_string(pages.join("dormouse.1")).unwrap().contains("Exit status"));
}

#[test]
fn usage_is_asked_for_a_span_and_printed_in_three_ways() {
    use dormouse_api_types::{Usage, UsageLine, UsageReport};
    let usage = Usage { total_seconds: 60.0, awake_seconds: 60.0, ..Usage::default() };
    let report = UsageReport {
        since: "2026-11-01T00:00:00+00:00".into(),
        by: vec!["label:a b".into()],
        lines: vec![UsageLine { group: [("label:a b".into(), "x".into())].into(), usage }],
        ..UsageReport::default()
    };
    const ASKED: &str = "GET /v1/usage?by=label:a%20b&since=2026-11-01T00:00:00.000Z\
                         &until=2026-11-02T00:00:00.000Z&machine=web,db";
    let args = [
        "usage",
        "web",
        "db",
        "--by",
        "label:a b",
        "--since",
        "2026-11-01T00:00Z",
        "--until",
        "2026-11-02T00:00Z",
    ];
    for (format, part) in [
        ("table", "LABEL:A B"),
        ("json", "\"total_seconds\":60"),
        ("csv", "since,until,label:a b,total_seconds"),
    ] {
        let daemon = Daemon::start([(ASKED, json(200, &report))]);
        let ended = daemon.run(&[&args[..], &["-o", format]].concat());
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{format}");
        assert!(ended.out.contains(part), "{format}: {}", ended.out);
    }
    let daemon = Daemon::start([("GET /v1/machines", json(200, &[machine("web")]))]);
    let ended = daemon.run(&["ls", "-o", "csv"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("only `dormouse usage`"), "{}", ended.err);
    let ended = daemon.run(&["usage", "--since", "soon"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("2026-11-01"), "{}", ended.err);
}

#[test]
fn an_import_asks_the_libvirt_that_virsh_would() {
    const SESSION: &str = "qemu:///session";
    for (variable, args, uri) in [
        (Some(SESSION), &["web"][..], value!(SESSION)),
        (Some(SESSION), &[], value!(SESSION)),
        (Some(SESSION), &["web", "--uri", "qemu:///system"], value!("qemu:///system")),
        (Some(""), &["web"], Value::Null),
        (None, &["web"], Value::Null),
    ] {
        let report = ImportReport::default();
        let daemon = Daemon::start([("POST /v1/import/libvirt", json(200, &report))]);
        let mut command = daemon.command(&[&["import", "libvirt"], args].concat());
        command.envs(variable.map(|uri| ("LIBVIRT_DEFAULT_URI", uri)));
        assert_eq!(ended(&command.output().unwrap()).code, 0);
        assert_eq!(daemon.asked()[0].1["uri"], uri, "{variable:?} {args:?}");
    }
}
