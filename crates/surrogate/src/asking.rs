//! Questions to programs that are not answered yet.
//!
//! The thread of a bridge waits for none of them: an answer rings its bell.

use std::{
    os::fd::OwnedFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use dormouse_external::Verdict;
use dormouse_types::MacAddr;
use tokio::sync::oneshot::Receiver;

use crate::{presence::Said, queue::Ticket, thread::ring};

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Asking {
    waiting: Vec<(MacAddr, Ticket, Receiver<Verdict>)>,
    bell: Arc<Bell>,
}

/// Rings when an answer is there.
#[derive(Debug)]
struct Bell {
    bell: Arc<OwnedFd>,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, SeqCst);
        ring(&self.bell);
    }
}

impl Asking {
    /// Nothing was asked yet; `bell` is what the thread listens to.
    pub(crate) fn new(bell: Arc<OwnedFd>) -> Self {
        Self { waiting: Vec::new(), bell: Arc::new(Bell { bell, rung: AtomicBool::new(false) }) }
    }

    /// A program was asked about the frame of the port `mac` that has this ticket.
    pub(crate) fn add(&mut self, mac: MacAddr, ticket: Ticket, answer: Receiver<Verdict>) {
        self.waiting.push((mac, ticket, answer));
        // Looked at once, so that it knows whom to wake.
        self.bell.rung.store(true, SeqCst);
    }

    /// The answers that came since this was last called.
    pub(crate) fn answers(&mut self) -> Vec<(MacAddr, Ticket, Said)> {
        if !self.bell.rung.swap(false, SeqCst) {
            return Vec::new();
        }
        let waker = Waker::from(self.bell.clone());
        let mut context = Context::from_waker(&waker);
        let mut came = Vec::new();
        self.waiting.retain_mut(|(mac, ticket, answer)| match Pin::new(answer).poll(&mut context) {
            Poll::Pending => true,
            Poll::Ready(verdict) => {
                // It is late, or ended.
                came.push((*mac, *ticket, verdict.map_or(Said::Nothing, said)));
                false
            }
        });
        came
    }
}

fn said(verdict: Verdict) -> Said {
    match verdict {
        Verdict::Reply(frames) => Said::Reply(frames),
        Verdict::Wake => Said::Wake,
        Verdict::Ignore => Said::Ignore,
        Verdict::Hold => Said::Hold,
    }
}
