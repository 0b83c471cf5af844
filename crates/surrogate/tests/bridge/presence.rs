//! What a sleeper goes on being, and whom it does not wake for.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use dormouse_external::Program;
use dormouse_surrogate::{ExternalRule, Limits, Notice, Reason, Rehearsal, Settings, Surrogate};
use dormouse_types::{Service, ServiceKind};
use dormouse_wire::{Flow, Persona};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    frames::*,
    lab::{Client, Guest, LIMITS, in_namespace, network, surrogate, surrogate_with, woken},
};

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const SYN_ACK: u8 = SYN | ACK;

/// The next persona that is told, within a second.
async fn persona(notices: &mut UnboundedReceiver<Notice>) -> Persona {
    let wait = async {
        loop {
            if let Notice::Persona { persona, .. } = notices.recv().await.unwrap() {
                return *persona;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(1), wait).await.expect("no persona was told")
}

async fn heard(notices: &mut UnboundedReceiver<Notice>) {
    while !matches!(notices.recv().await.unwrap(), Notice::Heard { .. }) {}
}

/// Waits until the surrogate has done what came before by an answer to a ping.
async fn ping_through(client: &Client, guest: &Guest) {
    client.send(&ping(guest.mac()));
    client.expect(guest.mac(), |f| f[12..14] == [8, 0] && f[23] == 1 && f[34] == 0).await;
}

async fn ignored(surrogate: &Surrogate, guest: &Guest) -> Vec<(String, u64)> {
    let status = surrogate.status(&guest.sleeper.name).await.unwrap();
    status.ignored.into_iter().map(|(kind, noted)| (kind, noted.frames)).collect()
}

#[test]
fn what_a_guest_was_is_learned_and_goes_with_it_into_its_sleeps() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        surrogate.watch(&guest.sleeper.name, &guest.sleeper.ports).await.unwrap();
        guest.say(&announcement(guest.mac(), GUEST_IP));
        heard(&mut notices).await;
        guest.say(&join(guest.mac(), [239, 1, 1, 1]));
        // It is learned in order: when this address is told the group is known.
        guest.say(&announcement(guest.mac(), [10, 9, 0, 9]));
        let told = |notice: &Notice| matches!(notice, Notice::Learned { addresses, .. } if addresses == &[std::net::IpAddr::from([10, 9, 0, 9])]);
        while !told(&notices.recv().await.unwrap()) {}
        guest.sleep(&surrogate).await;
        let groups = vec![std::net::IpAddr::from([239, 1, 1, 1])];
        assert_eq!(persona(&mut notices).await.groups, groups);
        // And from there into the next one.
        guest.wake(&surrogate).await;
        guest.sleep(&surrogate).await;
        assert_eq!(persona(&mut notices).await.groups, groups);
    });
}

/// A connection to the guest's ssh, as it may have been seen.
fn ssh() -> Flow {
    Flow {
        local: (GUEST_IP, 22).into(),
        remote: (CLIENT_IP, 40_000).into(),
        snd_nxt: 5000,
        rcv_nxt: 9000,
        window: 500,
        tsval: None,
        heard: dormouse_types::Timestamp(1),
    }
}

#[test]
fn a_machine_that_is_off_has_nothing_of_its_last_boot() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.pause();
        guest.sleeper.ports[0].persona.flows = vec![ssh()];
        guest.sleeper.will_boot = true;
        surrogate.stand_in(&guest.sleeper).await.unwrap();
        assert_eq!(persona(&mut notices).await, Persona::default());
        // The probe of a connection that no boot to come will know wakes it, to be refused by itself.
        client.send(&tcp(guest.mac(), [40_000, 22], ACK, [8999, 5000]));
        ping_through(&client, &guest).await;
        let status = surrogate.status(&guest.sleeper.name).await.unwrap();
        assert_eq!(status.held_frames, 1);
        assert!(status.last_wake.is_some());
    });
}

#[test]
fn a_keepalive_probe_of_a_connection_that_was_kept_is_answered() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.pause();
        let flow = ssh();
        // As after a restart of the daemon: given back, not learned.
        guest.sleeper.ports[0].persona.flows = vec![flow];
        surrogate.stand_in(&guest.sleeper).await.unwrap();
        assert_eq!(persona(&mut notices).await.flows, [flow]);
        client.send(&tcp(guest.mac(), [40_000, 22], ACK, [8999, 5000]));
        let answer = client.expect(guest.mac(), |f| tcp_answer(f).is_some()).await;
        assert_eq!(tcp_answer(&answer), Some((ACK, 5000, 9000)));
        let status = surrogate.status(&guest.sleeper.name).await.unwrap();
        assert_eq!((status.held_frames, status.last_wake), (0, None));
    });
}

