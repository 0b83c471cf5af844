//! The machine file of the manual, every default, and every way to get it wrong.

use super::*;
use dormouse_types::ServiceKind;
use proptest::prelude::*;

const MANUAL: &str = r#"
name = "web"
owner = "alice@example.org"
[labels]
project = "shop"
"cost.centre" = "4711, Nord"
[qemu]
memory = "1GiB"
cpus = 1
disk = [{ image = "web.qcow2" }, { image = "/srv/data", format = "raw", readonly = true }]
kernel = "vmlinuz"
[[interface]]
mac = "52:54:00:00:00:02"
bridge = "br0"
addresses = ["10.9.0.2", "fd77::2"]
[sleep]
idle_after = "10m"
depth = "saved"
network_below = "2KiB/s"
cpu_below = 2.5
[wake]
on = ["tcp:22,80", "udp:53 from 10.0.0.0/8 rate 3/10s", "any-unicast", "magic"]
ignore = ["tcp:5666 from 10.9.0.9", "udp:137,138"]
lease = "wake"
[[service]]
port = 80
answer = "waking-page"
[[service]]
port = 7
answer = "echo"
wakes = true
[[service]]
port = 25
answer = "banner"
text = "421 asleep\r\n"
[[responder]]
name = "snmp"
frames = ["udp:161", "udp:162 from 10.9.0.0/24"]
[limits]
queue_bytes = "8MiB"
"#;

const LEAST: &str = "name = \"web\"\nqemu = { memory = 268435456, kernel = \"vmlinuz\" }\n";

fn read(text: &str) -> Result<MachineSpec, SpecErrors> {
    MachineSpec::from_toml(text, Path::new("/srv/web"))
}

fn qemu(spec: &MachineSpec) -> &QemuSpec {
    let PlatformSpec::Qemu(qemu) = &spec.platform else { panic!("the file says [qemu]") };
    qemu
}

#[test]
fn reads_the_file_of_the_manual() {
    let spec = read(MANUAL).unwrap();
    assert_eq!(spec.name.as_str(), "web");
    assert_eq!(spec.owner.as_deref(), Some("alice@example.org"));
    let labels = [("cost.centre", "4711, Nord"), ("project", "shop")];
    assert_eq!(spec.labels, labels.map(|(key, value)| (key.into(), value.into())).into());
    assert_eq!(spec.platform.memory(), 1 << 30);
    let disks = [("/srv/web/web.qcow2", DiskFormat::Qcow2, false), ("/srv/data", DiskFormat::Raw, true)];
    let disks =
        disks.map(|(image, format, readonly)| DiskSpec { image: PathBuf::from(image), format, readonly });
    assert_eq!(qemu(&spec).disks, disks);
    assert_eq!(qemu(&spec).kernel, Some("/srv/web/vmlinuz".into()));
    assert_eq!(spec.interfaces[0].addresses.len(), 2);
    assert_eq!(spec.sleep.idle_after, Some(Duration::from_secs(600)));
    assert_eq!((spec.sleep.network_below, spec.sleep.cpu_below), (2048, 2.5));
    assert_eq!(spec.wake.on.len(), 4);
    assert_eq!(spec.wake.ignore[0].to_string(), "tcp:5666 from 10.9.0.9");
    assert_eq!(spec.wake.lease, LeasePolicy::Wake);
    let services = [
        (80, ServiceKind::WakingPage, true),
        (7, ServiceKind::Echo, true),
        (25, ServiceKind::Banner("421 asleep\r\n".into()), false),
    ];
    assert_eq!(spec.services, services.map(|(port, kind, wakes)| Service { port, kind, wakes }));
    assert_eq!((&*spec.responders[0].name, spec.responders[0].frames.len()), ("snmp", 2));
    assert_eq!(spec.limits, LimitsSpec { queue_frames: None, queue_bytes: Some(8 << 20) });
}

#[test]
fn what_is_not_said_has_its_default() {
    let spec = read(LEAST).unwrap();
    assert_eq!(spec.platform.memory(), 256 << 20);
    assert_eq!((qemu(&spec).machine, qemu(&spec).accel), (MachineType::Q35, Accel::Auto));
    assert_eq!((spec.sleep, spec.wake), (SleepSpec::default(), WakeSpec::default()));
    assert_eq!((spec.owner, spec.labels), (None, [].into()));
    assert_eq!((spec.limits, spec.interfaces), (LimitsSpec::default(), vec![]));
    assert_eq!((spec.services, spec.responders), (vec![], vec![]));
    let never = read(&format!("{LEAST}[sleep]\nidle_after = \"never\"\n")).unwrap();
    assert_eq!(never.sleep.idle_after, None);
}

