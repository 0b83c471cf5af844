//! What requests hold, with errors that name the key.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::request::Parts,
};
use dormouse_api_types::{Problem, ProblemKind};
use dormouse_types::MachineName;
use serde::de::DeserializeOwned;

use super::problem::Refused;

/// A JSON body. None at all means an object without keys.
pub(super) struct Body<T>(pub(super) T);

/// The query.
pub(super) struct Params<T>(pub(super) T);

/// The machine that the path names.
pub(super) struct Name(pub(super) MachineName);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let problem = Problem::new(ProblemKind::Malformed, rejection.body_text());
            Problem { status: rejection.status().as_u16(), ..problem }
        })?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let read = serde_json::from_slice(text);
        read.map(Self).map_err(|error| Problem::new(ProblemKind::Malformed, format!("body: {error}")).into())
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        read.map(|Query(params)| Self(params)).map_err(|rejection| {
            Problem::new(ProblemKind::Malformed, format!("query: {}", rejection.body_text())).into()
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let malformed = |why: String| Refused::from(Problem::new(ProblemKind::Malformed, why));
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| malformed(rejection.body_text()))?;
        text.parse().map(Self).map_err(|error: dormouse_types::NameError| malformed(error.to_string()))
    }
}
