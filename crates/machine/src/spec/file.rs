//! The keys of a machine file.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use dormouse_types::{Depth, LeasePolicy, MacAddr, Service, ServiceKind};
use toml::de::DeTable;
use uuid::Uuid;

use super::read::{Report, Section, Value};
use super::{
    Accel, DiskFormat, DiskSpec, InterfaceSpec, LibvirtSave, LibvirtSpec, LimitsSpec, MachineSpec,
    MachineType, MemoryBacking, PlatformSpec, QemuSpec, ResponderSpec, SleepSpec, SpecErrors, WakeSpec,
};
use super::{deeper, keep, label, policy};
use crate::policy::parameter;

const MIB: u64 = 1 << 20;
/// The least and the most memory of a guest, bytes: less boots nothing, more is a slip of the pen.
const MEMORY: std::ops::RangeInclusive<u64> = 16 * MIB..=16 << 40;
/// The longest name of a link: `IFNAMSIZ` without its NUL.
const LINK_NAME: usize = 15;
/// The most services of a machine, and the most programs that are asked for it.
const HELPERS: usize = 16;
/// The longest banner, octets: it goes out in one segment.
const BANNER: usize = 1024;

pub(super) fn read(text: &str, base: &Path) -> Result<MachineSpec, SpecErrors> {
    let report = Report::new(text);
    let (document, faults) = DeTable::parse_recoverable(text);
    if !faults.is_empty() {
        for fault in faults {
            report.add(String::new(), fault.span(), None, format!("is not TOML: {}", fault.message()));
        }
        return Err(report.finish());
    }
    let machine = machine(Section::root(document.get_ref(), &report), base);
    let errors = report.finish();
    machine.filter(|_| errors.0.is_empty()).ok_or(errors)
}

fn machine(root: Section<'_, '_>, base: &Path) -> Option<MachineSpec> {
    let name = root.required("name", "\"web\"", parsed);
    let owner = root.optional("owner", label::owner);
    let labels = root.section("labels").map(|section| label::labels(&section)).unwrap_or_default();
    let qemu = root.section("qemu").map(|section| qemu(section, base).map(PlatformSpec::Qemu));
    let libvirt = root.section("libvirt").map(|section| libvirt(section).map(PlatformSpec::Libvirt));
    match (root.has("qemu"), root.has("libvirt")) {
        (false, false) => {
            root.wrong(
                "qemu",
                "is missing; write a table [qemu] or [libvirt] that says what runs the machine",
            );
        }
        (true, true) => root.wrong("libvirt", "cannot stand beside [qemu]; remove one of the tables"),
        _ => {}
    }
    let interfaces = interfaces(&root);
    let sleep = root.section("sleep").map_or_else(SleepSpec::default, sleep);
    let wake = root.section("wake").map_or_else(WakeSpec::default, wake);
    let services = services(&root);
    let responders = responders(&root);
    let limits = root.section("limits").map_or_else(LimitsSpec::default, limits);
    root.close();
    let platform = qemu.or(libvirt)??;
    let name = name?;
    Some(MachineSpec { name, owner, labels, platform, interfaces, sleep, wake, services, responders, limits })
}

