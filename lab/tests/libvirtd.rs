//! libvirt in the lab tested by itself, without Dormouse.
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use dormouse_lab::{Domain, Guest, Lab, Libvirtd, guest::Image, wait_until};
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

/// What tests ask of the guest agent is there to be asked, and suspending to memory is real.
#[test]
fn a_domain_has_an_agent_and_suspends() {
    let (lab, image) = (Lab::new("lvagent").unwrap(), Image::build().unwrap());
    let libvirtd = Libvirtd::start(&lab).unwrap();
    let domain = Domain::new(Guest::new("web", 2)).agent().suspend_to_memory();
    libvirtd.boot(&lab, &image, &domain).unwrap();
    let (client, ip) = (lab.client(), domain.guest().ip());
    let agent = |command: &str| libvirtd.agent("web", command).unwrap().to_string();
    wait_until("the guest agent", 10 * SECOND, || Ok(libvirtd.agent("web", "guest-ping").is_ok())).unwrap();
    assert!(agent("guest-network-get-interfaces").contains("10.9.0.2"));
    assert!(agent("guest-get-osinfo").contains("Dormouse lab guest"));

    assert_eq!(agent("guest-get-users"), "[]");
    let mut shell = client.ssh(&image, ip).unwrap();
    shell.run("guestd login alice pts/9").unwrap();
    assert!(agent("guest-get-users").contains("alice"));
    shell.run("guestd logout pts/9").unwrap();
    assert_eq!(agent("guest-get-users"), "[]");

    shell.run("date -s @1000000000").unwrap();
    let then = "{\"execute\": \"guest-set-time\", \"arguments\": {\"time\": 1500000000000000000}}";
    libvirtd.virsh(&["qemu-agent-command", "web", then]).unwrap();
    let seconds: u64 = shell.run("date +%s").unwrap().trim().parse().unwrap();
    assert!((1_500_000_000..1_500_000_100).contains(&seconds), "{seconds}");

    libvirtd.virsh(&["dompmsuspend", "web", "mem"]).unwrap();
    wait_until("the guest to suspend", 10 * SECOND, || Ok(libvirtd.domstate("web")? == "pmsuspended"))
        .unwrap();
    assert!(client.ping(ip, SECOND / 10).is_err());
    libvirtd.virsh(&["dompmwakeup", "web"]).unwrap();
    client.ping(ip, 10 * SECOND).unwrap();
    assert_eq!(shell.run("echo the same").unwrap(), "the same\n");
    assert_eq!(libvirtd.domstate("web").unwrap(), "running");
}

#[test]
fn a_network_of_libvirt_gives_addresses() {
    let (lab, image) = (Lab::new("lvnat").unwrap(), Image::build().unwrap());
    let libvirtd = Libvirtd::start(&lab).unwrap();
    let domain = Domain::new(Guest::new("web", 3).dhcp()).nat();
    libvirtd.nat(&lab, &[domain.guest()]).unwrap();
    libvirtd.boot(&lab, &image, &domain).unwrap();
    lab.client().ping(domain.guest().ip(), SECOND).unwrap();
    let leases = libvirtd.virsh(&["net-dhcp-leases", "default"]).unwrap();
    assert!(leases.contains(&domain.guest().ip().to_string()), "{leases}");
}
