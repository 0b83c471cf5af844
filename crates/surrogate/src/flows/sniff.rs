//! Following without eBPF: a thread reads the headers of what the guests send by TCP.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dormouse_sys::{
    Batch, PacketSocket,
    packet::{Direction, Error, Filter, link_index},
};
use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{Flow, FlowTable, Followed, Frame};
use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, epoll, eventfd},
};

use super::now;

/// Octets of each frame that are looked at: all headers, with some of IPv6's extension headers.
const SNAP: u32 = 256;
/// Receive buffer of a guest's socket, in octets: what it may send while the thread does not run,
/// some thousand frames.
const BUFFER: u32 = 4 << 20;
/// Frames read in one call.
const BATCH: usize = 64;
/// Batches read of one guest before others have their turn.
const TURN: usize = 64;

/// The bell's token; a guest's is its address, which has 48 bits.
const BELL: u64 = u64::MAX;

/// Why nobody can be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CannotSniff {
    /// No socket on the tap.
    #[error("cannot listen at {tap}")]
    Socket {
        /// The tap.
        tap: String,
        /// Why not.
        #[source]
        source: Error,
    },
    /// No thread, or nothing for it to wait by.
    #[error("cannot start the thread that follows connections")]
    Thread(#[source] io::Error),
}

/// Guests that are followed. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Taps {
    shared: Option<Arc<Shared>>,
    batch: Batch,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    epoll: OwnedFd,
    bell: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    guests: HashMap<MacAddr, Guest>,
    /// Sockets for the thread to close, for which the kernel takes some 10 ms.
    left: Vec<PacketSocket>,
    ended: bool,
}

#[derive(Debug)]
struct Guest {
    /// The tap's index.
    tap: u32,
    socket: PacketSocket,
    table: FlowTable,
}

impl Default for Taps {
    fn default() -> Self {
        Self { shared: None, batch: batch() }
    }
}

impl Drop for Taps {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.state().ended = true;
            shared.ring();
        }
    }
}

impl Taps {
    /// See [`super::Flows::follow`].
    ///
    /// # Errors
    /// When the tap is missing or the system is out of means.
    pub(super) fn follow(&mut self, mac: MacAddr, tap: &str, known: &[Flow]) -> Result<(), CannotSniff> {
        let failed = |source| CannotSniff::Socket { tap: tap.to_owned(), source };
        let index = link_index(tap).map_err(failed)?;
        let shared = self.thread().map_err(CannotSniff::Thread)?;
        let mut state = shared.state();
        if state.guests.get(&mac).is_some_and(|guest| guest.tap == index) {
            return Ok(());
        }
        let filter = Filter::tcp(mac, Direction::Incoming, SNAP);
        let socket = PacketSocket::open_sniff(tap, &filter, BUFFER).map_err(failed)?;
        let token = epoll::EventData::new_u64(token(mac));
        let table = match shared.leave(&mut state, mac) {
            // It has another tap now; its connections are what they were.
            Some(table) => table,
            None => {
                let mut table = FlowTable::default();
                table.enter(known);
                table
            }
        };
        epoll::add(&shared.epoll, &socket, token, epoll::EventFlags::IN)
            .map_err(|errno| CannotSniff::Thread(errno.into()))?;
        state.guests.insert(mac, Guest { tap: index, socket, table });
        Ok(())
    }

    /// See [`super::Flows::of`]; `None`: it is not followed.
    pub(super) fn of(&mut self, mac: MacAddr) -> Option<Vec<Followed>> {
        let mut state = self.shared.as_ref()?.state();
        let guest = state.guests.get_mut(&mac)?;
        // All that it has sent by now, even if the thread has not come to it yet. It may go on sending.
        let mut left = guest.socket.waiting().unwrap_or(0);
        while left > 0 && guest.read(mac, &mut self.batch).is_ok_and(|frames| frames == BATCH) {
            let frames = self.batch.frames();
            left = left.saturating_sub(frames.map(|f| PacketSocket::OVERHEAD + f.bytes.len() as u64).sum());
        }
        Some(guest.table.followed())
    }

    /// See [`super::Flows::stop`].
    pub(super) fn stop(&mut self, mac: MacAddr) {
        if let Some(shared) = &self.shared {
            shared.leave(&mut shared.state(), mac);
        }
    }

    /// The thread, started when it is first needed.
    fn thread(&mut self) -> io::Result<Arc<Shared>> {
        if let Some(shared) = &self.shared {
            return Ok(shared.clone());
        }
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            bell: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
        });
        let token = epoll::EventData::new_u64(BELL);
        epoll::add(&shared.epoll, &shared.bell, token, epoll::EventFlags::IN)?;
        let theirs = shared.clone();
        std::thread::Builder::new().name("connections".into()).spawn(move || theirs.serve())?;
        Ok(self.shared.insert(shared).clone())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // The counter can only refuse when it is full, and then the bell rings already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Takes a guest out; what was known of its connections.
    fn leave(&self, state: &mut State, mac: MacAddr) -> Option<FlowTable> {
        let guest = state.guests.remove(&mac)?;
        let _ = epoll::delete(&self.epoll, guest.socket.as_fd());
        state.left.push(guest.socket);
        self.ring();
        Some(guest.table)
    }

    fn serve(&self) {
        let (mut events, mut batch) = (Vec::with_capacity(BATCH), batch());
        loop {
            // An interrupted wait is a wait that is over.
            let _ = epoll::wait(&self.epoll, spare_capacity(&mut events), None);
            for event in events.drain(..) {
                match event.data.u64() {
                    BELL => drop(rustix::io::read(&self.bell, &mut [0; 8])),
                    number => self.read(mac(number), &mut batch),
                }
            }
            let mut state = self.state();
            let left = std::mem::take(&mut state.left);
            if state.ended {
                return;
            }
            drop(state);
            drop(left);
        }
    }

    fn read(&self, mac: MacAddr, batch: &mut Batch) {
        let mut state = self.state();
        let Some(guest) = state.guests.get_mut(&mac) else { return };
        for _ in 0..TURN {
            match guest.read(mac, batch) {
                Ok(BATCH) => {}
                Ok(_) | Err(Error::LinkDown) => return,
                Err(error) => {
                    tracing::debug!(%mac, %error, "the connections of a guest are not heard any more");
                    // Or it would be told for ever.
                    let _ = epoll::delete(&self.epoll, guest.socket.as_fd());
                    return;
                }
            }
        }
    }
}

impl Guest {
    /// Takes note of what waits, a batch at most; how many frames that were.
    fn read(&mut self, mac: MacAddr, batch: &mut Batch) -> Result<usize, Error> {
        let frames = self.socket.receive(batch)?;
        let now: Timestamp = now();
        for frame in batch.frames() {
            if let Some(view) = Frame::new(frame.bytes) {
                self.table.note(&view, frame.length, mac, now);
            }
        }
        Ok(frames)
    }
}

fn batch() -> Batch {
    Batch::new(BATCH, usize::try_from(SNAP).unwrap_or_default())
}

fn token(MacAddr([a, b, c, d, e, f]): MacAddr) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

fn mac(token: u64) -> MacAddr {
    let [_, _, a, b, c, d, e, f] = token.to_be_bytes();
    MacAddr([a, b, c, d, e, f])
}
