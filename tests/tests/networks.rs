//! The networks that hosts really have: large frames, fragments, queriers, firewalls.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{FAST_SAMPLES, LONG, Numbered, SECOND, Scene, TCP_ONLY};
use dormouse_lab::{
    Daemon, Guest, Lab, Namespace,
    api::{MachineState, Why},
    wait_until,
};
use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
};

/// A guest that connections wake, on a network that `prepare` has changed.
fn boot(prefix: &str, guest: Guest, prepare: impl FnOnce(&Lab)) -> Scene {
    let lab = Lab::new(prefix).unwrap();
    prepare(&lab);
    let daemon = Daemon::start_with(&lab, FAST_SAMPLES, &[]).unwrap();
    let scene = Scene::with(lab, daemon, guest);
    scene.start(&[]);
    scene
}

fn tcp_only() -> Guest {
    Guest::new("web", 2).set("wake.on", vec![TCP_ONLY.to_owned()])
}

/// `ping` of iputils, by which a ping can be of any size.
fn large_ping(scene: &Scene, size: u32, seconds: u32) -> bool {
    let mut ping = scene.client.namespace().command("ping");
    ping.args(["-n", "-c", "1", "-s", &size.to_string(), "-W", &seconds.to_string(), "10.9.0.2"]);
    ping.stdout(Stdio::null()).status().unwrap().success()
}

fn nft(namespace: &Namespace, rules: &str) {
    let mut command = namespace.command("nft");
    let mut nft = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "{rules}");
}

/// The packets that counters of this name have seen.
fn counted(namespace: &Namespace, table: &str, counter: &str) -> u64 {
    let list = ["-j", "list", "counter"].into_iter().chain(table.split(' ')).chain([counter]);
    let out = namespace.command("nft").args(list).output().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    said["nftables"][1]["counter"]["packets"].as_u64().unwrap()
}

#[test]
fn jumbo_frames_are_answered_held_and_replayed() {
    let scene = boot("jumbo", tcp_only(), |lab| {
        lab.switch().ip("link set cl0 mtu 9000\nlink set br0 mtu 9000\n").unwrap();
        lab.client_namespace().ip("link set eth0 mtu 9000\n").unwrap();
    });
    let mut shell = scene.client.ssh(&scene.image, scene.guest.ip()).unwrap();
    shell.run("ip link set eth0 mtu 9000").unwrap();
    drop(shell);
    scene.client.reset_sink(scene.guest.ip()).unwrap();
    let before = scene.before();
    let stream = scene.client.udp_stream(scene.guest.ip(), 200, 8000).unwrap();
    scene.sleep();
    scene.wait_no_qemu();
    assert!(large_ping(&scene, 8000, 1), "not answered for");
    assert_eq!(scene.state(), MachineState::Asleep);
    // Some were held.
    let held = |why: Why| why.held.bytes > 10 * 8000;
    wait_until("frames to be held", LONG, || scene.daemon.why("web").map(held)).unwrap();
    scene.page();
    scene.wait(MachineState::Active);
    let sent = stream.stop().datagrams;
    let stats = scene.settled_sink(sent);
    assert!(stats.is_whole(sent), "{sent} sent: {stats:?}");
    assert!(large_ping(&scene, 8000, 5));
    assert_eq!(scene.before(), before);
}

#[test]
fn fragments_are_held_wake_and_are_put_together_by_the_guest() {
    let scene = boot("fragments", Guest::new("web", 2), |_| {});
    let before = scene.before();
    scene.client.reset_sink(scene.guest.ip()).unwrap();
    scene.sleep();
    scene.wait_no_qemu();
    assert!(large_ping(&scene, 4000, 60), "three fragments: for the guest itself, which they wake");
    scene.wait(MachineState::Active);

    scene.sleep();
    scene.wait_no_qemu();
    let mark = scene.mark();
    let stream = scene.client.udp_stream(scene.guest.ip(), 50, 4096).unwrap();
    scene.entered(mark, MachineState::Active);
    let sent = stream.stop().datagrams;
    let stats = scene.settled_sink(sent);
    assert!(stats.is_whole(sent) && sent > 0, "{sent} sent: {stats:?}");
    assert_eq!(scene.before(), before);
}

