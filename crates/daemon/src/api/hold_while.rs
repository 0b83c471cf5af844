//! A hold that lasts as long as somebody reads its answer, and ends with them however they end.

use std::{convert::Infallible, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{ConnectInfo, State},
    http::header,
    response::{IntoResponse, Response},
};
use dormouse_api_types::{HoldWhileRequest, MachineState, Outcome, Problem, ProblemKind, routes};
use dormouse_types::MachineName;
use futures::{StreamExt as _, stream};
use tokio::sync::broadcast::error::RecvError;

use super::{Peer, Shared, extract::Body as Json, extract::Name, problem::Refused};
use crate::{driver::Order, host::Host};

/// Keeps a machine awake for as long as the answer is read: until the connection is closed.
#[utoipa::path(
    post,
    path = routes::HOLD_WHILE,
    params(("name" = String, Path, description = "the machine")),
    request_body = HoldWhileRequest,
    responses(
        (status = 200, description = "the hold in a line; the answer has no end", body = Outcome,
            content_type = "application/x-ndjson"),
        (status = 404, description = "no such machine", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "it has too many holds, or does not wake", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn hold_while(
    State(host): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Name(name): Name,
    Json(request): Json<HoldWhileRequest>,
) -> Result<Response, Refused> {
    tracing::info!(machine = %name, %peer, order = "hold-while", "asked");
    let order = Order::Hold { reason: request.reason, by: peer.to_string(), span: None, tied: true };
    // A task of its own: whoever asks may be gone before the hold is there, and it must not stay.
    let placing = tokio::spawn(place(Arc::clone(&host), name, order));
    let fault = |error| Problem::new(ProblemKind::Failed, format!("a fault in dormoused: {error}"));
    let (tie, outcome) = placing.await.map_err(fault)??;
    let mut line = serde_json::to_vec(&outcome).unwrap_or_default();
    line.push(b'\n');
    let first = stream::once(std::future::ready(Bytes::from(line)));
    let lines = first.chain(stream::once(last(host, tie)).filter_map(std::future::ready));
    let body = Body::from_stream(lines.map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, routes::NDJSON)], body).into_response())
}

/// Places the hold, and waits until the machine is awake if it sleeps.
async fn place(host: Shared, name: MachineName, order: Order) -> Result<(Tie, Outcome), Problem> {
    let mut outcome = host.order(&name, order, false).await?.outcome;
    let tie = Tie { host: Arc::clone(&host), name, hold: outcome.hold };
    if matches!(
        outcome.state,
        MachineState::Settling | MachineState::Undoing | MachineState::Asleep | MachineState::Waking
    ) {
        let awake = host.order(&tie.name, Order::Wake, true).await?.outcome;
        outcome = Outcome { hold: tie.hold, ..awake };
    }
    Ok((tie, outcome))
}

/// The end of the answer: it comes when the daemon ends. When the connection ends first, this is dropped.
async fn last(host: Shared, tie: Tie) -> Option<Bytes> {
    let mut news = host.events().subscribe(u64::MAX).news;
    while let Some(events) = &mut news {
        if matches!(events.recv().await, Err(RecvError::Closed)) {
            break;
        }
    }
    drop(tie);
    None
}

/// Releases its hold when it is dropped.
struct Tie {
    host: Arc<Host>,
    name: MachineName,
    hold: Option<u64>,
}

impl Drop for Tie {
    fn drop(&mut self) {
        let (host, name, hold) = (Arc::clone(&self.host), self.name.clone(), self.hold);
        if hold.is_some() {
            tokio::spawn(async move {
                // It may have been released by hand, or the machine be gone.
                let _ = host.order(&name, Order::Release { hold }, false).await;
            });
        }
    }
}