fn qemu(section: Section<'_, '_>, base: &Path) -> Option<QemuSpec> {
    let memory = section.required("memory", "\"1GiB\"", memory);
    let cpus = section.optional("cpus", |v| integer(v, 1, 255)).unwrap_or(1);
    let machine = section
        .optional("machine", |v| one_of(v, &[("q35", MachineType::Q35), ("microvm", MachineType::Microvm)]));
    let accel = section
        .optional("accel", |v| one_of(v, &[("auto", Accel::Auto), ("kvm", Accel::Kvm), ("tcg", Accel::Tcg)]));
    let memory_backing = section.optional("memory_backing", |v| {
        one_of(v, &[("file", MemoryBacking::File), ("anonymous", MemoryBacking::Anonymous)])
    });
    let preallocate = section.optional("preallocate", boolean);
    let page_out = section.optional("page_out", boolean).unwrap_or(false);
    let disks = section.sections("disk", "disk = [{ image = \"web.qcow2\" }]");
    let disks = disks.into_iter().filter_map(|section| disk(section, base)).collect();
    let kernel = section.optional("kernel", |v| path(v, base));
    let initrd = section.optional("initrd", |v| path(v, base));
    let cmdline = section.optional("cmdline", cmdline);
    for key in ["initrd", "cmdline"] {
        if section.has(key) && !section.has("kernel") {
            section.wrong(key, "is of no use without a kernel; add qemu.kernel or remove it");
        }
    }
    if !section.has("kernel") && !section.has("disk") {
        section.wrong("disk", "is missing, and qemu.kernel too: there is nothing to boot; write one of them");
    }
    section.close();
    Some(QemuSpec {
        memory: memory?,
        cpus,
        machine: machine.unwrap_or_default(),
        disks,
        kernel,
        initrd,
        cmdline,
        accel: accel.unwrap_or_default(),
        memory_backing,
        preallocate,
        page_out,
    })
}

fn libvirt(section: Section<'_, '_>) -> Option<LibvirtSpec> {
    let domain = section.required("domain", "\"web\"", domain_name);
    let uuid = section.optional("uuid", uuid);
    let uri = section.optional("uri", |v| text(v, "a connection as \"qemu:///system\"").map(str::to_owned));
    let memory = section.optional("memory", memory);
    let save = section.optional("save", |v| {
        one_of(v, &[("managed", LibvirtSave::Managed), ("ram-file", LibvirtSave::RamFile)])
    });
    let page_out = section.optional("page_out", boolean).unwrap_or(false);
    section.close();
    Some(LibvirtSpec { domain: domain?, uuid, uri, memory, save: save.unwrap_or_default(), page_out })
}

fn uuid(value: &Value<'_>) -> Result<Uuid, String> {
    let allowed = "must be the domain's UUID, as \"c7a5fdbd-edaf-9455-926a-d65c16db1809\"";
    value.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| allowed.into())
}

/// libvirt allows more than a machine's name may be, but no slash and no line break.
fn domain_name(value: &Value<'_>) -> Result<String, String> {
    let name = text(value, "a domain's name in quotes")?;
    let clean = !name.is_empty() && !name.chars().any(|c| c == '/' || c.is_control());
    if clean { Ok(name.into()) } else { Err("must be a domain's name, without '/' and line breaks".into()) }
}

fn disk(section: Section<'_, '_>, base: &Path) -> Option<DiskSpec> {
    let image = section.required("image", "\"web.qcow2\"", |v| path(v, base));
    let format =
        section.optional("format", |v| one_of(v, &[("qcow2", DiskFormat::Qcow2), ("raw", DiskFormat::Raw)]));
    let readonly = section.optional("readonly", boolean).unwrap_or(false);
    let by_name = image.as_deref().and_then(format_by_name);
    if image.is_some() && by_name.is_none() && !section.has("format") {
        section.wrong("format", "is missing, and the image's name does not tell; write \"qcow2\" or \"raw\"");
    }
    section.close();
    Some(DiskSpec { image: image?, format: format.or(by_name)?, readonly })
}

fn format_by_name(image: &Path) -> Option<DiskFormat> {
    match image.extension()?.to_str()? {
        "qcow2" => Some(DiskFormat::Qcow2),
        "raw" | "img" | "iso" => Some(DiskFormat::Raw),
        _ => None,
    }
}

