//! The stand-in on the network: answers for sleepers, holds what it cannot answer, replays it.
//!
//! One [`Surrogate`] per host, cheap to clone; one driver per machine calls it, in this order:
//!
//! ```text
//! Surrogate::start(Settings) -> Result<(Surrogate, UnboundedReceiver<Notice>), Error>
//!   watch(&name, &ports)        the guest runs: learn addresses, notice when it is first heard
//!   capture(&sleeper)           hold every frame that comes for it; the guest still runs; answer nothing
//!   drain(&sleeper, grace)      until the guest has read all that is in its taps
//!   stand_in(&sleeper)          the guest stands still: taps down, answer, judge what was held.
//!                               Also valid without `capture` before it (after a restart).
//!   prepare(&sleeper)           taps up with floods off and a junk frame first; still captured
//!   release(&sleeper) -> Replay the guest runs: replay, hand over, watch. Also valid for a machine
//!                               that was not captured: then it only puts the bridge right.
//!   dismiss(&name) -> u64       forget it, put its taps back; frames dropped
//!   unwatch(&name)
//!   status(&name) -> Option<Status>     answered, held, dropped by reason, last wake
//!   settle()                    after a restart, once every sleeper is stood in for: forget the
//!                               addresses that an earlier process stood in for and nobody claims
//!   capabilities() -> Capabilities      ebpf or plain handover and why; for `doctor`
//! ```
//!
//! Theory of operation. Each bridge gets a pair of interfaces, `s0` in the bridge and `s1`, which
//! one thread reads. `s0` learns nothing and is flooded with broadcasts and multicast only. To
//! capture an address is to make a sticky forwarding entry for it at `s0`, and to keep the guest's
//! tap from being flooded; to release it is to replay what was held into the tap by a packet
//! socket, and to make the entry an ordinary one at the tap. Asynchronous code does what goes
//! by netlink, in order; the thread alone touches frames (`worker`), by rules without I/O
//! (`presence`, `queue`). The bridge's state outlives the process: a restarted one finds its
//! interfaces by name and takes them over.
//!
//! Limits: on a bridge that filters VLANs guests are handed over the plain way; the tap is taken
//! down while a guest sleeps, so that under the kernel's spanning tree (`stp_state 1`) a woken
//! guest is not heard before the port forwards again. A group frame that comes twice with the
//! same octets within the milliseconds in which a capture begins may be given once. A tap's queue
//! stays longer after the first wake ([`Settings::replay_queue`]). Frames that the kernel drops
//! before the packet socket are counted exactly with the eBPF handover only ([`Reason::Overrun`]).
//! A group frame that the bridge sent before it was turned, and that lies in a processor's backlog
//! beyond the barrier of a release, is lost: whether the guest got it cannot be told any more.
#![forbid(unsafe_code)]

mod asking;
mod bpf;
mod clock;
mod count;
mod error;
mod flood;
mod flows;
mod handle;
mod handover;
mod index;
mod judge;
mod late;
mod links;
mod losses;
mod model;
mod packet;
mod presence;
mod queue;
mod reaper;
mod release;
mod table;
mod taps;
#[cfg(test)]
mod testing;
mod thread;
mod vlan;
mod watch;
mod worker;

pub use count::{Drops, Reason};
pub use error::Error;
pub use handle::Surrogate;
pub use model::{
    Capabilities, ExternalRule, FollowKind, HandoverKind, Limits, Mode, Noted, Notice, Port, Rehearsal,
    Replay, Settings, Sleeper, Status,
};
