//! What wakes the guests of those who have no surrogate: somebody who watches the client's port.

use super::MAC;
use anyhow::{Context, Result, bail};
use dormouse_lab::{Lab, Namespace};
use dormouse_sys::{Batch, PacketSocket, VnetHdr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    os::fd::AsFd,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const PATIENCE: Duration = Duration::from_secs(120);

/// A frame as it came.
pub(crate) type RawFrame = (VnetHdr, Vec<u8>);

/// Work that the first frame for the guest begins, on a thread inside the switch's namespace.
#[derive(Debug)]
pub(crate) struct Trigger<T>(JoinHandle<Result<T>>);

impl<T: Send + 'static> Trigger<T> {
    /// Returns once it watches.
    pub(crate) fn arm(
        switch: &Namespace,
        wake: impl FnOnce(RawFrame) -> Result<T> + Send + 'static,
    ) -> Result<Self> {
        let socket = switch.run(|| PacketSocket::open_receive(Lab::CLIENT_PORT, 1 << 20))??;
        let switch = switch.clone();
        Ok(Self(thread::spawn(move || {
            let frame = first_frame(&socket)?;
            // The thread that runs the work starts processes: they must be in the namespace too.
            switch.run(|| wake(frame))?
        })))
    }

    pub(crate) fn result(self) -> Result<T> {
        self.0.join().unwrap_or_else(|_| bail!("the wake panicked"))
    }
}

/// Waits for the first frame to the guest.
fn first_frame(socket: &PacketSocket) -> Result<RawFrame> {
    let mut batch = Batch::new(16, Batch::LONGEST);
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let mut interest = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut interest, PollTimeout::from(1000_u16)).context("cannot wait for a packet")?;
        socket.receive(&mut batch)?;
        if let Some(frame) = batch.frames().find(|frame| frame.bytes.starts_with(&MAC)) {
            return Ok(frame.restored());
        }
    }
    bail!("no packet came for the guest")
}
