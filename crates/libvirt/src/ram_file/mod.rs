//! Domains whose memory is a file of ours: saved without their memory, and woken as fast whatever its size.
//!
//! ```text
//! definition   + -object memory-backend-file,...,share=on  -machine memory-backend=...     (once)
//! save         QEMU writes its devices' state alone (x-ignore-shared), the record is committed,
//!              the process is ended
//! load         a process from the XML of the saved one, waiting (-incoming defer), paused; it reads the state
//! ```
//!
//! Whoever starts the domain without us boots it on the same file: by that the state is known to be of no use.

mod xml;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dormouse_platform::{
    Error,
    saved::{self, MachineDir, Origin, Record},
};
use dormouse_sys::libvirt::monitor_command;
use roxmltree::Document;
use serde_json::{Value, json};
use virt::domain::Domain as Handle;

use crate::{hub::CallError, xml::Description};

pub(crate) use xml::{are_ours, has_ram_file, incoming, is_current, ram_file, with_ram_file, without};

/// Bytes per second: no limit that a disk could reach.
const BANDWIDTH: u64 = 1 << 40;
/// Milliseconds: the guest stands still while its state is written.
const DOWNTIME: u64 = 300_000;
/// Between two questions about a state that is being read or written.
const LOOK: Duration = Duration::from_millis(2);
/// The devices' state is some megabytes: nothing takes as long.
const STALL: Duration = Duration::from_secs(60);

/// The files of a domain's memory and state.
#[derive(Clone, Debug)]
pub(crate) struct Files(pub(crate) MachineDir);

impl Files {
    pub(crate) fn new(folder: &Path, machine: &str) -> Self {
        Self(MachineDir::new(folder.join(machine)))
    }

    /// The XML of the process that was saved.
    fn description(&self) -> PathBuf {
        self.0.path().join("domain.xml")
    }

    /// An empty memory for a boot, owned by who runs QEMU.
    pub(crate) fn make_ram(&self, size: u64, owner: Option<(u32, u32)>) -> Result<(), Error> {
        self.0.create()?;
        saved::discard(&self.0)?;
        let (ram, new) = (self.0.ram(), self.0.path().join("ram.new"));
        // QEMU opens the memory by its name, and nothing else here. Whoever starts the domain just now finds a
        // whole one.
        let make = || {
            for folder in self.0.path().ancestors().take(2) {
                fs::set_permissions(folder, fs::Permissions::from_mode(0o711))?;
            }
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.set_len(size)?;
            owner.map_or(Ok(()), |(uid, gid)| chown(&new, Some(uid), Some(gid)))?;
            fs::rename(&new, &ram)
        };
        make().map_err(failed("make", &ram))
    }

    /// Leaves nothing but an empty memory.
    pub(crate) fn empty(&self, size: u64, owner: Option<(u32, u32)>) -> Result<(), Error> {
        self.make_ram(size, owner)?;
        match fs::remove_file(self.description()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &self.description())(error))
            }
            _ => Ok(()),
        }
    }

    /// Is there an empty memory of this size, and its owner's?
    pub(crate) fn has_empty_ram(&self, size: u64, owner: Option<(u32, u32)>) -> bool {
        fs::metadata(self.0.ram()).is_ok_and(|ram| {
            let is_owners = owner.is_none_or(|owner| owner == (ram.uid(), ram.gid()));
            ram.len() == size && ram.blocks() == 0 && is_owners
        })
    }

    /// Is the file the memory of this process? One that others started may have opened it just before it was
    /// made anew, or see another folder at its place.
    pub(crate) fn is_memory_of(&self, pid: u32) -> bool {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        fs::metadata(self.0.ram()).is_ok_and(|ram| is_mapped(&maps, ram.ino()))
    }

    /// The first folder above ours that this user cannot pass through, by its mode.
    pub(crate) fn closed_to(&self, (uid, gid): (u32, u32)) -> Option<PathBuf> {
        let is_closed = |folder: &&Path| {
            fs::metadata(folder).is_ok_and(|meta| {
                let pass = match () {
                    () if meta.uid() == uid => 0o100,
                    () if meta.gid() == gid => 0o010,
                    () => 0o001,
                };
                uid != 0 && meta.mode() & pass == 0
            })
        };
        self.0.path().ancestors().skip(2).find(is_closed).map(Path::to_owned)
    }

    /// A file for the devices' state.
    pub(crate) fn make_state(&self) -> Result<File, Error> {
        saved::discard(&self.0)?;
        let path = self.0.state();
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.map_err(failed("make", &path))
    }

    pub(crate) fn open_state(&self) -> Result<File, Error> {
        File::open(self.0.state()).map_err(failed("open", &self.0.state()))
    }

    /// Puts all that was saved on stable storage.
    pub(crate) fn prepare(&self, xml: &str) -> Result<Record, Error> {
        let path = self.description();
        let put = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(xml.as_bytes())?;
            file.sync_all()
        };
        put().map_err(failed("write", &path))?;
        let description = Description::from_xml(xml).map_err(|e| Error::Unsupported(e.to_string()))?;
        let origin = Origin {
            qemu: String::new(),
            board: description.machine.clone().unwrap_or_default(),
            devices: devices(xml, &description),
            ram_in_file: true,
        };
        saved::prepare(&self.0, origin)
    }

    /// The XML to wake from, if the state is whole, and the memory and the disks are as they were.
    pub(crate) fn verify(&self) -> Result<String, Error> {
        let path = self.description();
        let xml = fs::read_to_string(&path).map_err(failed("read", &path))?;
        let description = Description::from_xml(&xml).map_err(|e| Error::Unsupported(e.to_string()))?;
        saved::verify(&self.0, &devices(&xml, &description))?;
        Ok(xml)
    }

    /// Gives the memory back to the host; it was put on its disk.
    pub(crate) fn evict(&self) -> Result<(), Error> {
        let path = self.0.ram();
        File::open(&path).and_then(dormouse_sys::memory::evict).map_err(failed("evict", &path))
    }
}

