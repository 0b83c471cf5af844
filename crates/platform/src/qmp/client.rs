//! One connection to a monitor: commands go out, answers find their callers, events go to all.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    os::fd::BorrowedFd,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::{
    io::Interest,
    net::UnixStream,
    sync::{broadcast, oneshot, watch},
};

use super::{Event, LineTooLong, Lines, Message, Refusal};

/// The longest answer that is read, in bytes: `query-qmp-schema` has about 200 KiB.
const LINE_LIMIT: usize = 4 << 20;
/// Events that a slow listener may be behind by.
const EVENT_BACKLOG: usize = 256;

/// Why a command has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// QEMU said no.
    #[error("{0}")]
    Refused(Refusal),
    /// The connection is over: QEMU ended, or said what is no QMP.
    #[error("the monitor connection ended: {0}")]
    Ended(Arc<str>),
}

/// A connection to a monitor. Cheap to clone; closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    /// Held by the clients alone, so that the reader ends with the last of them.
    _open: watch::Sender<()>,
}

#[derive(Debug)]
struct Shared {
    stream: UnixStream,
    writing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    greeting: watch::Sender<Option<Value>>,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    pending: HashMap<u64, oneshot::Sender<Result<Value, Error>>>,
    /// Taken away at the end, so that listeners learn of it.
    events: Option<broadcast::Sender<Event>>,
    ended: Option<Arc<str>>,
}

/// A command that was sent and is not yet answered.
#[derive(Debug)]
#[must_use = "the answer is lost"]
pub struct Pending(oneshot::Receiver<Result<Value, Error>>);

impl Pending {
    /// Waits for the answer.
    ///
    /// # Errors
    /// When QEMU refused the command or ended.
    pub async fn answer(self) -> Result<Value, Error> {
        self.0.await.unwrap_or_else(|_| Err(Error::Ended("the reader was stopped".into())))
    }
}

