//! Errors as answers.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use dormouse_api_types::{Problem, routes};

/// A problem as an HTTP answer.
#[derive(Debug)]
pub(crate) struct Refused(Box<Problem>);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        tracing::debug!(%status, detail = self.0.detail, "refused a request");
        let body = serde_json::to_vec(&self.0).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, routes::PROBLEM_JSON)], body).into_response()
    }
}
