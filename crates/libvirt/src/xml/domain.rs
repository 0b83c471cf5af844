//! `<domain>`

use roxmltree::Node;
use uuid::Uuid;

use super::{
    Disk, Filesystem, HostDevice, Interface, Tpm, XmlError, device,
    read::{attribute, attribute_of, child, children, descend, document, is_yes, parsed, size, text},
};

/// Where `virsh edit` keeps what goes to QEMU unread.
const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";
/// The channel of QEMU's guest agent.
const GUEST_AGENT: &str = "org.qemu.guest_agent.0";

/// A domain, as its XML describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Its kind of virtualisation: `kvm`, `qemu`, `lxc`, `test`.
    pub kind: String,
    /// Its name, unique on its libvirt.
    pub name: String,
    /// Its UUID, which a rename does not change.
    pub uuid: Option<Uuid>,
    /// What its user calls it.
    pub title: Option<String>,
    /// The processor's architecture: `x86_64`.
    pub arch: Option<String>,
    /// The board: `pc-q35-7.2`.
    pub machine: Option<String>,
    /// Bytes of memory that the guest may have at most.
    pub memory: u64,
    /// Virtual processors that it may have at most.
    pub vcpus: u32,
    /// What its memory is made of.
    pub backing: Backing,
    /// Its memory is encrypted, or it is shielded from the host otherwise: `sev`, `tdx`.
    pub launch_security: Option<String>,
    /// Its processor has an invariant TSC of no stated frequency, or is said not to be migratable.
    pub cpu_unmigratable: bool,
    /// What it may do with its own power.
    pub pm: PowerManagement,
    /// What libvirt does when the guest shuts itself down: `destroy` if nothing is said.
    pub on_poweroff: Option<String>,
    /// What libvirt does when the guest reboots: `restart` if nothing is said.
    pub on_reboot: Option<String>,
    /// Its network interfaces, in the order of the XML.
    pub interfaces: Vec<Interface>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Folders of the host that it shares.
    pub filesystems: Vec<Filesystem>,
    /// Devices of the host that were given to it.
    pub host_devices: Vec<HostDevice>,
    /// Names of its virtio channels.
    pub channels: Vec<String>,
    /// In the XML of a running domain: its guest has opened the channel of the guest agent.
    pub guest_agent_answers: bool,
    /// Its TPM.
    pub tpm: Option<Tpm>,
    /// Names of memory regions that it shares with others (ivshmem), but those whose owner it is.
    pub shared_memory: Vec<String>,
    /// It has memory of Intel SGX.
    pub has_sgx: bool,
    /// TCP ports at which its screen is served, in the XML of a running domain; `None`: it has no screen that one
    /// can connect to.
    pub screen: Option<Vec<u16>>,
    /// Its virtual graphics card draws on the host's.
    pub has_host_graphics: bool,
    /// It speaks with the host by vsock.
    pub has_vsock: bool,
    /// Arguments that go to QEMU past libvirt.
    pub qemu_arguments: Vec<String>,
}

/// `<memoryBacking>`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backing {
    /// It is made of huge pages.
    pub huge_pages: bool,
    /// It may not be swapped.
    pub locked: bool,
    /// `anonymous`, `file`, `memfd`.
    pub source: Option<String>,
    /// Others may map it.
    pub shared: bool,
}

/// `<pm>`; `None` where QEMU's own default is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerManagement {
    /// The guest may suspend itself to memory (ACPI S3).
    pub to_memory: Option<bool>,
    /// The guest may suspend itself to disk (ACPI S4).
    pub to_disk: Option<bool>,
}

impl Description {
    /// Reads a domain's XML, as `virsh dumpxml` prints it.
    ///
    /// # Errors
    ///
    /// [`XmlError`], when it is not the XML of a domain.
    pub fn from_xml(xml: &str) -> Result<Self, XmlError> {
        document(xml, "domain", read)
    }

    /// Can its guest agent be asked, if one is installed in it?
    #[must_use]
    pub fn has_guest_agent(&self) -> bool {
        self.channels.iter().any(|name| name == GUEST_AGENT)
    }
}