/// What a state belongs to: the process's XML, and its disks as they were last written. Others may have
/// run the domain while nobody watched: on other disks its memory is of no use.
fn devices(xml: &str, description: &Description) -> String {
    let mut words = vec![format!("{} octets of domain.xml", xml.len())];
    for disk in description.disks.iter().filter(|disk| disk.kind == "file" && disk.device == "disk") {
        let Some(source) = &disk.source else { continue };
        let seen = fs::metadata(source).and_then(|meta| Ok((meta.len(), meta.modified()?)));
        words.push(match seen {
            Ok((length, written)) => format!("{source} of {length} bytes, written {written:?}"),
            Err(error) => format!("{source}: {error}"),
        });
    }
    words.join("; ")
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

/// Why a domain's memory cannot be a file of ours, in words for the user.
pub(crate) fn obstacle(description: &Description, xml: &str) -> Option<&'static str> {
    let backing = &description.backing;
    let is_own =
        description.qemu_arguments.iter().any(|a| a.contains("memory-backend")) && !has_ram_file(xml);
    let has_numa = xml.contains("<numa>") || xml.contains("<maxMemory") || xml.contains("<memory model=");
    [
        (is_own, "its own QEMU arguments name its memory already"),
        (has_numa, "its memory is in NUMA cells, or can be plugged in"),
        (backing.huge_pages, "its memory is in huge pages"),
        (backing.locked, "its memory is locked"),
        (backing.source.is_some() || backing.shared, "its <memoryBacking> says already where its memory is"),
        (!description.host_devices.is_empty(), "a device of the host is passed through to it"),
        (description.launch_security.is_some(), "its memory is encrypted"),
        (
            description.disks.iter().any(|disk| disk.kind != "file"),
            "a disk is no file: whether others wrote it while the domain slept could not be told",
        ),
    ]
    .into_iter()
    .find_map(|(is_so, why)| is_so.then_some(why))
}

/// Who runs QEMU by libvirt's capabilities: `<model>dac</model>`, `<baselabel type='kvm'>+64055:+64055`.
pub(crate) fn owner(capabilities: &str, kind: &str) -> Option<(u32, u32)> {
    let document = Document::parse(capabilities).ok()?;
    let models = document.descendants().filter(|node| node.has_tag_name("secmodel"));
    let is_dac = |node: &roxmltree::Node<'_, '_>| {
        node.children().any(|c| c.has_tag_name("model") && c.text().is_some_and(|t| t.trim() == "dac"))
    };
    let model = models.into_iter().find(is_dac)?;
    let labels = model.children().filter(|node| node.has_tag_name("baselabel"));
    let text = labels.into_iter().find(|node| node.attribute("type") == Some(kind))?.text()?;
    let (uid, gid) = text.trim().split_once(':')?;
    Some((uid.trim_start_matches('+').parse().ok()?, gid.trim_start_matches('+').parse().ok()?))
}

