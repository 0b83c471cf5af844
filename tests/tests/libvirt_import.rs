//! Domains that are there already become machines, while virsh goes on working.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{DomainScene, FAST_SAMPLES, LONG, Scene};
use dormouse_lab::{
    Daemon, Domain, Guest, Lab, Libvirtd,
    api::{ImportReport, ImportStatus, ImportedDomain, MachineState},
    guest::Image,
};

const HOSTDEV: &str = "<hostdev mode='subsystem' type='pci' managed='yes'>\
    <source><address domain='0x0000' bus='0x00' slot='0x1f' function='0x7'/></source></hostdev>";

fn of<'a>(report: &'a ImportReport, name: &str) -> &'a ImportedDomain {
    report.domains.iter().find(|domain| domain.domain == name).unwrap()
}

fn warns(domain: &ImportedDomain, what: &str) -> bool {
    domain.obstacles.iter().any(|obstacle| obstacle.what.contains(what))
}

#[test]
fn domains_that_are_there_become_machines() {
    let (lab, image) = (Lab::new("lv-import").unwrap(), Image::build().unwrap());
    let libvirtd = Libvirtd::start(&lab).unwrap();
    let domain = Domain::new(Guest::new("web", 2).dirty(10));
    libvirtd.boot(&lab, &image, &domain).unwrap();
    libvirtd.virsh(&["autostart", "web"]).unwrap();
    for other in [
        Domain::new(Guest::new("db", 3)).agent().suspend_to_memory(),
        Domain::new(Guest::new("gpu", 4)).device(HOSTDEV),
    ] {
        libvirtd.define(&lab, &image, &other).unwrap();
    }
    let daemon = Daemon::start_with(&lab, FAST_SAMPLES, &[]).unwrap();
    let uri = libvirtd.uri();
    let import = ["import", "libvirt", "--uri", &uri];

    let listed: ImportReport = daemon.json(&import).unwrap();
    let all = listed.domains.iter().map(|d| (d.domain.as_str(), d.status)).collect::<Vec<_>>();
    let importable = ImportStatus::Importable;
    assert_eq!(all, [("db", importable), ("gpu", importable), ("web", importable)]);
    assert_eq!(of(&listed, "web").activity.as_deref(), Some("running"));
    assert!(warns(of(&listed, "web"), "autostart") && warns(of(&listed, "gpu"), "hostdev"), "{listed:?}");
    assert!(daemon.run(&["ls"]).unwrap().lines().count() <= 1, "to list is not to import");

    // One that there is not is refused, and the others become machines all the same.
    let words = [&import[..], &["web", "db", "nobody"]].concat();
    let out = daemon.cli(&words).unwrap();
    assert_ne!(out.code, Some(0), "{out:?}");
    assert!(format!("{}{}", out.stdout, out.stderr).contains("nobody"), "{out:?}");
    assert_eq!(daemon.state("db").unwrap(), MachineState::Stopped);
    daemon.wait_state("web", MachineState::Active, LONG).unwrap();
    let again: ImportReport = daemon.json(&import).unwrap();
    assert_eq!(of(&again, "web").status, ImportStatus::Known);
    // What cannot be saved is not made to sleep so.
    let words = [&import[..], &["gpu", "--set", "sleep.depth=saved"]].concat();
    let out = daemon.cli(&words).unwrap();
    assert_ne!(out.code, Some(0), "{out:?}");
    assert!(format!("{}{}", out.stdout, out.stderr).contains("hostdev"), "{out:?}");

    let guest = domain.guest().clone();
    let events = daemon.events().unwrap();
    let scene = Scene { events, daemon, client: lab.client(), guest, image, lab };
    let scene = DomainScene { libvirtd, domain, scene };
    scene.speaks();
    let before = scene.before();
    scene.sleep();
    scene.speaks();
    scene.wakes_at_the_first_syn();
    assert_eq!(scene.before(), before);
    // Dormouse's hands off: the domain runs on, and is what it was.
    scene.daemon.run(&["rm", "--force", "db"]).unwrap();
    assert!(scene.libvirtd.virsh(&["list", "--all"]).unwrap().contains("db"));
}
