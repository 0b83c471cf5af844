//! Every operation, checked against what `ip` and `bridge` say. Each test has a network
//! namespace of its own. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::{future::Future, process::Command, thread, time::Duration};

use dormouse_net::{
    Error, FdbEntry, FdbState, FdbTarget, FdbTurn, LinkEvent, MulticastRouter, Net, PortFlags,
};
use dormouse_sys::tap;
use dormouse_types::MacAddr;
use serde_json::Value;

/// Runs a test in a new network namespace, which ends with its thread.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Net) -> F + Send + 'static) {
    let body = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(Net::connect().unwrap()).await });
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// The output of an iproute2 command in JSON.
fn iproute(command: &str) -> Value {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn ip_link(name: &str) -> Value {
    iproute(&format!("ip -j -d -s link show dev {name}"))[0].clone()
}

/// `bridge fdb show` for one address.
fn fdb_of(mac: MacAddr) -> Vec<Value> {
    let all = iproute("bridge -j fdb show");
    all.as_array().unwrap().iter().filter(|e| e["mac"] == mac.to_string()).cloned().collect()
}

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0xab, 0xcd, 0x01]);

/// A bridge `br` with port `s0`, whose far end is `s1`; the indexes of bridge and port.
async fn bridge_with_port(net: &Net) -> (u32, u32) {
    net.create_bridge("br").await.unwrap();
    net.create_veth("s0", "s1").await.unwrap();
    let (bridge, port) = (net.index("br").await.unwrap(), net.index("s0").await.unwrap());
    net.set_master(port, bridge).await.unwrap();
    (bridge, port)
}

#[test]
fn links_are_as_ip_shows_them() {
    in_namespace(|net| async move {
        let (bridge, port) = bridge_with_port(&net).await;
        net.set_mtu(port, 1400).await.unwrap();
        net.set_txqlen(port, 20_000).await.unwrap();
        net.set_arp_off(port).await.unwrap();
        net.disable_ipv6("s0").unwrap();
        for index in [bridge, port, net.index("s1").await.unwrap()] {
            net.set_up(index).await.unwrap();
        }
        let seen = ip_link("s0");
        assert_eq!(
            (&seen["master"], &seen["mtu"], &seen["txqlen"]),
            (&"br".into(), &1400.into(), &20_000.into())
        );
        let flags = seen["flags"].as_array().unwrap();
        assert!(flags.contains(&"NOARP".into()) && flags.contains(&"UP".into()), "{flags:?}");
        let addresses = iproute("ip -j -6 addr show dev s0");
        assert_eq!(addresses.as_array().unwrap().len(), 0, "IPv6 is still on: {addresses}");

        let link = net.link("s0").await.unwrap().unwrap();
        assert_eq!(
            (link.index, link.master, link.mtu, link.up, link.running),
            (port, Some(bridge), 1400, true, true)
        );
        assert_eq!(link.mac.unwrap().to_string(), seen["address"].as_str().unwrap());
        assert_eq!(net.link_by_index(port).await.unwrap().unwrap().name, "s0");
        assert!(net.bridge("br").await.unwrap().is_bridge);
        assert_eq!(net.ports(bridge).await.unwrap().iter().map(|l| l.index).collect::<Vec<_>>(), [port]);

        net.set_nomaster(port).await.unwrap();
        net.set_down(port).await.unwrap();
        let seen = ip_link("s0");
        assert_eq!(seen["master"], Value::Null);
        assert!(!seen["flags"].as_array().unwrap().contains(&"UP".into()));
        assert!(!net.wait_running(port, Duration::from_millis(5)).await.unwrap());
        assert!(net.ports(bridge).await.unwrap().is_empty());
        assert!(net.delete_link("s0").await.unwrap());
        assert!(!net.delete_link("s0").await.unwrap());
        assert_eq!(net.link("s1").await.unwrap(), None);
    });
}

