//! One thread per bridge, and how the asynchronous side asks it to do things.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use crate::{Error, worker::Worker};

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// The thread that serves one bridge. Dropping it ends the thread and changes nothing on the bridge.
#[derive(Debug)]
pub(crate) struct Thread {
    bridge: String,
    jobs: Option<Sender<Job>>,
    bell: Arc<OwnedFd>,
}

/// The thread's end of its jobs.
#[derive(Debug)]
pub(crate) struct Jobs {
    queue: Receiver<Job>,
    bell: Arc<OwnedFd>,
}

impl Thread {
    /// Starts a thread that runs the worker that `make` gives.
    pub(crate) fn start(
        bridge: &str,
        make: impl FnOnce(Jobs) -> Result<Worker, Error>,
    ) -> Result<Self, Error> {
        let failed = |source: io::Error| Error::Start { bridge: bridge.to_owned(), source };
        let bell = Arc::new(
            eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?,
        );
        let (jobs, queue) = channel();
        let worker = make(Jobs { queue, bell: bell.clone() })?;
        std::thread::Builder::new()
            .name(format!("bridge {bridge}"))
            .spawn(move || worker.run())
            .map_err(failed)?;
        Ok(Self { bridge: bridge.to_owned(), jobs: Some(jobs), bell })
    }

    /// Has the thread run `job` between two batches of frames, and gives its result.
    pub(crate) async fn ask<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Worker) -> R + Send + 'static,
    ) -> Result<R, Error> {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |worker| drop(answer.send(job(worker))));
        let ended = || Error::Ended(self.bridge.clone());
        self.jobs.as_ref().ok_or_else(ended)?.send(job).map_err(|_| ended())?;
        ring(&self.bell);
        result.await.map_err(|_| ended())
    }

    /// The error for an answer that never came.
    pub(crate) fn ended(&self) -> Error {
        Error::Ended(self.bridge.clone())
    }
}

impl Jobs {
    /// What becomes readable when there is a job, or when somebody else [`ring`]s it.
    pub(crate) const fn bell(&self) -> &Arc<OwnedFd> {
        &self.bell
    }

    /// Makes the bell silent: to be done before the jobs are taken.
    pub(crate) fn silence(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// The next job, if there is one.
    pub(crate) fn next(&self) -> Result<Option<Job>, Closed> {
        match self.queue.try_recv() {
            Ok(job) => Ok(Some(job)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Closed),
        }
    }
}

/// There will be no more jobs.
#[derive(Debug)]
pub(crate) struct Closed;

impl Drop for Thread {
    fn drop(&mut self) {
        self.jobs = None;
        ring(&self.bell);
    }
}

/// The counter can only refuse when it is full, and then the bell rings already.
pub(crate) fn ring(bell: &OwnedFd) {
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}
