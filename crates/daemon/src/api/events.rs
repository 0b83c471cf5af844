//! Events, one JSON text a line.

use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use dormouse_api_types::{Event, EventsQuery, routes};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::{Shared, extract::Params};
use crate::events::Events;

/// What happened: the kept events, then, with `follow`, each as it happens.
#[utoipa::path(
    get,
    path = routes::EVENTS,
    params(EventsQuery),
    responses((status = 200, body = Event, content_type = "application/x-ndjson",
        description = "one event a line")),
)]
pub(super) async fn events(State(host): State<Shared>, Params(query): Params<EventsQuery>) -> Response {
    let events = host.events().clone();
    let subscription = events.subscribe(query.after.unwrap_or(0));
    let news = subscription.news.filter(|_| query.follow);
    let all = stream::iter(subscription.kept).chain(follow(events, news));
    let machine = query.machine;
    let wanted = all.filter(move |event| {
        // What is about the daemon concerns every machine.
        let is_wanted = machine.is_none() || event.machine.is_none() || event.machine == machine;
        std::future::ready(is_wanted)
    });
    let lines = wanted.map(|event| Ok::<_, Infallible>(line(&event)));
    ([(header::CONTENT_TYPE, routes::NDJSON)], Body::from_stream(lines)).into_response()
}

fn follow(events: Events, news: Option<Receiver<Event>>) -> impl Stream<Item = Event> {
    stream::unfold((events, news), |(events, news)| async {
        let mut news = news?;
        let event = match news.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(missed)) => events.lagged(missed),
            Err(RecvError::Closed) => return None,
        };
        Some((event, (events, Some(news))))
    })
}

fn line(event: &Event) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line.into()
}
