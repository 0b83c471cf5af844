//! What a sleeper owes its network besides answers to addresses: its lease, its groups, its name.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use dormouse_e2e::{LONG, SECOND, Scene};
use dormouse_lab::{Daemon, DhcpServer, Guest, Lab, wait_for, wait_until};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, UdpSocket},
    thread,
};

/// Seconds after which the server wants a lease to be renewed.
const RENEW: u32 = 5;
const GROUPS: [&str; 2] = ["239.9.9.9", "ff15::9"];

#[test]
fn a_sleeper_keeps_its_lease_its_groups_and_its_name() {
    let guest = Guest::new("web", 2).dhcp();
    let guest = guest.kernel_option(&format!("dm.join={}", GROUPS.join(","))).kernel_option("dm.mdns=web");
    let lab = Lab::new("presence").unwrap();
    // Without an address of its own a bridge sends no queries by MLD.
    lab.switch().ip("addr add fd77::ff/64 dev br0 nodad\n").unwrap();
    let server = DhcpServer::start(&lab, &lab.client(), &guest, RENEW).unwrap();
    let daemon = Daemon::start(&lab).unwrap();
    let scene = Scene::with(lab, daemon, guest);
    scene.start(&[]);
    assert_eq!(server.given_to(&scene.guest), 1, "{}", server.log());
    assert!(scene.pings(scene.guest.ip()) && scene.pings(scene.guest.ip6()));
    let before = scene.before();
    // Twice, a second apart; the second one is the last that it does by itself.
    thread::sleep(2 * SECOND);

    let mark = scene.mark();
    scene.sleep();
    scene.wait_no_qemu();
    its_groups_are_reported(&scene);
    its_name_is_answered(&scene);
    // Twice: it was taken to be renewed, or a second time would be a minute away.
    let renewed = || Ok(server.given_to(&scene.guest) >= 3);
    wait_until("the lease to be renewed", 40 * SECOND, renewed).unwrap();
    assert!(scene.pings(scene.guest.ip()));
    let why = scene.daemon.why(scene.name()).unwrap();
    let kinds: BTreeSet<_> = why.answered.keys().map(String::as_str).collect();
    assert!(["igmp", "mld", "mdns", "dhcp-renew"].iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    scene.slept_on(mark);

    scene.wakes_at_the_first_syn();
    assert_eq!(scene.before(), before);
}

/// The bridge forgets all groups, asks, and hears of the sleeper's.
#[track_caller]
fn its_groups_are_reported(scene: &Scene) {
    let switch = scene.lab.switch();
    let snooping = |on: u8| switch.ip(&format!("link set br0 type bridge mcast_snooping {on}\n")).unwrap();
    snooping(0);
    // Queries at once and each second, with a second to answer.
    switch
        .ip("link set br0 type bridge mcast_query_interval 100 mcast_startup_query_interval 100 \
             mcast_query_response_interval 100 mcast_querier 1\n")
        .unwrap();
    snooping(1);
    let memberships = || {
        let out = switch.command("bridge").args(["mdb", "show", "dev", "br0"]).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let by_stand_in = |group: &str| {
            text.lines().any(|line| line.contains(&format!("grp {group} ")) && line.contains("port dm0-br0"))
        };
        Ok(GROUPS.iter().all(|group| by_stand_in(group)))
    };
    wait_until("its memberships at the bridge", LONG, memberships).unwrap();
}

/// Asks the group by mDNS, from a port of its own, so that the answer comes to it alone (RFC 6762 §6.7).
#[track_caller]
fn its_name_is_answered(scene: &Scene) {
    const QUESTION: &[u8] = b"\x47\x11\0\0\0\x01\0\0\0\0\0\0\x03web\x05local\0\0\x01\0\x01";
    let open = || UdpSocket::bind((Ipv4Addr::new(10, 9, 0, 1), 0));
    let socket = scene.client.namespace().run(open).unwrap().unwrap();
    socket.set_read_timeout(Some(SECOND)).unwrap();
    // Datagrams may be lost, and are then asked for again.
    let answer = || {
        socket.send_to(QUESTION, (Ipv4Addr::new(224, 0, 0, 251), 5353)).unwrap();
        let mut answer = [0; 512];
        Ok(socket.recv_from(&mut answer).ok().map(|(len, from)| (answer[..len].to_vec(), from)))
    };
    let ((answer, from), _) = wait_for("the answer to its name", LONG, answer).unwrap();
    assert_eq!(from.ip(), scene.guest.ip());
    assert_eq!(answer[..4], [0x47, 0x11, 0x84, 0], "no authoritative answer to this question: {answer:?}");
    let address = scene.guest.ip().octets();
    assert!(answer.windows(4).any(|octets| octets == address), "{answer:?}");
}
