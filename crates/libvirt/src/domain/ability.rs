//! How deep a domain can sleep, and why not deeper.

use std::collections::BTreeMap;

use dormouse_platform::{Capabilities, Obstacle};
use dormouse_types::Depth;
use virt::network::Network as NetworkHandle;

use super::Inner;
use crate::{
    hub::Lane,
    xml::{Circumstances, Network, Source, obstacles},
};

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
                let fix = "start libvirt (systemctl start libvirtd), or define the domain again (virsh \
                           define); a machine without a domain is forgotten by dormouse rm";
                return vec![Obstacle::to(&Depth::ALL, "libvirt", chain(&error)).fix(fix)];
            }
        };
        found.extend(self.paging_obstacle().await);
        found.extend(self.ram_file_obstacle().await);
        self.note(age, |known| known.capabilities = Some(capabilities(found.clone())));
        found.extend(self.s3_obstacle());
        found
    }

    async fn circumstances(&self) -> Result<Vec<Obstacle>, dormouse_platform::Error> {
        let description = self.description().await?;
        let named = description.interfaces.iter().filter_map(|interface| match &interface.source {
            Source::Network { name, .. } => Some(name.clone()),
            _ => None,
        });
        let names: Vec<String> = named.collect();
        let networks = self.hub.call(Lane::Quick, move |connect| {
            let read = |name: &String| {
                let xml =
                    NetworkHandle::lookup_by_name(connect, name).and_then(|n| n.get_xml_desc(0)).ok()?;
                Some((name.clone(), Network::from_xml(&xml).ok()?))
            };
            Ok(names.iter().filter_map(read).collect::<BTreeMap<_, _>>())
        });
        let networks = networks.await.map_err(self.failed("find the networks of"))?;
        let now = self.ask(Lane::Quick, move |domain| {
            // What a driver of libvirt does not know a domain of it has not.
            Ok(Circumstances {
                is_persistent: domain.is_persistent()?,
                has_autostart: domain.get_autostart().unwrap_or(false),
                snapshots: domain
                    .list_all_snapshots(0)
                    .map_or(0, |all| u32::try_from(all.len()).unwrap_or(u32::MAX)),
                has_block_job: false,
                networks,
            })
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