#[test]
fn a_scanner_wakes_nobody() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleeper.wake = vec!["tcp:22".parse().unwrap()];
        guest.sleep(&surrogate).await;
        for port in 100..120 {
            client.send(&tcp(guest.mac(), [40_000, port], SYN, [1, 0]));
        }
        client.send(&tcp(guest.mac(), [40_000, 22], SYN, [1, 0]));
        ping_through(&client, &guest).await;
        assert_eq!(ignored(&surrogate, &guest).await, [("scanner".to_owned(), 1)]);
        let status = surrogate.status(&guest.sleeper.name).await.unwrap();
        assert_eq!((status.held_frames, status.last_wake), (21, None), "what does not wake is held");
        while let Ok(notice) = notices.try_recv() {
            assert!(!matches!(notice, Notice::Wake { .. }));
        }
    });
}

#[test]
fn what_is_ignored_is_dropped_and_what_is_too_rare_is_held() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleeper.wake = vec!["tcp:22 rate 3/10s".parse().unwrap()];
        guest.sleeper.ignore = vec!["tcp:5666".parse().unwrap()];
        guest.sleep(&surrogate).await;
        client.send(&tcp(guest.mac(), [40_000, 5666], SYN, [1, 0]));
        client.send(&tcp(guest.mac(), [40_000, 22], SYN, [1, 0]));
        client.send(&tcp(guest.mac(), [40_001, 22], SYN, [1, 0]));
        ping_through(&client, &guest).await;
        let kinds = [("ignore tcp:5666".to_owned(), 1), ("tcp:22 rate 3/10s".to_owned(), 2)];
        assert_eq!(ignored(&surrogate, &guest).await, kinds);
        client.send(&tcp(guest.mac(), [40_002, 22], SYN, [1, 0]));
        assert!(woken(&mut notices).await.contains("40002"));
        let replay = guest.wake(&surrogate).await;
        assert_eq!((replay.frames, replay.dropped.of(Reason::Ignored)), (3, 1), "{replay:?}");
    });
}

#[test]
fn a_service_is_spoken_and_ends_with_the_sleep() {
    in_namespace(|| async {
        let net = network().await;
        let (surrogate, _notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleeper.services = vec![Service { port: 80, kind: ServiceKind::WakingPage, wakes: false }];
        guest.sleep(&surrogate).await;
        client.send(&tcp(guest.mac(), [40_000, 80], SYN, [1000, 0]));
        let answer = client.expect(guest.mac(), |f| tcp_answer(f).is_some()).await;
        let (flags, seq, ack) = tcp_answer(&answer).unwrap();
        assert_eq!((flags, ack), (SYN_ACK, 1001));
        client.send(&tcp(guest.mac(), [40_000, 80], ACK, [1001, seq + 1]));
        ping_through(&client, &guest).await;
        let replay = guest.wake(&surrogate).await;
        assert_eq!(replay.frames, 0, "what the service took is not replayed");
        client.expect(guest.mac(), |f| tcp_answer(f).is_some_and(|(flags, ..)| flags & RST != 0)).await;
    });
}

#[test]
fn a_program_is_asked_and_what_it_says_is_done() {
    in_namespace(|| async {
        let net = network().await;
        let script = std::env::temp_dir().join(format!("dormouse-responder-{}", std::process::id()));
        // Ignores UDP port 7777, holds TCP port 23, and wakes for anything else.
        std::fs::write(
            &script,
            r#"#!/bin/sh
while read -r line; do
    id=${line#*\"id\":}; id=${id%%[!0-9]*}
    case $line in *:7777*) verdict=ignore;; *:23\ *) verdict=hold;; *) verdict=wake;; esac
    echo "{\"id\":$id,\"verdict\":\"$verdict\"}"
done
"#,
        )
        .unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let program = Program {
            name: "test".into(),
            program: script.clone(),
            args: vec![],
            user: None,
            timeout: Duration::from_secs(20),
        };
        let (surrogate, mut notices) =
            surrogate_with(Settings { externals: vec![program], ..Settings::default() }).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        let frames = vec!["udp:7777".parse().unwrap(), "tcp:22,23".parse().unwrap()];
        guest.sleeper.externals = vec![ExternalRule { program: "test".into(), frames }];
        let rehearsed = surrogate.rehearse(&guest.sleeper, guest.mac(), &numbered(guest.mac(), 1)).await;
        assert_eq!(rehearsed, Rehearsal::Asked("test".into()));
        guest.sleep(&surrogate).await;
        client.send(&numbered(guest.mac(), 1));
        client.send(&tcp(guest.mac(), [40_000, 23], SYN, [1, 0]));
        client.send(&tcp(guest.mac(), [40_000, 22], SYN, [1, 0]));
        // The one that is held wakes nobody, though the rules name it.
        let why = woken(&mut notices).await;
        assert!(why.contains(":22 "), "{why}");
        let replay = guest.wake(&surrogate).await;
        std::fs::remove_file(script).unwrap();
        assert_eq!((replay.frames, replay.dropped.of(Reason::Filtered)), (2, 1), "{replay:?}");
    });
}

