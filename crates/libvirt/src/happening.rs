//! Events of a domain's life, as libvirt counts them.

use dormouse_sys::libvirt::Lifecycle;

/// What happened to a domain: `virDomainEventType` with its detail, of
/// <https://libvirt.org/html/libvirt-libvirt-domain.html>. What libvirt may add later is `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Happening {
    /// Its definition is new or changed.
    Defined,
    /// Its definition was removed.
    Undefined,
    /// Its definition has another name from now on; told of the old name as well.
    Renamed,
    /// It was started.
    Started(Start),
    /// Its processors stand still.
    Suspended(Pause),
    /// They run on.
    Resumed(Resume),
    /// It has no process any more.
    Stopped(Stop),
    /// Its guest has shut down; it will stop.
    ShutDown,
    /// The guest suspended itself; to disk?
    PmSuspended {
        /// To disk (S4), not to memory (S3).
        to_disk: bool,
    },
    /// The guest panicked.
    Crashed,
    /// What we do not know.
    Other(i32, i32),
}

/// How it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Start {
    Booted,
    Migrated,
    Restored,
    FromSnapshot,
    WokeUp,
}

/// Why it stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pause {
    Paused,
    Migrated,
    IoError,
    Watchdog,
    Restored,
    FromSnapshot,
    ApiError,
    Postcopy,
}

/// Why it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Resume {
    Unpaused,
    Migrated,
    FromSnapshot,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stop {
    ShutDown,
    Destroyed,
    Crashed,
    Migrated,
    Saved,
    Failed,
    FromSnapshot,
}

impl From<&Lifecycle> for Happening {
    fn from(told: &Lifecycle) -> Self {
        use {Pause as P, Resume as R, Start as S, Stop as T};
        match (told.event, told.detail) {
            (0, 2) | (1, 1) => Self::Renamed,
            (0, _) => Self::Defined,
            (1, _) => Self::Undefined,
            (2, 0) => Self::Started(S::Booted),
            (2, 1) => Self::Started(S::Migrated),
            (2, 2) => Self::Started(S::Restored),
            (2, 3) => Self::Started(S::FromSnapshot),
            (2, 4) => Self::Started(S::WokeUp),
            (3, 0) => Self::Suspended(P::Paused),
            (3, 1) => Self::Suspended(P::Migrated),
            (3, 2) => Self::Suspended(P::IoError),
            (3, 3) => Self::Suspended(P::Watchdog),
            (3, 4) => Self::Suspended(P::Restored),
            (3, 5) => Self::Suspended(P::FromSnapshot),
            (3, 6) => Self::Suspended(P::ApiError),
            (3, 7 | 8) => Self::Suspended(P::Postcopy),
            (4, 0) => Self::Resumed(R::Unpaused),
            (4, 1 | 3 | 4) => Self::Resumed(R::Migrated),
            (4, 2) => Self::Resumed(R::FromSnapshot),
            (5, 0) => Self::Stopped(T::ShutDown),
            (5, 1) => Self::Stopped(T::Destroyed),
            (5, 2) => Self::Stopped(T::Crashed),
            (5, 3) => Self::Stopped(T::Migrated),
            (5, 4) => Self::Stopped(T::Saved),
            (5, 5) => Self::Stopped(T::Failed),
            (5, 6) => Self::Stopped(T::FromSnapshot),
            (6, _) => Self::ShutDown,
            (7, detail) => Self::PmSuspended { to_disk: detail == 1 },
            (8, _) => Self::Crashed,
            (event, detail) => Self::Other(event, detail),
        }
    }
}

impl Happening {
    /// Who or what did it, for the user: it was not us.
    pub(crate) fn by(self) -> String {
        const OTHER: &str = "another client of libvirt";
        match self {
            Self::Defined => format!("defined by {OTHER}"),
            Self::Undefined => format!("undefined by {OTHER}"),
            Self::Renamed => format!("renamed by {OTHER}"),
            Self::Started(Start::Booted) => format!("started by {OTHER}"),
            Self::Started(Start::Migrated) => "migrated here from another host".into(),
            Self::Started(Start::Restored) => format!("restored from its saved state by {OTHER}"),
            Self::Started(Start::FromSnapshot) => format!("started from a snapshot by {OTHER}"),
            Self::Started(Start::WokeUp) => format!("its guest was woken up by {OTHER}, or by itself"),
            Self::Suspended(Pause::Paused) => format!("suspended by {OTHER}"),
            Self::Suspended(Pause::Migrated) => "suspended by a migration".into(),
            Self::Suspended(Pause::IoError) => {
                "suspended by QEMU: an input/output error of one of its disks".into()
            }
            Self::Suspended(Pause::Watchdog) => "suspended by the guest's watchdog".into(),
            Self::Suspended(Pause::Restored) => format!("restored, and left suspended, by {OTHER}"),
            Self::Suspended(Pause::FromSnapshot) => format!("suspended while {OTHER} works on a snapshot"),
            Self::Suspended(Pause::ApiError) => "suspended by libvirt, of which a call failed".into(),
            Self::Suspended(Pause::Postcopy) => "suspended by a migration (post-copy)".into(),
            Self::Resumed(Resume::Unpaused) => format!("resumed by {OTHER}"),
            Self::Resumed(Resume::Migrated) => "resumed by a migration".into(),
            Self::Resumed(Resume::FromSnapshot) => format!("restored or reverted by {OTHER}"),
            Self::Stopped(Stop::ShutDown) | Self::ShutDown => "its guest shut down".into(),
            Self::Stopped(Stop::Destroyed) => format!("destroyed by {OTHER}"),
            Self::Stopped(Stop::Crashed) => "its QEMU process crashed, or was killed".into(),
            Self::Stopped(Stop::Migrated) => "migrated to another host".into(),
            Self::Stopped(Stop::Saved) => format!("saved by {OTHER}"),
            Self::Stopped(Stop::Failed) => "its QEMU process failed".into(),
            Self::Stopped(Stop::FromSnapshot) => format!("stopped for a snapshot by {OTHER}"),
            Self::PmSuspended { to_disk: false } => "its guest suspended itself to memory".into(),
            Self::PmSuspended { to_disk: true } => "its guest suspended itself to disk".into(),
            Self::Crashed => "its guest panicked".into(),
            Self::Other(event, detail) => {
                format!("libvirt told an event that is not known here ({event}, {detail})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happening(event: i32, detail: i32) -> Happening {
        (&Lifecycle { domain: "web".into(), uuid: String::new(), event, detail }).into()
    }

    #[test]
    fn every_event_that_libvirt_has_is_known() {
        // Of each type the greatest detail, of libvirt 9.0.
        for (event, details) in [(0, 3), (1, 1), (2, 4), (3, 8), (4, 4), (5, 6), (6, 2), (7, 1), (8, 1)] {
            for detail in 0..=details {
                let happening = happening(event, detail);
                assert!(!matches!(happening, Happening::Other(..)), "{event} {detail}");
                assert!(!happening.by().is_empty());
            }
        }
    }

    #[test]
    fn an_event_that_is_not_known_is_told_as_such() {
        assert_eq!(happening(5, 77), Happening::Other(5, 77));
        assert_eq!(happening(99, 0).by(), "libvirt told an event that is not known here (99, 0)");
    }

    #[test]
    fn says_who_did_it() {
        assert_eq!(happening(3, 0).by(), "suspended by another client of libvirt");
        assert_eq!(happening(5, 1).by(), "destroyed by another client of libvirt");
    }
}