fn read(root: Node<'_, '_>) -> Result<Description, XmlError> {
    let uuid = text(root, "uuid").map(|uuid| parsed("uuid", &uuid)).transpose()?;
    let memory = child(root, "memory").ok_or(XmlError::Missing("memory"))?;
    let vcpus = text(root, "vcpu").map_or(Ok(1), |count| parsed("vcpu", &count))?;
    let kind = descend(root, &["os", "type"]);
    let mut domain = Description {
        kind: attribute(root, "type").unwrap_or_default(),
        name: text(root, "name").ok_or(XmlError::Missing("name"))?,
        uuid,
        title: text(root, "title"),
        arch: kind.and_then(|kind| attribute(kind, "arch")),
        machine: kind.and_then(|kind| attribute(kind, "machine")),
        memory: size(memory, "memory")?,
        vcpus,
        backing: child(root, "memoryBacking").map(backing).unwrap_or_default(),
        launch_security: child(root, "launchSecurity")
            .map(|node| attribute(node, "type").unwrap_or_else(|| "launchSecurity".into())),
        cpu_unmigratable: child(root, "cpu").is_some_and(|cpu| is_unmigratable(root, cpu)),
        pm: power_management(root),
        on_poweroff: text(root, "on_poweroff"),
        on_reboot: text(root, "on_reboot"),
        qemu_arguments: qemu_arguments(root),
        ..Description::default()
    };
    if let Some(devices) = child(root, "devices") {
        add_devices(&mut domain, devices)?;
    }
    Ok(domain)
}

fn backing(node: Node<'_, '_>) -> Backing {
    Backing {
        huge_pages: child(node, "hugepages").is_some(),
        locked: child(node, "locked").is_some(),
        source: attribute_of(node, "source", "type"),
        shared: attribute_of(node, "access", "mode").as_deref() == Some("shared"),
    }
}

/// QEMU does not save a processor with an invariant TSC, unless its frequency is part of the
/// definition; `migratable='off'` brings that feature with it.
fn is_unmigratable(root: Node<'_, '_>, cpu: Node<'_, '_>) -> bool {
    let requires = |feature: Node<'_, '_>| {
        feature.attribute("name") == Some("invtsc")
            && matches!(feature.attribute("policy"), None | Some("require" | "force"))
    };
    let timers = child(root, "clock").into_iter().flat_map(|clock| children(clock, "timer"));
    let has_frequency =
        timers.filter(|timer| timer.attribute("name") == Some("tsc")).any(|t| t.has_attribute("frequency"));
    let is_off = is_yes(cpu.attribute("migratable")) == Some(false);
    !has_frequency && (is_off || children(cpu, "feature").any(requires))
}

fn power_management(root: Node<'_, '_>) -> PowerManagement {
    let is_on = |what| is_yes(descend(root, &["pm", what])?.attribute("enabled"));
    PowerManagement { to_memory: is_on("suspend-to-mem"), to_disk: is_on("suspend-to-disk") }
}

fn qemu_arguments(root: Node<'_, '_>) -> Vec<String> {
    let is_theirs = |node: &Node<'_, '_>| node.tag_name().namespace() == Some(QEMU_NAMESPACE);
    let lines = children(root, "commandline").filter(is_theirs);
    let arguments = lines.flat_map(|line| children(line, "arg"));
    arguments.filter_map(|argument| attribute(argument, "value")).collect()
}

fn add_devices(domain: &mut Description, devices: Node<'_, '_>) -> Result<(), XmlError> {
    for node in devices.children().filter(Node::is_element) {
        match node.tag_name().name() {
            "interface" => domain.interfaces.push(Interface::read(node)?),
            "disk" => domain.disks.push(device::disk(node)),
            "filesystem" => domain.filesystems.push(device::filesystem(node)),
            "hostdev" => domain.host_devices.push(device::host_device(node)),
            "channel" => {
                let name = attribute_of(node, "target", "name");
                let is_open = attribute_of(node, "target", "state").as_deref() == Some("connected");
                domain.guest_agent_answers |= is_open && name.as_deref() == Some(GUEST_AGENT);
                domain.channels.extend(name);
            }
            "tpm" => domain.tpm = device::tpm(node),
            "shmem" if node.attribute("role") != Some("master") => {
                domain.shared_memory.push(attribute(node, "name").unwrap_or_default());
            }
            "memory" => domain.has_sgx |= node.attribute("model") == Some("sgx-epc"),
            "video" => domain.has_host_graphics |= device::draws_on_host(node),
            "graphics" => {
                if let Some(ports) = device::screen(node) {
                    domain.screen.get_or_insert_default().extend(ports);
                }
            }
            "vsock" => domain.has_vsock = true,
            _ => {}
        }
    }
    Ok(())
}
