//! The time by which the stand-in lives: it never steps.
//!
//! Deadlines, rates and delays must not care that an administrator or NTP sets the host's clock. So
//! time here is what the host's clock showed once, when the process first asked, and from then on
//! `CLOCK_BOOTTIME`, which also counts while the host is suspended: leases go on meanwhile, and their
//! spans are right whatever is set. What is shown to users is as the host's clock shows it
//! ([`shown`]). A lease that is kept over a restart of the daemon is off by what the clock was set by in
//! between.

use std::sync::OnceLock;

use dormouse_types::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Two readings of the host's clocks at the same moment, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Reading {
    wall: u64,
    boot: u64,
}

/// The time.
pub(crate) fn clock() -> Timestamp {
    anchor().time(nanos(ClockId::Boottime))
}

/// A time of [`clock`]'s as the host's clock shows it.
pub(crate) fn shown(time: Timestamp) -> Timestamp {
    anchor().shown(time, Reading::now())
}

fn anchor() -> &'static Reading {
    static ANCHOR: OnceLock<Reading> = OnceLock::new();
    ANCHOR.get_or_init(Reading::now)
}

impl Reading {
    fn now() -> Self {
        Self { wall: nanos(ClockId::Realtime), boot: nanos(ClockId::Boottime) }
    }

    /// The time when the clock that never steps shows `boot`, if this was the first reading.
    fn time(&self, boot: u64) -> Timestamp {
        Timestamp(self.wall.saturating_add(boot.saturating_sub(self.boot)))
    }

    /// That time as the host's clock shows it, which was set by some span until `now`.
    fn shown(&self, Timestamp(time): Timestamp, now: Self) -> Timestamp {
        let Timestamp(ours) = self.time(now.boot);
        Timestamp(if now.wall >= ours {
            time.saturating_add(now.wall - ours)
        } else {
            time.saturating_sub(ours - now.wall)
        })
    }
}

fn nanos(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    let [seconds, nanos] = [now.tv_sec, now.tv_nsec].map(|part| u64::try_from(part).unwrap_or_default());
    seconds * 1_000_000_000 + nanos
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_step_of_the_hosts_clock_changes_nothing_but_what_is_shown(
            wall in 0_u64..1 << 62,
            boot in 0_u64..1 << 60,
            passed in 0_u64..1 << 60,
            since in 0_u64..1 << 60,
            stepped in 0_u64..1 << 63,
        ) {
            let first = Reading { wall, boot };
            let event = first.time(boot + passed);
            prop_assert_eq!(event, Timestamp(wall + passed));
            // However the host's clock was set until now, it showed so much less then.
            let now = Reading { wall: stepped, boot: boot + passed + since };
            prop_assert_eq!(first.time(now.boot).0 - event.0, since);
            prop_assert_eq!(first.shown(event, now).0, stepped.saturating_sub(since));
        }
    }

    #[test]
    fn it_goes_on_and_is_shown_as_the_hosts_clock_is() {
        let (one, other) = (clock(), clock());
        assert!(one <= other);
        let wall = Timestamp(nanos(ClockId::Realtime));
        assert!(wall.since(shown(one)) < std::time::Duration::from_secs(60));
    }
}