fn interfaces(root: &Section<'_, '_>) -> Vec<InterfaceSpec> {
    let mut interfaces: Vec<InterfaceSpec> = Vec::new();
    for section in root.sections("interface", "[[interface]] on a line of its own") {
        let mac = section.required("mac", "\"52:54:00:00:00:02\"", mac);
        let bridge = section.required("bridge", "\"br0\"", link_name);
        let addresses = section.list("addresses", "[\"10.9.0.2\"]", address).unwrap_or_default();
        if interfaces.iter().any(|other| Some(other.mac) == mac) {
            section.wrong("mac", "is the address of another interface of this machine; each needs its own");
        }
        if interfaces.iter().any(|other| other.addresses.iter().any(|a| addresses.contains(a))) {
            section.wrong("addresses", "has an address that another interface of this machine has");
        }
        section.close();
        if let (Some(mac), Some(bridge)) = (mac, bridge) {
            interfaces.push(InterfaceSpec { mac, bridge, addresses });
        }
    }
    interfaces
}

fn sleep(section: Section<'_, '_>) -> SleepSpec {
    let usual = SleepSpec::default();
    let depths = Depth::ALL.map(|depth| (depth.as_str(), depth));
    let spec = SleepSpec {
        idle_after: section.optional("idle_after", idle_after).unwrap_or(usual.idle_after),
        depth: section.optional("depth", |v| one_of(v, &depths)).unwrap_or(usual.depth),
        cpu_below: section.optional("cpu_below", percent).unwrap_or(usual.cpu_below),
        network_below: section.optional("network_below", rate).unwrap_or(usual.network_below),
        disk_below: section.optional("disk_below", rate).unwrap_or(usual.disk_below),
        grace: section.optional("grace", duration),
        policy: policy::read(&section),
        deeper: deeper::read(&section),
        keep: keep::read(&section),
    };
    section.close();
    spec
}

fn wake(section: Section<'_, '_>) -> WakeSpec {
    let spec = WakeSpec {
        on: section.list("on", "[\"tcp:22,80\"]", parsed).unwrap_or_else(|| WakeSpec::default().on),
        ignore: section.list("ignore", "[\"tcp:5666 from 10.0.0.9\"]", parsed).unwrap_or_default(),
        lease: section.optional("lease", |v| one_of(v, &LEASE)).unwrap_or_default(),
        boot_timeout: section.optional("boot_timeout", duration),
    };
    section.close();
    spec
}

const LEASE: [(&str, LeasePolicy); 3] =
    [("renew", LeasePolicy::Renew), ("wake", LeasePolicy::Wake), ("ignore", LeasePolicy::Ignore)];

fn services(root: &Section<'_, '_>) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for section in root.sections("service", "[[service]] on a line of its own") {
        let service = service(&section);
        if service.as_ref().is_some_and(|new| services.iter().any(|other| other.port == new.port)) {
            section
                .wrong("port", "has another service of this machine already; each needs a port of its own");
        }
        section.close();
        services.extend(service);
    }
    if services.len() > HELPERS {
        root.wrong("service", format!("is there too often; a machine can have {HELPERS}"));
    }
    services
}

fn service(section: &Section<'_, '_>) -> Option<Service> {
    let answers = [
        ("waking-page", ServiceKind::WakingPage),
        ("echo", ServiceKind::Echo),
        ("banner", ServiceKind::Banner(String::new())),
        ("connect", ServiceKind::Connect),
    ];
    let port = section.required("port", "80", |v| integer(v, 1, 65_535));
    let answer = section.required("answer", "\"waking-page\"", |v| one_of(v, &answers));
    let text = section.optional("text", banner);
    let wakes = section.optional("wakes", boolean);
    let kind = match (answer?, section.has("text")) {
        (ServiceKind::Banner(_), true) => ServiceKind::Banner(text?),
        (ServiceKind::Banner(_), false) => {
            section.wrong("text", "is missing; write what is sent, for example text = \"asleep\\n\"");
            return None;
        }
        (kind, true) => {
            section.wrong("text", "is sent by a banner only; write answer = \"banner\" or remove it");
            kind
        }
        (kind, false) => kind,
    };
    let wakes = wakes.unwrap_or(kind == ServiceKind::WakingPage);
    Some(Service { port: port?, kind, wakes })
}

