//! Machines: list, create, show, remove, explain.

use axum::{
    Json,
    extract::{ConnectInfo, State},
    http::StatusCode,
};
use dormouse_api_types::{
    CreateMachine, MachineDetail, MachineSummary, Problem, Remove, Report, WakeTest, WakeTestRequest, Why,
    routes,
};

use super::{
    Peer, Shared,
    extract::{Body, Name, Params},
    problem::Refused,
};

/// Lists all machines, by name.
#[utoipa::path(get, path = routes::MACHINES, responses((status = 200, body = Vec<MachineSummary>)))]
pub(super) async fn list(State(host): State<Shared>) -> Json<Vec<MachineSummary>> {
    Json(host.list().await)
}

/// Makes a machine known from its file; it does not run yet.
#[utoipa::path(
    post,
    path = routes::MACHINES,
    request_body = CreateMachine,
    responses(
        (status = 201, body = MachineDetail),
        (status = 409, description = "its name or an Ethernet address is taken", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "the file has a value that is not allowed", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(host): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Body(request): Body<CreateMachine>,
) -> Result<(StatusCode, Json<MachineDetail>), Refused> {
    let detail = host.create(request).await?;
    tracing::info!(machine = %detail.summary.name, %peer, "created");
    Ok((StatusCode::CREATED, Json(detail)))
}

/// What is asked about one machine, and is answered by the host's function of that name.
macro_rules! about {
    ($(#[$doc:meta])* $name:ident, $path:expr, $answer:ident) => {
        $(#[$doc])*
        #[utoipa::path(
            get,
            path = $path,
            params(("name" = String, Path, description = "the machine")),
            responses(
                (status = 200, body = $answer),
                (status = 404, description = "no such machine", body = Problem,
                    content_type = "application/problem+json"),
            )
        )]
        pub(super) async fn $name(State(host): State<Shared>, Name(name): Name) -> Result<Json<$answer>, Refused> {
            Ok(Json(host.$name(&name).await?))
        }
    };
}

about!(
    /// Shows all that is known of a machine.
    show,
    routes::MACHINE,
    MachineDetail
);
about!(
    /// Says why a machine is awake, what woke it, and what would wake it.
    why,
    routes::WHY,
    Why
);
about!(
    /// Looks for what stands in the way of one machine's sleep, at each depth, and says how to put it right.
    examine,
    routes::MACHINE_DOCTOR,
    Report
);

/// Forgets a machine. Its disk images are never touched.
#[utoipa::path(
    delete,
    path = routes::MACHINE,
    params(("name" = String, Path, description = "the machine"), Remove),
    responses(
        (status = 204, description = "forgotten"),
        (status = 404, description = "no such machine", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "it runs and nobody else runs it, or it sleeps, and force is not given", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn remove(
    State(host): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Name(name): Name,
    Params(Remove { force }): Params<Remove>,
) -> Result<StatusCode, Refused> {
    tracing::info!(machine = %name, %peer, force, "asked to remove");
    host.remove(&name, force).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Says what would become of a frame that came for a machine asleep. Nothing is sent, and nothing wakes.
#[utoipa::path(
    post,
    path = routes::WAKE_TEST,
    params(("name" = String, Path, description = "the machine")),
    request_body = WakeTestRequest,
    responses(
        (status = 200, body = WakeTest),
        (status = 404, description = "no such machine", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "the frame is not understood, or there is no such interface",
            body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn wake_test(
    State(host): State<Shared>,
    Name(name): Name,
    Body(request): Body<WakeTestRequest>,
) -> Result<Json<WakeTest>, Refused> {
    Ok(Json(host.wake_test(&name, &request).await?))
}

/// Looks for what stands in the way, and says how to put it right.
#[utoipa::path(get, path = routes::DOCTOR, responses((status = 200, body = Report)))]
pub(super) async fn doctor(State(host): State<Shared>) -> Json<Report> {
    Json(host.doctor().await)
}