impl Client {
    /// Takes over a connected socket; does not wait for the greeting. Needs a tokio runtime.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        let (open, closed) = watch::channel(());
        let state = State { events: Some(broadcast::Sender::new(EVENT_BACKLOG)), ..State::default() };
        let shared = Arc::new(Shared {
            stream,
            writing: tokio::sync::Mutex::new(()),
            state: Mutex::new(state),
            greeting: watch::Sender::new(None),
        });
        tokio::spawn(read(Arc::clone(&shared), closed));
        Self { shared, _open: open }
    }

    /// All events from now on; the channel closes when the connection ends.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        let state = self.shared.state();
        // After the end: a channel whose sender is gone.
        state.events.as_ref().map_or_else(|| broadcast::channel(1).1, broadcast::Sender::subscribe)
    }

    /// Waits for QEMU's greeting: its version and the protocol's capabilities.
    ///
    /// # Errors
    /// When the connection ends before.
    pub async fn greeting(&self) -> Result<Value, Error> {
        let mut greeting = self.shared.greeting.subscribe();
        let mut events = self.events();
        loop {
            if let Some(value) = greeting.borrow_and_update().clone() {
                return Ok(value);
            }
            if let Some(why) = self.shared.state().ended.clone() {
                return Err(Error::Ended(why));
            }
            tokio::select! {
                _ = greeting.changed() => {}
                // Closed at the end of the connection.
                _ = events.recv() => {}
            }
        }
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// When QEMU refused the command or ended.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, Error> {
        self.submit(command, arguments).await?.answer().await
    }

    /// Sends a command; its answer is waited for later.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn submit(&self, command: &str, arguments: Value) -> Result<Pending, Error> {
        self.send(command, arguments, None).await
    }

    /// Gives QEMU a copy of `fd` under `name` (command `getfd`).
    ///
    /// # Errors
    /// When QEMU refused it or ended.
    pub async fn give_fd(&self, name: &str, fd: BorrowedFd<'_>) -> Result<(), Error> {
        self.send("getfd", json!({ "fdname": name }), Some(fd)).await?.answer().await.map(drop)
    }

    async fn send(
        &self,
        command: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Pending, Error> {
        let (id, pending) = self.shared.register()?;
        let mut message = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        let line = format!("{message}\n");
        let _turn = self.shared.writing.lock().await;
        if let Err(error) = self.shared.write(line.as_bytes(), fd).await {
            self.shared.end(&format!("cannot write: {error}"));
        }
        Ok(pending)
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self) -> Result<(u64, Pending), Error> {
        let mut state = self.state();
        if let Some(why) = &state.ended {
            return Err(Error::Ended(Arc::clone(why)));
        }
        state.last_id += 1;
        let id = state.last_id;
        let (sender, receiver) = oneshot::channel();
        state.pending.insert(id, sender);
        Ok((id, Pending(receiver)))
    }

    /// Writes all; `fd` goes with the first byte.
    async fn write(&self, mut bytes: &[u8], mut fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent =
                self.stream.async_io(Interest::WRITABLE, || send_some(&self.stream, bytes, fd)).await?;
            fd = None;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    fn take(&self, message: Message) {
        match message {
            Message::Greeting(value) => drop(self.greeting.send_replace(Some(value))),
            Message::Return(id, value) => self.answer(id, Ok(value)),
            Message::Refused(id, refusal) => self.answer(id, Err(Error::Refused(refusal))),
            Message::Event(event) => {
                tracing::trace!(?event, "qmp event");
                if let Some(events) = &self.state().events {
                    // No listener is no error.
                    let _ = events.send(event);
                }
            }
            Message::Unknown(value) => tracing::debug!(%value, "qmp message of an unknown kind"),
        }
    }

    fn answer(&self, id: Option<u64>, result: Result<Value, Error>) {
        let waiter = id.and_then(|id| self.state().pending.remove(&id));
        match waiter {
            // The caller may have given up.
            Some(waiter) => drop(waiter.send(result)),
            None => tracing::debug!(?id, ?result, "qmp answer that nobody waits for"),
        }
    }

    /// Fails all that wait, once.
    fn end(&self, why: &str) {
        let mut state = self.state();
        let why = Arc::clone(state.ended.get_or_insert_with(|| why.into()));
        state.events = None;
        for (_, waiter) in state.pending.drain() {
            let _ = waiter.send(Err(Error::Ended(Arc::clone(&why))));
        }
    }
}

fn send_some(stream: &UnixStream, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: &[BorrowedFd<'_>] = fd.as_slice();
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("no room for a file descriptor"));
    }
    Ok(sendmsg(stream, &[io::IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}

async fn read(shared: Arc<Shared>, mut closed: watch::Receiver<()>) {
    let why = tokio::select! {
        why = read_messages(&shared) => why,
        // Only ever an error: all clients are gone.
        _ = closed.changed() => "closed by us".to_owned(),
    };
    shared.end(&why);
}

/// Reads until the connection ends; returns why.
async fn read_messages(shared: &Shared) -> String {
    let mut lines = Lines::new(LINE_LIMIT);
    let mut chunk = vec![0; 16 << 10];
    loop {
        match shared.stream.async_io(Interest::READABLE, || shared.stream.try_read(&mut chunk)).await {
            Ok(0) => return "QEMU closed it".to_owned(),
            Ok(n) => lines.push(&chunk[..n]),
            Err(error) => return format!("cannot read: {error}"),
        }
        if let Err(why) = take_lines(shared, &mut lines) {
            return why;
        }
    }
}

fn take_lines(shared: &Shared, lines: &mut Lines) -> Result<(), String> {
    while let Some(line) = lines.next_line().map_err(|e: LineTooLong| format!("QEMU sent {e}"))? {
        if line.is_empty() {
            continue;
        }
        shared.take(Message::parse(&line).map_err(|e| format!("QEMU sent what is no JSON: {e}"))?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

    fn pair() -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Client::new(ours), theirs)
    }

    async fn command(reader: &mut BufReader<&mut UnixStream>) -> Value {
        let mut line = String::new();
        reader.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    #[tokio::test]
    async fn answers_find_their_callers_in_any_order() {
        let (client, mut qemu) = pair();
        let first = client.submit("one", Value::Null).await.unwrap();
        let second = client.submit("two", json!({"a": 1})).await.unwrap();
        let mut reader = BufReader::new(&mut qemu);
        let (a, b) = (command(&mut reader).await, command(&mut reader).await);
        assert_eq!((&a["execute"], a.get("arguments")), (&json!("one"), None));
        assert_eq!(b["arguments"], json!({"a": 1}));
        let answers = format!(
            "{{\"QMP\":{{\"v\":1}}}}\n{{\"event\":\"X\"}}\n{{\"error\":{{\"class\":\"C\",\"desc\":\"no\"}},\"id\":{}}}\n{{\"return\":5,\"id\":{}}}\n",
            b["id"], a["id"]
        );
        let mut events = client.events();
        qemu.write_all(answers.as_bytes()).await.unwrap();
        assert_eq!(first.answer().await.unwrap(), json!(5));
        assert!(matches!(second.answer().await, Err(Error::Refused(r)) if r.desc == "no"));
        assert_eq!(client.greeting().await.unwrap(), json!({"v": 1}));
        assert_eq!(events.recv().await.unwrap().name, "X");
    }

    #[tokio::test]
    async fn the_end_fails_all_that_wait() {
        let (client, qemu) = pair();
        let waiting = client.submit("one", Value::Null).await.unwrap();
        let mut events = client.events();
        drop(qemu);
        assert!(matches!(waiting.answer().await, Err(Error::Ended(_))));
        assert!(events.recv().await.is_err());
        assert!(matches!(client.greeting().await, Err(Error::Ended(_))));
        assert!(client.execute("two", Value::Null).await.is_err());
        assert!(client.events().recv().await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_qmp_ends_the_connection() {
        let (client, mut qemu) = pair();
        qemu.write_all(b"HTTP/1.1 400\r\n").await.unwrap();
        let error = client.greeting().await.unwrap_err();
        assert!(error.to_string().contains("no JSON"), "{error}");
    }

    #[tokio::test]
    async fn a_descriptor_goes_with_its_command() {
        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
        let (client, qemu) = pair();
        let file = std::fs::File::open("/dev/null").unwrap();
        let giving = tokio::spawn(async move {
            use std::os::fd::AsFd;
            client.give_fd("x", file.as_fd()).await
        });
        qemu.readable().await.unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 200];
        let n = recvmsg(&qemu, &mut [io::IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty())
            .unwrap()
            .bytes;
        let sent: Value = serde_json::from_slice(&bytes[..n]).unwrap();
        assert_eq!((&sent["execute"], &sent["arguments"]["fdname"]), (&json!("getfd"), &json!("x")));
        let count: usize = control
            .drain()
            .map(|m| if let RecvAncillaryMessage::ScmRights(fds) = m { fds.count() } else { 0 })
            .sum();
        assert_eq!(count, 1);
        drop(qemu);
        assert!(giving.await.unwrap().is_err());
    }

    #[tokio::test]
    async fn the_last_client_closes_it() {
        let (client, mut qemu) = pair();
        let other = client.clone();
        drop(client);
        other.submit("x", Value::Null).await.map(drop).unwrap();
        drop(other);
        let mut all = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut qemu, &mut all).await.unwrap();
        assert!(all.ends_with(b"\n"));
    }
}
