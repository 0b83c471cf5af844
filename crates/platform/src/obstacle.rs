//! What stands in the way of a machine's sleep.

use std::fmt;

use dormouse_types::Depth;

/// One thing that stands in the way of a machine's sleep, or that its user should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The depths that cannot be reached because of it, shallowest first; none if it is only a word of
    /// warning.
    pub depths: Vec<Depth>,
    /// The thing, as the platform's own tools name it: `hostdev 0000:03:00.0`.
    pub what: String,
    /// Why it is in the way.
    pub reason: String,
    /// What the user can do about it, where something can be done.
    pub fix: Option<String>,
}

impl Obstacle {
    /// An obstacle to some depths.
    pub fn to(depths: &[Depth], what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { depths: depths.to_vec(), what: what.into(), reason: reason.into(), fix: None }
    }

    /// A word of warning: nothing is in the way.
    pub fn warning(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::to(&[], what, reason)
    }

    /// Says what the user can do.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// Does it keep the machine from this depth?
    #[must_use]
    pub fn bars(&self, depth: Depth) -> bool {
        self.depths.contains(&depth)
    }
}

/// `saved, off: hostdev 0000:03:00.0: why`
impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, depth) in self.depths.iter().enumerate() {
            write!(f, "{}{depth}", if n == 0 { "" } else { ", " })?;
        }
        let colon = if self.depths.is_empty() { "" } else { ": " };
        write!(f, "{colon}{}: {}", self.what, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Capabilities;

    #[test]
    fn is_told_in_one_line() {
        let passthrough = Obstacle::to(&[Depth::Pmsuspended, Depth::Saved], "hostdev", "cannot be saved");
        let autostart = Obstacle::warning("autostart", "libvirt starts it").fix("turn it off");
        assert_eq!(passthrough.to_string(), "pmsuspended, saved: hostdev: cannot be saved");
        assert_eq!(autostart.to_string(), "autostart: libvirt starts it");
        let depths = vec![Depth::Paused];
        let obstacles = vec![passthrough.clone(), passthrough, autostart];
        let abilities = Capabilities { depths, obstacles, lazy_memory: false };
        assert_eq!(abilities.why_not(Depth::Paused), None);
        let why = abilities.why_not(Depth::Saved).unwrap();
        assert_eq!(why, "hostdev: cannot be saved; hostdev: cannot be saved");
        assert_eq!(abilities.why_not(Depth::Off).unwrap(), "its platform does not have it");
    }
}
