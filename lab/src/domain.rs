//! Domains of libvirt for the lab's guests.

use crate::{
    Guest, Lab, Libvirtd, Result,
    guest::{self, Image},
    wait_until,
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// A guest of the lab as a domain of libvirt: name, addresses, kernel options and disk are the guest's.
#[derive(Clone, Debug)]
pub struct Domain {
    guest: Guest,
    mebibytes: u64,
    bridge: String,
    interface: String,
    pm: String,
    devices: String,
    extra: String,
}

impl Domain {
    /// A domain of 256 MiB with an interface on the lab's bridge.
    #[must_use]
    pub fn new(guest: Guest) -> Self {
        let interface = format!("<interface type='bridge'><source bridge='{}'/>", Lab::BRIDGE);
        Self {
            guest,
            mebibytes: 256,
            bridge: Lab::BRIDGE.into(),
            interface,
            pm: String::new(),
            devices: String::new(),
            extra: String::new(),
        }
    }

    /// Its memory in MiB.
    #[must_use]
    pub const fn memory(mut self, mebibytes: u64) -> Self {
        self.mebibytes = mebibytes;
        self
    }

    /// Has its interface in libvirt's network `default`; see [`Libvirtd::nat`].
    #[must_use]
    pub fn nat(mut self) -> Self {
        self.interface = "<interface type='network'><source network='default'/>".into();
        self.bridge = Libvirtd::NAT_BRIDGE.into();
        self
    }

    /// Has its interface on the lab's bridge as one of Open vSwitch's.
    #[must_use]
    pub fn openvswitch(mut self) -> Self {
        self.interface += "<virtualport type='openvswitch'/>";
        self
    }

    /// Names its tap; libvirt does otherwise.
    #[must_use]
    pub fn tap(mut self, name: &str) -> Self {
        self.interface += &format!("<target dev='{name}'/>");
        self
    }

    /// Gives it the channel of the QEMU guest agent.
    #[must_use]
    pub fn agent(self) -> Self {
        self.device("<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>")
    }

    /// Lets it suspend to memory (ACPI S3).
    #[must_use]
    pub fn suspend_to_memory(mut self) -> Self {
        self.pm = "<pm><suspend-to-mem enabled='yes'/><suspend-to-disk enabled='no'/></pm>".into();
        self
    }

    /// Adds to its `<devices>`.
    #[must_use]
    pub fn device(mut self, xml: &str) -> Self {
        self.devices += xml;
        self
    }

    /// Adds to its `<domain>`. The prefix `qemu` is there.
    #[must_use]
    pub fn extra(mut self, xml: &str) -> Self {
        self.extra += xml;
        self
    }

    /// The guest.
    #[must_use]
    pub const fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.guest.name()
    }

    /// The file with all that its consoles have said, over all its boots.
    #[must_use]
    pub fn console(&self, lab: &Lab) -> PathBuf {
        lab.dir().join(format!("{}.console.log", self.name()))
    }

    /// Waits until its console says for the `boots`th time that all its services run.
    ///
    /// # Errors
    ///
    /// If it does not in time.
    pub fn wait_ready(&self, lab: &Lab, boots: usize, timeout: Duration) -> Result<Duration> {
        let console = self.console(lab);
        wait_until(&format!("{} to boot", self.name()), timeout, || {
            let text = fs::read(&console).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            Ok(text.lines().filter(|line| line.trim() == guest::READY).count() >= boots)
        })
    }

    /// Writes its XML into the lab's directory, with the image beside it.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn write(&self, lab: &Lab, image: &Image) -> Result<PathBuf> {
        let xml = self.xml(lab, image)?;
        lab.write(&format!("{}.domain.xml", self.name()), &xml)
    }

    /// Writes a machine file for it into the lab's directory, as one would write by hand.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn machine_file(&self, lab: &Lab, libvirtd: &Libvirtd) -> Result<PathBuf> {
        let entries = [("domain", self.name().to_owned()), ("uri", libvirtd.uri())];
        let table = entries.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect();
        self.guest.write_as(lab, "libvirt", table, &self.bridge)
    }

    fn xml(&self, lab: &Lab, image: &Image) -> Result<String> {
        let Self { mebibytes, interface, pm, devices, extra, .. } = self;
        let disk = self.guest.disk(lab, image)?.map_or_else(String::new, |disk| {
            format!(
                "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
                 <source file='{}'/><target dev='vda' bus='virtio'/></disk>",
                disk.display()
            )
        });
        Ok(format!(
            "<domain type='{kind}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name><memory unit='MiB'>{mebibytes}</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{cmdline}</cmdline></os>
  <features><acpi/></features>{pm}
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/>
    {disk}{interface}<mac address='{mac}'/><model type='virtio'/></interface>
    <serial type='file'><source path='{console}' append='on'/></serial>{devices}</devices>
  {extra}
</domain>
",
            kind = if guest::has_kvm() { "kvm" } else { "qemu" },
            name = self.name(),
            kernel = linked(lab, &image.kernel())?,
            initrd = linked(lab, &image.initrd())?,
            cmdline = self.guest.cmdline(),
            mac = self.guest.mac(),
            console = self.console(lab).display(),
        ))
    }
}

fn linked(lab: &Lab, file: &Path) -> Result<String> {
    lab.link(file).map(|path| path.display().to_string())
}
