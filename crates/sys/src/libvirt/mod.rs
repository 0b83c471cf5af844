//! What the binding to libvirt (crate `virt`) lacks: its event loop, events of domains, the end of a
//! connection, and calls that came later.
//!
//! Reference: libvirt's API, <https://libvirt.org/html/index.html>. No function here may be called from
//! within a callback of [`subscribe`] or [`on_close`] except those that callback is given to: libvirt's
//! event loop, which calls them, would wait for itself.

mod calls;
mod events;
mod params;

use virt::error::Error;

pub use calls::{
    abort_job, has_block_job, leases, managed_save_starts_running, managed_save_xml, monitor_command,
    pm_suspend, stats,
};
pub use events::{
    Graphics, Lifecycle, OnEnd, Subscription, Viewer, on_close, start_event_loop, subscribe,
    subscribe_devices, subscribe_graphics,
};
pub use params::Value;

/// A call's answer, where a negative number says that it failed.
fn checked(answer: libc::c_int) -> Result<u32, Error> {
    u32::try_from(answer).map_err(|_| Error::last_error())
}