/// Whatever is dropped for whatever reason: nothing is lost without being counted, and another
/// sleeper is answered and woken meanwhile.
fn flood(plain: bool) {
    in_namespace(|| async move {
        const FRAMES: u32 = 100_000;
        let net = network().await;
        let (surrogate, mut notices) = surrogate(plain).await;
        let limits = Limits { frames: 100, bytes: 1 << 20 };
        let mut flooded = Guest::new(&net, 2, limits).await;
        let mut other = Guest::new(&net, 3, LIMITS).await;
        flooded.sleep(&surrogate).await;
        other.sleep(&surrogate).await;
        let to = flooded.mac();
        let sender = std::thread::spawn(move || {
            let client = Client::new();
            (0..FRAMES).for_each(|number| client.send(&numbered(to, number)));
        });
        woken(&mut notices).await;
        let client = Client::new();
        client.send(&numbered(other.mac(), 1));
        woken(&mut notices).await;
        sender.join().unwrap();
        let replay = flooded.wake(&surrogate).await;
        let lost = replay.dropped.lost();
        assert_eq!(replay.frames + lost, u64::from(FRAMES), "{replay:?}");
        // What was not read yet when the wake began finds room as the held ones go.
        assert!((100..u64::from(FRAMES) / 2).contains(&replay.frames), "{replay:?}");
        assert_eq!(other.wake(&surrogate).await.dropped.lost(), 0);
    });
}

#[test]
fn a_flood_is_counted_and_stops_nobody() {
    flood(false);
}

#[test]
fn a_flood_is_counted_and_stops_nobody_without_ebpf() {
    flood(true);
}

#[test]
fn a_machine_wakes_from_one_bridge_while_another_is_gone() {
    in_namespace(|| async {
        let net = network().await;
        net.create_bridge("br1").await.unwrap();
        net.disable_ipv6("br1").unwrap();
        net.set_up(net.index("br1").await.unwrap()).await.unwrap();
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        let queue = net.ensure_tap("tap9", "br1").await.unwrap();
        let mut port = guest.sleeper.ports[0].clone();
        (port.mac.0[5], port.bridge, port.tap) = (9, "br1".into(), "tap9".into());
        port.queue = Some(std::sync::Arc::new(queue));
        // The one that goes is the first to be asked for.
        guest.sleeper.ports.insert(0, port);
        guest.sleeper.ports.swap(0, 1);
        guest.sleep(&surrogate).await;
        guest.sleeper.ports.swap(0, 1);
        net.delete_link("br1").await.unwrap();
        while !matches!(notices.recv().await.unwrap(), Notice::BridgeLost { .. }) {}
        client.send(&numbered(guest.sleeper.ports[1].mac, 1));
        woken(&mut notices).await;
        while notices.try_recv().is_ok() {}
        // However often it is tried again, the other one goes on.
        for _ in 0..3 {
            let missing = surrogate.stand_in(&guest.sleeper).await.unwrap();
            assert!(missing.unwrap().to_string().contains("br1"));
        }
        assert!(notices.try_recv().is_err(), "the healthy port was started anew");
        assert_eq!(guest.wake(&surrogate).await.frames, 1);
        assert_eq!(guest.numbers_up_to(1).await, [1]);
        // When it is back the guest is plugged in.
        net.create_bridge("br1").await.unwrap();
        while !matches!(notices.recv().await.unwrap(), Notice::BridgeBack { .. }) {}
        let bridge = net.index("br1").await.unwrap();
        let plugged_in = async {
            while net.link("tap9").await.unwrap().unwrap().master != Some(bridge) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(2), plugged_in).await.expect("it stays unplugged");
    });
}

/// Not part of the suite, for it measures:
/// `cargo test -p dormouse-surrogate --release --test bridge -- --ignored --nocapture thousands`.
#[test]
#[ignore = "measures"]
fn thousands_of_sleepers() {
    in_namespace(|| async {
        const SLEEPERS: u32 = 10_000;
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let guest = Guest::new(&net, 2, LIMITS).await;
        surrogate.stand_in(&guest.sleeper).await.unwrap();
        // As the daemon does: what waits to be told is no sleeper's.
        tokio::spawn(async move { while notices.recv().await.is_some() {} });
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let (before, start) = (resident(), std::time::Instant::now());
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..SLEEPERS {
            let [_, _, c, d] = number.to_be_bytes();
            let mut sleeper = guest.sleeper.clone();
            sleeper.name = format!("sleeper{number}").parse().unwrap();
            let port = &mut sleeper.ports[0];
            (port.mac.0, port.queue) = ([2, 1, 0, 0, c, d], None);
            (port.tap, port.addresses) = (format!("none{number}"), vec![[10, 77, c, d].into()]);
            let surrogate = surrogate.clone();
            tasks.spawn(async move { surrogate.stand_in(&sleeper).await.unwrap() });
        }
        while tasks.join_next().await.is_some() {}
        let (took, each) = (start.elapsed(), (resident() - before) / SLEEPERS as usize);
        println!("{SLEEPERS} stood in for in {took:?}, {each} octets each");
    });
}
