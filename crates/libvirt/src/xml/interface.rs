//! `<interface>`

use std::collections::BTreeMap;

use dormouse_types::MacAddr;
use roxmltree::Node;

use super::{
    Forward, Network, XmlError,
    read::{attribute, attribute_of, child, children, is_yes, parsed},
};

/// A network interface of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The guest's Ethernet address.
    pub mac: MacAddr,
    /// What it is joined to.
    pub source: Source,
    /// `<virtualport type>`: `openvswitch`, `802.1Qbg`, ...
    pub virtual_port: Option<String>,
    /// The port group of its network.
    pub port_group: Option<String>,
    /// VLANs that it is in, where its switch has them.
    pub vlans: Vec<u16>,
    /// The link on the host, in the XML of a running domain: `vnet0`.
    pub target: Option<String>,
    /// The device that the guest sees: `virtio`, `e1000e`.
    pub model: Option<String>,
    /// Its cable is plugged in.
    pub is_up: bool,
    /// It may not speak with other isolated interfaces of its bridge.
    pub is_isolated: bool,
}

/// What an interface is joined to: `<interface type>` and its `<source>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A bridge of the host.
    Bridge(String),
    /// A network of libvirt.
    Network {
        /// Its name.
        name: String,
        /// Its bridge, in the XML of a running domain.
        bridge: Option<String>,
    },
    /// A link of the host, by macvtap.
    Direct {
        /// The link.
        link: String,
    },
    /// Any other kind, by its word: `user`, `vhostuser`, `hostdev`, `ethernet`, ...
    Other(String),
}

/// Why nobody could stand in for an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// Why.
    pub reason: String,
    /// What the user can do.
    pub fix: String,
    /// Nobody reaches the guest there in any case, so that nothing is lost while it sleeps.
    pub is_harmless: bool,
}

impl Interface {
    pub(super) fn read(node: Node<'_, '_>) -> Result<Self, XmlError> {
        let mac = attribute_of(node, "mac", "address").ok_or(XmlError::Missing("mac address"))?;
        let tags = child(node, "vlan").into_iter().flat_map(|vlan| children(vlan, "tag"));
        let vlans = tags.filter_map(|tag| tag.attribute("id"));
        let source = child(node, "source");
        Ok(Self {
            mac: parsed("mac address", &mac)?,
            source: read_source(node)?,
            virtual_port: attribute_of(node, "virtualport", "type"),
            port_group: source.and_then(|source| attribute(source, "portgroup")),
            vlans: vlans.map(|id| parsed("vlan tag id", id)).collect::<Result<_, _>>()?,
            target: attribute_of(node, "target", "dev"),
            model: attribute_of(node, "model", "type"),
            is_up: attribute_of(node, "link", "state").as_deref() != Some("down"),
            is_isolated: is_yes(child(node, "port").and_then(|p| p.attribute("isolated"))) == Some(true),
        })
    }

    /// The bridge whose frames reach it; `networks` are libvirt's, by name.
    ///
    /// # Errors
    ///
    /// [`Unreachable`], when there is none, so that nobody could stand in for it.
    pub fn bridge(&self, networks: &BTreeMap<String, Network>) -> Result<String, Unreachable> {
        match &self.source {
            Source::Bridge(bridge) => Ok(bridge.clone()),
            Source::Network { bridge: Some(bridge), .. } => Ok(bridge.clone()),
            Source::Network { name, bridge: None } => match networks.get(name) {
                Some(network) => through(network),
                None => Err(unreachable(
                    format!("there is no network {name} in its libvirt"),
                    format!("define it (virsh net-define), or give the interface another: {EDIT}"),
                )),
            },
            Source::Direct { link } => Err(macvtap(&format!("on {link}"))),
            Source::Other(kind) => Err(other(kind)),
        }
    }
}

const EDIT: &str = "virsh edit, <interface type='bridge'>";

fn unreachable(reason: impl Into<String>, fix: impl Into<String>) -> Unreachable {
    Unreachable { reason: reason.into(), fix: fix.into(), is_harmless: false }
}

fn through(network: &Network) -> Result<String, Unreachable> {
    let name = &network.name;
    match (network.forward, &network.bridge) {
        (Forward::Macvtap, _) | (Forward::Bridge, None) => Err(macvtap(&format!("by network {name}"))),
        (Forward::HostDevice, _) => Err(other("hostdev")),
        (_, Some(bridge)) => Ok(bridge.clone()),
        (_, None) => Err(unreachable(
            format!("network {name} has no bridge yet"),
            format!(
                "start it, and let it be started always: virsh net-start {name}; virsh net-autostart {name}"
            ),
        )),
    }
}

fn macvtap(on: &str) -> Unreachable {
    unreachable(
        format!("it is a macvtap {on}: its link gives frames to nobody else while the guest sleeps"),
        format!("put the link into a bridge, and the interface too: {EDIT}"),
    )
}

fn other(kind: &str) -> Unreachable {
    match kind {
        "user" => Unreachable {
            is_harmless: true,
            ..unreachable(
                "its network is a program's (type user): only the guest itself opens connections there, and \
                 nothing that comes by it wakes the guest",
                format!("nothing, unless ports are forwarded to it; then use a bridge: {EDIT}"),
            )
        },
        "vhostuser" => unreachable(
            "its frames go through memory that a switch in user space shares with the guest (vhost-user)",
            format!("use a bridge of Linux or of Open vSwitch's kernel datapath: {EDIT}"),
        ),
        "hostdev" | "vdpa" => unreachable(
            "it is a network card of the host, given to the guest: its frames never pass through the host",
            format!("use a bridge: {EDIT}"),
        ),
        "ethernet" => unreachable(
            "its link on the host is made and joined by a script that libvirt does not know the bridge of",
            format!("let libvirt join it: {EDIT}"),
        ),
        kind => unreachable(
            format!("it is of type {kind}, which is no bridge of this host"),
            format!("use a bridge: {EDIT}"),
        ),
    }
}

fn read_source(node: Node<'_, '_>) -> Result<Source, XmlError> {
    let source = |name| child(node, "source").and_then(|source| attribute(source, name));
    match node.attribute("type").unwrap_or_default() {
        "bridge" => source("bridge").map(Source::Bridge).ok_or(XmlError::Missing("source bridge")),
        "network" => {
            let name = source("network").ok_or(XmlError::Missing("source network"))?;
            Ok(Source::Network { name, bridge: source("bridge") })
        }
        "direct" => Ok(Source::Direct { link: source("dev").unwrap_or_default() }),
        "" => Err(XmlError::Missing("interface type")),
        kind => Ok(Source::Other(kind.into())),
    }
}
