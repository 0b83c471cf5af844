//! What is under `<devices>`, but for interfaces.

use roxmltree::Node;

use super::read::{attribute, attribute_of, child, is_yes};

/// `<disk>`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// Where it comes from: `file`, `block`, `network`, `vhostuser`.
    pub kind: String,
    /// What the guest takes it for: `disk`, `cdrom`, `lun`.
    pub device: String,
    /// Its file, block device or name.
    pub source: Option<String>,
    /// The guest's name of it: `vda`.
    pub target: Option<String>,
    /// A block job that the live XML shows: `copy`, `active-commit`.
    pub job: Option<String>,
}

/// `<filesystem>`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    /// How: `virtiofs`, `path` (9p), `mtp`.
    pub driver: String,
    /// The guest's name of it.
    pub target: String,
}

/// `<hostdev>`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostDevice {
    /// `pci`, `usb`, `scsi`, `scsi_host`, `mdev`; of mode `capabilities` `storage`, `misc`, `net`.
    pub kind: String,
    /// Which one, as `0000:03:00.0`, or the UUID of a mediated device.
    pub address: Option<String>,
}

/// `<tpm>`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tpm {
    /// `emulator`, `passthrough`, `external`.
    pub backend: String,
}

pub(super) fn disk(node: Node<'_, '_>) -> Disk {
    let source = child(node, "source");
    let source =
        source.and_then(|s| ["file", "dev", "name", "volume", "path"].iter().find_map(|a| attribute(s, a)));
    let mirror = child(node, "mirror");
    Disk {
        kind: attribute(node, "type").unwrap_or_default(),
        device: attribute(node, "device").unwrap_or_else(|| "disk".into()),
        source,
        target: attribute_of(node, "target", "dev"),
        job: mirror.map(|mirror| attribute(mirror, "job").unwrap_or_else(|| "copy".into())),
    }
}

pub(super) fn filesystem(node: Node<'_, '_>) -> Filesystem {
    Filesystem {
        driver: attribute_of(node, "driver", "type").unwrap_or_else(|| "path".into()),
        target: attribute_of(node, "target", "dir").unwrap_or_default(),
    }
}

pub(super) fn host_device(node: Node<'_, '_>) -> HostDevice {
    let kind = attribute(node, "type").unwrap_or_default();
    HostDevice { address: child(node, "source").and_then(|source| address(&kind, source)), kind }
}

/// A device's address, as the tools for its bus write it.
fn address(kind: &str, source: Node<'_, '_>) -> Option<String> {
    if let (Some(vendor), Some(product)) = (child(source, "vendor"), child(source, "product")) {
        return Some(format!("{}:{}", id(vendor)?, id(product)?));
    }
    let address = child(source, "address")?;
    if let Some(uuid) = attribute(address, "uuid") {
        return Some(uuid);
    }
    let number = |name| address.attribute(name).and_then(number);
    match kind {
        "pci" => Some(format!(
            "{:04x}:{:02x}:{:02x}.{:x}",
            number("domain").unwrap_or(0),
            number("bus")?,
            number("slot")?,
            number("function")?
        )),
        "usb" => Some(format!("{}-{}", number("bus")?, number("device")?)),
        _ => None,
    }
}

fn id(node: Node<'_, '_>) -> Option<String> {
    Some(format!("{:04x}", number(node.attribute("id")?)?))
}

/// libvirt writes `0x03` and `3`.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

pub(super) fn tpm(node: Node<'_, '_>) -> Option<Tpm> {
    let backend = attribute_of(node, "backend", "type")?;
    Some(Tpm { backend })
}

/// The TCP ports of a screen that one can connect to. Those that are not known before a start are `-1`.
pub(super) fn screen(node: Node<'_, '_>) -> Option<Vec<u16>> {
    let ports = ["port", "tlsPort", "websocket"].into_iter().filter_map(|key| node.attribute(key));
    let ports = ports.filter_map(|port| port.parse().ok()).filter(|port| *port != 0);
    matches!(node.attribute("type"), Some("vnc" | "spice")).then(|| ports.collect())
}

/// virgl, whose state is the host's graphics card's.
pub(super) fn draws_on_host(node: Node<'_, '_>) -> bool {
    let acceleration = child(node, "model").and_then(|model| child(model, "acceleration"));
    acceleration.is_some_and(|node| is_yes(node.attribute("accel3d")) == Some(true))
}