/// What keeps QEMU from files that its definition's devices do not name, by libvirt's capabilities: `apparmor`.
pub(crate) fn confinement(capabilities: &str) -> Option<String> {
    let document = Document::parse(capabilities).ok()?;
    let models = document.descendants().filter(|node| node.has_tag_name("secmodel"));
    let mut names = models.flat_map(|model| model.children().filter(|child| child.has_tag_name("model")));
    let name =
        names.find_map(|name| Some(name.text()?.trim()).filter(|name| !matches!(*name, "none" | "dac")));
    name.map(str::to_owned)
}

/// proc_pid_maps(5): `7f00-7f10 rw-s 00000000 fe:00 1234   /var/lib/dormouse/domains/web/ram`.
fn is_mapped(maps: &str, inode: u64) -> bool {
    maps.lines().any(|line| {
        let mut words = line.split_ascii_whitespace().skip(4);
        words.next().and_then(|word| word.parse().ok()) == Some(inode) && line.ends_with("/ram")
    })
}

/// Has QEMU write its devices' state. The guest stands still before and after.
pub(crate) fn save(domain: &Handle, state: &File) -> Result<(), CallError> {
    let before = tell(domain, "query-migrate-parameters", Value::Null, None)?;
    share(domain, true)?;
    let saved = write_state(domain, state);
    if saved.is_err() {
        // Nothing can be set while it goes on.
        cancel(domain)?;
    }
    // With it a save or a snapshot of others would lack the memory.
    share(domain, false)?;
    // Its guest may go on in this process, and others migrate it.
    let limits = ["max-bandwidth", "downtime-limit"].into_iter();
    let limits = limits.filter_map(|key| Some((key.to_owned(), before.get(key)?.clone())));
    tell(domain, "migrate-set-parameters", Value::Object(limits.collect()), None)?;
    saved
}

/// A save or snapshot of others has the memory, whatever was being done when somebody stopped doing it.
pub(crate) fn save_whole(domain: &Handle) -> Result<(), CallError> {
    let all = tell(domain, "query-migrate-capabilities", Value::Null, None)?;
    let is_shared = |one: &Value| one["capability"] == "x-ignore-shared" && one["state"] == true;
    if all.as_array().is_some_and(|all| all.iter().any(is_shared)) {
        cancel(domain)?;
        share(domain, false)?;
    }
    Ok(())
}

/// Gives up what is being written, and waits until it is given up.
fn cancel(domain: &Handle) -> Result<(), CallError> {
    tell(domain, "migrate_cancel", Value::Null, None)?;
    let start = Instant::now();
    loop {
        let info = tell(domain, "query-migrate", Value::Null, None)?;
        match info["status"].as_str() {
            None | Some("none" | "completed" | "failed" | "cancelled") => return Ok(()),
            _ if start.elapsed() > STALL => return Err(CallError::Slow(STALL)),
            _ => std::thread::sleep(LOOK),
        }
    }
}

fn write_state(domain: &Handle, state: &File) -> Result<(), CallError> {
    let limits = json!({ "max-bandwidth": BANDWIDTH, "downtime-limit": DOWNTIME });
    tell(domain, "migrate-set-parameters", limits, None)?;
    tell(domain, "getfd", json!({ "fdname": "dormouse" }), Some(state.as_fd()))?;
    tell(domain, "migrate", json!({ "uri": "fd:dormouse" }), None)?;
    ended(domain)
}

/// Has a process that waits read it. The guest does not run yet.
pub(crate) fn load(domain: &Handle, state: &File) -> Result<(), CallError> {
    share(domain, true)?;
    tell(domain, "getfd", json!({ "fdname": "dormouse" }), Some(state.as_fd()))?;
    tell(domain, "migrate-incoming", json!({ "uri": "fd:dormouse" }), None)?;
    ended(domain)?;
    share(domain, false)
}

/// Does its process still wait for a state, or read it? Then its guest never ran.
pub(crate) fn waits(domain: &Handle) -> Result<bool, CallError> {
    let status = tell(domain, "query-status", Value::Null, None)?;
    Ok(matches!(status["status"].as_str(), Some("inmigrate" | "prelaunch")))
}

fn share(domain: &Handle, on: bool) -> Result<(), CallError> {
    let all = json!({ "capabilities": [{ "capability": "x-ignore-shared", "state": on }] });
    tell(domain, "migrate-set-capabilities", all, None).map(drop)
}

fn ended(domain: &Handle) -> Result<(), CallError> {
    let start = Instant::now();
    loop {
        let info = tell(domain, "query-migrate", Value::Null, None)?;
        match info["status"].as_str() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                let why = info["error-desc"].as_str().unwrap_or("QEMU does not say why");
                return Err(refused(format!("the devices' state: {why}")));
            }
            _ if start.elapsed() > STALL => return Err(CallError::Slow(STALL)),
            _ => std::thread::sleep(LOOK),
        }
    }
}

