//! XML as `virsh dumpxml` and `virsh net-dumpxml` print it, and snippets of libvirt's manual.

use std::collections::BTreeMap;

use dormouse_platform::Obstacle;
use dormouse_types::Depth;
use proptest::prelude::*;

use super::*;

/// A running domain as virt-install makes them.
const WEB: &str = include_str!("web.xml");
/// A definition with what people who play games give to it.
const GAMING: &str = include_str!("gaming.xml");

const NAT: &str = "
<network connections='1'>
  <name>default</name>
  <uuid>9a05da11-e96b-47f3-8253-a3a482e445f5</uuid>
  <forward mode='nat'>
    <nat>
      <port start='1024' end='65535'/>
    </nat>
  </forward>
  <bridge name='virbr0' stp='on' delay='0'/>
  <mac address='52:54:00:0a:cd:21'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.122.2' end='192.168.122.254'/>
      <host mac='52:54:00:6d:90:02' name='web' ip='192.168.122.80'/>
      <host name='no-mac' ip='192.168.122.81'/>
    </dhcp>
  </ip>
  <ip family='ipv6' address='fd00:122::1' prefix='64'/>
</network>";

const OPENVSWITCH: &str = "
<network>
  <name>ovs-net</name>
  <forward mode='bridge'/>
  <bridge name='ovsbr0'/>
  <virtualport type='openvswitch'/>
  <portgroup name='vlan-01' default='yes'><vlan><tag id='101'/></vlan></portgroup>
</network>";

const MACVTAP: &str = "
<network>
  <name>direct-macvtap</name>
  <forward mode='bridge'>
    <interface dev='eth0'/>
  </forward>
</network>";

fn web() -> Description {
    Description::from_xml(WEB).unwrap()
}

fn networks(xml: &[&str]) -> BTreeMap<String, Network> {
    let read = |xml: &&str| Network::from_xml(xml).unwrap();
    xml.iter().map(read).map(|network| (network.name.clone(), network)).collect()
}

#[test]
fn knows_where_a_screen_is_served() {
    let screen = |graphics: &str| {
        let xml = format!("<domain><name>a</name><memory>1</memory><devices>{graphics}</devices></domain>");
        Description::from_xml(&xml).unwrap().screen
    };
    let vnc = "<graphics type='vnc' port='5900' autoport='yes' websocket='5700' listen='127.0.0.1'>
                 <listen type='address' address='127.0.0.1'/></graphics>";
    let spice = "<graphics type='spice' port='5901' tlsPort='-1' autoport='yes'/>";
    assert_eq!(screen(&format!("{vnc}{spice}")), Some(vec![5900, 5700, 5901]));
    let off = "<graphics type='vnc' port='-1' autoport='yes'/>";
    let socket = "<graphics type='vnc' socket='/run/a'><listen type='socket' socket='/run/a'/></graphics>";
    assert_eq!([screen(off), screen(socket)], [Some(vec![]), Some(vec![])]);
    for none in ["", "<graphics type='sdl' display=':0'/>", "<graphics type='egl-headless'/>"] {
        assert_eq!(screen(none), None);
    }
}

