//! Many kinds of domain, of libvirt's mock driver: which become machines, and what is said of the others.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_lab::{
    Daemon, Lab,
    api::{ImportReport, ImportStatus, ImportedDomain, MachineState, ProblemKind},
};
use std::fmt::Write;

/// A domain's name, its devices, what comes of it, and what is said of it: of which depths it is kept.
struct Case {
    name: &'static str,
    devices: &'static str,
    status: ImportStatus,
    depth: &'static str,
    told: &'static str,
}

const fn imported(
    name: &'static str,
    devices: &'static str,
    depth: &'static str,
    told: &'static str,
) -> Case {
    Case { name, devices, status: ImportStatus::Imported, depth, told }
}

const fn refused(name: &'static str, devices: &'static str, told: &'static str) -> Case {
    Case { name, devices, status: ImportStatus::Refused, depth: "", told }
}

const NETWORKS: &str = "<network><name>routed</name><forward mode='open'/><bridge name='virbr7'/>\
    <ip address='10.9.1.1' netmask='255.255.255.0'><dhcp><host mac='52:54:00:00:00:02' ip='10.9.1.2'/></dhcp>\
    </ip></network>";

/// By name, as they are told.
const CASES: [Case; 10] = [
    imported("alone", "", "saved", "guest agent"),
    refused("bad name", "", "name"),
    refused(
        "direct",
        "<interface type='direct'><mac address='52:54:00:00:00:03'/><source dev='eth0' mode='bridge'/></interface>",
        "nobody could answer for it",
    ),
    imported(
        "gpu",
        "<hostdev mode='subsystem' type='pci' managed='yes'>\
         <source><address domain='0' bus='0' slot='0x1f' function='7'/></source></hostdev>",
        "paused",
        "hostdev pci",
    ),
    refused(
        "nowhere",
        "<interface type='network'><mac address='52:54:00:00:00:05'/><source network='no-such'/></interface>",
        "no-such",
    ),
    imported(
        "share",
        "<filesystem type='mount'><source dir='/srv'/><target dir='srv'/></filesystem>",
        "paused",
        "filesystem srv",
    ),
    imported(
        "tpm",
        "<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>",
        "paused",
        "tpm passthrough",
    ),
    imported(
        "user",
        "<interface type='user'><mac address='52:54:00:00:00:04'/></interface>",
        "saved",
        "interface 52:54",
    ),
    imported(
        "web",
        "<interface type='network'><mac address='52:54:00:00:00:02'/><source network='routed'/></interface>",
        "saved",
        "guest agent",
    ),
    // Last, so that the other has the address.
    refused(
        "www",
        "<interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='br0'/></interface>",
        "52:54:00:00:00:02",
    ),
];

/// What the command printed, whether it is content or not; and whether it is.
#[track_caller]
fn import(daemon: &Daemon, words: &[&str]) -> (ImportReport, bool) {
    let out = daemon.cli(&[&["-o", "json", "import", "libvirt"], words].concat()).unwrap();
    let report = serde_json::from_str(&out.stdout);
    (report.unwrap_or_else(|error| panic!("{error}: {out:?}")), out.code == Some(0))
}

/// All that is said of one.
fn said(domain: &ImportedDomain) -> String {
    let mut text = String::new();
    if let Some(problem) = &domain.problem {
        write!(text, "{problem:?}").unwrap();
    }
    for obstacle in &domain.obstacles {
        write!(text, "{}: {} ", obstacle.what, obstacle.reason).unwrap();
    }
    text
}