#[test]
fn is_kept_as_json() {
    for text in [MANUAL, LEAST] {
        let spec = read(text).unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<MachineSpec>(&json).unwrap(), spec);
    }
}

#[test]
fn reports_everything_at_once_in_the_order_of_the_file() {
    let text = r#"name = "my vm"
[qemu]
memory = "1TB of it"
cpus = 0
machine = "pc"
initrd = "initrd"
[[interface]]
mac = "01:00:5e:00:00:01"
bridge = "a-very-long-bridge-name"
addresses = ["10.9.0.2/24", 7]
[sleep]
idle_afer = "10m"
depth = "deep"
cpu_below = -1
[wake]
on = ["tcp:0", "icpm"]
"#;
    let errors = read(text).unwrap_err();
    let found: Vec<_> = errors.0.iter().map(|error| (error.line.unwrap(), &*error.key)).collect();
    let expected = [
        (1, "name"),
        (2, "qemu.disk"),
        (3, "qemu.memory"),
        (4, "qemu.cpus"),
        (5, "qemu.machine"),
        (6, "qemu.initrd"),
        (8, "interface[1].mac"),
        (9, "interface[1].bridge"),
        (10, "interface[1].addresses[1]"),
        (10, "interface[1].addresses[2]"),
        (12, "sleep.idle_afer"),
        (13, "sleep.depth"),
        (14, "sleep.cpu_below"),
        (16, "wake.on[1]"),
        (16, "wake.on[2]"),
    ];
    assert_eq!(found, expected, "{errors}");
    let text = errors.to_string();
    for line in [
        r#"line 5: qemu.machine = "pc": must be one of "q35", "microvm""#,
        r#"line 4: qemu.cpus = 0: must be a whole number from 1 to 255"#,
        r#"line 12: sleep.idle_afer = "10m": is not a key of a machine file; here there can be idle_after,"#,
        r#"line 13: sleep.depth = "deep": must be one of "paused", "pmsuspended", "saved", "off""#,
    ] {
        assert!(text.contains(line), "{line}\nis not in\n{text}");
    }
}

#[test]
fn names_what_is_missing() {
    let errors = read("[[interface]]\n[[interface]]\nmac = \"52:54:00:00:00:02\"\n").unwrap_err().to_string();
    for key in
        ["name: is missing", "qemu: is missing", "interface[1].mac: is missing", "interface[2].bridge: is"]
    {
        assert!(errors.contains(key), "{key}\nis not in\n{errors}");
    }
    assert!(errors.contains("line 2: interface[2].bridge"), "{errors}");
}

