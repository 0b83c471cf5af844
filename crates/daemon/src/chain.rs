//! Errors with their causes, in one line.

use std::error::Error;

/// An error and all its causes, outermost first, joined by colons.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot save")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn has_every_cause() {
        let error = Outer(std::io::Error::other("disk full"));
        assert_eq!(chain(&error), "cannot save: disk full");
    }
}
