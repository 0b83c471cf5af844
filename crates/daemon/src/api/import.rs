//! Taking over machines that others have defined.

use axum::{
    Json,
    extract::{ConnectInfo, State},
};
use dormouse_api_types::{ImportQuery, ImportReport, ImportRequest, Problem, routes};

use super::{
    Peer, Shared,
    extract::{Body, Params},
    problem::Refused,
};

/// Lists the domains of a libvirt, with what would come of their import.
#[utoipa::path(
    get,
    path = routes::IMPORT_LIBVIRT,
    params(ImportQuery),
    responses(
        (status = 200, body = ImportReport),
        (status = 503, description = "libvirt cannot be asked", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn importable(
    State(host): State<Shared>,
    Params(ImportQuery { uri }): Params<ImportQuery>,
) -> Result<Json<ImportReport>, Refused> {
    Ok(Json(host.importable(uri).await?))
}

/// Makes domains of libvirt machines. What is wrong with one is told of that one; the others are imported.
#[utoipa::path(
    post,
    path = routes::IMPORT_LIBVIRT,
    request_body = ImportRequest,
    responses(
        (status = 200, description = "what came of each domain", body = ImportReport),
        (status = 422, description = "the request contradicts itself", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "libvirt cannot be asked", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn import(
    State(host): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(request): Body<ImportRequest>,
) -> Result<Json<ImportReport>, Refused> {
    tracing::info!(%peer, names = ?request.names, all = request.all, dry_run = request.dry_run, "asked to import");
    Ok(Json(host.import(request).await?))
}