#[test]
fn reads_a_running_domain() {
    let web = web();
    assert_eq!((&*web.kind, &*web.name, web.title.as_deref()), ("kvm", "web", Some("Web server")));
    assert_eq!(web.uuid.unwrap().to_string(), "c7a5fdbd-edaf-9455-926a-d65c16db1809");
    assert_eq!((web.memory, web.vcpus), (2 << 30, 2));
    assert_eq!((web.arch.as_deref(), web.machine.as_deref()), (Some("x86_64"), Some("pc-q35-7.2")));
    assert_eq!(web.pm, PowerManagement { to_memory: Some(true), to_disk: Some(false) });
    assert_eq!((web.on_poweroff.as_deref(), web.on_reboot.as_deref()), (Some("destroy"), Some("restart")));
    assert_eq!(web.channels, ["org.qemu.guest_agent.0", "com.redhat.spice.0"]);
    assert!(web.has_guest_agent() && web.guest_agent_answers);
    let disks: Vec<_> =
        web.disks.iter().map(|d| (&*d.device, d.source.as_deref(), d.target.as_deref())).collect();
    let image = Some("/var/lib/libvirt/images/web.qcow2");
    assert_eq!(disks, [("disk", image, Some("vda")), ("cdrom", None, Some("sda"))]);
    let [nat, lan] = &*web.interfaces else { panic!("{:?}", web.interfaces) };
    let source = Source::Network { name: "default".into(), bridge: Some("virbr0".into()) };
    assert_eq!((nat.mac.to_string(), &nat.source), ("52:54:00:6d:90:02".into(), &source));
    assert_eq!((nat.target.as_deref(), nat.model.as_deref()), (Some("vnet2"), Some("virtio")));
    assert_eq!(lan.source, Source::Bridge("br0".into()));
    assert!(lan.is_up && !lan.is_isolated);
    assert_eq!(nat.bridge(&BTreeMap::new()).unwrap(), "virbr0");
    assert_eq!(lan.bridge(&BTreeMap::new()).unwrap(), "br0");
}

#[test]
fn reads_what_goes_past_libvirt() {
    let gaming = Description::from_xml(GAMING).unwrap();
    assert_eq!((&*gaming.name, gaming.memory, gaming.vcpus), ("win10 gaming", 16 << 30, 12));
    assert_eq!(gaming.qemu_arguments.len(), 2);
    let addresses: Vec<_> = gaming.host_devices.iter().map(|d| d.address.as_deref().unwrap()).collect();
    assert_eq!(addresses, ["0000:0a:00.1", "046d:c52b"]);
    assert!(gaming.backing.huge_pages && gaming.backing.locked);
}

#[test]
fn memory_has_units() {
    let sizes = [
        ("<memory>1048576</memory>", 1 << 30),
        ("<memory unit='bytes'>16777216</memory>", 16 << 20),
        ("<memory unit='KB'>1000</memory>", 1_000_000),
        ("<memory unit='MiB'> 512 </memory>", 512 << 20),
        ("<memory unit='TiB'>1</memory>", 1 << 40),
    ];
    for (memory, bytes) in sizes {
        let xml = format!("<domain type='test'><name>a</name>{memory}</domain>");
        assert_eq!(Description::from_xml(&xml).unwrap().memory, bytes, "{memory}");
    }
    for memory in ["", "<memory/>", "<memory>-1</memory>", "<memory unit='TiB'>99999999999999</memory>"] {
        let xml = format!("<domain type='test'><name>a</name>{memory}</domain>");
        assert!(Description::from_xml(&xml).is_err(), "{memory}");
    }
    let parsecs = "<domain><name>a</name><memory unit='parsec'>1</memory></domain>";
    let error = Description::from_xml(parsecs).unwrap_err();
    assert_eq!(error.to_string(), "libvirt's XML has memory = \"parsec\"");
}

#[test]
fn reads_networks() {
    let nat = Network::from_xml(NAT).unwrap();
    assert_eq!((&*nat.name, nat.forward, nat.bridge.as_deref()), ("default", Forward::Nat, Some("virbr0")));
    let ranges: Vec<_> = nat.ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["192.168.122.1/24", "fd00:122::1/64"]);
    assert!(nat.has_dhcp && !nat.is_openvswitch);
    assert_eq!(nat.hosts, [(web().interfaces[0].mac, "192.168.122.80".parse().unwrap())]);
    let ovs = Network::from_xml(OPENVSWITCH).unwrap();
    assert_eq!(
        (ovs.forward, ovs.bridge.as_deref(), ovs.is_openvswitch),
        (Forward::Bridge, Some("ovsbr0"), true)
    );
    let isolated = Network::from_xml("<network><name>a</name><bridge name='virbr7'/></network>").unwrap();
    assert_eq!((isolated.forward, isolated.has_dhcp), (Forward::Isolated, false));
    let words = [("nat", Forward::Nat), ("route", Forward::Route), ("open", Forward::Open)];
    for (mode, forward) in words {
        let xml = format!("<network><name>a</name><forward mode='{mode}'/></network>");
        assert_eq!(Network::from_xml(&xml).unwrap().forward, forward);
    }
    for xml in [
        "<network/>",
        "<network><name>a</name><forward mode='teleport'/></network>",
        "<network><name>a</name><ip address='192.168.122.1' prefix='33'/></network>",
        "<network><name>a</name><ip address='192.168.122.1' netmask='255.0.255.0'/></network>",
        "<network><name>a</name><ip/></network>",
        "<network><name>a</name><uuid>7</uuid></network>",
        WEB,
    ] {
        assert!(Network::from_xml(xml).is_err(), "{xml}");
    }
}