fn responders(root: &Section<'_, '_>) -> Vec<ResponderSpec> {
    let mut responders: Vec<ResponderSpec> = Vec::new();
    for section in root.sections("responder", "[[responder]] on a line of its own") {
        let name = section.required("name", "\"echo\"", responder_name);
        if !section.has("frames") {
            section.wrong("frames", "is missing; write for example frames = [\"udp:7\"]");
        }
        let frames = section.list("frames", "[\"udp:7\"]", parsed).unwrap_or_default();
        if section.is_empty_list("frames") {
            section
                .wrong("frames", "is empty, so that it would never be asked; write for example [\"udp:7\"]");
        }
        if responders.iter().any(|other| Some(&other.name) == name.as_ref()) {
            section.wrong("name", "is another responder's of this machine; write all its frames there");
        }
        section.close();
        responders.extend(name.map(|name| ResponderSpec { name, frames }));
    }
    if responders.len() > HELPERS {
        root.wrong("responder", format!("is there too often; a machine can have {HELPERS}"));
    }
    responders
}

fn limits(section: Section<'_, '_>) -> LimitsSpec {
    let spec = LimitsSpec {
        queue_frames: section.optional("queue_frames", |v| integer(v, 1, 1 << 20)),
        queue_bytes: section.optional("queue_bytes", queue_bytes),
    };
    section.close();
    spec
}

pub(super) fn text<'v>(value: &'v Value<'_>, allowed: &str) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| format!("is not a text; write {allowed}"))
}

/// A text that a type of ours reads; its error says what is allowed.
pub(super) fn parsed<T: FromStr<Err: std::fmt::Display>>(value: &Value<'_>) -> Result<T, String> {
    text(value, "it in quotes")?.parse().map_err(|error: T::Err| error.to_string())
}

pub(super) fn one_of<T: Clone>(value: &Value<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let allowed = || {
        let words: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        format!("must be one of {}", words.join(", "))
    };
    let found = value.as_str().and_then(|text| words.iter().find(|(word, _)| *word == text));
    found.map(|(_, value)| value.clone()).ok_or_else(allowed)
}

fn whole(value: &Value<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

fn integer<T: TryFrom<i64>>(value: &Value<'_>, least: i64, most: i64) -> Result<T, String> {
    let number = whole(value).filter(|n| (least..=most).contains(n));
    number
        .and_then(|n| n.try_into().ok())
        .ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

pub(super) fn boolean(value: &Value<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "must be true or false".into())
}

/// Bytes, as a number or with a unit.
fn size(value: &Value<'_>, suffix: &str) -> Option<u64> {
    if let Some(number) = whole(value) {
        return number.try_into().ok();
    }
    let text = value.as_str()?;
    text.strip_suffix(suffix).unwrap_or(text).parse::<ByteSize>().ok().map(|size| size.0)
}

fn memory(value: &Value<'_>) -> Result<u64, String> {
    let bytes = size(value, "").filter(|bytes| MEMORY.contains(bytes) && bytes % MIB == 0);
    bytes.ok_or_else(|| "must be a whole number of MiB from 16MiB to 16TiB, as \"512MiB\" or \"1GiB\"".into())
}

fn queue_bytes(value: &Value<'_>) -> Result<u64, String> {
    let bytes = size(value, "").filter(|bytes| (64 << 10..=1 << 30).contains(bytes));
    bytes.ok_or_else(|| "must be a size from 64KiB (one large frame) to 1GiB, as \"8MiB\"".into())
}

fn rate(value: &Value<'_>) -> Result<u64, String> {
    let bytes = size(value, "/s").filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| "must be bytes a second, more than 0, as \"1KiB\" or \"1KiB/s\"".into())
}

