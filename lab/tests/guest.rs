//! The lab tested by itself: a guest on its bridge, without Dormouse.
#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use dormouse_lab::{
    Lab,
    guest::{Image, KERNEL_OPTIONS, READY},
    wait_until,
};
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::{Child, Stdio},
    thread,
    time::Duration,
};

const IP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const IP6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
const SECOND: Duration = Duration::from_secs(1);

fn start_qemu(lab: &Lab, image: &Image) -> Child {
    lab.switch()
        .ip("tuntap add t0 mode tap\nlink set t0 txqueuelen 10000 master br0\nlink set t0 up\n")
        .unwrap();
    let cmdline = format!("{KERNEL_OPTIONS} dm.ip={IP}/24 dm.ip6={IP6}/64 dm.dirty=40");
    let serial = format!("file:{}", lab.dir().join("serial.log").display());
    let mut qemu = lab.switch().command("qemu-system-x86_64");
    qemu.args(["-M", "q35", "-m", "256M", "-nodefaults", "-no-user-config", "-display", "none"]);
    qemu.args(["-append", &cmdline, "-serial", &serial, "-netdev"]);
    qemu.args(["tap,id=n0,ifname=t0,script=no,downscript=no", "-device"]);
    qemu.arg("virtio-net-pci,netdev=n0,mac=52:54:00:00:00:02,romfile=");
    qemu.arg("-kernel").arg(image.kernel()).arg("-initrd").arg(image.initrd());
    let log = fs::File::create(lab.dir().join("qemu.log")).unwrap();
    qemu.stdin(Stdio::null()).stderr(log).spawn().unwrap()
}

#[test]
fn a_guest_boots_and_answers_everything() {
    let image = Image::build().unwrap();
    let lab = Lab::new("selftest").unwrap();
    let client = lab.client();
    let mut qemu = start_qemu(&lab, &image);
    let serial = lab.dir().join("serial.log");
    let boot = wait_until("the guest to boot", 60 * SECOND, || {
        Ok(fs::read_to_string(&serial).is_ok_and(|log| log.contains(READY)))
    });
    println!("boot: {:?}", boot.unwrap());

    println!("ping: {:?}, {:?}", client.ping(IP, SECOND).unwrap(), client.ping(IP6, SECOND).unwrap());
    assert!(client.ping(Ipv4Addr::new(10, 9, 0, 3), SECOND / 10).is_err());
    let arp = client.arping(IP, SECOND).unwrap();
    println!("{arp:?}");
    assert_eq!((arp.mac.as_str(), arp.requests), ("52:54:00:00:00:02", 1));

    let page = client.http_get(SocketAddr::new(IP.into(), 80), "/cgi-bin/uptime", SECOND).unwrap();
    println!("{page:?}");
    assert_eq!((page.status, page.syn_retransmits), (200, 0));
    let memory = client.verify_memory(IP).unwrap();
    assert!(memory.pages > 10_000 && memory.bad == 0, "{memory:?}");

    client.echo(IP6).unwrap().say("hello").unwrap();
    let mut shell = client.ssh(&image, IP).unwrap();
    assert_eq!(shell.run("cat /sys/class/net/eth0/address").unwrap(), "52:54:00:00:00:02\n");
    assert!(shell.run("false").is_err());
    assert_eq!(shell.run("echo still here").unwrap(), "still here\n");

    for to in [IpAddr::from(IP), IpAddr::from(IP6)] {
        client.reset_sink(IP).unwrap();
        let stream = client.udp_stream(to, 5_000, 100).unwrap();
        thread::sleep(SECOND);
        let sent = stream.stop();
        thread::sleep(SECOND / 5);
        let stats = client.sink(IP).unwrap();
        println!("{sent:?} {stats:?}");
        assert!(sent.datagrams > 4_000);
        assert!(stats.is_whole(sent.datagrams));
    }

    let (id, dir) = (lab.id().to_owned(), lab.dir().to_owned());
    drop(lab);
    assert!(!dir.exists());
    assert!(!fs::exists(format!("/run/netns/{id}-sw")).unwrap());
    assert!(!qemu.wait().unwrap().success(), "the lab kills its guests");
}
