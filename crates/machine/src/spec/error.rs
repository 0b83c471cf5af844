//! What is wrong with a machine file, in words that say how to put it right.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The key, with its tables and (from 1) its place in a list: `interface[2].mac`. Empty if the
    /// file is no TOML.
    pub key: String,
    /// The line in the file, from 1.
    pub line: Option<usize>,
    /// What was found, as it stands in the file; `None` if nothing was.
    pub value: Option<String>,
    /// What is wrong with it, and what is allowed.
    pub fix: String,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        match (&*self.key, &self.value) {
            ("", _) => write!(f, "{}", self.fix),
            (key, Some(value)) => write!(f, "{key} = {value}: {}", self.fix),
            (key, None) => write!(f, "{key}: {}", self.fix),
        }
    }
}

/// Everything that is wrong with a machine file, in the order of its lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecErrors(pub Vec<SpecError>);

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}
