//! What waits in a guest's tap.

use std::time::{Duration, Instant};

use dormouse_net::Net;
use dormouse_sys::{Batch, tap};

use crate::{Error, Port, packet::Packet};

/// Between two looks at a tap.
const LOOK: Duration = Duration::from_millis(1);
/// A tap whose queue cannot be had is taken for drained when its counters stand still so long.
const STILL: Duration = Duration::from_millis(30);
/// Most frames that are taken over from a tap: no ring is longer.
const LONGEST_QUEUE: usize = 1 << 17;

/// Waits until the guest has read all that its taps hold. Gives those of which it has not by
/// `deadline`.
///
/// An interface of which a guest reads nothing at all, while it reads another, is one that it does not
/// use, as one that it never set up: what is in that tap waits there without end, and is no sign of a
/// guest that is busy. It is taken over like all that is left unread.
pub(crate) async fn undrained<'p>(
    net: &Net,
    ports: &'p [Port],
    deadline: Instant,
) -> Result<Vec<&'p Port>, Error> {
    let mut left: Vec<(&Port, Looks)> = ports.iter().map(|port| (port, Looks::default())).collect();
    loop {
        let now = Instant::now();
        let mut waiting = Vec::new();
        for (port, mut looks) in left {
            let sent = sent(net, port).await?;
            let still = looks.still(sent, now);
            let drained = match &port.queue {
                // Twice: a frame may be on its way from the bridge into the tap.
                Some(queue) => looks.empty(tap::is_empty(queue).map_err(at(port))?),
                None => still,
            };
            if !drained {
                waiting.push((port, looks));
            }
        }
        left = waiting;
        if left.is_empty() || now >= deadline {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    if left.len() < ports.len() {
        left.retain(|(_, looks)| looks.moved);
    }
    Ok(left.into_iter().map(|(port, _)| port).collect())
}

/// What was seen of a tap so far.
#[derive(Debug, Default)]
struct Looks {
    empty: u32,
    counter: Option<(u64, Instant)>,
    /// The guest has read something.
    moved: bool,
}

impl Looks {
    fn empty(&mut self, empty: bool) -> bool {
        self.empty = if empty { self.empty + 1 } else { 0 };
        self.empty >= 2
    }

    fn still(&mut self, counter: u64, now: Instant) -> bool {
        self.moved |= self.counter.is_some_and(|(before, _)| before != counter);
        let (_, since) = *match &mut self.counter {
            Some(seen) if seen.0 == counter => seen,
            other => other.insert((counter, now)),
        };
        now.duration_since(since) >= STILL
    }
}

/// A tap counts a frame as sent when its guest reads it.
async fn sent(net: &Net, port: &Port) -> Result<u64, Error> {
    let link = net.link(&port.tap).await.map_err(Error::net(format!("look at {}", port.tap)))?;
    Ok(link.map_or(0, |link| link.counters.sent_frames))
}

/// Takes out what a guest that stands still has left unread, oldest first.
pub(crate) fn leftovers(port: &Port) -> Result<Vec<Packet>, Error> {
    let Some(queue) = &port.queue else { return Ok(Vec::new()) };
    let mut buffer = vec![0; Batch::LONGEST + 64];
    let mut frames = Vec::new();
    // Looked at before each read: the queue may be set to wait.
    while frames.len() < LONGEST_QUEUE && !tap::is_empty(queue).map_err(at(port))? {
        match tap::read_frame(queue, &mut buffer).map_err(at(port))? {
            Some((header, frame)) => frames.extend(Packet::new(header, frame)),
            None => break,
        }
    }
    Ok(frames)
}

fn at(port: &Port) -> impl FnOnce(tap::Error) -> Error {
    let tap = port.tap.clone();
    move |source| Error::Tap { tap, source }
}
