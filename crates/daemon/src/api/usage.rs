//! What machines used.

use axum::{Json, extract::State};
use dormouse_api_types::{Problem, UsageQuery, UsageReport, routes};

use super::{Shared, extract::Params, problem::Refused};

/// Says what machines used, up to now, also such that are no more.
#[utoipa::path(
    get,
    path = routes::USAGE,
    params(UsageQuery),
    responses(
        (status = 200, body = UsageReport),
        (status = 404, description = "nothing is known of one of the machines", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "there is nothing of that kind to sum by", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn usage(
    State(host): State<Shared>,
    Params(query): Params<UsageQuery>,
) -> Result<Json<UsageReport>, Refused> {
    Ok(Json(host.usage(&query).await?))
}
