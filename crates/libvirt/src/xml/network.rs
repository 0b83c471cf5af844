//! `<network>`

use std::net::IpAddr;

use dormouse_types::MacAddr;
use ipnet::IpNet;
use roxmltree::Node;
use uuid::Uuid;

use super::{
    XmlError,
    read::{attribute, attribute_of, child, children, document, parsed, text},
};

/// A network of libvirt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: Option<Uuid>,
    /// How its guests reach others.
    pub forward: Forward,
    /// Its bridge: one that libvirt makes, or one of the host (mode `bridge`); `None` if it has none,
    /// or is not made yet.
    pub bridge: Option<String>,
    /// The host's addresses in it, with the prefix.
    pub ranges: Vec<IpNet>,
    /// It has a DHCP server of libvirt (dnsmasq).
    pub has_dhcp: bool,
    /// Addresses that its DHCP server always gives to the same guests.
    pub hosts: Vec<(MacAddr, IpAddr)>,
    /// It is made of Open vSwitch's ports.
    pub is_openvswitch: bool,
}

/// `<forward mode>`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forward {
    /// Only the host and each other.
    #[default]
    Isolated,
    /// By the host, which translates their addresses.
    Nat,
    /// By the host.
    Route,
    /// By the host, whose firewall libvirt leaves alone.
    Open,
    /// By a bridge of the host; where the network names a link instead, by macvtap on it.
    Bridge,
    /// By macvtap, in mode `private`, `vepa` or `passthrough`.
    Macvtap,
    /// By a virtual function of a network card.
    HostDevice,
}

impl Network {
    /// Reads a network's XML, as `virsh net-dumpxml` prints it.
    ///
    /// # Errors
    ///
    /// [`XmlError`], when it is not the XML of a network.
    pub fn from_xml(xml: &str) -> Result<Self, XmlError> {
        document(xml, "network", read)
    }
}

fn read(root: Node<'_, '_>) -> Result<Network, XmlError> {
    Ok(Network {
        name: text(root, "name").ok_or(XmlError::Missing("name"))?,
        uuid: text(root, "uuid").map(|uuid| parsed("uuid", &uuid)).transpose()?,
        forward: child(root, "forward").map_or(Ok(Forward::Isolated), forward)?,
        bridge: attribute_of(root, "bridge", "name"),
        ranges: children(root, "ip").map(range).collect::<Result<_, _>>()?,
        hosts: children(root, "ip").filter_map(|ip| child(ip, "dhcp")).flat_map(hosts).collect(),
        has_dhcp: children(root, "ip").any(|ip| child(ip, "dhcp").is_some()),
        is_openvswitch: attribute_of(root, "virtualport", "type").as_deref() == Some("openvswitch"),
    })
}

fn forward(node: Node<'_, '_>) -> Result<Forward, XmlError> {
    match node.attribute("mode") {
        None | Some("nat") => Ok(Forward::Nat),
        Some("route") => Ok(Forward::Route),
        Some("open") => Ok(Forward::Open),
        Some("bridge") => Ok(Forward::Bridge),
        Some("private" | "vepa" | "passthrough") => Ok(Forward::Macvtap),
        Some("hostdev") => Ok(Forward::HostDevice),
        Some(mode) => Err(XmlError::Value { what: "forward mode", value: mode.chars().take(60).collect() }),
    }
}

/// What is no address of a guest (a name, a DUID of IPv6) is passed over.
fn hosts(dhcp: Node<'_, '_>) -> impl Iterator<Item = (MacAddr, IpAddr)> {
    let read = |host: Node<'_, '_>| {
        Some((host.attribute("mac")?.parse().ok()?, host.attribute("ip")?.parse().ok()?))
    };
    children(dhcp, "host").filter_map(read)
}

fn range(node: Node<'_, '_>) -> Result<IpNet, XmlError> {
    let address = attribute(node, "address").ok_or(XmlError::Missing("ip address"))?;
    let address: IpAddr = parsed("ip address", &address)?;
    let netmask = attribute(node, "netmask");
    let range = match (attribute(node, "prefix"), &netmask) {
        (Some(prefix), _) => IpNet::new(address, parsed("ip prefix", &prefix)?).ok(),
        (None, Some(mask)) => IpNet::with_netmask(address, parsed("ip netmask", mask)?).ok(),
        // As libvirt does: by class, which nobody uses any more, and for IPv6 a link's.
        (None, None) => IpNet::new(address, if address.is_ipv4() { 24 } else { 64 }).ok(),
    };
    let value = netmask.or_else(|| attribute(node, "prefix")).unwrap_or_default();
    range.ok_or(XmlError::Value { what: "ip prefix", value: value.chars().take(60).collect() })
}