#[test]
fn ipv6_lives_with_a_querier_on_the_bridge() {
    let scene = boot("querier", tcp_only(), |lab| {
        // Queries at once and each second. Without an address of its own a bridge sends none by MLD.
        lab.switch()
            .ip("link set br0 type bridge mcast_snooping 1 mcast_query_interval 100 \
                 mcast_startup_query_interval 100 mcast_querier 1\n\
             addr add fd77::ff/64 dev br0 nodad\n")
            .unwrap();
    });
    let before = scene.before();
    // Its address is learned from what it says.
    scene.client.ping(scene.guest.ip6(), 5 * SECOND).unwrap();
    // The guest has told of its memberships: a solicitation goes where somebody wants it.
    let mdb = || {
        let out = scene.lab.switch().command("bridge").args(["mdb", "show", "dev", "br0"]).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    wait_until("the guest's memberships", LONG, || Ok(mdb().contains("ff02::1:ff00:2"))).unwrap();
    for _ in 0..2 {
        scene.sleep();
        scene.wait_no_qemu();
        scene.client.forget_neighbours().unwrap();
        scene.client.ping(scene.guest.ip6(), SECOND).unwrap();
        assert_eq!(scene.state(), MachineState::Asleep);
        scene.client.forget_neighbours().unwrap();
        let web = SocketAddr::new(scene.guest.ip6().into(), 80);
        assert_eq!(scene.client.http_get(web, "/", LONG).unwrap().status, 200);
        scene.wait(MachineState::Active);
        scene.client.forget_neighbours().unwrap();
        scene.client.ping(scene.guest.ip6(), 5 * SECOND).unwrap();
    }
    assert_eq!(scene.before(), before);
}

/// A rule that names the machine by its address holds whether it sleeps or not, at either place
/// where bridged frames can be filtered; connections are tracked through sleep and wake.
#[test]
fn a_firewall_on_the_bridge_sees_what_comes_for_a_sleeper() {
    let scene = boot("firewall", Guest::new("web", 2), |lab| {
        for key in ["iptables", "ip6tables"] {
            lab.switch().sysctl(&format!("net/bridge/bridge-nf-call-{key}"), "1").unwrap();
        }
        nft(lab.switch(), RULES);
    });
    let switch = scene.lab.switch();
    let before = scene.before();
    let mut echo = scene.client.echo(scene.guest.ip()).unwrap();
    scene.sleep();
    scene.wait_no_qemu();

    // Dropped by a rule of each kind: it sleeps on, and never gets them.
    for port in [81, 82] {
        let to = SocketAddr::new(scene.guest.ip().into(), port);
        scene.client.tcp_connect(to, SECOND / 2).unwrap_err();
    }
    let mut dropped = Numbered::to(&scene.client, scene.guest.ip());
    dropped.send();
    assert!(scene.pings(scene.guest.ip()));
    let why = scene.daemon.why("web").unwrap();
    // Any of them would have woken it; what is held is the client's own multicast.
    assert_eq!(why.state, MachineState::Asleep, "{why:?}");
    let seen = |table, counter| counted(switch, table, counter);
    assert!(seen("bridge filter", "port81") > 0 && seen("inet filter", "port82") > 0);
    assert!(seen("inet filter", "sink") == 1);

    // What is allowed wakes it, in a connection that the firewall knows, and in a new one.
    echo.say("still here").unwrap();
    scene.wait(MachineState::Active);
    scene.sleep();
    scene.wait_no_qemu();
    scene.wakes_at_the_first_syn();
    assert_eq!(seen("inet filter", "invalid"), 0, "a frame was not tracked");
    assert_eq!(scene.before(), before);
    assert_eq!(scene.sink().received, 0, "what was dropped was delivered");
}

const RULES: &str = "
table bridge filter {
  counter port81 { }
  chain forward {
    type filter hook forward priority 0; policy accept;
    ether daddr 52:54:00:00:00:02 tcp dport 81 counter name port81 drop
  }
}
table inet filter {
  counter port82 { }
  counter sink { }
  counter invalid { }
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state invalid counter name invalid drop
    ip daddr 10.9.0.2 tcp dport 82 counter name port82 drop
    ip daddr 10.9.0.2 udp dport 7777 counter name sink drop
    ct state established,related accept
    ip daddr 10.9.0.2 ct state new accept
    ip saddr 10.9.0.2 accept
    meta l4proto ipv6-icmp accept
    ip6 daddr fd77::/64 accept
  }
}
";

/// The host is the machine's router: a forwarded port wakes it, and it reaches the world masqueraded.
#[test]
fn a_router_on_the_host_forwards_a_port_to_a_sleeper() {
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    let scene = boot("router", tcp_only().kernel_option("dm.gw=10.9.0.254"), |lab| {
        let client = lab.client_namespace();
        lab.switch()
            .ip(&format!(
                "addr add 10.9.0.254/24 dev br0\n\
             link add up0 type veth peer name up1 netns {}\naddr add {OUTSIDE}/24 dev up0\nlink set up0 up\n",
                client.name()
            ))
            .unwrap();
        client.ip("addr add 192.0.2.2/24 dev up1\nlink set up1 up\n").unwrap();
        lab.switch().sysctl("net/ipv4/ip_forward", "1").unwrap();
        nft(lab.switch(), NAT);
    });
    let before = scene.before();
    scene.sleep();
    scene.wait_no_qemu();
    let page = scene.client.http_get(SocketAddr::new(OUTSIDE.into(), 8080), "/", LONG).unwrap();
    assert_eq!(page.status, 200);
    scene.wait(MachineState::Active);
    let mut shell = scene.client.ssh(&scene.image, scene.guest.ip()).unwrap();
    shell.run("ping -c 1 -W 5 192.0.2.2").unwrap();
    assert!(counted(scene.lab.switch(), "ip nat", "masqueraded") > 0);
    drop(shell);
    assert_eq!(scene.before(), before);
}

const NAT: &str = "
table ip nat {
  counter masqueraded { }
  chain prerouting {
    type nat hook prerouting priority -100;
    iifname up0 tcp dport 8080 dnat to 10.9.0.2:80
  }
  chain postrouting {
    type nat hook postrouting priority 100;
    oifname up0 counter name masqueraded masquerade
  }
}
";
