//! The HTTP API, version 1, over a unix socket.
//!
//! The document at `/v1/openapi.json` is made from the handlers; `docs/openapi.json` is a copy of
//! it, and a test fails when the two differ. To write it anew:
//!
//! ```text
//! dormoused --print-openapi > docs/openapi.json
//! ```

mod commands;
mod events;
mod extract;
mod hold_while;
mod import;
mod machines;
mod peer;
mod problem;
mod server;
mod usage;

use std::sync::Arc;

use axum::{Json, Router, extract::DefaultBodyLimit, routing::get};
use dormouse_api_types::{Problem, ProblemKind, VersionInfo, routes};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::host::Host;
pub use peer::Peer;
use problem::Refused;
pub use server::{ServeError, Server};

/// What handlers share.
type Shared = Arc<Host>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "dormoused",
        description = "Puts idle virtual machines to sleep, stands in for them, and wakes them. Served over a \
                       unix socket. Errors are application/problem+json (RFC 9457).",
    ),
    components(schemas(dormouse_api_types::Event, Problem))
)]
struct Document;

fn routes_and_document() -> (Router<Shared>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(machines::list, machines::create))
        .routes(routes!(machines::show, machines::remove))
        .routes(routes!(machines::why))
        .routes(routes!(machines::wake_test))
        .routes(routes!(commands::start))
        .routes(routes!(commands::stop))
        .routes(routes!(commands::sleep))
        .routes(routes!(commands::wake))
        .routes(routes!(commands::hold))
        .routes(routes!(hold_while::hold_while))
        .routes(routes!(commands::release))
        .routes(routes!(events::events))
        .routes(routes!(import::importable, import::import))
        .routes(routes!(machines::examine))
        .routes(routes!(usage::usage))
        .routes(routes!(machines::doctor))
        .routes(routes!(version))
        .split_for_parts()
}

/// The `OpenAPI` document, as it is checked in.
///
/// # Errors
///
/// When it cannot be written as JSON.
pub fn openapi_json() -> Result<String, serde_json::Error> {
    routes_and_document().1.to_pretty_json().map(|text| text + "\n")
}

/// The service.
pub(crate) fn router(host: Shared) -> Router {
    let limit = host.config().limits.request_bytes;
    let (router, document) = routes_and_document();
    router
        .route(routes::OPENAPI, get(|| std::future::ready(Json(document))))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(limit))
        .with_state(host)
}

/// Says who answers.
#[utoipa::path(get, path = routes::VERSION, responses((status = 200, body = VersionInfo)))]
async fn version() -> Json<VersionInfo> {
    Json(VersionInfo { version: env!("CARGO_PKG_VERSION").into(), api: vec!["v1".into()] })
}

async fn no_such_path(uri: axum::http::Uri) -> Refused {
    Problem::new(ProblemKind::NotFound, format!("{} is no path of this API", uri.path()))
        .fix("let the versions of dormouse and dormoused be the same")
        .into()
}

async fn no_such_method(method: axum::http::Method, uri: axum::http::Uri) -> Refused {
    let detail = format!("{method} is no method of {}", uri.path());
    Problem { status: 405, ..Problem::new(ProblemKind::Malformed, detail) }.into()
}
