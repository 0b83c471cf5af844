//! The stand-in on the network: answers for sleepers, holds what it cannot answer, replays it.
//!
//! Contract of the public API (one handle for the whole host, cheap to clone):
//!
//! ```text
//! Surrogate::start(Settings) -> Result<(Surrogate, mpsc::Receiver<Notice>), Error>
//!   watch(name, ports)        the guest runs: learn addresses, notice when it is first heard
//!   capture(Sleeper)          hold every frame that comes for it; the guest still runs; answer nothing
//!   drain(name, grace)        until the guest has read all that is in its taps
//!   stand_in(name)            the guest stands still: taps down, answer, judge what was held.
//!                             Also valid without `capture` before it (after a restart).
//!   prepare(name)             taps up with floods off and a junk frame first; still captured
//!   release(name) -> Replay   the guest runs: replay, hand over. Also valid for a machine that was
//!                             not captured: then it only puts the bridge right.
//!   dismiss(name) -> u64      forget it; frames dropped
//!   unwatch(name)
//!   status(name) -> Option<Status>      answered, held, dropped by reason, last wake
//!   capabilities() -> Capabilities      ebpf or plain handover and why; for `doctor`
//! ```
#![forbid(unsafe_code)]

mod count;
mod handover;
mod judge;
mod model;
mod packet;
mod presence;
mod queue;

pub use count::{Drops, Reason};
pub use model::{Capabilities, HandoverKind, Limits, Mode, Notice, Port, Replay, Settings, Sleeper, Status};
