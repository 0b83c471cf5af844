//! Bridges that tell VLANs apart.

use dormouse_net::Net;
use dormouse_surrogate::{HandoverKind, Mode};
use dormouse_types::{MacAddr, Service, ServiceKind};

use crate::{
    frames::{GUEST_IP, arp_request, numbered, ping, tagged, tcp, tcp_answer},
    lab::{Client, Guest, LIMITS, in_namespace, lacks, network, run, surrogate, woken},
    replay::stream_on,
};

/// A bridge that filters, to which the client's link is a trunk of the VLANs 10 and 20.
async fn filtering() -> Option<Net> {
    let net = network().await;
    let on = std::process::Command::new("ip")
        .args(["link", "set", "br0", "type", "bridge", "vlan_filtering", "1"])
        .output();
    if !on.unwrap().status.success() {
        lacks("VLAN filtering");
        return None;
    }
    for vlan in [10, 20] {
        run(&format!("bridge vlan add dev c0 vid {vlan}"));
    }
    Some(net)
}

/// Puts a guest's tap into a VLAN, `how` as bridge(8) has it, and out of the first.
fn put(guest: &Guest, vlan: u16, how: &str) {
    let tap = &guest.sleeper.ports[0].tap;
    run(&format!("bridge vlan del dev {tap} vid 1"));
    run(format!("bridge vlan add dev {tap} vid {vlan} {how}").trim());
}

/// Entries of the surrogate's port for an address.
fn diverted(guest: &Guest) -> usize {
    let out = std::process::Command::new("bridge").args(["fdb", "show", "dev", "dm0-br0"]).output().unwrap();
    let mac = guest.mac().to_string();
    String::from_utf8(out.stdout).unwrap().lines().filter(|line| line.starts_with(&mac)).count()
}

#[test]
fn a_sleeper_is_present_in_its_vlan_and_in_no_other() {
    in_namespace(|| async {
        let Some(net) = filtering().await else { return };
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        put(&guest, 10, "pvid untagged");
        guest.sleep(&surrogate).await;
        let mac = guest.mac();

        client.send(&tagged(20, &arp_request(GUEST_IP)));
        client.send(&tagged(20, &ping(mac)));
        client.send(&tagged(10, &arp_request(GUEST_IP)));
        let answer = client.expect(mac, |f| f[16..18] == [8, 6]).await;
        assert_eq!(answer[12..16], [0x81, 0, 0, 10]);
        client.send(&tagged(10, &ping(mac)));
        let answer = client.expect(mac, |f| f[16..18] == [8, 0] && f[38] == 0).await;
        assert_eq!(answer[12..16], [0x81, 0, 0, 10]);
        let status = surrogate.status(&guest.sleeper.name).await.unwrap();
        assert_eq!((status.mode, status.held_frames), (Mode::Standing, 0), "{status:?}");
        assert_eq!(status.answered.values().sum::<u64>(), 2, "of VLAN 10 only: {status:?}");

        client.send(&tagged(10, &numbered(mac, 1)));
        woken(&mut notices).await;
        assert_eq!(guest.wake(&surrogate).await.frames, 1);
        client.send(&tagged(20, &numbered(mac, 99)));
        client.send(&tagged(10, &numbered(mac, 2)));
        assert_eq!(guest.numbers_up_to(2).await, [1, 2], "without their tags");
        assert_eq!(diverted(&guest), 0);
    });
}

#[test]
fn who_spoke_to_a_service_in_a_vlan_is_told_there_that_it_ends() {
    in_namespace(|| async {
        let Some(net) = filtering().await else { return };
        let (surrogate, _notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        put(&guest, 10, "pvid untagged");
        guest.sleeper.services = vec![Service { port: 80, kind: ServiceKind::WakingPage, wakes: false }];
        guest.sleep(&surrogate).await;
        let (mac, ports) = (guest.mac(), [40_000, 80]);
        let untagged = |frame: &[u8]| [&frame[..12], &frame[16..]].concat();
        client.send(&tagged(10, &tcp(mac, ports, 2, [1000, 0])));
        let answer = client.expect(mac, |f| tcp_answer(&untagged(f)).is_some()).await;
        let (_, seq, _) = tcp_answer(&untagged(&answer)).unwrap();
        client.send(&tagged(10, &tcp(mac, ports, 16, [1001, seq + 1])));
        surrogate.dismiss(&guest.sleeper.name).await.unwrap();
        let is_reset = |f: &[u8]| tcp_answer(&untagged(f)).is_some_and(|(flags, ..)| flags & 4 != 0);
        let reset = client.expect(mac, is_reset).await;
        assert_eq!(reset[12..16], [0x81, 0, 0, 10]);
    });
}

/// Pings in VLANs 10 and 20 are answered with the tag that they came with.
async fn answered_in_both(client: &Client, mac: MacAddr) {
    for vlan in [10, 20] {
        client.send(&tagged(vlan, &ping(mac)));
        let answer = client.expect(mac, |f| f[16..18] == [8, 0] && f[38] == 0).await;
        assert_eq!(answer[12..16], tagged(vlan, &ping(mac))[12..16]);
    }
}

#[test]
fn a_guest_on_a_trunk_gets_its_frames_with_their_tags() {
    in_namespace(|| async {
        let Some(net) = filtering().await else { return };
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        put(&guest, 20, "");
        run("bridge vlan add dev tap2 vid 10 pvid untagged");
        guest.sleep(&surrogate).await;
        let mac = guest.mac();
        answered_in_both(&client, mac).await;
        client.send(&tagged(20, &numbered(mac, 1)));
        woken(&mut notices).await;
        client.send(&tagged(10, &numbered(mac, 2)));
        assert_eq!(guest.wake(&surrogate).await.frames, 2);
        assert_eq!(guest.numbers_up_to(2).await, [2], "that of VLAN 20 has a tag");
        assert!(guest.frames().contains(&tagged(20, &numbered(mac, 1))));
        assert_eq!(diverted(&guest), 0);
    });
}

/// Untagged all the way: the client and the guest in one VLAN.
#[test]
fn a_stream_is_whole_in_a_vlan() {
    in_namespace(|| async {
        if let Some(net) = filtering().await {
            stream_on(&net, false, crate::lab::rate(5000), 4, HandoverKind::Plain).await;
        }
    });
}

#[test]
fn a_restarted_surrogate_finds_what_is_in_a_vlan() {
    in_namespace(|| async {
        let Some(net) = filtering().await else { return };
        let (first, _) = surrogate(false).await;
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        put(&guest, 10, "pvid untagged");
        guest.sleep(&first).await;
        assert_eq!(diverted(&guest), 1);
        drop(first);
        let (second, _notices) = surrogate(false).await;
        assert_eq!(second.settle().await.unwrap(), 1);
        assert_eq!(diverted(&guest), 0);
    });
}

#[test]
fn a_bridge_that_does_not_filter_passes_tags() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleep(&surrogate).await;
        let mac = guest.mac();
        answered_in_both(&client, mac).await;
        client.send(&tagged(30, &numbered(mac, 1)));
        woken(&mut notices).await;
        client.send(&numbered(mac, 2));
        assert_eq!(guest.wake(&surrogate).await.handover, HandoverKind::Ebpf);
        assert_eq!(guest.numbers_up_to(2).await, [2]);
        assert!(guest.frames().contains(&tagged(30, &numbered(mac, 1))), "with its tag");
    });
}
