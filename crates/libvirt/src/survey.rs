//! Looking over the domains of a libvirt. Blocks: each domain takes some calls.

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

/// The domains of these names or UUIDs, or all where none is named.
pub(crate) fn survey(connect: &Connect, names: &[String]) -> Result<Vec<Finding>, SurveyError> {
    let networks = networks(connect)?;
    if !names.is_empty() {
        let look = |name: &String| examine(connect, &find(connect, name)?, &networks);
        let finding = |name: &String| Finding { name: name.clone(), found: look(name).map_err(Into::into) };
        return Ok(names.iter().map(finding).collect());
    }
    let mut found = Vec::new();
    for domain in connect.list_all_domains(0)? {
        // One that was undefined meanwhile is no domain any more.
        if let Ok(name) = domain.get_name() {
            found.push(Finding { name, found: examine(connect, &domain, &networks).map_err(Into::into) });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
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
fn networks(connect: &Connect) -> Result<BTreeMap<String, Network>, SurveyError> {
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

/// All that is to be known of a domain.
fn examine(
    connect: &Connect,
    domain: &Domain,
    networks: &BTreeMap<String, Network>,
) -> Result<Candidate, SurveyError> {
    let description = Description::from_xml(&domain.get_xml_desc(0)?)?;
    let activity = activity(domain)?;
    let now = Circumstances {
        is_persistent: domain.is_persistent()?,
        // A transient domain has none, and drivers may not have it at all.
        has_autostart: domain.get_autostart().unwrap_or(false),
        snapshots: domain.list_all_snapshots(0).map_or(0, |all| u32::try_from(all.len()).unwrap_or(u32::MAX)),
        has_block_job: false,
        networks: networks.clone(),
    };
    let mut hints = hints(domain, &description, activity, networks);
    // Of one that is off, what it had last is better than nothing.
    if !matches!(activity, Activity::Running | Activity::Suspended) {
        leased(connect, &description, &mut hints);
    }
    Ok(candidate(&description, activity, &now, &hints))
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

/// Addresses: what DHCP servers gave, what the guest's agent says, and where neither knows, what the host
/// has in its neighbour table.
fn hints(
    domain: &Domain,
    description: &Description,
    activity: Activity,
    networks: &BTreeMap<String, Network>,
) -> Hints {
    let mut hints = Hints::default();
    if matches!(activity, Activity::Running | Activity::Suspended) {
        ask(domain, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, &mut hints);
        // An agent that does not answer keeps the caller waiting; so does one whose guest stands still.
        if activity == Activity::Running && description.guest_agent_answers {
            ask(domain, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT, &mut hints);
        }
        if description.interfaces.iter().any(|interface| !hints.knows(interface.mac)) {
            ask(domain, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP, &mut hints);
        }
    }
    for (mac, address) in networks.values().flat_map(|network| &network.hosts) {
        hints.insert(*mac, *address);
    }
    hints
}

/// Whoever cannot say says nothing.
fn ask(domain: &Domain, source: sys::virDomainInterfaceAddressesSource, hints: &mut Hints) {
    for interface in domain.interface_addresses(source, 0).unwrap_or_default() {
        for address in &interface.addrs {
            hints.add(&interface.hwaddr, &address.addr);
        }
    }
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
