//! What is answered, and what wakes.

use crate::{
    frames::*,
    lab::{Client, Guest, LIMITS, in_namespace, network, surrogate, woken},
};
use dormouse_surrogate::{HandoverKind, Mode, Notice};

#[test]
fn a_sleeper_is_answered_for_and_woken() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        let mac = guest.mac();
        client.send(&numbered(mac, 1));
        assert_eq!(guest.numbers_up_to(1).await, [1]);

        guest.sleep(&surrogate).await;
        client.send(&arp_request(GUEST_IP));
        client.expect(mac, |f| f[12..14] == [8, 6] && f[21] == 2).await;
        client.send(&ping(mac));
        client.expect(mac, |f| f[12..14] == [8, 0] && f[34] == 0).await;
        client.send(&solicitation());
        client.expect(mac, |f| f[12..14] == [0x86, 0xdd] && f[54] == 136).await;
        let status = surrogate.status(&guest.sleeper.name).await.unwrap();
        assert_eq!((status.mode, status.held_frames), (Mode::Standing, 0));
        assert_eq!(status.answered.values().sum::<u64>(), 3, "{status:?}");
        assert!(matches!(notices.try_recv(), Ok(Notice::Persona { .. })));
        assert!(notices.try_recv().is_err(), "an answered frame woke it");

        client.send(&numbered(mac, 2));
        assert!(woken(&mut notices).await.contains("udp"));
        client.send(&numbered(mac, 3));
        let replay = guest.wake(&surrogate).await;
        client.send(&numbered(mac, 4));
        assert_eq!(guest.numbers_up_to(4).await, [1, 2, 3, 4]);
        assert_eq!((replay.frames, replay.dropped.lost()), (2, 0), "{replay:?}");
        assert_eq!(replay.handover, HandoverKind::Ebpf);
        assert_eq!(surrogate.status(&guest.sleeper.name).await, None);
    });
}

#[test]
fn a_frame_during_the_way_to_sleep_is_told_and_kept() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let guest = Guest::new(&net, 2, LIMITS).await;
        surrogate.capture(&guest.sleeper).await.unwrap();
        client.send(&ping(guest.mac()));
        client.send(&numbered(guest.mac(), 1));
        assert!(woken(&mut notices).await.contains("udp"));
        let replay = surrogate.release(&guest.sleeper).await.unwrap();
        assert_eq!(guest.numbers_up_to(1).await, [1]);
        assert_eq!(replay.frames, 2);
    });
}

#[test]
fn a_request_for_its_address_on_the_way_to_sleep_is_answered_once_it_sleeps() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, _notices) = surrogate(false).await;
        // Each waits for an answer of its own.
        let (client, other) = (Client::new(), Client::new());
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        let mac = guest.mac();
        surrogate.capture(&guest.sleeper).await.unwrap();
        client.send(&arp_request(GUEST_IP));
        client.send(&solicitation());
        surrogate.drain(&guest.sleeper, std::time::Duration::from_secs(1)).await.unwrap();
        guest.pause();
        surrogate.stand_in(&guest.sleeper).await.unwrap();
        client.expect(mac, |f| f[12..14] == [8, 6] && f[21] == 2).await;
        other.expect(mac, |f| f[12..14] == [0x86, 0xdd] && f[54] == 136).await;
    });
}

#[test]
fn a_request_for_its_address_during_a_sleep_that_is_undone_is_the_guests() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, _notices) = surrogate(false).await;
        let client = Client::new();
        let guest = Guest::new(&net, 2, LIMITS).await;
        let request = arp_request(GUEST_IP);
        surrogate.capture(&guest.sleeper).await.unwrap();
        client.send(&request);
        client.send(&numbered(guest.mac(), 1));
        surrogate.release(&guest.sleeper).await.unwrap();
        guest.numbers_up_to(1).await;
        assert_eq!(guest.frames().iter().filter(|frame| **frame == request).count(), 1);
    });
}

#[test]
fn a_running_guest_is_heard_and_its_addresses_learned() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let guest = Guest::new(&net, 2, LIMITS).await;
        surrogate.watch(&guest.sleeper.name, &guest.sleeper.ports).await.unwrap();
        guest.say(&announcement(guest.mac(), GUEST_IP));
        let name = guest.sleeper.name.clone();
        assert_eq!(notices.recv().await, Some(Notice::Heard { name: name.clone() }));
        let addresses = vec![GUEST_IP.into()];
        assert_eq!(notices.recv().await, Some(Notice::Learned { name, mac: guest.mac(), addresses }));
    });
}