#[test]
fn what_is_not_there_is_named() {
    in_namespace(|net| async move {
        net.create_veth("v0", "v1").await.unwrap();
        assert_eq!(net.link_by_index(4711).await.unwrap(), None);
        assert!(matches!(net.index("nope").await, Err(Error::NoLink(name)) if name == "nope"));
        assert!(matches!(net.bridge("nope").await, Err(Error::NoBridge(name)) if name == "nope"));
        assert!(matches!(net.bridge("v0").await, Err(Error::NotABridge(name)) if name == "v0"));
        assert!(matches!(net.set_up(4711).await, Err(Error::NoLink(name)) if name == "#4711"));
        assert!(net.create_veth("v0", "v2").await.is_err());
        let target = FdbTarget { port: net.index("v0").await.unwrap(), mac: MAC, vlan: None };
        assert!(net.fdb_replace(target, FdbState::Sticky).await.is_err(), "v0 is in no bridge");
        let port = target.port;
        assert!(net.set_port_flags(port, PortFlags::SURROGATE).await.is_err());
        assert_eq!(net.port_flags(port).await.unwrap(), PortFlags::default());
    });
}

#[test]
fn port_flags_are_as_ip_shows_them() {
    in_namespace(|net| async move {
        let (_, port) = bridge_with_port(&net).await;
        let shown = || {
            let data = ip_link("s0")["linkinfo"]["info_slave_data"].clone();
            ["learning", "flood", "mcast_flood", "bcast_flood", "neigh_suppress"]
                .map(|name| data[name].as_bool().unwrap())
        };
        let router = || ip_link("s0")["linkinfo"]["info_slave_data"]["multicast_router"].as_u64().unwrap();
        assert_eq!(
            (shown(), router()),
            ([true, true, true, true, false], 1),
            "the kernel's defaults have changed"
        );
        net.set_port_flags(port, PortFlags { neigh_suppress: Some(true), ..PortFlags::SURROGATE })
            .await
            .unwrap();
        assert_eq!((shown(), router()), ([false, false, true, true, true], 2));
        net.set_port_flags(port, PortFlags::CAPTURED).await.unwrap();
        assert_eq!((shown(), router()), ([false, false, false, false, true], 0));
        let flood_only = PortFlags { flood: Some(true), ..PortFlags::default() };
        net.set_port_flags(port, flood_only).await.unwrap();
        assert_eq!((shown(), router()), ([false, true, false, false, true], 0));
        let flags = net.port_flags(port).await.unwrap();
        assert_eq!((flags.flood, flags.multicast_router), (Some(true), Some(MulticastRouter::Never)));
        assert_eq!(flags.first_difference(&PortFlags::SURROGATE), Some("flood"));
        net.set_port_flags(port, PortFlags::OPEN).await.unwrap();
        assert_eq!((shown(), router()), ([true, true, true, true, true], 1));
    });
}

#[test]
fn forwarding_entries_are_as_bridge_shows_them() {
    in_namespace(|net| async move {
        let (bridge, s0) = bridge_with_port(&net).await;
        net.create_veth("t0", "t1").await.unwrap();
        let t0 = net.index("t0").await.unwrap();
        net.set_master(t0, bridge).await.unwrap();
        let sticky = FdbTarget { port: s0, mac: MAC, vlan: None };

        net.fdb_replace(sticky, FdbState::Sticky).await.unwrap();
        let seen = fdb_of(MAC);
        assert!(!seen.is_empty());
        for entry in &seen {
            assert_eq!((&entry["ifname"], &entry["state"]), (&"s0".into(), &"static".into()), "{entry}");
            assert!(entry["flags"].as_array().unwrap().contains(&"sticky".into()), "{entry}");
        }
        let listed = net.fdb_list(s0).await.unwrap();
        assert!(listed.contains(&FdbEntry { target: sticky, state: FdbState::Sticky }), "{listed:?}");

        let free = FdbTarget { port: t0, ..sticky };
        let error = net.fdb_replace(free, FdbState::Reachable).await.unwrap_err();
        assert!(matches!(error, Error::PortDown { ref port } if port == "t0"), "{error}");
        for name in ["br", "t0", "t1"] {
            net.set_up(net.index(name).await.unwrap()).await.unwrap();
        }
        net.fdb_replace(free, FdbState::Reachable).await.unwrap();
        for entry in fdb_of(MAC) {
            assert_eq!((&entry["ifname"], &entry["state"]), (&"t0".into(), &"".into()), "{entry}");
            assert!(!entry["flags"].as_array().unwrap().contains(&"sticky".into()), "{entry}");
        }
        assert!(
            net.fdb_list(t0).await.unwrap().contains(&FdbEntry { target: free, state: FdbState::Reachable })
        );
        assert!(!net.fdb_list(s0).await.unwrap().iter().any(|entry| entry.target.mac == MAC));

        assert!(net.fdb_delete(free).await.unwrap());
        assert!(!net.fdb_delete(free).await.unwrap());
        assert!(fdb_of(MAC).is_empty());
    });
}

