//! libvirt in the lab tested by itself, without Dormouse.
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use dormouse_lab::{Domain, Guest, Lab, Libvirtd, guest::Image};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_domain_outlives_its_libvirtd() {
    let (lab, image) = (Lab::new("lvtest").unwrap(), Image::build().unwrap());
    let libvirtd = Libvirtd::start(&lab).unwrap();
    let domain = Domain::new(Guest::new("web", 2));
    libvirtd.boot(&lab, &image, &domain).unwrap();
    let (client, ip) = (lab.client(), domain.guest().ip());
    client.ping(ip, SECOND).unwrap();
    let (qemu, first) = (lab.qemu_pids().unwrap(), libvirtd.pid());

    libvirtd.restart().unwrap();
    assert!(libvirtd.pid().is_some() && libvirtd.pid() != first);
    assert_eq!(libvirtd.domstate("web").unwrap(), "running");
    libvirtd.kill9().unwrap();
    assert_eq!(libvirtd.pid(), None);
    assert_ne!(libvirtd.ask(&["list"]).unwrap().code, Some(0));
    client.ping(ip, SECOND).unwrap();
    libvirtd.resume().unwrap();
    libvirtd.freeze().unwrap();
    client.ping(ip, SECOND).unwrap();
    libvirtd.thaw().unwrap();
    assert_eq!((libvirtd.domstate("web").unwrap().as_str(), lab.qemu_pids().unwrap()), ("running", qemu));

    // It is healthy: QEMU is not probed anew, and nothing that a start leaves behind is waited for.
    libvirtd.virsh(&["managedsave", "web"]).unwrap();
    assert!(client.ping(ip, SECOND / 10).is_err());
    libvirtd.virsh(&["start", "web"]).unwrap();
    client.ping(ip, 5 * SECOND).unwrap();
    domain.wait_ready(&lab, 1, SECOND).unwrap();
}

#[test]
fn a_network_of_libvirt_gives_addresses() {
    let (lab, image) = (Lab::new("lvnat").unwrap(), Image::build().unwrap());
    let libvirtd = Libvirtd::start(&lab).unwrap();
    let domain = Domain::new(Guest::new("web", 3).dhcp()).network("default");
    libvirtd.nat(&lab, &[domain.guest()]).unwrap();
    libvirtd.boot(&lab, &image, &domain).unwrap();
    lab.client().ping(domain.guest().ip(), SECOND).unwrap();
    let leases = libvirtd.virsh(&["net-dhcp-leases", "default"]).unwrap();
    assert!(leases.contains(&domain.guest().ip().to_string()), "{leases}");
}
