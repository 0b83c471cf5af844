//! Errors as RFC 9457 (Problem Details for HTTP APIs) has them.

use core::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, and how to put it right. Media type [`PROBLEM_JSON`](crate::routes::PROBLEM_JSON).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Which kind: a `tag:` URI (RFC 4151) that ends in the kind's word.
    #[serde(rename = "type")]
    pub kind: ProblemKind,
    /// The kind in words; the same for all of a kind.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This case in words, with the chain of causes.
    pub detail: String,
    /// What the user can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The key of the machine file or request that it is about, as `interface[1].mac`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// Kinds of problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum ProblemKind {
    /// 404: no such machine, hold or path.
    #[serde(rename = "tag:dormouse-vm.github.io,2026:not-found")]
    NotFound,
    /// 409: a machine of this name, or with this Ethernet address, is there already.
    #[serde(rename = "tag:dormouse-vm.github.io,2026:exists")]
    Exists,
    /// 409: cannot be done in the state that the machine is in.
    #[serde(rename = "tag:dormouse-vm.github.io,2026:refused")]
    Refused,
    /// 422: the machine file or the request has a value that is not allowed.
    #[serde(rename = "tag:dormouse-vm.github.io,2026:invalid")]
    Invalid,
    /// 400: the request is not what the API understands.
    #[serde(rename = "tag:dormouse-vm.github.io,2026:malformed")]
    Malformed,
    /// 500: it was tried and failed.
    #[serde(rename = "tag:dormouse-vm.github.io,2026:failed")]
    Failed,
    /// 503: the daemon is starting or ending.
    #[serde(rename = "tag:dormouse-vm.github.io,2026:unavailable")]
    Unavailable,
    /// A kind that a newer daemon knows and this client does not.
    #[serde(other, rename = "about:blank")]
    Other,
}

impl ProblemKind {
    /// The HTTP status of the kind.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::Exists | Self::Refused => 409,
            Self::Invalid => 422,
            Self::Malformed => 400,
            Self::Failed | Self::Other => 500,
            Self::Unavailable => 503,
        }
    }

    /// The kind in words.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::Exists => "exists already",
            Self::Refused => "refused in this state",
            Self::Invalid => "value not allowed",
            Self::Malformed => "request not understood",
            Self::Failed => "failed",
            Self::Unavailable => "not available now",
            Self::Other => "error",
        }
    }
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title: kind.title().into(),
            status: kind.status(),
            detail: detail.into(),
            fix: None,
            key: None,
        }
    }

    /// Says what the user can do.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// Says which key it is about.
    #[must_use]
    pub fn key(self, key: impl Into<String>) -> Self {
        Self { key: Some(key.into()), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_rfc_9457() {
        let problem = Problem::new(ProblemKind::Refused, "cannot sleep").fix("start it");
        let json = serde_json::json!({
            "type": "tag:dormouse-vm.github.io,2026:refused", "title": "refused in this state",
            "status": 409, "detail": "cannot sleep", "fix": "start it",
        });
        assert_eq!(serde_json::to_value(&problem).unwrap(), json);
        assert_eq!(serde_json::from_value::<Problem>(json).unwrap(), problem);
    }

    #[test]
    fn a_kind_of_tomorrow_is_read() {
        let json = r#"{"type":"tag:later","title":"t","status":418,"detail":"d"}"#;
        let problem: Problem = serde_json::from_str(json).unwrap();
        assert_eq!((problem.kind, problem.status), (ProblemKind::Other, 418));
    }
}
