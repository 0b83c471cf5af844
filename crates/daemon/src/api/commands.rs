//! What machines can be told to do. All handlers do the same with another order.

use std::time::Duration;

use axum::{
    Json,
    extract::{ConnectInfo, State},
    http::StatusCode,
};
use dormouse_api_types::{
    HoldRequest, Outcome, Problem, ReleaseRequest, SleepRequest, StartRequest, StopRequest, Wait,
    WakeRequest, routes,
};
use dormouse_types::MachineName;

use super::{
    Peer, Shared,
    extract::{Body, Name, Params},
    problem::Refused,
};
use crate::driver::Order;

type Answer = Result<(StatusCode, Json<Outcome>), Refused>;

async fn give(host: &Shared, name: &MachineName, order: Order, peer: Peer, wait: Wait) -> Answer {
    tracing::info!(machine = %name, %peer, order = order.word(), "asked");
    let given = host.order(name, order, wait.wait).await?;
    let status = if given.settled { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(given.outcome)))
}

macro_rules! command {
    ($(#[$doc:meta])* $name:ident, $path:expr, $request:ident, $into:expr) => {
        $(#[$doc])*
        #[utoipa::path(
            post,
            path = $path,
            params(("name" = String, Path, description = "the machine"), Wait),
            request_body = $request,
            responses(
                (status = 200, description = "the machine has settled", body = Outcome),
                (status = 202, description = "accepted; the machine has not settled yet", body = Outcome),
                (status = 404, description = "no such machine or hold", body = Problem,
                    content_type = "application/problem+json"),
                (status = 409, description = "cannot be done in this state, or was undone", body = Problem,
                    content_type = "application/problem+json"),
                (status = 500, description = "it was tried and failed", body = Problem,
                    content_type = "application/problem+json"),
            )
        )]
        pub(super) async fn $name(
            State(host): State<Shared>,
            ConnectInfo(peer): ConnectInfo<Peer>,
            Name(name): Name,
            Params(wait): Params<Wait>,
            Body(request): Body<$request>,
        ) -> Answer {
            let order: fn($request, Peer) -> Order = $into;
            give(&host, &name, order(request, peer), peer, wait).await
        }
    };
}

command!(
    /// Runs a machine: boots it when stopped, wakes it when asleep.
    start, routes::START, StartRequest, |request, _| Order::Start { cold: request.cold }
);
command!(
    /// Shuts a machine down.
    stop, routes::STOP, StopRequest, |request, _| Order::Stop {
        force: request.force,
        patience: request.timeout_ms.map(Duration::from_millis),
    }
);
command!(
    /// Puts a machine to sleep now.
    sleep, routes::SLEEP, SleepRequest, |request, _| Order::Sleep { depth: request.depth }
);
command!(
    /// Wakes a machine.
    wake, routes::WAKE, WakeRequest, |_, _| Order::Wake
);
command!(
    /// Keeps a machine awake; one that sleeps is woken.
    hold, routes::HOLD, HoldRequest, |request, peer| Order::Hold {
        reason: request.reason,
        by: peer.to_string(),
        span: request.for_ms.map(Duration::from_millis),
        tied: false,
    }
);
command!(
    /// Lets a machine sleep again.
    release, routes::RELEASE, ReleaseRequest, |request, _| Order::Release { hold: request.hold }
);
