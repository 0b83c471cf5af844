//! How deep a domain can sleep, and why not deeper.

use std::sync::Arc;

use dormouse_platform::{Capabilities, Error, Obstacle};
use dormouse_types::Depth;

use super::Inner;
use crate::{hub::Lane, survey, xml::obstacles};

impl Inner {
    /// As far as it is known: nothing is in the way of a domain that nobody has looked at.
    pub(super) fn abilities(&self) -> Capabilities {
        let known = self.known().capabilities.clone();
        let mut obstacles = known.map_or_else(Vec::new, |known| known.obstacles);
        obstacles.extend(self.s3_obstacle());
        capabilities(obstacles)
    }

    /// Asks libvirt, and keeps the answer.
    pub(super) async fn look_for_obstacles(&self) -> Vec<Obstacle> {
        let age = self.age();
        let mut found = match self.circumstances().await {
            Ok(found) => found,
            Err(error) => {
                let fix = match error {
                    Error::Unsupported(_) => "put `uri` right in [libvirt] of the machine file",
                    _ => {
                        "start libvirt (systemctl start libvirtd, or virtqemud.socket where the daemons are modular), or \
                         define the domain again (virsh define); a machine without a domain is forgotten by dormouse rm"
                    }
                };
                return vec![Obstacle::to(&Depth::ALL, "libvirt", chain(&error)).fix(fix)];
            }
        };
        found.extend(self.hub.age_obstacle());
        found.extend(self.paging_obstacle().await);
        found.extend(self.ram_file_obstacle().await);
        self.note(age, |known| known.capabilities = Some(capabilities(found.clone())));
        found.extend(self.s3_obstacle());
        found
    }

    async fn circumstances(&self) -> Result<Vec<Obstacle>, Error> {
        let description = self.description().await?;
        let (who, described) = (self.who.clone(), Arc::clone(&description));
        let now = self.hub.call(Lane::Guest, move |connect| {
            let networks = survey::networks(connect)?;
            Ok(survey::circumstances(&who.find(connect)?, &described, networks)?)
        });
        Ok(obstacles(&description, &now.await.map_err(self.failed("examine"))?))
    }
}

fn capabilities(obstacles: Vec<Obstacle>) -> Capabilities {
    let is_open = |depth: &Depth| !obstacles.iter().any(|obstacle| obstacle.bars(*depth));
    let depths = Depth::ALL.iter().copied().filter(is_open).collect();
    Capabilities { depths, obstacles, lazy_memory: false }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}