/// `web`, with `from` replaced.
fn web_with(from: &str, to: &str) -> Description {
    assert!(WEB.contains(from), "{from}");
    Description::from_xml(&WEB.replacen(from, to, 1)).unwrap()
}

/// `web` with one more device.
fn web_and(device: &str) -> Description {
    web_with("</devices>", &format!("{device}</devices>"))
}

fn told(domain: &Description, now: &Circumstances) -> Vec<(String, Vec<Depth>)> {
    let told = |obstacle: Obstacle| {
        assert!(!obstacle.reason.is_empty() && !obstacle.fix.is_some_and(|fix| fix.contains("NAME")));
        (obstacle.what, obstacle.depths)
    };
    obstacles(domain, now).into_iter().map(told).collect()
}

#[test]
fn an_ordinary_domain_has_no_obstacle() {
    assert_eq!(told(&web(), &Circumstances::default()), []);
}

#[test]
fn each_obstacle_is_found_and_says_which_depths_it_bars() {
    let saved = || vec![Depth::Saved];
    let all = || Depth::ALL.to_vec();
    let cases: Vec<(Description, &str, Vec<Depth>)> = vec![
        (web_with("type='kvm'", "type='lxc'"), "domain type lxc", all()),
        // libvirt's manual, "Host device assignment".
        (
            web_and(
                "<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' \
                     bus='0x06' slot='0x02' function='0x0'/></source></hostdev>",
            ),
            "hostdev pci 0000:06:02.0",
            saved(),
        ),
        (
            web_and(
                "<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address \
                     uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>",
            ),
            "hostdev mdev c2177883-f1bb-47f0-914d-32a22e3a8804",
            saved(),
        ),
        (
            web_and(
                "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product \
                     id='0xbeef'/></source></hostdev>",
            ),
            "hostdev usb 1234:beef",
            vec![],
        ),
        (
            web_and(
                "<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/><address \
                     bus='0' target='0' unit='0'/></source></hostdev>",
            ),
            "hostdev scsi without an address",
            saved(),
        ),
        // "Network interfaces".
        (
            web_and(
                "<interface type='vhostuser'><mac address='52:54:00:3b:83:1a'/><source type='unix' \
                     path='/tmp/vhost1.sock' mode='server'/><model type='virtio'/></interface>",
            ),
            "interface 52:54:00:3b:83:1a",
            all(),
        ),
        (
            web_and(
                "<interface type='direct' trustGuestRxFilters='no'><mac address='52:54:00:3b:83:1b'/>\
                     <source dev='eth0' mode='vepa'/></interface>",
            ),
            "interface 52:54:00:3b:83:1b",
            all(),
        ),
        (
            web_and("<interface type='user'><mac address='52:54:00:3b:83:1c'/></interface>"),
            "interface 52:54:00:3b:83:1c",
            vec![],
        ),
        (
            web_and(
                "<interface type='hostdev' managed='yes'><mac address='52:54:00:6d:90:0d'/><source>\
                     <address type='pci' domain='0x0000' bus='0x00' slot='0x07' function='0x0'/></source>\
                     </interface>",
            ),
            "interface 52:54:00:6d:90:0d",
            all(),
        ),
        (
            web_and(
                "<interface type='vdpa'><mac address='52:54:00:6d:90:0e'/><source dev='/dev/vhost-vdpa-0'/>\
                     </interface>",
            ),
            "interface 52:54:00:6d:90:0e",
            all(),
        ),
        (
            web_and(
                "<interface type='ethernet'><mac address='52:54:00:6d:90:0f'/><target dev='mytap1' \
                     managed='no'/></interface>",
            ),
            "interface 52:54:00:6d:90:0f",
            all(),
        ),
        (
            web_and(
                "<interface type='mcast'><mac address='52:54:00:6d:90:10'/><source address='230.0.0.1' \
                     port='5558'/></interface>",
            ),
            "interface 52:54:00:6d:90:10",
            all(),
        ),
        (
            web_and(
                "<interface type='network'><mac address='52:54:00:6d:90:11'/><source network='gone'/>\
                     </interface>",
            ),
            "interface 52:54:00:6d:90:11",
            all(),
        ),
        (web_with("isolated='no'", "isolated='yes'"), "interface 52:54:00:6d:90:03", vec![]),
        // "Filesystems".
        (
            web_and(
                "<filesystem type='mount' accessmode='passthrough'><driver type='virtiofs' queue='1024'/>\
                     <source dir='/path'/><target dir='mount_tag'/></filesystem>",
            ),
            "filesystem mount_tag",
            saved(),
        ),
        (
            web_and(
                "<filesystem type='mount' accessmode='mapped'><source dir='/export/to/guest'/><target \
                     dir='share'/></filesystem>",
            ),
            "filesystem share",
            saved(),
        ),
        (
            web_and("<shmem name='my_shmem0'><model type='ivshmem-plain'/><size unit='M'>4</size></shmem>"),
            "shmem my_shmem0",
            saved(),
        ),
        (
            web_and(
                "<disk type='vhostuser' device='disk'><driver name='qemu' type='raw'/><source type='unix' \
                     path='/tmp/vhost-blk.sock'/><target dev='vdb' bus='virtio'/></disk>",
            ),
            "disk vdb",
            saved(),
        ),
        (web_and("<vsock model='virtio'><cid auto='no' address='3'/></vsock>"), "vsock", vec![]),
        // "Launch Security".
        (
            web_with(
                "</devices>",
                "</devices><launchSecurity type='sev'><policy>0x0001</policy>\
                      <cbitpos>47</cbitpos><reducedPhysBits>1</reducedPhysBits></launchSecurity>",
            ),
            "launchSecurity sev",
            saved(),
        ),
        (
            web_with(
                "<backend type='emulator' version='2.0'/>",
                "<backend type='passthrough'><device \
                      path='/dev/tpm0'/></backend>",
            ),
            "tpm passthrough",
            saved(),
        ),
        (
            web_and("<memory model='sgx-epc'><target><size unit='KiB'>16384</size></target></memory>"),
            "memory sgx-epc",
            saved(),
        ),
        (web_with("accel3d='no'", "accel3d='yes'"), "video accel3d", saved()),
        (web_with("migratable='on'", "migratable='off'"), "cpu invtsc", saved()),
        (
            web_with("migratable='on'/>", "migratable='on'><feature policy='require' name='invtsc'/></cpu>"),
            "cpu invtsc",
            saved(),
        ),
        // "Memory Backing".
        (
            web_with(
                "<vcpu",
                "<memoryBacking><hugepages><page size='2' unit='M'/></hugepages></memoryBacking><vcpu",
            ),
            "memoryBacking hugepages",
            vec![],
        ),
        (web_with("<vcpu", "<memoryBacking><locked/></memoryBacking><vcpu"), "memoryBacking locked", vec![]),
        (
            web_with(
                "<vcpu",
                "<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking><vcpu",
            ),
            "memoryBacking shared file",
            vec![],
        ),
        (
            web_with(
                "</devices>",
                "</devices><commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'>\
                      <arg value='-newarg'/></commandline>",
            ),
            "qemu:commandline",
            vec![],
        ),
        (
            web_with("suspend-to-mem enabled='yes'", "suspend-to-mem enabled='no'"),
            "pm suspend-to-mem",
            vec![Depth::Pmsuspended],
        ),
        (web_with("machine='pc-q35-7.2'", "machine='microvm'"), "microvm", vec![Depth::Pmsuspended]),
        (
            web_with("arch='x86_64' machine='pc-q35-7.2'", "arch='aarch64' machine='virt-7.2'"),
            "virt-7.2",
            vec![Depth::Pmsuspended],
        ),
        (web_with("name='org.qemu.guest_agent.0'", "name='org.libguestfs.channel.0'"), "guest agent", vec![]),
        (web_with("<on_poweroff>destroy", "<on_poweroff>preserve"), "on_poweroff preserve", vec![Depth::Off]),
        (
            web_with(
                "<backingStore/>",
                "<backingStore/><mirror type='file' file='/copy.qcow2' job='copy' \
                      ready='yes'/>",
            ),
            "block job copy of vda",
            saved(),
        ),
    ];
    for (domain, what, depths) in cases {
        assert_eq!(told(&domain, &Circumstances::default()), [(what.to_owned(), depths)], "{what}");
    }
}

