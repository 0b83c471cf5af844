//! What can go wrong in the lab, one variant for each kind of operation.

use std::{io, path::PathBuf, time::Duration};

/// The lab's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the lab could not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program could not be started or spoken to.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A program ran and reported failure.
    #[error("{command}: {status}: {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it printed to stderr, or to stdout if that was nothing.
        stderr: String,
    },
    /// A file or directory.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was being done, as a verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Something on the network.
    #[error("cannot {doing}")]
    Net {
        /// What was being done, as a verb.
        doing: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A network namespace could not be entered.
    #[error("cannot enter the network namespace {name}")]
    Enter {
        /// The namespace.
        name: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// An answer that makes no sense.
    #[error("unexpected answer from {from}: {answer}")]
    Answer {
        /// Who answered.
        from: String,
        /// What it said.
        answer: String,
    },
    /// It did not come to pass in time.
    #[error("waited {waited:?} for {what}{detail}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// What was seen instead, if anything is known.
        detail: String,
    },
    /// The lab cannot work on this machine as it is.
    #[error("{0}")]
    Setup(String),
}

impl Error {
    pub(crate) fn net(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Net { doing, source }
    }

    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }
}
