//! Programs that are asked about frames to sleepers, or whether machines are to sleep.

use std::path::PathBuf;

use dormouse_external::Program;
use serde::{Deserialize, Serialize};

use super::value::{Rule, Span};

/// `[responder.NAME]` and `[policy.NAME]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserProgram {
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// The user that it runs as, where the daemon is root.
    #[serde(default = "nobody")]
    pub user: String,
    /// How long it may take for an answer.
    #[serde(default = "second")]
    pub timeout: Span,
}

fn nobody() -> String {
    "nobody".into()
}

const fn second() -> Span {
    Span::seconds(1)
}

impl UserProgram {
    /// As it is run; only `root` can choose a user.
    #[must_use]
    pub fn program(&self, name: &str, root: bool) -> Program {
        Program {
            name: name.into(),
            program: self.program.clone(),
            args: self.args.clone(),
            user: root.then(|| self.user.clone()),
            timeout: self.timeout.get(),
        }
    }

    pub(super) fn rules(&self, table: &'static str, name: &str) -> [Rule; 3] {
        let clean = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let is_name = (1..=63).contains(&name.len()) && name.chars().all(clean);
        let key = |key| format!("{table}.{name}.{key}");
        let absolute = self.program.is_absolute();
        let in_time = (1..=60_000).contains(&self.timeout.get().as_millis());
        [
            Rule::new(table, name, is_name, "name it with letters, digits, '-' and '_'"),
            Rule::new(key("program"), self.program.display(), absolute, "write an absolute path"),
            Rule::new(key("timeout"), self.timeout, in_time, "write a time from 1ms to 1m"),
        ]
    }
}