#[test]
fn an_invariant_tsc_of_stated_frequency_is_none() {
    let stated = "<timer name='tsc' frequency='3504000000'/><timer name='rtc'";
    let xml = WEB.replace("migratable='on'", "migratable='off'").replace("<timer name='rtc'", stated);
    assert_eq!(told(&Description::from_xml(&xml).unwrap(), &Circumstances::default()), []);
}

#[test]
fn a_cable_that_is_not_plugged_in_is_none() {
    let unplugged = web_and(
        "<interface type='direct'><mac address='52:54:00:3b:83:1b'/><source dev='eth0'/><link state='down'/>\
         </interface>",
    );
    assert_eq!(told(&unplugged, &Circumstances::default()), []);
}

#[test]
fn circumstances_are_looked_at() {
    let usual = Circumstances::default;
    let cases = [
        (
            Circumstances { is_persistent: false, ..usual() },
            "transient domain",
            vec![Depth::Saved, Depth::Off],
        ),
        (Circumstances { has_autostart: true, ..usual() }, "autostart", vec![]),
        (Circumstances { snapshots: 2, ..usual() }, "2 snapshots", vec![]),
        (Circumstances { has_block_job: true, ..usual() }, "block job", vec![Depth::Saved]),
    ];
    for (now, what, depths) in cases {
        assert_eq!(told(&web(), &now), [(what.to_owned(), depths)]);
    }
}

