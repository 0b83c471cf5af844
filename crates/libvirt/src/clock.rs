//! The host's time.

pub(crate) use dormouse_platform::now;
