//! The API over a real unix socket, and the document that describes it.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use common::{Bench, file, web, within};
use dormouse_api_types::{
    Event, EventKind, MachineDetail, MachineState, Outcome, Problem, ProblemKind, Report, WakeTest,
    WakeVerdict, Why,
};
use dormouse_daemon::{
    api::{self, ServeError, Server},
    watchdog,
};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, sync::oneshot, task::JoinHandle};

struct Served {
    bench: Bench,
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), ServeError>>,
}

impl Served {
    async fn start(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bench = Bench::start_with(dir.path(), Arc::default(), more).await;
        let server = Server::bind(&dir.path().join("sock"), "no-such-group").await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let host = Arc::clone(&bench.host);
        let until = async {
            let _ = stopped.await;
        };
        let serving = tokio::spawn(server.serve(host, until));
        Self { bench, dir, stop: Some(stop), serving }
    }

    async fn send(&self, method: &str, path: &str, body: &str) -> (StatusCode, String, Incoming) {
        let stream = UnixStream::connect(self.dir.path().join("sock")).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "x");
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let response = within(path, sender.send_request(request)).await.unwrap();
        let kind = response.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned());
        (response.status(), kind.unwrap_or_default(), response.into_body())
    }

    async fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, body: &str) -> (StatusCode, T) {
        let (status, kind, body) = self.send(method, path, body).await;
        let expected = if status.is_success() { "application/json" } else { "application/problem+json" };
        assert_eq!(kind, expected, "{method} {path}");
        let bytes = within(path, body.collect()).await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{method} {path}: {e}: {bytes:?}")))
    }

    async fn problem(&self, method: &str, path: &str, body: &str) -> Problem {
        let (status, problem) = self.ask::<Problem>(method, path, body).await;
        assert_eq!(problem.status, status.as_u16(), "{path}");
        problem
    }

    async fn create(&self, toml: &str, base: &str) -> (StatusCode, serde_json::Value) {
        let body = serde_json::json!({ "toml": toml, "base": base }).to_string();
        self.ask("POST", "/v1/machines", &body).await
    }
}