#[test]
fn a_gaming_domain_has_many() {
    let gaming = Description::from_xml(GAMING).unwrap();
    let found: Vec<_> = told(&gaming, &Circumstances::default()).into_iter().map(|(what, _)| what).collect();
    let expected = [
        "interface 52:54:00:11:22:33",
        "shmem looking-glass",
        "hostdev pci 0000:0a:00.1",
        "hostdev usb 046d:c52b",
        "cpu invtsc",
        "memoryBacking hugepages",
        "memoryBacking locked",
        "qemu:commandline",
        "pm suspend-to-mem",
        "guest agent",
    ];
    assert_eq!(found, expected);
}

#[test]
fn networks_lead_to_bridges_or_say_why_not() {
    let stopped = NAT.replace("<bridge name='virbr0' stp='on' delay='0'/>", "").replace("default", "stopped");
    let pool = "<network><name>pool</name><forward mode='hostdev' managed='yes'/></network>";
    let vepa = "<network><name>vepa</name><forward dev='eth0' mode='vepa'/></network>";
    let known = networks(&[NAT, OPENVSWITCH, MACVTAP, &stopped, pool, vepa]);
    let bridge = |name: &str| {
        let xml = format!(
            "<interface type='network'><mac address='52:54:00:6d:90:11'/><source network='{name}' \
             portgroup='vlan-01'/><vlan><tag id='42'/></vlan></interface>"
        );
        let interface = web_and(&xml).interfaces.pop().unwrap();
        assert_eq!((interface.port_group.as_deref(), &*interface.vlans), (Some("vlan-01"), &[42][..]));
        interface.bridge(&known)
    };
    assert_eq!(bridge("default").unwrap(), "virbr0");
    assert_eq!(bridge("ovs-net").unwrap(), "ovsbr0");
    for (name, why) in [
        ("direct-macvtap", "macvtap"),
        ("vepa", "macvtap"),
        ("pool", "network card of the host"),
        ("stopped", "has no bridge yet"),
        ("gone", "there is no network"),
    ] {
        let unreachable = bridge(name).unwrap_err();
        assert!(unreachable.reason.contains(why) && !unreachable.is_harmless, "{unreachable:?}");
    }
}

