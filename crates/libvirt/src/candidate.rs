//! A domain that may become a machine: what is known of it, put together. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use dormouse_platform::{Activity, Candidate, Joined};
use dormouse_types::MacAddr;

use crate::xml::{Circumstances, Description, Interface, Source, obstacles};

/// Addresses that are kept of one interface at most: a guest with more is a router, and names its own.
const ADDRESSES: usize = 8;

/// Addresses that guests seem to have, by interface; those that were told first are the better ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hints(BTreeMap<MacAddr, Vec<IpAddr>>);

impl Hints {
    /// One that libvirt tells as text. What is no address of a guest is passed over.
    pub(crate) fn add(&mut self, mac: &str, address: &str) {
        if let (Ok(mac), Ok(address)) = (mac.parse(), address.parse()) {
            self.insert(mac, address);
        }
    }

    pub(crate) fn insert(&mut self, mac: MacAddr, address: IpAddr) {
        let known = self.0.entry(mac).or_default();
        let is_one = !(address.is_unspecified() || address.is_multicast() || address.is_loopback());
        if is_one && !known.contains(&address) && known.len() < ADDRESSES {
            known.push(address);
        }
    }

    /// Takes over what others know of interfaces of which nothing is known here.
    pub(crate) fn fill_up(&mut self, others: &Self) {
        for (mac, addresses) in &others.0 {
            self.0.entry(*mac).or_insert_with(|| addresses.clone());
        }
    }

    /// Is any address of this interface known?
    pub(crate) fn knows(&self, mac: MacAddr) -> bool {
        self.0.contains_key(&mac)
    }
}

/// Puts together what is known of a domain.
pub(crate) fn candidate(
    domain: &Description,
    activity: Activity,
    now: &Circumstances,
    hints: &Hints,
) -> Candidate {
    let up = domain.interfaces.iter().filter(|interface| interface.is_up);
    let is_unjoined = |interface: &&Interface| {
        matches!(interface.source, Source::Network { .. }) && interface.bridge(&now.networks).is_err()
    };
    let unjoined = up.clone().filter(is_unjoined).map(|interface| interface.mac).collect();
    let joined = up.filter_map(|interface| {
        let addresses = hints.0.get(&interface.mac).cloned().unwrap_or_default();
        Some(Joined { mac: interface.mac, bridge: interface.bridge(&now.networks).ok()?, addresses })
    });
    Candidate {
        name: domain.name.clone(),
        uuid: domain.uuid.map(|uuid| uuid.to_string()),
        activity,
        memory: domain.memory,
        interfaces: joined.collect(),
        unjoined,
        obstacles: obstacles(domain, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain type='kvm'><name>web</name><memory>262144</memory><devices>\
        <interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='br0'/></interface>\
        <interface type='user'><mac address='52:54:00:00:00:03'/></interface>\
        <interface type='bridge'><mac address='52:54:00:00:00:04'/><source bridge='br1'/>\
        <link state='down'/></interface></devices></domain>";

    #[test]
    fn has_the_interfaces_that_can_be_stood_in_for_with_what_is_known_of_them() {
        let mut hints = Hints::default();
        let mac = "52:54:00:00:00:02".parse().unwrap();
        assert!(!hints.knows(mac));
        for address in ["10.9.0.2", "fd77::2", "10.9.0.2", "0.0.0.0", "127.0.0.1", "ff02::1", "web"] {
            hints.add("52:54:00:00:00:02", address);
        }
        hints.add("lo", "10.9.0.3");
        assert!(hints.knows(mac));
        let mut others = Hints::default();
        others.add("52:54:00:00:00:02", "10.9.0.99");
        others.add("52:54:00:00:00:03", "10.9.0.98");
        hints.fill_up(&others);
        assert!(hints.knows("52:54:00:00:00:03".parse().unwrap()));
        let domain = Description::from_xml(XML).unwrap();
        let found = candidate(&domain, Activity::Running, &Circumstances::default(), &hints);
        let addresses = vec!["10.9.0.2".parse().unwrap(), "fd77::2".parse().unwrap()];
        assert_eq!(found.interfaces, [Joined { mac, bridge: "br0".into(), addresses }]);
        assert_eq!((&*found.name, found.uuid, found.memory), ("web", None, 256 << 20));
        let what: Vec<_> = found.obstacles.iter().map(|obstacle| &*obstacle.what).collect();
        assert_eq!(what, ["interface 52:54:00:00:00:03", "guest agent"]);
    }

    #[test]
    fn hints_have_an_end() {
        let mut hints = Hints::default();
        (0..100).for_each(|n| hints.add("52:54:00:00:00:02", &format!("fd77::{n:x}:1")));
        assert_eq!(hints.0.values().next().unwrap().len(), ADDRESSES);
    }
}
