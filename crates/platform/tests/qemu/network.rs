//! A machine on a bridge.

use std::{process::Command, time::Duration};

use dormouse_machine::spec::InterfaceSpec;
use dormouse_net::Net;
use dormouse_platform::Instance;
use tokio::time::sleep;

use crate::bench::{Bench, chain, timed};

/// Runs a test on a thread in a network namespace of its own, which ends with it.
pub fn in_own_network<T: Future<Output = ()>>(test: impl FnOnce() -> T + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

pub fn ip(args: &str) {
    assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success(), "ip {args}");
}

#[test]
fn a_sleepers_interfaces_are_named_without_being_made() {
    in_own_network(|| async {
        ip("link add br0 type bridge");
        let bench = Bench::new(|config| {
            config.interfaces = vec![InterfaceSpec {
                mac: "52:54:00:00:00:02".parse().unwrap(),
                bridge: "br0".into(),
                addresses: Vec::new(),
            }];
        });
        let net = Net::connect().unwrap();
        let known = bench.qemu.ports().await.unwrap();
        assert!(known[0].queue.is_none() && known[0].bridge == "br0");
        assert_eq!(net.link(&known[0].tap).await.unwrap(), None);
        // As a wake after a restart does.
        let (one, other) = tokio::join!(bench.qemu.attach(), bench.qemu.attach());
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!((&one[0].tap, &other[0].tap), (&known[0].tap, &known[0].tap));
        assert!(net.link(&known[0].tap).await.unwrap().is_some());
        assert!(bench.qemu.ports().await.unwrap()[0].queue.is_some());
    });
}

#[test]
fn a_connection_goes_on_after_a_sleep() {
    in_own_network(|| async {
        ip("link add br0 type bridge");
        ip("link set br0 up");
        ip("addr add 10.9.0.1/24 dev br0");
        let interface = InterfaceSpec {
            mac: "52:54:00:00:00:02".parse().unwrap(),
            bridge: "br0".into(),
            addresses: Vec::new(),
        };
        let mut bench = Bench::new(|config| {
            config.qemu.cmdline = Some("console=ttyS0 quiet no_timer_check dm.ip=10.9.0.2/24".into());
            config.interfaces = vec![interface];
        });
        bench.qemu.boot().await.unwrap();
        let ports = bench.qemu.attach().await.unwrap();
        assert!(ports[0].tap.len() <= 15 && ports[0].queue.is_some());
        while !bench.logs().contains("READY") {
            sleep(Duration::from_millis(50)).await;
        }
        let connect = || std::net::TcpStream::connect("10.9.0.2:7");
        let mut stream = tokio::task::block_in_place(connect).unwrap();
        let mut echo = |text: &str| {
            use std::io::{Read, Write};
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            let mut answer = vec![0; text.len()];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, text.as_bytes());
        };
        echo("before");
        let sent = bench.qemu.counters().await.unwrap().network_bytes;
        assert!(sent > 0);
        bench.asleep().await;
        timed("load", bench.qemu.load()).await;
        timed("resume", bench.qemu.resume()).await;
        echo("after");
        assert!(bench.qemu.counters().await.unwrap().network_bytes > sent);

        // A later daemon gets at the queue that QEMU has.
        let adopted = bench.restarted().attach().await.unwrap();
        assert_eq!(adopted[0].tap, ports[0].tap);
        assert!(adopted[0].queue.is_some());
        echo("adopted");
        bench.asleep().await;
        bench.qemu.load().await.unwrap();
        bench.qemu.resume().await.unwrap();
        echo("again");

        // Frames that wait in the tap while a process loads do not use up its state.
        bench.asleep().await;
        let caller = std::net::UdpSocket::bind("10.9.0.1:0").unwrap();
        for _ in 0..20 {
            caller.send_to(b"x", "10.9.0.2:7777").unwrap();
        }
        bench.qemu.load().await.unwrap();
        caller.send_to(b"x", "10.9.0.2:7777").unwrap();
        bench.qemu.kill().await.unwrap();
        bench.qemu.load().await.unwrap();
        bench.qemu.resume().await.unwrap();
        echo("at last");

        // Whoever cleans up while it sleeps: the tap, then the bridge under it.
        let net = Net::connect().unwrap();
        let in_bridge = async || {
            let ports = net.ports(net.index("br0").await.unwrap()).await.unwrap();
            ports.iter().any(|port| port.name == adopted[0].tap)
        };
        bench.asleep().await;
        ip(&format!("link del {}", adopted[0].tap));
        bench.qemu.load().await.unwrap();
        bench.qemu.resume().await.unwrap();
        assert!(in_bridge().await);
        bench.asleep().await;
        ip("link del br0");
        let error = chain(&bench.qemu.attach().await.unwrap_err());
        assert!(error.contains("there is no bridge br0"), "{error}");
        ip("link add br0 type bridge");
        ip("link set br0 up");
        ip("addr add 10.9.0.1/24 dev br0");
        assert!(!in_bridge().await);
        bench.qemu.attach().await.unwrap();
        assert!(in_bridge().await);
        bench.qemu.load().await.unwrap();
        bench.qemu.resume().await.unwrap();
        echo("with all of it made anew");

        bench.qemu.kill().await.unwrap();
        drop((ports, adopted));
        bench.qemu.detach().await.unwrap();
        assert!(Net::connect().unwrap().links().await.unwrap().iter().all(|l| !l.name.starts_with("dm")));
        ip("link del br0");
        let error = chain(&bench.qemu.boot().await.unwrap_err());
        println!("{error}");
        assert!(error.contains("there is no bridge br0"), "{error}");
    });
}
