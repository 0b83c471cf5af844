//! Which error ends with which exit status, and how it is told.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use dormouse_api_types::ProblemKind;

use crate::client;
use crate::render::clean;

/// Exit statuses, as `dormouse --help` documents them. (2 is clap's own.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Ok,
    Failed,
    NotFound,
    Refused,
    Unreachable,
    NoWake,
    /// That of a command that `hold` ran.
    Command(u8),
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.status())
    }
}

impl Code {
    const fn status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::NotFound => 3,
            Self::Refused => 4,
            Self::Unreachable => 5,
            Self::NoWake => 6,
            Self::Command(status) => status,
        }
    }

    /// Keeps the first failure.
    pub(crate) fn or(self, later: Self) -> Self {
        if self == Self::Ok { later } else { self }
    }

    fn of(error: &anyhow::Error) -> Self {
        match error.downcast_ref() {
            Some(client::Error::Problem(problem)) => match problem.kind {
                ProblemKind::NotFound => Self::NotFound,
                ProblemKind::Refused => Self::Refused,
                ProblemKind::Unavailable => Self::Unreachable,
                _ => Self::Failed,
            },
            Some(client::Error::Connect { .. } | client::Error::Lost { .. } | client::Error::Ended) => {
                Self::Unreachable
            }
            _ if is_closed_pipe(error) => Self::Ok,
            _ => Self::Failed,
        }
    }
}

/// Whoever read our output has seen enough (`dormouse events | head`): no error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Tells an error on standard error: what it is about, the chain of causes, and the fix.
pub(crate) fn report(about: Option<&str>, error: &anyhow::Error) -> Code {
    let code = Code::of(error);
    if code != Code::Ok {
        // Nobody is left to tell when standard error itself fails.
        let _ = anstream::stderr().write_all(describe(about, error).as_bytes());
    }
    code
}

fn describe(about: Option<&str>, error: &anyhow::Error) -> String {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let about = about.map(|name| format!("{name}: ")).unwrap_or_default();
    // A machine file's errors come a line each; every line is made safe by itself.
    let lines: Vec<_> = format!("{about}{error:#}").lines().map(|line| clean(line).into_owned()).collect();
    let mut text = format!("{red}dormouse:{red:#} {}\n", lines.join("\n  "));
    for (label, value) in hints(error) {
        let bold = Style::new().bold();
        let _ = writeln!(text, "  {bold}{label}:{bold:#} {}", clean(&value));
    }
    text
}

fn hints(error: &anyhow::Error) -> Vec<(&'static str, String)> {
    let Some(error) = error.downcast_ref::<client::Error>() else { return Vec::new() };
    let key = match error {
        client::Error::Problem(problem) => problem.key.clone(),
        _ => None,
    };
    let key = key.map(|key| ("key", key));
    key.into_iter().chain(error.fix().map(|fix| ("fix", fix))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_api_types::Problem;

    fn problem(kind: ProblemKind) -> anyhow::Error {
        client::Error::Problem(Box::new(Problem::new(kind, "no").fix("do \x1b[2Jthis").key("a.b"))).into()
    }

    #[test]
    fn statuses_are_as_documented() {
        assert_eq!(Code::of(&problem(ProblemKind::NotFound)).status(), 3);
        assert_eq!(Code::of(&problem(ProblemKind::Refused)).status(), 4);
        assert_eq!(Code::of(&problem(ProblemKind::Unavailable)).status(), 5);
        assert_eq!(Code::of(&problem(ProblemKind::Invalid)).status(), 1);
        assert_eq!(Code::of(&anyhow::anyhow!("else")).status(), 1);
        assert_eq!(Code::Ok.or(Code::Refused).or(Code::NotFound), Code::Refused);
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        let error = anyhow::Error::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(Code::of(&error.context("cannot print")), Code::Ok);
    }

    #[test]
    fn key_and_fix_are_told_and_cannot_drive_the_terminal() {
        let text = describe(Some("web"), &problem(ProblemKind::Invalid));
        let text = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(text, "dormouse: web: no\n  key: a.b\n  fix: do \\u{1b}[2Jthis\n");
    }
}