#[tokio::test]
async fn a_machine_from_its_creation_to_its_removal() {
    let served = Served::start("").await;
    let (status, _) = served.create(&file("web", 2), "/").await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, outcome) = served.ask::<Outcome>("POST", "/v1/machines/web/start", "{}").await;
    assert_eq!((status, outcome.state), (StatusCode::OK, MachineState::Active));
    let (_, outcome) = served.ask::<Outcome>("POST", "/v1/machines/web/start", "").await;
    assert_eq!(outcome.detail, "was active already");
    let (_, outcome) = served.ask::<Outcome>("POST", "/v1/machines/web/sleep", r#"{"depth":"paused"}"#).await;
    assert_eq!(outcome.state, MachineState::Asleep);
    let (_, detail) = served.ask::<MachineDetail>("GET", "/v1/machines/web", "").await;
    assert_eq!((detail.summary.state, detail.summary.memory_bytes), (MachineState::Asleep, 64 << 20));
    assert_eq!(detail.toml, file("web", 2));
    let (_, why) = served.ask::<Why>("GET", "/v1/machines/web/why", "").await;
    assert_eq!(why.would_wake, ["any-unicast"]);
    assert_eq!(why.cause.as_deref(), Some("command"));
    let (_, outcome) =
        served.ask::<Outcome>("POST", "/v1/machines/web/hold", r#"{"reason":"x","for_ms":60000}"#).await;
    assert_eq!((outcome.state, outcome.hold), (MachineState::Active, Some(1)));
    let (_, detail) = served.ask::<MachineDetail>("GET", "/v1/machines/web", "").await;
    assert!(detail.hold_list[0].until.is_some() && detail.hold_list[0].reason == "x");
    let problem = served.problem("DELETE", "/v1/machines/web", "").await;
    assert_eq!((problem.kind, problem.status), (ProblemKind::Refused, 409));
    let (status, _, _) = served.send("DELETE", "/v1/machines/web?force=true", "").await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let problem = served.problem("GET", "/v1/machines/web", "").await;
    assert_eq!(problem.kind, ProblemKind::NotFound);
}

#[tokio::test]
async fn one_who_does_not_wait_is_answered_at_once() {
    let served = Served::start("[limits]\ncommand_wait = \"50ms\"").await;
    served.create(&file("web", 2), "/").await;
    served.bench.world.gate("boot");
    let (status, outcome) = served.ask::<Outcome>("POST", "/v1/machines/web/start?wait=false", "{}").await;
    assert_eq!((status, outcome.state), (StatusCode::ACCEPTED, MachineState::Waking));
    let (status, outcome) = served.ask::<Outcome>("POST", "/v1/machines/web/wake", "{}").await;
    assert_eq!((status, outcome.state), (StatusCode::ACCEPTED, MachineState::Waking));
    assert!(outcome.detail.contains("not settled"));
    served.bench.world.let_go("boot");
    served.bench.wait_state(MachineState::Active).await;
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_key() {
    let served = Served::start("").await;
    served.create(&file("web", 2), "/").await;
    let bad = |toml: String, base: &'static str| {
        let served = &served;
        async move {
            let (_, problem) = served.create(&toml, base).await;
            serde_json::from_value::<Problem>(problem).unwrap()
        }
    };
    let twin = bad(file("twin", 2), "/").await;
    assert_eq!((twin.kind, twin.key.as_deref()), (ProblemKind::Exists, Some("interface[1].mac")));
    assert!(twin.detail.contains("web"));
    let again = bad(file("web", 3), "/").await;
    assert_eq!((again.kind, again.key.as_deref()), (ProblemKind::Exists, Some("name")));
    let lost = bad(file("lost", 4).replace("/proc/version", "no/kernel"), "/srv").await;
    assert_eq!((lost.kind, lost.key.as_deref()), (ProblemKind::Invalid, Some("qemu.kernel")));
    assert!(lost.detail.contains("/srv/no/kernel"), "{}", lost.detail);
    let misspelt = bad(file("typo", 5).replace("memory", "memmory"), "/").await;
    assert_eq!(misspelt.kind, ProblemKind::Invalid);
    assert!(misspelt.detail.contains("memmory"), "{}", misspelt.detail);
    let unknown = format!("{}[[responder]]\nname = \"snmp\"\nframes = [\"any\"]\n", file("asks", 7));
    let unknown = bad(unknown, "/").await;
    assert_eq!((unknown.kind, unknown.key.as_deref()), (ProblemKind::Invalid, Some("responder[1].name")));
    assert!(unknown.fix.unwrap().contains("[responder.snmp]"), "{}", unknown.detail);
    let relative = bad(file("rel", 6), "srv").await;
    assert_eq!(relative.key.as_deref(), Some("base"));
}

#[tokio::test]
async fn a_wake_test_says_what_a_frame_would_do() {
    let served = Served::start("").await;
    served.create(&file("web", 2), "/").await;
    let path = "/v1/machines/web/wake-test";
    let body = r#"{"frame": "tcp 10.0.0.9:5555 > :22"}"#;
    let (status, test): (_, WakeTest) = served.ask("POST", path, body).await;
    assert_eq!((status, test.verdict, &*test.by), (StatusCode::OK, WakeVerdict::Wakes, "any-unicast"));
    assert_eq!(test.frame, "tcp 10.0.0.9:5555 > 10.9.0.2:22 [S]");
    let (_, test): (_, WakeTest) = served.ask("POST", path, r#"{"frame": "magic"}"#).await;
    assert_eq!((test.verdict, test.interface), (WakeVerdict::Held, "52:54:00:00:00:02".parse().unwrap()));
    let problem = served.problem("POST", path, r#"{"frame": "tcp ten > :22"}"#).await;
    assert_eq!((problem.kind, problem.key.as_deref()), (ProblemKind::Invalid, Some("frame")));
    assert!(problem.detail.contains("tcp 10.0.0.9:5555 > :22"), "{}", problem.detail);
    let other = r#"{"frame": "magic", "interface": "52:54:00:00:00:09"}"#;
    let problem = served.problem("POST", path, other).await;
    assert_eq!(problem.key.as_deref(), Some("interface"));
    assert!(problem.detail.contains("52:54:00:00:00:02"), "{}", problem.detail);
    // Two interfaces: it must be said which.
    let two = "[[interface]]\nmac = \"52:54:00:00:00:04\"\nbridge = \"br1\"\n";
    served.create(&format!("{}{two}", file("two", 3)), "/").await;
    let problem = served.problem("POST", "/v1/machines/two/wake-test", r#"{"frame": "magic"}"#).await;
    assert!(problem.detail.contains("52:54:00:00:00:03, 52:54:00:00:00:04"), "{}", problem.detail);
    let problem = served.problem("POST", "/v1/machines/nobody/wake-test", body).await;
    assert_eq!(problem.kind, ProblemKind::NotFound);
}

#[tokio::test]
async fn requests_that_are_not_understood_are_refused() {
    let served = Served::start("[limits]\nrequest_bytes = \"4KiB\"").await;
    served.create(&file("web", 2), "/").await;
    for (method, path, body, status) in [
        ("GET", "/v1/nothing", "", 404),
        ("GET", "/v2/machines", "", 404),
        ("PATCH", "/v1/machines", "", 405),
        ("GET", "/v1/machines/no such", "", 400),
        ("GET", "/v1/machines/-x", "", 400),
        ("POST", "/v1/machines/none/wake", "", 404),
        ("POST", "/v1/machines/web/sleep", r#"{"deep":"saved"}"#, 400),
        ("POST", "/v1/machines/web/sleep", "{", 400),
        ("POST", "/v1/machines/web/wake?wiat=false", "", 400),
        ("POST", "/v1/machines/web/sleep", "{}", 409),
    ] {
        let path = path.replace(' ', "%20");
        let problem = served.problem(method, &path, body).await;
        assert_eq!(problem.status, status, "{method} {path}: {}", problem.detail);
    }
    let large = serde_json::json!({ "toml": "x".repeat(5000), "base": "/" }).to_string();
    assert_eq!(served.problem("POST", "/v1/machines", &large).await.status, 413);
}

#[tokio::test]
async fn events_are_kept_and_followed_until_the_daemon_ends() {
    let mut served = Served::start("").await;
    served.create(&file("web", 2), "/").await;
    served.create(&file("other", 3), "/").await;
    let (_, kind, body) = served.send("GET", "/v1/events?machine=web", "").await;
    assert_eq!(kind, "application/x-ndjson");
    let kept = lines(&body.collect().await.unwrap().to_bytes());
    assert!(kept.iter().all(|event| event.machine == Some(web())), "{kept:?}");
    assert_eq!(kept[0].kind, EventKind::Created);
    let last = kept.last().unwrap().seq;
    let path = format!("/v1/events?machine=web&follow=true&after={last}");
    let (_, _, mut body) = served.send("GET", &path, "").await;
    served.ask::<Outcome>("POST", "/v1/machines/web/start", "").await;
    let frame = within("an event", body.frame()).await.unwrap().unwrap();
    let event = &lines(frame.data_ref().unwrap())[0];
    assert_eq!((event.kind, event.to), (EventKind::State, Some(MachineState::Waking)));
    assert!(event.seq > last);
    served.stop.take().unwrap().send(()).unwrap();
    within("the end of the stream", body.collect()).await.unwrap();
    within("the end of the service", &mut served.serving).await.unwrap().unwrap();
    assert!(!served.dir.path().join("sock").exists());
}

fn lines(bytes: &[u8]) -> Vec<Event> {
    bytes
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect()
}

#[tokio::test]
async fn the_socket_is_guarded_and_is_not_taken_from_another() {
    let served = Served::start("").await;
    let path = served.dir.path().join("sock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    assert!(matches!(Server::bind(&path, "x").await, Err(ServeError::InUse(_))));
    let file = served.dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(matches!(Server::bind(&file, "x").await, Err(ServeError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let stale = served.dir.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    Server::bind(&stale, "x").await.unwrap();
}

#[tokio::test]
async fn the_doctor_answers() {
    let served = Served::start("").await;
    let (_, report) = served.ask::<Report>("GET", "/v1/doctor", "").await;
    for name in ["privileges", "qemu", "kvm", "state-dir", "tun", "handover", "bridge-netfilter"] {
        assert!(report.checks.iter().any(|check| check.name == name), "{name}: {report:?}");
    }
    for check in report.checks {
        assert!(check.fix.is_some() || check.status == dormouse_api_types::CheckStatus::Ok, "{check:?}");
    }
}

#[tokio::test]
async fn machines_asleep_at_the_end_when_the_configuration_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_file(dir.path(), &file("web", 2), "on_stop = \"sleep\"").await;
    within("the end", bench.host.stop()).await;
    assert_eq!(bench.state().await, MachineState::Asleep);
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    within("the end", bench.host.stop()).await;
    assert_eq!(bench.state().await, MachineState::Active);
}

#[test]
fn the_checked_in_document_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let checked_in = fs::read_to_string(&path).unwrap();
    assert!(
        checked_in == api::openapi_json().unwrap(),
        "docs/openapi.json is out of date: run `cargo run -p dormouse-daemon -- --print-openapi > docs/openapi.json`"
    );
}

#[tokio::test]
async fn the_watchdog_sees_whether_the_api_answers() {
    let served = Served::start("").await;
    let socket = served.dir.path().join("sock");
    within("an answer", watchdog::api_answers(&socket)).await.unwrap();
    within("the stand-in", served.bench.host.prove_presence()).await;
    // One that takes connections and does no more.
    let mute = served.dir.path().join("mute");
    let _listener = tokio::net::UnixListener::bind(&mute).unwrap();
    let answered = tokio::time::timeout(std::time::Duration::from_millis(50), watchdog::api_answers(&mute));
    assert!(answered.await.is_err());
    assert!(watchdog::api_answers(&served.dir.path().join("none")).await.is_err());
}
