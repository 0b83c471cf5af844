//! Bridges of Open vSwitch: with the kernel's datapath where there is one, else with its own.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use dormouse_net::{Net, SwitchKind};
use dormouse_surrogate::HandoverKind;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{
    frames::{GUEST_IP, arp_request, numbered, ping},
    lab::{
        BRIDGE, Client, Guest, LIMITS, connect_client, in_namespace, lacks, rate, run, run_here, surrogate,
        woken,
    },
    replay::stream_on,
};

/// Where the programs look for each other's sockets.
const RUNDIR: &str = "/run/openvswitch";

/// A switch of the test's own, which goes with it.
struct OpenVSwitch {
    processes: Vec<Child>,
}

impl OpenVSwitch {
    /// Starts it in the calling thread's namespaces; `None` where it is not installed.
    fn start() -> Option<Self> {
        let installed = Command::new("ovs-vswitchd").arg("--version").output().is_ok();
        if !installed {
            lacks("Open vSwitch");
            return None;
        }
        private_rundir();
        run("ovsdb-tool create /run/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema");
        let mut switch = Self { processes: Vec::new() };
        let remote = format!("--remote=punix:{RUNDIR}/db.sock");
        switch.spawn("ovsdb-server", &["/run/openvswitch/conf.db", &remote]);
        until_exists(&format!("{RUNDIR}/db.sock"));
        run("ovs-vsctl --no-wait init");
        switch.spawn("ovs-vswitchd", &[]);
        let datapath = if Path::new("/sys/module/openvswitch").exists() { "system" } else { "netdev" };
        println!("datapath: {datapath}");
        run(&format!(
            "ovs-vsctl --timeout=10 add-br {BRIDGE} -- set bridge {BRIDGE} datapath_type={datapath}"
        ));
        Some(switch)
    }

    fn spawn(&mut self, program: &str, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.args(arguments).args(["--pidfile", "--no-chdir"]).stderr(Stdio::null());
        self.processes.push(command.spawn().unwrap());
    }
}

impl Drop for OpenVSwitch {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

/// Their sockets have fixed names: each test has a directory of its own there.
fn private_rundir() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
    fs::create_dir(RUNDIR).unwrap();
}

fn until_exists(path: &str) {
    for _ in 0..2000 {
        if Path::new(path).exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{path} does not come");
}

fn said(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).output().unwrap();
    assert!(out.status.success(), "{program}: {out:?}");
    String::from_utf8(out.stdout).unwrap()
}

/// Static entries of the bridge's MAC table, and rules: what a stand-in could leave behind.
fn entries_at(port: &str) -> usize {
    let number = said("ovs-vsctl", &["get", "interface", port, "ofport"]);
    let table = said("ovs-appctl", &["fdb/show", BRIDGE]);
    let is_ours =
        |line: &&str| line.ends_with("static") && line.split_whitespace().next() == Some(number.trim());
    table.lines().filter(is_ours).count()
}

async fn network() -> Net {
    let net = Net::connect().unwrap();
    connect_client(&net).await;
    assert_eq!(net.switch(BRIDGE).await.unwrap().kind(), SwitchKind::OpenVSwitch);
    net
}

/// Runs a test with a switch in namespaces of its own.
fn with_switch<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    if let Some(_switch) = OpenVSwitch::start() {
        // The runtime's threads are in the namespaces of the one that makes them.
        run_here(test);
    }
}

