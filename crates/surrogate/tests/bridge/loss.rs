//! What goes away while a guest sleeps.

use std::time::Duration;

use dormouse_net::PortFlags;
use dormouse_surrogate::{Notice, Reason};
use dormouse_sys::{PacketSocket, VnetHdr};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    frames::{GUEST_IP, announcement, arp_request, numbered, ping},
    lab::{BRIDGE, Client, Guest, LIMITS, in_namespace, network, run, surrogate, woken},
};

/// Waits for a notice that is `wanted`; gives those that came before it.
async fn told(notices: &mut UnboundedReceiver<Notice>, wanted: impl Fn(&Notice) -> bool) -> Vec<Notice> {
    let mut before = Vec::new();
    let wait = async {
        loop {
            let notice = notices.recv().await.unwrap();
            if wanted(&notice) {
                return;
            }
            before.push(notice);
        }
    };
    tokio::time::timeout(Duration::from_secs(1), wait).await.expect("nobody was told");
    before
}

fn is_lost(notice: &Notice) -> bool {
    matches!(notice, Notice::BridgeLost { bridge, .. } if bridge == BRIDGE)
}

fn is_back(notice: &Notice) -> bool {
    *notice == Notice::BridgeBack { bridge: BRIDGE.into() }
}

#[test]
fn a_lost_bridge_is_told_and_served_again_when_it_is_back() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleep(&surrogate).await;
        net.delete_link(BRIDGE).await.unwrap();
        told(&mut notices, is_lost).await;
        let error = surrogate.prepare(&guest.sleeper).await.unwrap_err();
        assert!(error.to_string().contains(BRIDGE), "{error}");

        net.create_bridge(BRIDGE).await.unwrap();
        told(&mut notices, is_back).await;
        surrogate.stand_in(&guest.sleeper).await.unwrap();
        run("ip link set c0 master br0");
        run("ip link set br0 up");
        surrogate.stand_in(&guest.sleeper).await.unwrap();
        let client = Client::new();
        client.send(&ping(guest.mac()));
        client.expect(guest.mac(), |f| f[12..14] == [8, 0] && f[34] == 0).await;
        client.send(&numbered(guest.mac(), 1));
        guest.wake(&surrogate).await;
        assert_eq!(guest.numbers_up_to(1).await, [1]);
    });
}

#[test]
fn a_port_that_was_taken_out_of_its_bridge_is_put_back() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleep(&surrogate).await;
        run("ip link set dm0-br0 nomaster");
        let before = told(&mut notices, is_back).await;
        assert!(before.iter().any(is_lost), "{before:?}");
        surrogate.stand_in(&guest.sleeper).await.unwrap();
        let client = Client::new();
        client.send(&ping(guest.mac()));
        client.expect(guest.mac(), |f| f[12..14] == [8, 0] && f[34] == 0).await;
    });
}

#[test]
fn a_bridge_asked_for_in_vain_is_told_when_it_comes() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let guest = Guest::new(&net, 2, LIMITS).await;
        net.delete_link(BRIDGE).await.unwrap();
        surrogate.stand_in(&guest.sleeper).await.unwrap_err();
        net.create_bridge(BRIDGE).await.unwrap();
        told(&mut notices, is_back).await;
        surrogate.stand_in(&guest.sleeper).await.unwrap();
    });
}

#[test]
fn a_dismissed_machine_is_answered_for_no_longer() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleep(&surrogate).await;
        client.send(&numbered(guest.mac(), 1));
        woken(&mut notices).await;
        assert_eq!(surrogate.dismiss(&guest.sleeper.name).await.unwrap(), 1);
        assert_eq!(surrogate.status(&guest.sleeper.name).await, None);
        let s0 = net.index("dm0-br0").await.unwrap();
        let entries = net.fdb_list(s0).await.unwrap();
        assert!(entries.iter().all(|entry| entry.target.mac != guest.mac()), "{entries:?}");
    });
}

#[test]
fn a_dismissed_guest_that_runs_on_has_its_network_back() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, _notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleep(&surrogate).await;
        surrogate.dismiss(&guest.sleeper.name).await.unwrap();
        guest.run();
        let tap = net.index("tap2").await.unwrap();
        assert!(net.wait_running(tap, Duration::from_secs(10)).await.unwrap());
        assert_eq!(net.port_flags(tap).await.unwrap().first_difference(&PortFlags::OPEN), None);
        client.send(&numbered(guest.mac(), 1));
        assert_eq!(guest.numbers_up_to(1).await, [1]);
    });
}

#[test]
fn a_missing_tap_is_named_and_the_machine_still_answered_for() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, _notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleep(&surrogate).await;
        net.delete_link("tap2").await.unwrap();
        client.send(&arp_request(GUEST_IP));
        client.expect(guest.mac(), |f| f[12..14] == [8, 6] && f[21] == 2).await;
        let error = surrogate.prepare(&guest.sleeper).await.unwrap_err();
        assert!(error.to_string().contains("tap2"), "{error}");
        client.send(&ping(guest.mac()));
        client.expect(guest.mac(), |f| f[12..14] == [8, 0] && f[34] == 0).await;
    });
}

#[test]
fn requests_for_others_are_filtered_and_announcements_kept() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, _notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleep(&surrogate).await;
        client.send(&arp_request([10, 9, 0, 77]));
        client.send(&announcement(crate::frames::CLIENT, [10, 9, 0, 1]));
        client.send(&ping(guest.mac()));
        client.expect(guest.mac(), |f| f[12..14] == [8, 0] && f[34] == 0).await;
        let status = surrogate.status(&guest.sleeper.name).await.unwrap();
        assert_eq!((status.held_frames, status.dropped.of(Reason::Filtered)), (1, 1), "{status:?}");
        assert_eq!(guest.wake(&surrogate).await.frames, 1);
    });
}

#[test]
fn a_frame_that_comes_after_the_release_is_passed_on() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(true).await;
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleep(&surrogate).await;
        // What it sends comes as if it had lain in a processor's backlog.
        let backlog = PacketSocket::open_inject("dm0-br0", false, 1 << 16).unwrap();
        backlog.send(&VnetHdr::PLAIN, &numbered(guest.mac(), 1)).unwrap();
        woken(&mut notices).await;
        guest.wake(&surrogate).await;
        backlog.send(&VnetHdr::PLAIN, &numbered(guest.mac(), 2)).unwrap();
        assert_eq!(guest.numbers_up_to(2).await, [1, 2]);

        // Captured once more within the second: held, not passed on.
        guest.sleep(&surrogate).await;
        backlog.send(&VnetHdr::PLAIN, &numbered(guest.mac(), 3)).unwrap();
        woken(&mut notices).await;
        assert_eq!(guest.wake(&surrogate).await.frames, 1);
        assert_eq!(guest.numbers_up_to(3).await, [1, 2, 3]);
    });
}

#[test]
fn the_last_frame_is_counted_if_it_is_lost_before_the_socket() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleep(&surrogate).await;
        client.send(&numbered(guest.mac(), 1));
        woken(&mut notices).await;
        // The kernel drops what is longer than the far end takes, after the port has counted it.
        run("ip link set dm1-br0 mtu 68");
        client.send(&numbered(guest.mac(), 2));
        let replay = guest.wake(&surrogate).await;
        assert_eq!((replay.frames, replay.dropped.of(Reason::Overrun)), (1, 1), "{replay:?}");
    });
}
