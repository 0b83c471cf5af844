//! Why something could not be remembered or recalled.

use std::path::PathBuf;

/// What went wrong with a registry. Display leaves out the source, which has the rest.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the file open.
    #[error(
        "{} is in use by another dormoused: stop that one, or give this one a state_dir of its own",
        path.display()
    )]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The file is no sound database.
    #[error(
        "{} is damaged ({why}); nothing was deleted: put back a copy of the file, or move it aside \
         and create the machines again from their files (disks and saved states stay where they are)",
        path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        why: String,
    },
    /// The file is of a later version of Dormouse, or of one too old.
    #[error("{} has format {found}, and this dormoused reads {known}: install the version that wrote it", path.display())]
    Format {
        /// The database.
        path: PathBuf,
        /// Its format.
        found: String,
        /// What can be read.
        known: String,
    },
    /// The file cannot be opened or made.
    #[error("cannot open {}", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: redb::Error,
    },
    /// Reading failed.
    #[error("cannot read {}", path.display())]
    Read {
        /// The database.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: redb::Error,
    },
    /// Writing failed.
    #[error("cannot write {}: is there space on its file system?", path.display())]
    Write {
        /// The database.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::sync::Arc<redb::Error>,
    },
    /// A record is not as the writer expected; nothing was changed.
    #[error("the record of {name:?} was changed by someone else")]
    Conflict {
        /// The machine.
        name: String,
    },
    /// A record is no JSON of the known form.
    #[error("the record of {name:?} cannot be read; it was left as it is")]
    Unreadable {
        /// The key.
        name: String,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A record of a later version.
    #[error("the record of {name:?} has format {format} of a newer dormoused: install that version")]
    NewerRecord {
        /// The key.
        name: String,
        /// Its format.
        format: u32,
    },
    /// A record cannot be written as JSON.
    #[error("the record of {name:?} cannot be written as JSON")]
    Encode {
        /// The key.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The thread that writes is gone.
    #[error("the registry's writer has ended: restart dormoused")]
    Closed,
}
