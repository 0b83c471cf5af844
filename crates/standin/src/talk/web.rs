//! The waking page's side of a connection: one request, one answer.

use std::time::Duration;

use dormouse_types::{MachineName, Timestamp};
use smoltcp::socket::tcp;

use super::{
    answer,
    http::{self, Fault, MAX_HEAD},
    say::{Saying, ignore},
};

/// How long a request's head may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Web {
    name: MachineName,
    wakes: bool,
    /// What has come of the head.
    head: Vec<u8>,
    /// When a head that has not come to its end is given up.
    until: Option<Timestamp>,
    answer: Option<Saying>,
}

impl Web {
    pub(super) const fn new(name: MachineName, wakes: bool) -> Self {
        Self { name, wakes, head: Vec::new(), until: None, answer: None }
    }

    /// Reads and answers; what was asked, when it is known.
    ///
    /// Whoever says something wants the machine, be it understood here or not: the stand-in must
    /// not make it harder to reach. Who only connects, as a browser does in advance, does not.
    pub(super) fn go_on(&mut self, socket: &mut tcp::Socket<'_>, now: Timestamp) -> Option<String> {
        if let Some(answer) = &mut self.answer {
            ignore(socket);
            answer.go_on(socket);
            return None;
        }
        let until = *self.until.get_or_insert(now + PATIENCE);
        self.read(socket);
        let (what, answer) = match http::parse(&self.head) {
            Ok(Some(request)) => (
                Some(format!("{} {}", request.method, request.target)),
                answer::unavailable(&request, &self.name, self.wakes),
            ),
            Err(fault) => (Some("no HTTP/1 request".into()), answer::fault(fault)),
            Ok(None) if socket.may_recv() && now < until => return None,
            Ok(None) if self.head.is_empty() => (None, Vec::new()),
            Ok(None) if now < until => (Some("half a request".into()), answer::fault(Fault::Bad)),
            Ok(None) => (Some("half a request".into()), answer::timeout()),
        };
        (self.head, self.until) = (Vec::new(), None);
        let answer = self.answer.insert(Saying::new(answer));
        ignore(socket);
        answer.go_on(socket);
        what
    }

    pub(super) const fn deadline(&self) -> Option<Timestamp> {
        self.until
    }

    /// Takes what has come, up to the longest head.
    fn read(&mut self, socket: &mut tcp::Socket<'_>) {
        while self.head.len() < MAX_HEAD && socket.can_recv() {
            let room = MAX_HEAD - self.head.len();
            let read = socket.recv(|octets| {
                let (taken, _) = octets.split_at(octets.len().min(room));
                self.head.extend_from_slice(taken);
                (taken.len(), ())
            });
            if read.is_err() {
                break;
            }
        }
    }
}
