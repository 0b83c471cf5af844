//! Machine files for the lab's guests.

use crate::{
    Error, Lab, Result,
    guest::{Image, KERNEL_OPTIONS},
};
use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};
use toml::{Table, Value};

/// A guest of the lab, as it will stand in its machine file.
///
/// The `number` makes its addresses: guest 2 is 10.9.0.2, fd77::2 and 52:54:00:00:00:02.
#[derive(Clone, Debug)]
pub struct Guest {
    name: String,
    number: u8,
    dirty: u8,
    dhcp: bool,
    options: String,
    disk: bool,
    overrides: Vec<(String, Value)>,
}

impl Guest {
    /// A guest of 256 MiB that sleeps only when told and wakes for any unicast packet.
    #[must_use]
    pub fn new(name: &str, number: u8) -> Self {
        Self {
            name: name.into(),
            number,
            dirty: 0,
            dhcp: false,
            options: String::new(),
            disk: false,
            overrides: Vec::new(),
        }
    }

    /// Sets any key of the machine file by its dotted path, as `sleep.idle_after`.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.overrides.push((path.into(), value.into()));
        self
    }

    /// Has the guest fill this percentage of its memory with incompressible data and check it.
    #[must_use]
    pub const fn dirty(mut self, percent: u8) -> Self {
        self.dirty = percent;
        self
    }

    /// Has it ask for its IPv4 address by DHCP; see [`DhcpServer`](crate::DhcpServer).
    #[must_use]
    pub const fn dhcp(mut self) -> Self {
        self.dhcp = true;
        self
    }

    /// Adds to the kernel command line.
    #[must_use]
    pub fn kernel_option(mut self, option: &str) -> Self {
        self.options = format!("{} {option}", self.options);
        self
    }

    /// Gives it an empty disk, `/dev/vda`.
    #[must_use]
    pub const fn with_disk(mut self) -> Self {
        self.disk = true;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address.
    #[must_use]
    pub const fn ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, self.number)
    }

    /// Its IPv6 address.
    #[must_use]
    pub fn ip6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, self.number.into())
    }

    /// Its Ethernet address.
    #[must_use]
    pub fn mac(&self) -> String {
        format!("52:54:00:00:00:{:02x}", self.number)
    }

    /// Writes the machine file into the lab's directory, with the image beside it.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub fn write(&self, lab: &Lab, image: &Image) -> Result<PathBuf> {
        self.write_as(lab, "qemu", self.qemu(lab, image)?, Lab::BRIDGE)
    }

    /// As [`Self::write`], with the table of another platform, and on another bridge.
    pub(crate) fn write_as(&self, lab: &Lab, platform: &str, table: Table, bridge: &str) -> Result<PathBuf> {
        let mut file = Table::new();
        let mut put = |path: &str, value: Value| set(&mut file, path, value);
        put("name", self.name.clone().into());
        put(platform, table.into());
        let interface = [("mac", self.mac()), ("bridge", bridge.to_owned())];
        let interface: Table = interface.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
        put("interface", Value::Array(vec![interface.into()]));
        put("sleep.idle_after", "10m".into());
        put("sleep.depth", "saved".into());
        put("wake.on", Value::Array(vec!["any-unicast".into()]));
        for (path, value) in &self.overrides {
            set(&mut file, path, value.clone());
        }
        lab.write(&format!("{}.toml", self.name), &file.to_string())
    }

    fn qemu(&self, lab: &Lab, image: &Image) -> Result<Table> {
        let mut qemu = Table::new();
        let mut put = |key: &str, value: Value| set(&mut qemu, key, value);
        put("memory", "256MiB".into());
        put("cpus", 1.into());
        put("kernel", text(&lab.link(&image.kernel())?));
        put("initrd", text(&lab.link(&image.initrd())?));
        put("cmdline", self.cmdline().into());
        if let Some(disk) = self.disk(lab, image)? {
            let entry = Table::from_iter([("image".to_owned(), text(&disk))]);
            put("disk", Value::Array(vec![entry.into()]));
        }
        Ok(qemu)
    }

    /// Its disk, made if it has one.
    pub(crate) fn disk(&self, lab: &Lab, image: &Image) -> Result<Option<PathBuf>> {
        if !self.disk {
            return Ok(None);
        }
        let disk = lab.dir().join(format!("{}.qcow2", self.name));
        if !disk.exists() {
            fs::copy(image.disk(), &disk).map_err(Error::file("copy", image.disk()))?;
        }
        Ok(Some(disk))
    }

    pub(crate) fn cmdline(&self) -> String {
        let Self { dirty, options, .. } = self;
        let ip = if self.dhcp { "dm.dhcp=1".to_owned() } else { format!("dm.ip={}/24", self.ip()) };
        format!("{KERNEL_OPTIONS} {ip} dm.ip6={}/64 dm.dirty={dirty}{options}", self.ip6())
    }
}

fn text(path: &std::path::Path) -> Value {
    path.to_string_lossy().into_owned().into()
}

/// Puts a value at a dotted path, making the tables on the way.
fn set(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(table.insert(path.to_owned(), value)),
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Table::new().into());
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_by_dotted_path() {
        let mut table = Table::new();
        set(&mut table, "sleep.idle_after", "5s".into());
        set(&mut table, "sleep.depth", "off".into());
        assert_eq!(table.to_string(), "[sleep]\ndepth = \"off\"\nidle_after = \"5s\"\n");
    }
}