/// One wrong thing each; the key that is blamed.
#[test]
fn blames_the_right_key() {
    let interface = "[[interface]]\nmac = \"52:54:00:00:00:02\"\nbridge = \"br0\"\n";
    for (text, key) in [
        (format!("{LEAST}{interface}{interface}"), "interface[2].mac"),
        (format!("{LEAST}{interface}mtu = 9000\n"), "interface[1].mtu"),
        (format!("{LEAST}owner = \"a b\""), "owner"),
        (format!("{LEAST}owner = \"\""), "owner"),
        (format!("{LEAST}owner = \"@alice\""), "owner"),
        (format!("{LEAST}labels = 3"), "labels"),
        (format!("{LEAST}labels.a = \"=HYPERLINK(1)\""), "labels.a"),
        (format!("{LEAST}labels.a = \"-1\""), "labels.a"),
        (format!("{LEAST}labels.a = \"\u{ff1d}1\""), "labels.a"),
        (format!("{LEAST}labels.\"a b\" = \"c\""), "labels.a b"),
        (format!("{LEAST}labels.a = 3"), "labels.a"),
        (format!("{LEAST}labels.a = \"b\\nc\""), "labels.a"),
        (
            format!("{LEAST}[labels]\n{}", (0..33).map(|n| format!("a{n} = \"b\"\n")).collect::<String>()),
            "labels",
        ),
        (format!("{LEAST}interface = 3"), "interface"),
        (format!("{LEAST}interface = [3]"), "interface[1]"),
        (format!("{LEAST}sleep = 3"), "sleep"),
        (format!("{LEAST}libvirt = {{ domain = \"web\" }}"), "libvirt"),
        ("name = \"web\"\nlibvirt = { domain = \"a/b\" }".into(), "libvirt.domain"),
        ("name = \"web\"\nlibvirt = { domain = \"web\", uuid = \"web\" }".into(), "libvirt.uuid"),
        (format!("{LEAST}wake.on = \"tcp:22\""), "wake.on"),
        (format!("{LEAST}wake.on = [\"any\"]"), "wake.on[1]"),
        (format!("{LEAST}wake.on = [\"tcp:22 rate 3\"]"), "wake.on[1]"),
        (format!("{LEAST}wake.ignore = [\"any\", \"tcp:22 rate 2/1s\"]"), "wake.ignore[2]"),
        (format!("{LEAST}wake.lease = \"keep\""), "wake.lease"),
        (format!("{LEAST}[[service]]\nanswer = \"echo\""), "service[1].port"),
        (format!("{LEAST}[[service]]\nport = 80"), "service[1].answer"),
        (format!("{LEAST}[[service]]\nport = 0\nanswer = \"echo\""), "service[1].port"),
        (format!("{LEAST}[[service]]\nport = 80\nanswer = \"http\""), "service[1].answer"),
        (format!("{LEAST}[[service]]\nport = 80\nanswer = \"banner\""), "service[1].text"),
        (format!("{LEAST}[[service]]\nport = 80\nanswer = \"banner\"\ntext = \"\""), "service[1].text"),
        (format!("{LEAST}[[service]]\nport = 80\nanswer = \"echo\"\ntext = \"x\""), "service[1].text"),
        (format!("{LEAST}{}", "[[service]]\nport = 80\nanswer = \"echo\"\n".repeat(2)), "service[2].port"),
        (format!("{LEAST}[[responder]]\nframes = [\"udp:7\"]"), "responder[1].name"),
        (format!("{LEAST}[[responder]]\nname = \"echo\""), "responder[1].frames"),
        (format!("{LEAST}[[responder]]\nname = \"echo\"\nframes = []"), "responder[1].frames"),
        (format!("{LEAST}[[responder]]\nname = \"../echo\"\nframes = [\"any\"]"), "responder[1].name"),
        (
            format!("{LEAST}{}", "[[responder]]\nname = \"a\"\nframes = [\"any\"]\n".repeat(2)),
            "responder[2].name",
        ),
        (format!("{LEAST}sleep.idle_after = \"0s\""), "sleep.idle_after"),
        (format!("{LEAST}sleep.idle_after = 600"), "sleep.idle_after"),
        (format!("{LEAST}sleep.grace = \"2 years\""), "sleep.grace"),
        (format!("{LEAST}sleep.deeper = [\"saved\"]"), "sleep.deeper[1]"),
        (format!("{LEAST}sleep.deeper = [{{ depth = \"saved\" }}]"), "sleep.deeper[1].after"),
        (
            format!("{LEAST}sleep.deeper = [{{ depth = \"paused\", after = \"1h\" }}]"),
            "sleep.deeper[1].depth",
        ),
        (format!("{LEAST}sleep.deeper = [{OFF}, {SAVED}]"), "sleep.deeper[2].depth"),
        (format!("{LEAST}sleep.deeper = [{SAVED}, {}]", OFF.replace("7d", "1h")), "sleep.deeper[2].after"),
        (format!("{LEAST}sleep.cpu_below = nan"), "sleep.cpu_below"),
        (format!("{LEAST}sleep.disk_below = 0"), "sleep.disk_below"),
        (format!("{LEAST}sleep.users = \"never\""), "sleep.users"),
        (format!("{LEAST}sleep.viewers = true"), "sleep.viewers"),
        (format!("{LEAST}sleep.load_below = 0"), "sleep.load_below"),
        (format!("{LEAST}sleep.faults_below = -1"), "sleep.faults_below"),
        (format!("{LEAST}sleep.load_below = \"1\""), "sleep.load_below"),
        (format!("{LEAST}sleep.min_awake = 5"), "sleep.min_awake"),
        (format!("{LEAST}sleep.policy = \"clever\""), "sleep.policy"),
        (format!("{LEAST}sleep.policy = \"external:/bin/true\""), "sleep.policy"),
        (format!("{LEAST}sleep.policy = \"external:\""), "sleep.policy"),
        (format!("{LEAST}sleep.policy = \"lazy\""), "sleep.policy"),
        (format!("{LEAST}sleep.policy = {{ name = \"fixed\", lead = \"1m\" }}"), "sleep.policy.lead"),
        (format!("{LEAST}sleep.policy = {{ wake_cost = \"1h\" }}"), "sleep.policy.name"),
        (format!("{LEAST}sleep.policy = {{ name = \"lazy\" }}"), "sleep.policy.name"),
        (format!("{LEAST}sleep.policy = {{ name = \"predictive\", lead = \"6m\" }}"), "sleep.policy.lead"),
        (
            format!("{LEAST}sleep.policy = {{ name = \"predictive\", wake_cost = 20 }}"),
            "sleep.policy.wake_cost",
        ),
        (
            format!("{LEAST}sleep.policy = {{ name = \"predictive\", idle_least = \"-1s\" }}"),
            "sleep.policy.idle_least",
        ),
        (
            format!("{LEAST}sleep.policy = {{ name = \"hysteresis\", idle_most = \"2y\" }}"),
            "sleep.policy.idle_most",
        ),
        (
            format!("{LEAST}sleep.policy = {{ name = \"fixed\", idle_after = \"9m\" }}"),
            "sleep.policy.idle_after",
        ),
        (format!("{LEAST}sleep.policy = {{ name = \"fixed\", cost = \"9m\" }}"), "sleep.policy.cost"),
        (format!("{LEAST}sleep.stay_awake = \"mon\""), "sleep.stay_awake"),
        (format!("{LEAST}sleep.stay_awake = []"), "sleep.stay_awake"),
        (format!("{LEAST}sleep.stay_awake = [\"mon\", \"fry\"]"), "sleep.stay_awake[2]"),
        (format!("{LEAST}sleep.sleep_only = [\"25:00-26:00\"]"), "sleep.sleep_only[1]"),
        (format!("{LEAST}sleep.sleep_only = [{}]", "\"mon\",".repeat(33)), "sleep.sleep_only"),
        (format!("{LEAST}sleep.wake_ahead = \"1m\""), "sleep.wake_ahead"),
        (format!("{LEAST}sleep.timezone = \"UTC\""), "sleep.timezone"),
        (format!("{LEAST}sleep = {{ stay_awake = [\"mon\"], timezone = \"../UTC\" }}"), "sleep.timezone"),
        (format!("{LEAST}sleep.connections = [\"tcp:22\"]"), "sleep.connections[1]"),
        (format!("{LEAST}sleep.connections = [{{}}]"), "sleep.connections[1].match"),
        (format!("{LEAST}sleep.connections = [{{ match = \"udp:53\" }}]"), "sleep.connections[1].match"),
        (
            format!(
                "{LEAST}sleep.connections = [{{ match = \"tcp\", keep_awake = false, idle_after = \"1m\" }}]"
            ),
            "sleep.connections[1].idle_after",
        ),
        (format!("{LEAST}limits.queue_frames = 99999999999999999999"), "limits.queue_frames"),
        (format!("{LEAST}limits.queue_bytes = \"1KiB\""), "limits.queue_bytes"),
        (LEAST.replace("268435456", "268435457"), "qemu.memory"),
        (LEAST.replace("268435456", "-1"), "qemu.memory"),
        (LEAST.replace("\"vmlinuz\"", "\"\""), "qemu.kernel"),
        (LEAST.replace("kernel", "cmdline = \"a\\nb\", kernel"), "qemu.cmdline"),
        (LEAST.replace("kernel", "disk = [{ image = \"x\" }], kernel"), "qemu.disk[1].format"),
        (LEAST.replace("kernel", "disk = [{ format = \"raw\" }], kernel"), "qemu.disk[1].image"),
    ] {
        let errors = read(&text).expect_err(&text);
        assert_eq!(errors.0.iter().map(|e| &*e.key).collect::<Vec<_>>(), [key], "{text}\n{errors}");
        assert!(errors.0[0].line.is_some(), "{errors}");
    }
}