/// A number, whole or not.
pub(super) fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Float(number) => number.as_str().parse().ok(),
        _ => whole(value).and_then(|n| u32::try_from(n).ok()).map(f64::from),
    }
}

fn percent(value: &Value<'_>) -> Result<f64, String> {
    let number = match value {
        Value::String(text) => text.strip_suffix('%').and_then(|n| n.trim().parse().ok()),
        _ => number(value),
    };
    let number = number.filter(|n: &f64| n.is_finite() && *n > 0.0 && *n <= 25_600.0);
    number.ok_or_else(|| "must be percent of one processor, more than 0, as 10 or 2.5".into())
}

pub(super) fn duration(value: &Value<'_>) -> Result<Duration, String> {
    let span = value.as_str().and_then(|text| humantime::parse_duration(text).ok());
    // A year bounds it, so that sums of times cannot overflow.
    let span = span.filter(|span| *span <= Duration::from_secs(366 * 86_400));
    span.ok_or_else(|| {
        "must be a time of at most a year with its unit, as \"200ms\", \"10m\" or \"1h 30m\"".into()
    })
}

pub(super) fn idle_after(value: &Value<'_>) -> Result<Option<Duration>, String> {
    parameter("idle_after", value.as_str().unwrap_or_default())
}

fn mac(value: &Value<'_>) -> Result<MacAddr, String> {
    let mac: MacAddr = parsed(value)?;
    if mac.is_multicast() || mac.0 == [0; 6] {
        return Err(
            "is a group address or zero; a machine's own has an even first octet, as 52:54:00:00:00:02"
                .into(),
        );
    }
    Ok(mac)
}

fn address(value: &Value<'_>) -> Result<IpAddr, String> {
    let allowed = "must be an IPv4 or IPv6 address of the machine without a prefix length, as \"10.9.0.2\"";
    let address = value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
    address.filter(|a| !a.is_multicast() && !a.is_unspecified()).ok_or_else(|| allowed.into())
}

fn link_name(value: &Value<'_>) -> Result<String, String> {
    let allowed = "must be the name of a bridge: 1 to 15 characters without '/', ':' and blanks, as \"br0\"";
    let name = text(value, "it in quotes")?;
    let fits = (1..=LINK_NAME).contains(&name.len()) && name != "." && name != "..";
    let clean = !name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if fits && clean { Ok(name.into()) } else { Err(allowed.into()) }
}

fn responder_name(value: &Value<'_>) -> Result<String, String> {
    program_name(text(value, "it in quotes")?, "responder")
}

/// A key of `[responder]` or `[policy]` in the daemon's configuration.
pub(super) fn program_name(name: &str, table: &str) -> Result<String, String> {
    let clean = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if clean && (1..=63).contains(&name.len()) {
        return Ok(name.into());
    }
    Err(format!(
        "must have the NAME of a table [{table}.NAME] of dormoused.toml: letters, digits, '-' and '_'"
    ))
}

fn banner(value: &Value<'_>) -> Result<String, String> {
    let text = text(value, "what is sent, in quotes")?;
    if (1..=BANNER).contains(&text.len()) {
        Ok(text.into())
    } else {
        Err(format!("must have 1 to {BANNER} octets; a line ends with \\r\\n"))
    }
}

fn path(value: &Value<'_>, base: &Path) -> Result<PathBuf, String> {
    match text(value, "a path in quotes")? {
        "" => Err("is empty; write the path of a file".into()),
        path if path.chars().any(char::is_control) => {
            Err("has a control character; write a plain path".into())
        }
        path => Ok(base.join(path)),
    }
}

fn cmdline(value: &Value<'_>) -> Result<String, String> {
    let line = text(value, "the kernel's command line in quotes")?;
    // Linux on x86 reads 2,048 octets (COMMAND_LINE_SIZE).
    if line.len() < 2048 && !line.chars().any(char::is_control) {
        Ok(line.into())
    } else {
        Err("must be one line of less than 2048 octets".into())
    }
}