#[test]
fn each_kind_of_domain_is_imported_or_refused_with_the_reason() {
    let lab = Lab::new("lv-mock").unwrap();
    // Each connection to the driver has domains of its own, alike.
    let domains = CASES.iter().enumerate().map(|(nth, Case { name, devices, .. })| {
        format!(
            "<domain type='test'><name>{name}</name>\
             <uuid>c7a5fdbd-edaf-9455-926a-d65c16db18{nth:02}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64'>hvm</type></os><devices>{devices}</devices></domain>"
        )
    });
    let node = format!("<node>{NETWORKS}{}</node>", domains.collect::<String>());
    let uri = format!("test://{}", lab.write("node.xml", &node).unwrap().display());
    let daemon = Daemon::start(&lab).unwrap();

    // A rehearsal says what would come of it, and nothing does.
    let (rehearsal, _) = import(&daemon, &["--uri", &uri]);
    let (report, content) = import(&daemon, &["--uri", &uri, "--all"]);
    assert!(!content, "some were refused: {report:?}");
    assert_eq!((rehearsal.domains.len(), report.domains.len()), (CASES.len(), CASES.len()));
    for ((case, would), domain) in CASES.iter().zip(&rehearsal.domains).zip(&report.domains) {
        assert_eq!((&*would.domain, &*domain.domain), (case.name, case.name));
        assert_eq!(domain.status, case.status, "{domain:?}");
        assert_eq!(
            would.status == ImportStatus::Importable,
            case.status == ImportStatus::Imported,
            "{would:?}"
        );
        assert!(said(domain).contains(case.told), "{} lacks {:?}: {}", case.name, case.told, said(domain));
        assert_eq!(would.obstacles, domain.obstacles);
        if domain.status == ImportStatus::Refused {
            assert_eq!((&domain.machine, &domain.toml), (&None, &None), "{domain:?}");
            continue;
        }
        let machine = daemon.show(case.name).unwrap();
        assert_eq!(machine.summary.state, MachineState::Active);
        assert_eq!(domain.toml.as_deref(), Some(&*machine.toml));
        // The least deep of what loses nothing is written down, with the reason.
        let paused = machine.toml.contains("depth = \"paused\"") && machine.toml.contains(case.told);
        assert_eq!(paused, case.depth == "paused", "{}", machine.toml);
        assert_eq!(!machine.interfaces.is_empty(), case.name == "web", "{machine:?}");
        // One that no packet can wake does not fall asleep by itself.
        assert_eq!(!machine.toml.contains("idle_after = \"never\""), case.name == "web", "{}", machine.toml);
        let doctor = daemon.cli(&["doctor", case.name]).unwrap();
        assert!(doctor.stdout.contains(case.told), "{doctor:?}");
    }
    assert_eq!(daemon.show("web").unwrap().interfaces[0].bridge, "virbr7");
    let known = import(&daemon, &["--uri", &uri]).0;
    let known = known.domains.iter().filter(|domain| domain.status == ImportStatus::Known);
    assert_eq!(known.count(), CASES.iter().filter(|case| case.status == ImportStatus::Imported).count());

    // One that was refused for its name alone.
    let (renamed, content) = import(&daemon, &["--uri", &uri, "bad name", "--as", "good"]);
    assert!(content && daemon.state("good").is_ok(), "{renamed:?}");
    // What is refused is refused to who insists, too.
    for (words, kind) in [
        (&["gpu"][..], ProblemKind::Exists),
        (&["nobody"], ProblemKind::NotFound),
        (&["direct"], ProblemKind::Refused),
        (&["www", "--set", "sleep.depth=deep"], ProblemKind::Invalid),
    ] {
        let (report, content) = import(&daemon, &[&["--uri", &uri], words].concat());
        let problem = report.domains[0].problem.clone().unwrap();
        assert_eq!((problem.kind, content), (kind, false), "{words:?}: {problem:?}");
    }
    let out = daemon.cli(&["sleep", "--depth", "saved", "gpu"]).unwrap();
    assert!(out.code != Some(0) && out.stderr.contains("hostdev"), "{out:?}");
    assert_eq!(daemon.state("gpu").unwrap(), MachineState::Active);
}

#[test]
fn a_libvirt_that_cannot_be_asked_is_an_answer() {
    let lab = Lab::new("lv-nowhere").unwrap();
    let daemon = Daemon::start(&lab).unwrap();
    let asked = [
        ("test:///no/such/file.xml", &["--all"][..], "no libvirt can be reached by it", "--connect URI"),
        ("\u{1}", &[], "no libvirt can be reached by it", "--connect URI"),
        ("qemu+unix:///system?socket=/no/such/socket", &["web"], "cannot be reached", "systemctl start"),
    ];
    for (uri, words, why, fix) in asked {
        let out = daemon.cli(&[&["import", "libvirt", "--uri", uri], words].concat()).unwrap();
        let says = out.stderr.contains(why) && out.stderr.contains(fix);
        assert!(out.code != Some(0) && says, "{uri:?}: {out:?}");
    }
    assert!(daemon.run(&["ls"]).unwrap().lines().count() <= 1);
}