#[test]
fn says_where_it_is_no_toml() {
    let errors = read("name = \"web\"\n[qemu\nmemory = \n").unwrap_err();
    assert_eq!(errors.0[0].line, Some(2), "{errors}");
    assert!(errors.to_string().starts_with("line 2: is not TOML: "), "{errors}");
}

proptest! {
    #[test]
    fn any_text_is_a_machine_or_says_why_not(text in "\\PC{0,200}") {
        if let Err(errors) = read(&text) {
            prop_assert!(!errors.0.is_empty() && !errors.to_string().is_empty());
        }
    }

    /// A file of the manual in which one value was replaced by any other. A text of several lines that
    /// begins there ends elsewhere.
    #[test]
    fn any_value_is_taken_or_blamed(line in 0usize..40, value in "[-0-9]{1,30}|\"\\PC{0,30}\"|true|\\[\\]|\\{\\}|inf|1979-05-27") {
        prop_assume!(!value.starts_with("\"\"\""));
        let mut lines: Vec<String> = MANUAL.lines().map(Into::into).collect();
        let line = line % lines.len();
        if let Some((key, _)) = lines[line].clone().split_once(" = ") {
            lines[line] = format!("{key} = {value}");
        }
        match read(&lines.join("\n")) {
            Ok(spec) => prop_assert!(spec.platform.memory() >= 16 << 20),
            Err(errors) => prop_assert!(errors.0.iter().any(|e| e.line == Some(line + 1) || e.line.is_none())),
        }
    }
}