#[test]
fn says_what_is_wrong() {
    let missing = |what: &str, without: &str| {
        let error = Description::from_xml(&WEB.replacen(without, "", 1)).unwrap_err();
        assert_eq!(error.to_string(), format!("libvirt's XML has no {what}"));
    };
    missing("name", "<name>web</name>");
    missing("memory", "<memory unit='KiB'>2097152</memory>");
    missing("mac address", "<mac address='52:54:00:6d:90:02'/>");
    missing("source bridge", "<source bridge='br0'/>");
    missing("interface type", " type='bridge'");
    let syntax = Description::from_xml("<domain>").unwrap_err();
    assert!(matches!(syntax, XmlError::Syntax(_)), "{syntax}");
    let root = Description::from_xml(NAT).unwrap_err();
    assert_eq!(root.to_string(), "libvirt's XML is <network>, not <domain>");
    let long = " ".repeat(5 << 20);
    assert_eq!(Description::from_xml(&long).unwrap_err(), XmlError::TooLong(5 << 20));
    let wrong = Description::from_xml(&WEB.replace("52:54:00:6d:90:02", "web")).unwrap_err();
    assert_eq!(wrong.to_string(), "libvirt's XML has mac address = \"web\"");
}

#[test]
fn nothing_grows_and_nothing_is_too_deep() {
    let laughs = "<!DOCTYPE domain [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]><domain>&b;</domain>";
    assert!(matches!(Description::from_xml(laughs).unwrap_err(), XmlError::Syntax(_)));
    let deep = "<domain>".repeat(100_000);
    assert!(Description::from_xml(&deep).is_err());
    let deep = deep + &"</domain>".repeat(100_000);
    assert!(Description::from_xml(&deep).is_err());
}

proptest! {
    #[test]
    fn any_text_is_a_description_or_an_error(text in "\\PC{0,300}") {
        let _ = Description::from_xml(&text);
        let _ = Network::from_xml(&text);
    }

    /// Real XML with a piece taken out, replaced, or repeated: what is left is read or refused, and what is
    /// read has obstacles or has none.
    #[test]
    fn damaged_xml_is_read_or_refused(
        which in 0..2usize, from in 0..4096usize, length in 0..200usize, by in "\\PC{0,20}", twice: bool,
    ) {
        let xml: Vec<char> = [WEB, GAMING][which].chars().collect();
        let from = from % xml.len();
        let to = (from + length).min(xml.len());
        let middle = if twice { xml[from..to].repeat(2) } else { by.chars().collect() };
        let damaged: String = [&xml[..from], &middle, &xml[to..]].concat().into_iter().collect();
        if let Ok(domain) = Description::from_xml(&damaged) {
            prop_assert!(!domain.name.is_empty());
            let _ = obstacles(&domain, &Circumstances::default());
        }
    }

    /// Any number and word in the place of any value of a real domain.
    #[test]
    fn any_value_is_taken_or_refused(nth in 0..200usize, value in "[-0-9]{1,30}|[a-z]{0,8}|0x[0-9a-z]{0,9}") {
        let mut parts: Vec<&str> = WEB.split('\'').collect();
        let nth = (nth * 2 + 1) % parts.len();
        parts[nth] = &value;
        if let Ok(domain) = Description::from_xml(&parts.join("'")) {
            let _ = obstacles(&domain, &Circumstances::default());
        }
    }
}
