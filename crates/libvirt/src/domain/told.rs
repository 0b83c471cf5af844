//! What libvirt tells of a domain, and what of it is news to the core.

use dormouse_platform::Notice;
use tokio::sync::mpsc;

use super::Inner;
use crate::{
    clock::now,
    happening::{Happening, Stop},
    hub::Member,
};

impl Member for Inner {
    fn is(&self, domain: &str, uuid: &str) -> bool {
        self.who.is(domain, uuid)
    }

    fn happened(&self, happening: Happening) -> Option<Notice> {
        // First: what is found out meanwhile is not noted.
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        self.forget_after(happening);
        self.mind_memory(happening);
        let is_ours = self.expectations().is_ours(happening, now());
        match happening {
            Happening::Started(_) => drop(self.managed_save.told(false)),
            // Ours may be told after the save has come to its end, and is relied on.
            Happening::Stopped(Stop::Saved) if is_ours => {}
            // It is made anew, or forgotten by libvirt.
            Happening::Stopped(Stop::Saved) | Happening::Undefined => self.managed_save.is(false),
            _ => {}
        }
        if is_ours { None } else { self.news(happening) }
    }

    fn devices_changed(&self) -> Notice {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        let mut known = self.known();
        (known.description, known.capabilities, known.ports) = (None, None, None);
        Notice::Redefined(self.machine.clone())
    }

    fn away(&self, why: &str) -> Notice {
        Notice::Unreachable(self.machine.clone(), format!("libvirt ({}): {why}", self.hub.uri()))
    }

    fn back(&self) -> Notice {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        *self.known() = super::Known::default();
        *self.ram_file.host() = None;
        self.expectations().forget_answered();
        Notice::Changed(self.machine.clone(), "libvirt is back".into())
    }

    fn relies_on_save(&self) -> bool {
        self.managed_save.is_relied_on()
    }

    fn save_found(&self, found: bool) -> Option<Notice> {
        self.managed_save_found(found)
    }

    fn notices(&self) -> &mpsc::Sender<Notice> {
        &self.notices
    }
}

impl Inner {
    /// Others did it.
    fn news(&self, happening: Happening) -> Option<Notice> {
        let name = self.machine.clone();
        match happening {
            Happening::Defined => Some(Notice::Redefined(name)),
            // Who is known by its UUID has another name, and is the same.
            Happening::Renamed if self.who.uuid.is_some() => Some(Notice::Redefined(name)),
            Happening::Renamed | Happening::Undefined => Some(Notice::Undefined(name, happening.by())),
            Happening::Stopped(Stop::ShutDown) => Some(Notice::GuestShutdown(name)),
            Happening::Stopped(Stop::Crashed | Stop::Failed) => Some(Notice::Exited(name, happening.by())),
            // The end comes soon, and is told.
            Happening::ShutDown => None,
            _ => Some(Notice::Changed(name, happening.by())),
        }
    }

    fn forget_after(&self, happening: Happening) {
        let mut known = self.known();
        match happening {
            Happening::Suspended(_) | Happening::PmSuspended { .. } => {
                known.still_since.get_or_insert_with(std::time::Instant::now);
            }
            // When it stands still since is taken by who looks after the clock.
            Happening::Resumed(_) | Happening::ShutDown => {}
            Happening::Defined | Happening::Renamed | Happening::Undefined => {
                (known.description, known.capabilities, known.ports) = (None, None, None);
            }
            _ => {
                (known.ports, known.pid, known.description, known.capabilities) = (None, None, None, None);
                if matches!(happening, Happening::Stopped(_)) {
                    known.s3 = super::S3::default();
                }
            }
        }
    }
}