#[test]
fn a_prepared_change_is_made_when_the_call_returns() {
    in_namespace(|net| async move {
        let (bridge, s0) = bridge_with_port(&net).await;
        let queue = net.ensure_tap("t0", "br").await.unwrap();
        net.set_up(bridge).await.unwrap();
        let t0 = net.index("t0").await.unwrap();
        let sticky = FdbTarget { port: s0, mac: MAC, vlan: None };
        let to_tap = FdbTurn::new(FdbTarget { port: t0, ..sticky }, FdbState::Reachable).unwrap();
        net.fdb_replace(sticky, FdbState::Sticky).await.unwrap();
        assert!(net.wait_running(t0, Duration::from_secs(5)).await.unwrap());
        for _ in 0..3 {
            to_tap.make().unwrap();
            assert!(fdb_of(MAC).iter().all(|entry| entry["ifname"] == "t0" && entry["state"] == ""));
            FdbTurn::new(sticky, FdbState::Sticky).unwrap().make().unwrap();
            assert!(fdb_of(MAC).iter().all(|entry| entry["ifname"] == "s0" && entry["state"] == "static"));
        }
        drop(queue);
        net.delete_link("t0").await.unwrap();
        assert!(to_tap.make().is_err(), "there is no such port any more");
    });
}

#[test]
fn a_vlan_has_entries_of_its_own() {
    in_namespace(|net| async move {
        let (_, s0) = bridge_with_port(&net).await;
        let succeeds = |command: &str| {
            let mut words = command.split(' ');
            Command::new(words.next().unwrap()).args(words).status().unwrap().success()
        };
        if !succeeds("ip link set br type bridge vlan_filtering 1") {
            println!("skipped: this kernel has no VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)");
            return;
        }
        assert!(succeeds("bridge vlan add dev s0 vid 7"));
        let target = FdbTarget { port: s0, mac: MAC, vlan: Some(7) };
        net.fdb_replace(target, FdbState::Sticky).await.unwrap();
        let seen = fdb_of(MAC);
        assert_eq!(seen.iter().map(|entry| entry["vlan"].clone()).collect::<Vec<_>>(), [7]);
        assert_eq!(
            net.fdb_list(s0).await.unwrap().iter().find(|e| e.target.mac == MAC).unwrap().target,
            target
        );
        assert!(!net.fdb_delete(FdbTarget { vlan: Some(8), ..target }).await.unwrap_or(false));
        assert!(net.fdb_delete(target).await.unwrap());
    });
}

#[test]
fn ten_thousand_entries_at_once() {
    in_namespace(|net| async move {
        let (_, s0) = bridge_with_port(&net).await;
        let target = |n: u16| {
            let [a, b] = n.to_be_bytes();
            FdbTarget { port: s0, mac: MacAddr([2, 0xfe, 0, 0, a, b]), vlan: None }
        };
        let targets: Vec<_> = (0..10_000).map(target).collect();
        let start = std::time::Instant::now();
        net.fdb_replace_many(&targets, FdbState::Sticky).await.unwrap();
        println!("10,000 entries in {:?}", start.elapsed());
        let listed = net.fdb_list(s0).await.unwrap();
        assert_eq!(listed.iter().filter(|entry| entry.state == FdbState::Sticky).count(), 10_000);
    });
}