#[test]
fn a_domain_is_known_by_its_name_and_its_uuid() {
    let text = "name = \"web\"\n[libvirt]\ndomain = \"Web Server\"\nmemory = \"2GiB\"\n";
    let libvirt = |text: &str| match read(text).unwrap().platform {
        PlatformSpec::Libvirt(libvirt) => libvirt,
        PlatformSpec::Qemu(_) => panic!("the file says [libvirt]"),
    };
    let spec = libvirt(text);
    assert_eq!((&*spec.domain, spec.uuid, spec.uri.as_deref()), ("Web Server", None, None));
    assert_eq!((spec.memory, spec.save, spec.page_out), (Some(2 << 30), LibvirtSave::Managed, false));
    let spec = libvirt(&format!("{text}uuid = \"C7A5FDBD-edaf-9455-926a-d65c16db1809\"\n"));
    assert_eq!(spec.uuid.unwrap().to_string(), "c7a5fdbd-edaf-9455-926a-d65c16db1809");
}

#[test]
fn what_keeps_awake_is_read() {
    let text = r#"
[sleep]
connections = [{ match = "tcp:22 from 10.0.0.9", keep_awake = false }, { match = "tcp:22", idle_after = "30m" }]
users = "keep-awake"
viewers = "ignore"
load_below = 0.5
faults_below = 20
stay_awake = ["Mon..Fri 8:00-19:00", "sat"]
sleep_only = ["00:00-24:00"]
wake_ahead = "2m"
timezone = "Europe/Berlin"
min_awake = "5m"
"#;
    let keep = read(&format!("{LEAST}{text}")).unwrap().sleep.keep;
    assert_eq!(keep.connections[1].idle_after, Some(Duration::from_secs(1800)));
    assert_eq!(keep.connections.iter().map(|rule| rule.keep_awake).collect::<Vec<_>>(), [false, true]);
    assert_eq!((keep.users, keep.load_below, keep.faults_below), (true, Some(0.5), Some(20.0)));
    assert_eq!(keep.stay_awake.to_string(), "mon-fri 08:00-19:00; sat");
    assert_eq!(keep.timezone.as_deref(), Some("Europe/Berlin"));
    assert_eq!(keep.min_awake(None), Duration::from_secs(300));
    assert!(keep.ignore_viewers);
    let json = serde_json::to_string(&keep).unwrap();
    assert_eq!(serde_json::from_str::<KeepSpec>(&json).unwrap(), keep);
    for text in ["", "sleep.viewers = \"keep-awake\""] {
        assert!(!read(&format!("{LEAST}{text}")).unwrap().sleep.keep.ignore_viewers);
    }
    // Of an older daemon.
    assert!(!serde_json::from_str::<KeepSpec>("{\"users\":true}").unwrap().ignore_viewers);
}

#[test]
fn a_minute_at_most_is_the_least_to_be_awake() {
    let least = |idle_after| KeepSpec::default().min_awake(idle_after).as_secs();
    let secs = Duration::from_secs;
    assert_eq!([least(None), least(Some(secs(600))), least(Some(secs(5)))], [60, 60, 5]);
}

const SAVED: &str = "{ depth = \"saved\", after = \"1h\" }";
const OFF: &str = "{ depth = \"off\", after = \"7d\" }";

#[test]
fn a_machine_goes_deeper_only_as_its_file_says() {
    let read = |text: &str| MachineSpec::from_toml(text, Path::new("/srv")).unwrap().sleep;
    assert_eq!(read(LEAST).deeper, []);
    let sleep = read(&format!("{LEAST}sleep.deeper = [{SAVED}, {OFF}]"));
    let hours = |depth, hours: u64| Deeper { depth, after: Duration::from_secs(hours * 3600) };
    assert_eq!(sleep.deeper, [hours(Depth::Saved, 1), hours(Depth::Off, 7 * 24)]);
    // A record of an older daemon has no such key.
    let mut old = serde_json::to_value(&sleep).unwrap();
    old.as_object_mut().unwrap().remove("deeper");
    assert_eq!(serde_json::from_value::<SleepSpec>(old).unwrap().deeper, []);
}
