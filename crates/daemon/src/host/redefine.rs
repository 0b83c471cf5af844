//! What others change in a domain's definition is followed in its machine's file.
//!
//! A definition that is changed while its domain runs is so only when the domain starts again; so it is
//! looked at after each change, and whenever a machine begins to run.

use std::{path::Path, sync::Arc};

use dormouse_api_types::{EventKind, MachineState};
use dormouse_machine::spec::{MachineSpec, PlatformSpec};
use dormouse_types::MachineName;
use tokio::sync::broadcast::error::RecvError;

use super::{Host, admission};
use crate::{
    chain::chain,
    driver::{Handle, Message},
    events::Draft,
    import,
};

/// Looks at all machines, whose definitions may have changed while no daemon ran, and from then on at each
/// that begins to run.
pub(super) fn start(host: &Arc<Host>) {
    let news = host.events().subscribe(host.events().last()).news;
    for handle in host.handles() {
        host.look_again(&handle.name);
    }
    let Some(mut news) = news else { return };
    let host = Arc::downgrade(host);
    tokio::spawn(async move {
        loop {
            let told = news.recv().await;
            let Some(host) = host.upgrade() else { return };
            match told {
                Ok(event) if event.to == Some(MachineState::Active) => {
                    event.machine.iter().for_each(|name| host.look_again(name));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    host.handles().iter().for_each(|handle| host.look_again(&handle.name));
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
}

impl Host {
    /// Has a machine's definition looked at, and its file follow it.
    pub(super) fn look_again(self: &Arc<Self>, name: &MachineName) {
        let Ok(handle) = self.find(name) else { return };
        if !matches!(handle.spec.platform, PlatformSpec::Libvirt(_)) {
            return;
        }
        let host = Arc::clone(self);
        tokio::spawn(async move { host.follow_definition(&handle).await });
    }

    async fn follow_definition(&self, handle: &Handle) {
        let PlatformSpec::Libvirt(libvirt) = &handle.spec.platform else { return };
        // What is not there, or cannot be asked, is told by the platform itself.
        let Ok(finding) = self.platforms.definition(libvirt).await else { return };
        let Ok(candidate) = finding.found else { return };
        let (text, base) = handle.peek(|view| view.file.clone());
        let change = match import::redefined(&text, &handle.spec, &candidate) {
            Ok(None) => return,
            Ok(Some(change)) => self.checked(change, &base, &handle.name),
            Err(error) => Err(chain(&error)),
        };
        match change {
            Ok(change) => {
                let what = format!("its definition was changed by others: {}", change.what);
                handle.tell(Message::Rewrite { file: change.file, what }).await;
            }
            Err(why) => {
                let what = "its definition was changed by others, and its machine file cannot follow";
                tracing::warn!(machine = %handle.name, "{what}: {why}");
                let told = Draft::of(&handle.name, EventKind::Warning);
                self.events().publish(told.cause(Some(format!("{what}: {why}"))));
            }
        }
    }

    /// What others write is checked as what users write.
    fn checked(
        &self,
        change: import::Change,
        base: &Path,
        name: &MachineName,
    ) -> Result<import::Change, String> {
        let spec = MachineSpec::from_toml(&change.file, base).map_err(|errors| errors.to_string())?;
        let mut others = self.claims();
        others.retain(|other| other.name != *name);
        admission::check_claims(&spec, &others, &self.lost()).map_err(|problem| problem.detail)?;
        Ok(change)
    }
}
