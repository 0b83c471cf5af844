//! A daemon that answers as it is told to, on a real unix socket, and keeps what it was asked.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use dormouse_api_types::{Problem, ProblemKind, routes};
use serde_json::Value;

/// An answer: status, media type, body.
type Answers = HashMap<&'static str, (u16, &'static str, String)>;

/// What the daemon was asked: the request line, and the body as JSON.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

#[derive(Clone)]
struct Script {
    answers: Arc<Answers>,
    asked: Asked,
}

/// The daemon; it ends with this value.
pub(crate) struct Daemon {
    folder: tempfile::TempDir,
    asked: Asked,
    _runtime: tokio::runtime::Runtime,
}

/// A good answer.
pub(crate) fn json(status: u16, body: &impl serde::Serialize) -> (u16, &'static str, String) {
    (status, "application/json", serde_json::to_string(body).unwrap())
}

/// A bad answer.
pub(crate) fn problem(problem: &Problem) -> (u16, &'static str, String) {
    (problem.status, routes::PROBLEM_JSON, serde_json::to_string(problem).unwrap())
}

impl Daemon {
    /// Answers the request lines, as `GET /v1/machines`; all others with "not found".
    pub(crate) fn start<const N: usize>(answers: [(&'static str, (u16, &'static str, String)); N]) -> Self {
        let asked = Asked::default();
        let script = Script { answers: Arc::new(answers.into()), asked: asked.clone() };
        Self::serve(axum::Router::new().fallback(answer).with_state(script), asked)
    }

    /// Serves `router`.
    pub(crate) fn serve(router: axum::Router, asked: Asked) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            tokio::net::UnixListener::bind(folder.path().join("socket")).unwrap()
        };
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { folder, asked, _runtime: runtime }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// What it was asked, in no certain order.
    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort_by(|a, b| a.0.cmp(&b.0));
        asked
    }

    /// `dormouse`, told to ask this daemon.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dormouse"));
        command
            .args(args)
            .env("DORMOUSE_SOCKET", self.socket())
            .env("USER", "ann")
            .env_remove("LIBVIRT_DEFAULT_URI")
            .env_remove("CLICOLOR_FORCE");
        command.stdin(Stdio::null());
        command
    }

    /// Runs `dormouse` to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        ended(&self.command(args).output().unwrap())
    }
}

async fn answer(State(script): State<Script>, request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let body: Bytes = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    script.asked.lock().unwrap().push((line.clone(), body));
    let missing = || problem(&Problem::new(ProblemKind::NotFound, format!("nothing answers {line}")));
    let (status, kind, body) = script.answers.get(line.as_str()).cloned().unwrap_or_else(missing);
    Response::builder().status(status).header(CONTENT_TYPE, kind).body(Body::from(body)).unwrap()
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn ended(output: &Output) -> Ended {
    Ended {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout.clone()).unwrap(),
        err: String::from_utf8(output.stderr.clone()).unwrap(),
    }
}