#[test]
fn one_bad_entry_does_not_keep_the_others_out() {
    in_namespace(|net| async move {
        let (_, s0) = bridge_with_port(&net).await;
        let good = FdbTarget { port: s0, mac: MAC, vlan: None };
        let bad = FdbTarget { port: 4711, ..good };
        assert!(net.fdb_replace_many(&[bad, good], FdbState::Sticky).await.is_err());
        assert!(!fdb_of(MAC).is_empty());
    });
}

#[test]
fn a_tap_is_made_in_its_bridge_and_stays() {
    in_namespace(|net| async move {
        let (bridge, _) = bridge_with_port(&net).await;
        net.set_mtu(bridge, 1400).await.unwrap();
        let queue = net.ensure_tap("vm0", "br").await.unwrap();
        let seen = ip_link("vm0");
        assert_eq!((&seen["master"], &seen["mtu"]), (&"br".into(), &1400.into()));
        assert_eq!(seen["linkinfo"]["info_kind"], "tun");
        let data = &seen["linkinfo"]["info_data"];
        assert_eq!(
            (&data["type"], &data["persist"], &data["vnet_hdr"]),
            (&"tap".into(), &true.into(), &true.into())
        );
        assert!(seen["flags"].as_array().unwrap().contains(&"UP".into()));
        assert_eq!(iproute("ip -j -6 addr show dev vm0").as_array().unwrap().len(), 0);

        let error = net.ensure_tap("vm0", "br").await.unwrap_err();
        assert!(matches!(error, Error::Tap(tap::Error::InUse(ref name)) if name == "vm0"), "{error}");
        drop(queue);
        let queue = net.ensure_tap("vm0", "br").await.unwrap();
        tap::set_persist(&queue, false).unwrap();
        drop(queue);
        // Another test's thread may just be forking, and its child has the queue for a moment.
        let gone = async {
            while net.link("vm0").await.unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    });
}

#[test]
fn a_tap_that_cannot_be_says_why() {
    in_namespace(|net| async move {
        bridge_with_port(&net).await;
        let failed = async |name, bridge| net.ensure_tap(name, bridge).await.unwrap_err();
        assert!(matches!(failed("vm0", "nope").await, Error::NoBridge(_)));
        assert!(matches!(failed("vm0", "s1").await, Error::NotABridge(_)));
        assert!(matches!(failed("s1", "br").await, Error::Tap(tap::Error::NotATap(_))));
        assert!(matches!(failed("much_too_long_a_name", "br").await, Error::Tap(tap::Error::Name(_))));
        assert!(matches!(failed("vm%d", "br").await, Error::Tap(tap::Error::Name(_))));
        assert_eq!(net.link("vm0").await.unwrap(), None, "made although there was no bridge for it");
    });
}

#[test]
fn the_monitor_tells_of_bridges_that_come_and_go() {
    in_namespace(|net| async move {
        let mut monitor = Net::monitor().unwrap();
        let (bridge, port) = bridge_with_port(&net).await;
        net.set_nomaster(port).await.unwrap();
        net.delete_link("br").await.unwrap();
        let mut events = Vec::new();
        let until_deleted = async {
            while let Some(event) = monitor.next().await {
                let last = matches!(&event, LinkEvent::Deleted { index, .. } if *index == bridge);
                events.push(event);
                if last {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), until_deleted).await.unwrap();
        assert!(
            events
                .iter()
                .any(|e| matches!(e, LinkEvent::Changed(link) if link.name == "br" && link.is_bridge))
        );
        assert!(
            events
                .iter()
                .any(|e| matches!(e, LinkEvent::Changed(l) if l.index == port && l.master == Some(bridge)))
        );
        let deleted: Vec<_> = events.iter().filter(|e| matches!(e, LinkEvent::Deleted { .. })).collect();
        // Leaving a bridge is not being deleted, though the kernel's message says so.
        assert_eq!(deleted, [&LinkEvent::Deleted { index: bridge, name: "br".into() }]);
    });
}
