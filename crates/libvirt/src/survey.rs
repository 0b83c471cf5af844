//! Looking over the domains of a libvirt, one by one. Blocks: each domain takes some calls.

use std::collections::{BTreeMap, BTreeSet};

use dormouse_platform::{Activity, Candidate, Finding, NotFound};
use dormouse_sys::libvirt as more;
use dormouse_types::MacAddr;
use virt::{
    connect::Connect,
    domain::Domain,
    error::{Error, ErrorNumber},
    network::Network as NetworkHandle,
    sys,
};

use crate::{
    candidate::{Hints, candidate},
    xml::{Circumstances, Description, Network, Source, XmlError},
};

/// libvirt's networks, by name.
pub(crate) type Networks = BTreeMap<String, Network>;
/// Of interfaces: Ethernet address and IP address, as texts.
pub(crate) type Addresses = Vec<(String, String)>;

/// Why a domain cannot be judged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SurveyError {
    /// libvirt refused.
    #[error("{}", .0.message())]
    Libvirt(#[from] Error),
    /// Its description is not understood.
    #[error("{0}")]
    Xml(#[from] XmlError),
}

impl From<SurveyError> for NotFound {
    fn from(error: SurveyError) -> Self {
        match error {
            SurveyError::Libvirt(error) if error.code() == ErrorNumber::NoDomain => Self::Missing,
            error => Self::Unreadable(error.to_string()),
        }
    }
}

/// What there is to look at: the domains of these names or UUIDs, or all where none is named; and the networks.
pub(crate) fn list(connect: &Connect, names: Vec<String>) -> Result<(Vec<String>, Networks), SurveyError> {
    let networks = networks(connect)?;
    if !names.is_empty() {
        return Ok((names, networks));
    }
    let domains = connect.list_all_domains(0)?;
    // One that was undefined meanwhile is no domain any more.
    let mut all: Vec<String> = domains.iter().filter_map(|domain| domain.get_name().ok()).collect();
    all.sort();
    Ok((all, networks))
}

/// What is found of one domain without a word of its guest's.
pub(crate) struct Seen {
    description: Description,
    activity: Activity,
    now: Circumstances,
    /// What DHCP servers gave.
    leases: Hints,
    /// What is in the host's neighbour table.
    neighbours: Hints,
}

impl Seen {
    /// Is there an agent that answers? One whose guest stands still does not.
    pub(crate) fn has_agent(&self) -> bool {
        self.activity == Activity::Running && self.description.guest_agent_answers
    }

    /// Puts it together with the addresses that the guest's agent has told: where neither it nor a DHCP server
    /// knows any, the host's neighbour table may, and reservations count too.
    pub(crate) fn candidate(self, told: &Addresses) -> Candidate {
        let mut hints = self.leases;
        told.iter().for_each(|(mac, address)| hints.add(mac, address));
        hints.fill_up(&self.neighbours);
        for (mac, address) in self.now.networks.values().flat_map(|network| &network.hosts) {
            hints.insert(*mac, *address);
        }
        candidate(&self.description, self.activity, &self.now, &hints)
    }
}

/// A domain as it is defined now, or as it runs; without addresses, so that nobody is kept waiting.
pub(crate) fn definition(connect: &Connect, name: &str) -> Finding {
    let look = || {
        let domain = find(connect, name)?;
        let description = Description::from_xml(&domain.get_xml_desc(0)?)?;
        let now = Circumstances { networks: networks(connect)?, ..Circumstances::default() };
        Ok(candidate(&description, activity(&domain)?, &now, &Hints::default()))
    };
    Finding { name: name.to_owned(), found: look().map_err(SurveyError::into) }
}

/// A domain by its name, else by its UUID.
fn find(connect: &Connect, name: &str) -> Result<Domain, Error> {
    // The binding cannot pass on a text with a NUL.
    let name = name.replace('\0', "");
    Domain::lookup_by_name(connect, &name).or_else(|error| match name.parse::<uuid::Uuid>() {
        Ok(uuid) => Domain::lookup_by_uuid_string(connect, &uuid.to_string()),
        Err(_) => Err(error),
    })
}

/// libvirt's networks; a driver may have none.
pub(crate) fn networks(connect: &Connect) -> Result<Networks, SurveyError> {
    let all = match connect.list_all_networks(0) {
        Err(error) if error.code() == ErrorNumber::NoSupport => Vec::new(),
        all => all?,
    };
    let mut read = BTreeMap::new();
    for network in all {
        match network.get_xml_desc(0) {
            Ok(xml) => {
                let network = Network::from_xml(&xml)?;
                read.insert(network.name.clone(), network);
            }
            // It was undefined meanwhile.
            Err(error) if error.code() == ErrorNumber::NoNetwork => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(read)
}

/// All that is to be known of a domain, but what its guest's agent says.
pub(crate) fn examine(connect: &Connect, name: &str, networks: &Networks) -> Result<Seen, SurveyError> {
    let domain = find(connect, name)?;
    let description = Description::from_xml(&domain.get_xml_desc(0)?)?;
    let activity = activity(&domain)?;
    let now = circumstances(&domain, &description, networks.clone())?;
    let (mut leases, mut neighbours) = (Hints::default(), Hints::default());
    if matches!(activity, Activity::Running | Activity::Suspended) {
        let ask = |source, hints: &mut Hints| {
            addresses(&domain, source).iter().for_each(|(mac, address)| hints.add(mac, address));
        };
        ask(sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, &mut leases);
        if description.interfaces.iter().any(|interface| !leases.knows(interface.mac)) {
            ask(sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP, &mut neighbours);
        }
    } else {
        // Of one that is off, what it had last is better than nothing.
        leased(connect, &description, &mut leases);
    }
    Ok(Seen { description, activity, now, leases, neighbours })
}

/// What must be known of a domain beside its XML. What a driver of libvirt does not know a domain of it has not.
pub(crate) fn circumstances(
    domain: &Domain,
    description: &Description,
    networks: Networks,
) -> Result<Circumstances, Error> {
    let targets = description.disks.iter().filter_map(|disk| disk.target.as_deref());
    let works = |disk| more::has_block_job(domain, disk).unwrap_or(false);
    Ok(Circumstances {
        is_persistent: domain.is_persistent()?,
        has_autostart: domain.get_autostart().unwrap_or(false),
        snapshots: domain.list_all_snapshots(0).map_or(0, |all| u32::try_from(all.len()).unwrap_or(u32::MAX)),
        has_block_job: domain.is_active()? && targets.into_iter().any(works),
        networks,
    })
}

/// What the guest's agent says. May wait for it.
pub(crate) fn ask_agent(connect: &Connect, name: &str) -> Result<Addresses, Error> {
    Ok(addresses(&find(connect, name)?, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT))
}

fn activity(domain: &Domain) -> Result<Activity, Error> {
    let (state, _) = domain.get_state()?;
    Ok(match state {
        sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED | sys::VIR_DOMAIN_SHUTDOWN => Activity::Running,
        sys::VIR_DOMAIN_PAUSED | sys::VIR_DOMAIN_PMSUSPENDED => Activity::Suspended,
        _ if domain.has_managed_save(0).unwrap_or(false) => Activity::Saved,
        _ => Activity::Off,
    })
}

/// Ethernet and IP addresses, as texts. Whoever cannot say says nothing.
fn addresses(domain: &Domain, source: sys::virDomainInterfaceAddressesSource) -> Addresses {
    let told = domain.interface_addresses(source, 0).unwrap_or_default();
    let of = |interface: virt::domain::Interface| {
        let mac = interface.hwaddr;
        interface.addrs.into_iter().map(move |address| (mac.clone(), address.addr))
    };
    told.into_iter().flat_map(of).collect()
}

/// What DHCP servers of libvirt's networks still have in their books.
fn leased(connect: &Connect, description: &Description, hints: &mut Hints) {
    let named = description.interfaces.iter().filter_map(|interface| match &interface.source {
        Source::Network { name, .. } => Some(name),
        _ => None,
    });
    let macs: BTreeSet<MacAddr> = description.interfaces.iter().map(|interface| interface.mac).collect();
    for name in named.collect::<BTreeSet<_>>() {
        let leases = NetworkHandle::lookup_by_name(connect, name).and_then(|network| more::leases(&network));
        // Whoever cannot say says nothing.
        for (mac, address) in leases.unwrap_or_default() {
            if mac.parse().is_ok_and(|mac| macs.contains(&mac)) {
                hints.add(&mac, &address);
            }
        }
    }
}
