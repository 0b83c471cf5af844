//! What libvirt tells of a domain, and what of it is news to the core.

use std::sync::{Arc, atomic::Ordering};

use dormouse_platform::Notice;
use dormouse_sys::libvirt::{self as more, Graphics};
use tokio::sync::mpsc;

use super::{Inner, life::Status};
use crate::{
    clock::now,
    happening::{Happening, Stop},
    hub::{Lane, Member},
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
        if is_ours {
            return None;
        }
        let has_ended =
            matches!(happening, Happening::Started(_) | Happening::Resumed(_) | Happening::Stopped(_));
        let was_ours = has_ended && self.is_paused_by_us.swap(false, Ordering::Relaxed);
        if was_ours && happening == Happening::Stopped(Stop::Saved) {
            self.let_their_save_run(happening);
            return None;
        }
        self.news(happening)
    }

    fn devices_changed(&self) -> Notice {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
        let mut known = self.known();
        (known.description, known.capabilities, known.ports) = (None, None, None);
        Notice::Redefined(self.machine.clone())
    }

    fn looked_at(&self, by: Graphics) {
        self.known().viewers.told(by.phase, by.viewer);
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
    /// Others saved it while it stood still for us: who restores it is to find it running. This is told when it
    /// is so.
    fn let_their_save_run(&self, happening: Happening) {
        let (hub, who) = (Arc::clone(&self.hub), self.who.clone());
        let (notices, notice) = (self.notices.clone(), self.news(happening));
        tokio::spawn(async move {
            let name = who.name.clone();
            let runs = hub.call(Lane::Quick, move |connect| {
                Ok(more::managed_save_starts_running(&who.find(connect)?)?)
            });
            if let Err(error) = runs.await {
                tracing::warn!(
                    domain = name,
                    ?error,
                    "others saved it while it was paused: restored, it stands still"
                );
            }
            if let Some(notice) = notice {
                // Nobody listens: the daemon ends.
                let _ = notices.send(notice).await;
            }
        });
    }

    /// It is asleep: that it stands still is our doing, though a daemon before this one may have done it.
    pub(super) async fn know_our_pause(&self) {
        let is_known = self.is_paused_by_us.load(Ordering::Relaxed);
        if !is_known && matches!(self.status().await, Ok(Status::Paused)) {
            self.is_paused_by_us.store(true, Ordering::Relaxed);
        }
    }

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
                    known.viewers = super::viewers::Viewers::default();
                }
            }
        }
    }
}