fn tell(
    domain: &Handle,
    command: &str,
    arguments: Value,
    file: Option<BorrowedFd<'_>>,
) -> Result<Value, CallError> {
    let mut order = json!({ "execute": command });
    if !arguments.is_null() {
        order["arguments"] = arguments;
    }
    let answer = monitor_command(domain, &order.to_string(), file)?;
    let mut answer: Value =
        serde_json::from_str(&answer).map_err(|error| refused(format!("{command}: {error}")))?;
    if let Some(error) = answer.get("error") {
        return Err(refused(format!("{command}: {}", error["desc"].as_str().unwrap_or("refused"))));
    }
    Ok(answer["return"].take())
}

fn refused(message: String) -> CallError {
    CallError::Said { code: virt::error::ErrorNumber::OperationFailed, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_who_runs_qemu() {
        let xml = "<capabilities><host><secmodel><model>apparmor</model><doi>0</doi></secmodel>\
            <secmodel><model>dac</model><doi>0</doi><baselabel type='kvm'>+64055:+106</baselabel>\
            <baselabel type='qemu'>+0:+0</baselabel></secmodel></host></capabilities>";
        assert_eq!(owner(xml, "kvm"), Some((64055, 106)));
        assert_eq!(owner(xml, "qemu"), Some((0, 0)));
        assert_eq!(owner("<capabilities/>", "kvm"), None);
        assert_eq!(owner("not xml", "kvm"), None);
        assert_eq!(confinement(xml).as_deref(), Some("apparmor"));
        assert_eq!(confinement(&xml.replace("apparmor", "none")), None);
        assert_eq!(confinement("not xml"), None);
    }

    #[test]
    fn knows_the_memory_of_a_process() {
        let maps = "55d0-55d1 r--p 00000000 fe:00 7 /usr/bin/qemu\n\
                    7f00-7f10 rw-s 00000000 fe:00 1234                 /var/lib/dormouse/domains/web/ram\n\
                    7f20-7f30 rw-s 00000000 fe:00 99 /d/web/ram (deleted)\n7f40-7f50 rw-p 00000000 00:00 0\n";
        assert!(is_mapped(maps, 1234));
        assert!(!is_mapped(maps, 7) && !is_mapped(maps, 99) && !is_mapped(maps, 0) && !is_mapped("", 1));
        assert!(!Files::new(Path::new("/nonexistent"), "web").is_memory_of(std::process::id()));
    }

    #[test]
    fn a_new_memory_is_empty_and_can_be_reached() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let files = Files::new(&dir.path().join("domains"), "web");
        assert!(!files.has_empty_ram(4096, None));
        files.make_ram(4096, None).unwrap();
        assert!(files.has_empty_ram(4096, None) && !files.has_empty_ram(8192, None));
        assert!(!files.has_empty_ram(4096, Some((12_345, 12_345))));
        assert_eq!(files.closed_to((12_345, 12_345)), None);
        fs::write(files.0.ram(), [1; 4096]).unwrap();
        assert!(!files.has_empty_ram(4096, None));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(files.closed_to((12_345, 12_345)).as_deref(), Some(dir.path()));
        assert_eq!(files.closed_to((0, 0)), None);
    }

    #[test]
    fn refuses_what_it_cannot_keep_safe() {
        let domain = |inside: &str| {
            let xml = format!(
                "<domain type='kvm'><name>web</name><memory unit='MiB'>256</memory>{inside}</domain>"
            );
            obstacle(&Description::from_xml(&xml).unwrap(), &xml)
        };
        assert_eq!(domain(""), None);
        for (inside, word) in [
            ("<memoryBacking><hugepages/></memoryBacking>", "huge"),
            ("<memoryBacking><locked/></memoryBacking>", "locked"),
            ("<memoryBacking><source type='memfd'/></memoryBacking>", "memoryBacking"),
            ("<maxMemory slots='4' unit='GiB'>4</maxMemory>", "plugged"),
            ("<launchSecurity type='sev'/>", "encrypted"),
            ("<devices><hostdev mode='subsystem' type='pci'/></devices>", "passed through"),
            ("<devices><disk type='network' device='disk'><source name='a'/></disk></devices>", "no file"),
        ] {
            assert!(domain(inside).is_some_and(|why| why.contains(word)), "{inside}: {:?}", domain(inside));
        }
    }
}
