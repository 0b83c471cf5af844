//! HTTP over the daemon's unix socket. Each request has a connection of its own.

use std::io;
use std::path::{Path, PathBuf};

use dormouse_api_types::{Problem, ProblemKind, routes};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

/// Why the daemon gave no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no way to the daemon.
    #[error("cannot reach the daemon at {}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    /// The connection broke.
    #[error("the daemon broke the connection")]
    Lost { source: hyper::Error },
    /// The daemon ended a stream that has no end.
    #[error("the daemon ended")]
    Ended,
    /// The daemon said what is wrong.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The daemon answers, but not as this API does.
    #[error("the daemon answers {status} and does not say why")]
    Status { status: StatusCode },
    /// The answer is not what the API says.
    #[error("the daemon's answer is not understood")]
    Answer { source: serde_json::Error },
    /// The request cannot be written.
    #[error("the request cannot be written")]
    Request { source: Box<dyn std::error::Error + Send + Sync> },
}

impl Error {
    /// What the user can do about it.
    pub(crate) fn fix(&self) -> Option<String> {
        match self {
            Self::Connect { source, .. } => Some(connect_fix(source.kind()).into()),
            Self::Lost { .. } | Self::Ended => {
                Some("see what happened to it: journalctl -u dormoused -e".into())
            }
            Self::Problem(problem) => problem.fix.clone(),
            Self::Status { .. } | Self::Answer { .. } => {
                Some("let the versions of dormouse and dormoused be the same: dormouse doctor".into())
            }
            Self::Request { .. } => None,
        }
    }
}

fn connect_fix(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "become a member of the group: usermod -aG dormouse USER, then log in anew; or be root"
        }
        _ => "start it: systemctl start dormoused; or say where it listens with --socket or DORMOUSE_SOCKET",
    }
}

/// The daemon, at its socket.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

/// An answer as the daemon wrote it.
pub(crate) struct Answer {
    body: Bytes,
    /// Status 202: the daemon did not wait until the machine had settled.
    pub(crate) accepted: bool,
}

impl Answer {
    /// What it says.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|source| Error::Answer { source })
    }

    /// As it is, in one line.
    pub(crate) fn line(&self) -> Result<String, Error> {
        // Only line ends and indents are taken away: what a newer daemon adds stays.
        self.read::<Box<serde_json::value::RawValue>>().map(|raw| one_line(raw.get()))
    }
}

/// JSON has no bare line ends inside its texts, so lines can be joined without reading them.
fn one_line(json: &str) -> String {
    json.lines().map(str::trim).collect()
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer, Error> {
        self.whole(Method::GET, path, Bytes::new()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), Error> {
        self.whole(Method::DELETE, path, Bytes::new()).await.map(drop)
    }

    pub(crate) async fn post(&self, path: &str, request: &impl Serialize) -> Result<Answer, Error> {
        let body = serde_json::to_vec(request).map_err(unwritable)?;
        self.whole(Method::POST, path, body.into()).await
    }

    /// A stream of lines.
    pub(crate) async fn lines(&self, path: &str) -> Result<Lines, Error> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        Ok(Lines { body: response.into_body(), buffer: Vec::new() })
    }

    /// A stream of lines that a request begins.
    pub(crate) async fn post_lines(&self, path: &str, request: &impl Serialize) -> Result<Lines, Error> {
        let body = serde_json::to_vec(request).map_err(unwritable)?;
        let response = self.send(Method::POST, path, body.into()).await?;
        Ok(Lines { body: response.into_body(), buffer: Vec::new() })
    }

    async fn whole(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Error> {
        let response = self.send(method, path, body).await?;
        let accepted = response.status() == StatusCode::ACCEPTED;
        let body = response.into_body().collect().await.map_err(|source| Error::Lost { source })?;
        Ok(Answer { body: body.to_bytes(), accepted })
    }

    /// The answer's head, if it is a good one.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Error> {
        let connect = |source| Error::Connect { socket: self.socket.clone(), source };
        let lost = |source| Error::Lost { source };
        let stream = UnixStream::connect(&self.socket).await.map_err(connect)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // It ends by itself with the answer; what goes wrong in it, the answer tells.
        tokio::spawn(connection);
        let response = sender.send_request(request(method, path, body)?).await.map_err(lost)?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }
}

fn unwritable(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Request { source: source.into() }
}

fn request(method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, Error> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, format!("application/json, {}, {}", routes::NDJSON, routes::PROBLEM_JSON))
        .body(Full::new(body))
        .map_err(unwritable)
}

async fn refusal(response: Response<Incoming>) -> Error {
    let status = response.status();
    let body = match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(source) => return Error::Lost { source },
    };
    let mut problem: Problem = match serde_json::from_slice(&body) {
        Ok(problem) => problem,
        Err(_) => return Error::Status { status },
    };
    if problem.kind == ProblemKind::Other && status == StatusCode::NOT_FOUND {
        problem.kind = ProblemKind::NotFound;
    }
    Error::Problem(Box::new(problem))
}

/// The lines of an answer that may have no end.
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next line, without its end; `None` at the end of the answer.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                return Ok(Some(line));
            }
            match self.body.frame().await {
                Some(frame) => {
                    let frame = frame.map_err(|source| Error::Lost { source })?;
                    self.buffer.extend(frame.data_ref().into_iter().flatten());
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.buffer))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_is_printed_as_it_came() {
        let body = Bytes::from_static(b"{\n  \"later\": 1.50,\n  \"text\": \"two  spaces\"\n}\n");
        let answer = Answer { body, accepted: false };
        assert_eq!(answer.line().unwrap(), r#"{"later": 1.50,"text": "two  spaces"}"#);
    }

    proptest! {
        #[test]
        fn one_line_changes_no_text(text: String) {
            let pretty = serde_json::to_string_pretty(&[&text]).unwrap();
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&one_line(&pretty)).unwrap(), vec![text]);
        }
    }
}
