//! The task that keeps a hub connected, and tells its members.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    Absence, Connection, Hub, Link, Member, News, SLOW, close,
    reconnect::{self, Action, Event, Reconnect},
};
use crate::{clock::now, happening::Happening};

/// How often it is looked whether the managed saves of sleepers are still there: one question for all.
const LOOK_AT_SAVES: Duration = Duration::from_secs(1);

/// The state of one hub's task.
struct Keeper {
    link: Reconnect,
    /// Counts the attempts, to tell the news of a connection that is gone.
    epoch: u64,
    /// The attempt that is under way is slow by then.
    slow: Option<tokio::time::Instant>,
    /// It ended before it was told to be there; why.
    stillborn: Option<String>,
}

/// Keeps the hub connected, and tells its members.
pub(super) async fn run(hub: Weak<Hub>, mut news: UnboundedReceiver<News>) {
    let mut keeper = Keeper { link: Reconnect::new(now()), epoch: 0, slow: None, stillborn: None };
    loop {
        let due = keeper.link.next_deadline().map(|due| due.since(now()).min(reconnect::PAUSE.1));
        let told = tokio::select! {
            told = news.recv() => told,
            () = after(due) => None,
            () = until(keeper.slow) => {
                keeper.slow = None;
                let Some(hub) = hub.upgrade() else { return };
                keeper.step(&hub, Event::Slow("it does not answer".into())).await;
                continue;
            }
        };
        let Some(hub) = hub.upgrade() else { return };
        match told {
            None => keeper.step(&hub, Event::Tick).await,
            Some(News::Wanted) => keeper.step(&hub, Event::Wanted).await,
            Some(News::Lifecycle(epoch, event)) if epoch == keeper.epoch => {
                let happening = Happening::from(&event);
                tracing::debug!(uri = hub.uri, domain = event.domain, ?happening);
                let about = |member: &dyn Member| member.is(&event.domain, &event.uuid);
                hub.tell(|member| about(member).then(|| member.happened(happening)).flatten()).await;
            }
            Some(News::Devices(epoch, name, uuid)) if epoch == keeper.epoch => {
                tracing::debug!(uri = hub.uri, domain = name, "a device comes or goes");
                let about = |member: &dyn Member| member.is(&name, &uuid);
                hub.tell(|member| about(member).then(|| member.devices_changed())).await;
            }
            Some(News::Graphics(epoch, event)) if epoch == keeper.epoch => {
                tracing::debug!(uri = hub.uri, ?event, "somebody at a screen");
                let living = hub.living();
                if let Some(member) = living.iter().find(|member| member.is(&event.domain, &event.uuid)) {
                    member.looked_at(event);
                }
            }
            Some(News::Closed(epoch, why)) if epoch == keeper.epoch => {
                keeper.closed(&hub, why).await;
            }
            Some(News::Opened(opened)) => keeper.opened(&hub, opened).await,
            Some(News::Lifecycle(..) | News::Devices(..) | News::Graphics(..) | News::Closed(..)) => {}
            Some(News::End) => return,
        }
    }
}

impl Keeper {
    async fn closed(&mut self, hub: &Hub, why: String) {
        let was = hub.link.send_replace(Link::Away(why.clone().into()));
        self.stillborn = matches!(was, Link::Away(_)).then(|| why.clone());
        close(was);
        self.step(hub, Event::Closed(why)).await;
    }

    async fn opened(&mut self, hub: &Hub, opened: Result<Connection, Absence>) {
        self.slow = None;
        match (opened, self.stillborn.take()) {
            (Ok(connection), Some(why)) => {
                close(Link::Here(Arc::new(connection)));
                self.step(hub, Event::Refused(why)).await;
            }
            (Ok(connection), None) => {
                match connection.too_old() {
                    None => tracing::info!(uri = hub.uri, "connected to libvirt"),
                    Some(why) => tracing::warn!(uri = hub.uri, why, "connected to libvirt"),
                }
                hub.link.send_replace(Link::Here(Arc::new(connection)));
                self.step(hub, Event::Opened).await;
            }
            (Err(absence), _) => {
                hub.link.send_replace(Link::Away(absence.clone()));
                self.step(hub, Event::Refused(absence.why)).await;
            }
        }
    }

    async fn step(&mut self, hub: &Hub, event: Event) {
        for action in self.link.handle(event, now()) {
            match action {
                Action::Open => self.open(hub),
                Action::TellAway(why) => {
                    tracing::warn!(
                        uri = hub.uri,
                        why,
                        "libvirt is away; sleepers are answered for all the same"
                    );
                    hub.tell(|member| Some(member.away(&why))).await;
                }
                Action::TellBack => {
                    tracing::info!(uri = hub.uri, "libvirt is back");
                    hub.tell(|member| Some(member.back())).await;
                }
            }
        }
    }

    fn open(&mut self, hub: &Hub) {
        self.epoch += 1;
        self.slow = Some(tokio::time::Instant::now() + SLOW);
        self.stillborn = None;
        let (uri, news, epoch) = (hub.uri.clone(), hub.news.clone(), self.epoch);
        let told = news.clone();
        let open = move || {
            let opened = Connection::open(&uri, epoch, &news);
            // If nobody wants it any more it is closed.
            let _ = news.send(News::Opened(opened));
        };
        // A thread that nobody waits for: a libvirtd that hangs has no keepalive yet that would end this.
        if let Err(error) = std::thread::Builder::new().name("libvirt-open".into()).spawn(open) {
            let _ = told.send(News::Opened(Err(error.to_string().into())));
        }
    }
}

/// Looks after the managed saves that sleepers rely on.
pub(super) async fn watch_saves(hub: Weak<Hub>) {
    loop {
        tokio::time::sleep(LOOK_AT_SAVES).await;
        let Some(hub) = hub.upgrade() else { return };
        hub.look_at_saves().await;
    }
}

async fn after(span: Option<Duration>) {
    match span {
        Some(span) => tokio::time::sleep(span).await,
        None => std::future::pending().await,
    }
}

async fn until(instant: Option<tokio::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
