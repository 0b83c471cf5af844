//! Closes packet sockets elsewhere.
//!
//! The kernel waits for a grace period of some 10 ms when a packet socket is closed. A thread
//! that answers for sleepers cannot wait so long.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
};

use dormouse_sys::PacketSocket;
use rustix::event::epoll;

/// A thread that closes what it is given.
#[derive(Clone, Debug)]
pub(crate) struct Reaper {
    sockets: Sender<PacketSocket>,
    epoll: Arc<OwnedFd>,
}

impl Reaper {
    /// Starts the thread; it ends with the last clone of the reaper. `epoll` is whom the sockets
    /// may wake until then.
    pub(crate) fn start(epoll: Arc<OwnedFd>) -> std::io::Result<Self> {
        let (sender, given) = channel();
        std::thread::Builder::new().name("close sockets".into()).spawn(move || {
            for socket in given {
                drop::<PacketSocket>(socket);
            }
        })?;
        Ok(Self { sockets: sender, epoll })
    }

    /// Has sockets closed some time later.
    pub(crate) fn close(&self, sockets: impl IntoIterator<Item = PacketSocket>) {
        for socket in sockets {
            // Not all of them are listened to.
            let _ = epoll::delete(&self.epoll, &socket);
            // Without the thread it is closed here and now.
            let _ = self.sockets.send(socket);
        }
    }
}