#[test]
fn a_sleeper_is_answered_for_woken_and_given_back() {
    with_switch(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleep(&surrogate).await;
        let mac = guest.mac();
        assert_eq!(entries_at("dm0-br0"), 1);
        client.send(&arp_request(GUEST_IP));
        client.expect(mac, |f| f[12..14] == [8, 6]).await;
        client.send(&ping(mac));
        client.expect(mac, |f| f[12..14] == [8, 0] && f[34] == 0).await;
        client.send(&numbered(mac, 1));
        woken(&mut notices).await;
        let replay = guest.wake(&surrogate).await;
        println!("{replay:?}");
        client.send(&numbered(mac, 2));
        assert_eq!(guest.numbers_up_to(2).await, [1, 2]);
        assert_eq!((entries_at("dm0-br0"), entries_at("tap2")), (0, 1));
        assert!(!said("ovs-ofctl", &["dump-flows", BRIDGE]).contains("dl_dst"));
        surrogate.stand_in(&guest.sleeper).await.unwrap();
        surrogate.dismiss(&guest.sleeper.name).await.unwrap();
        assert_eq!((entries_at("dm0-br0"), entries_at("tap2")), (0, 0));
    });
}

#[test]
fn a_stream_is_whole_by_the_ebpf_handover() {
    with_switch(|| async { stream_on(&network().await, false, rate(2000), 3, HandoverKind::Ebpf).await });
}

#[test]
fn a_stream_is_whole_by_the_plain_handover() {
    with_switch(|| async { stream_on(&network().await, true, rate(2000), 3, HandoverKind::Plain).await });
}

#[test]
fn a_users_rule_holds_for_a_sleeper() {
    with_switch(|| async {
        let net = network().await;
        run("ovs-ofctl add-flow br0 priority=10,icmp,actions=drop");
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleep(&surrogate).await;
        client.send(&ping(guest.mac()));
        client.send(&numbered(guest.mac(), 1));
        woken(&mut notices).await;
        let status = surrogate.status(&guest.sleeper.name).await.unwrap();
        assert_eq!(status.answered.get("icmp-echo"), None, "{status:?}");
        guest.wake(&surrogate).await;
        assert_eq!(guest.numbers_up_to(1).await, [1]);
    });
}

#[test]
fn an_access_port_is_answered_for_in_its_vlan() {
    with_switch(|| async {
        let net = network().await;
        let (surrogate, mut notices) = surrogate(false).await;
        let client = Client::new();
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        run("ovs-vsctl set port tap2 tag=10");
        guest.sleep(&surrogate).await;
        let mac = guest.mac();
        // The client's port is a trunk: untagged, it is in another VLAN.
        client.send(&arp_request(GUEST_IP));
        client.send(&crate::frames::tagged(10, &arp_request(GUEST_IP)));
        let answer = client.expect(mac, |f| f[16..18] == [8, 6]).await;
        assert_eq!(answer[12..16], [0x81, 0, 0, 10]);
        run("ovs-vsctl set port c0 tag=10");
        client.send(&numbered(mac, 1));
        woken(&mut notices).await;
        let status = surrogate.status(&guest.sleeper.name).await.unwrap();
        assert_eq!(status.answered.get("arp"), Some(&1), "{status:?}");
        guest.wake(&surrogate).await;
        client.send(&numbered(mac, 2));
        assert_eq!(guest.numbers_up_to(2).await, [1, 2], "without their tags");
        assert_eq!(entries_at("dm0-br0"), 0);
    });
}

#[test]
fn a_restarted_surrogate_forgets_whom_nobody_claims() {
    with_switch(|| async {
        let net = network().await;
        let (first, _) = surrogate(false).await;
        let mut guest = Guest::new(&net, 2, LIMITS).await;
        guest.sleep(&first).await;
        drop(first);
        let (second, _notices) = surrogate(false).await;
        assert_eq!(second.settle().await.unwrap(), 1);
        assert_eq!(entries_at("dm0-br0"), 0);
    });
}

/// On a host without Open vSwitch's daemons its name says what is the matter.
#[test]
fn a_link_that_is_no_switch_is_named() {
    in_namespace(|| async {
        let net = Net::connect().unwrap();
        run("ip link add c0 type veth peer name c1");
        let error = net.switch("c0").await.unwrap_err().to_string();
        assert!(error.contains("c0"), "{error}");
    });
}
