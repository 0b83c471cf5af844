//! Names kept for a sleeper against real peers: avahi and Samba, in network namespaces of their own.
//! Needs root, and the Debian packages avahi-daemon, samba (nmbd) and samba-common-bin (nmblookup). Those
//! begin to serve the host that they are installed on, so that nothing here installs them: run these
//! tests by `cargo test -p dormouse-surrogate --test names -- --ignored`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::IpAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use dormouse_sys::{
    Batch, PacketSocket, VnetHdr,
    packet::{Direction, Filter},
};
use dormouse_types::{MacAddr, Timestamp};
use dormouse_wire::{Deed, Frame, Identity, Outcome, Persona, Policy, Proxy, Way};
use tempfile::TempDir;

const GUEST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);

/// A guest's namespace and a client's, which is the thread's own, joined by a link: `g0` and `c0`.
struct Lab {
    guest: String,
    directory: TempDir,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.guest]).status();
    }
}

fn ip(arguments: &str) {
    assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success(), "ip {arguments}");
}

fn now() -> Timestamp {
    Timestamp(0) + SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn in_lab(name: &str, test: impl FnOnce(&Lab) + Send + 'static) {
    let guest = format!("dmn{}{name}", std::process::id());
    let body = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("run the tests as root");
        ip(&format!("netns add {guest}"));
        let lab = Lab { directory: tempfile::tempdir().unwrap(), guest };
        let guest = &lab.guest;
        ip("link add c0 address 52:54:00:00:00:01 type veth peer name g0 address 52:54:00:00:00:02");
        ip(&format!("link set g0 netns {guest}"));
        for line in ["address add 10.9.0.1/24 dev c0", "link set c0 up", "link set lo up"] {
            ip(line);
        }
        for line in ["address add 10.9.0.2/24 dev g0", "link set g0 up", "link set lo up"] {
            ip(&format!("-n {guest} {line}"));
        }
        test(&lab);
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Reads what it says until it says one of `texts`; that line.
    fn says(&mut self, texts: &[&str]) -> String {
        let lines = BufReader::new(self.0.stderr.as_mut().unwrap()).lines().map_while(Result::ok);
        let found = lines.into_iter().find(|line| texts.iter().any(|text| line.contains(text)));
        found.unwrap_or_else(|| panic!("it ended without saying one of {texts:?}"))
    }
}

impl Lab {
    /// Runs in the guest's place, or in the client's.
    fn command(&self, in_guest: bool, program: &str) -> Command {
        if !in_guest {
            return Command::new(program);
        }
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.guest, program]);
        command
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// An avahi of its own that wants to be `guest.local`.
    fn avahi(&self, in_guest: bool) -> Process {
        let link = if in_guest { "g0" } else { "c0" };
        let config = self.file(
            &format!("avahi-{link}.conf"),
            &format!(
                "[server]\nhost-name=guest\nenable-dbus=no\nuse-ipv6=no\nallow-interfaces={link}\n\
                 [publish]\npublish-workstation=no\npublish-hinfo=no\n"
            ),
        );
        // It keeps its process id where another's may be: each gets a directory of its own there.
        let script = "mount -t tmpfs none /run && mkdir /run/avahi-daemon && exec avahi-daemon \
                      --no-drop-root --no-chroot --no-rlimits -f \"$0\"";
        let child = self
            .command(in_guest, "unshare")
            .args(["-m", "sh", "-c", script, &config])
            .stderr(Stdio::piped())
            .spawn()
            .expect("avahi-daemon is installed");
        Process(child)
    }

    fn samba(&self, name: &str, netbios_name: &str, link: &str) -> String {
        let state = self.directory.path().join(name);
        fs::create_dir(&state).unwrap();
        let state = state.to_str().unwrap();
        self.file(
            &format!("{name}.conf"),
            &format!(
                "[global]\nworkgroup = LAB\nnetbios name = {netbios_name}\ninterfaces = {link}\nbind interfaces only = yes\n\
                 lock directory = {state}\nstate directory = {state}\ncache directory = {state}\n\
                 private dir = {state}\npid directory = {state}\nncalrpc dir = {state}/rpc\nlog file = {state}/log\n"
            ),
        )
    }

    /// Learns from what passes the client's link until the persona is as wanted.
    fn watch(&self, enough: impl Fn(&Persona) -> bool) -> Persona {
        let filter = Filter::all(Direction::Both, 2048);
        let sniffer = PacketSocket::open_sniff("c0", &filter, 4 << 20).unwrap();
        let (mut persona, mut batch) = (Persona::default(), Batch::new(64, 2048));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !enough(&persona) {
            assert!(Instant::now() < deadline, "waited in vain: {persona:?}");
            sniffer.receive(&mut batch).unwrap();
            for frame in batch.frames() {
                let way = if frame.outgoing { Way::Received } else { Way::Sent };
                persona.learn(&Frame::new(frame.bytes).unwrap(), way, GUEST, now());
            }
            thread::sleep(Duration::from_millis(1));
        }
        persona
    }

    /// Takes the guest off its link, and stands in for it while `work` goes on at the client's.
    fn stand_in<T>(&self, persona: Persona, work: impl FnOnce() -> T) -> T {
        // The kernel there shall answer nothing: only frames pass.
        for line in ["address flush dev g0", "link set g0 arp off"] {
            ip(&format!("-n {} {line}", self.guest));
        }
        let who =
            Identity { mac: GUEST, addresses: vec!["10.9.0.2".parse::<IpAddr>().unwrap()], configured: true };
        let path = Path::new("/run/netns").join(&self.guest);
        // The socket stays in the namespace of the thread that opens it.
        let open = move || {
            let namespace = fs::File::open(path).unwrap();
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            PacketSocket::open_receive("g0", 4 << 20).unwrap()
        };
        let socket = thread::spawn(open).join().unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| serve(&socket, Proxy::new(who, persona, Policy::default(), now()), &done));
            let _end = Done(&done);
            work()
        })
    }
}

/// Says that it is done, also if the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Lets a proxy answer until it is done.
fn serve(socket: &PacketSocket, mut proxy: Proxy, done: &AtomicBool) {
    let mut batch = Batch::new(64, 2048);
    while !done.load(SeqCst) {
        socket.receive(&mut batch).unwrap();
        for frame in batch.frames() {
            if let (_, Outcome::Reply(reply)) = proxy.take(&Frame::new(frame.bytes).unwrap(), now()) {
                socket.send(&VnetHdr::PLAIN, &reply).unwrap();
            }
        }
        for deed in proxy.due(now()) {
            if let Deed::Send(_, frame) = deed {
                socket.send(&VnetHdr::PLAIN, &frame).unwrap();
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
#[ignore = "needs packages that would serve the host"]
fn avahi_finds_the_sleeper_s_name_taken() {
    in_lab("a", |lab| {
        let mut avahi = lab.avahi(true);
        let persona = lab.watch(|persona| persona.names.mdns.iter().any(|record| record.kind == 1));
        // It goes without the farewell that would take its records back.
        avahi.0.kill().unwrap();
        drop(avahi);
        lab.stand_in(persona, || {
            let mut rival = lab.avahi(false);
            let line = rival.says(&["Host name conflict", "Server startup complete"]);
            assert!(line.contains("Host name conflict, retrying with guest-2"), "{line}");
        });
    });
}

#[test]
#[ignore = "needs packages that would serve the host"]
fn nmblookup_finds_the_sleeper_and_nmbd_cannot_take_its_name() {
    in_lab("s", |lab| {
        let guest = lab.samba("guest", "guest", "g0");
        let nmbd = lab.command(true, "nmbd").args(["-F", "-s", &guest]).stderr(Stdio::null()).spawn();
        let mut nmbd = Process(nmbd.expect("nmbd is installed"));
        let persona = lab.watch(|persona| persona.names.netbios.len() >= 5);
        nmbd.0.kill().unwrap();
        drop(nmbd);
        let asker = lab.samba("asker", "asker", "c0");
        lab.stand_in(persona, || {
            let lookup = |arguments: &[&str]| {
                let output = Command::new("nmblookup").args(["-s", &asker]).args(arguments).output().unwrap();
                String::from_utf8(output.stdout).unwrap()
            };
            let found = lookup(&["-B", "10.9.0.255", "GUEST"]);
            assert!(found.contains("10.9.0.2 GUEST<00>"), "{found}");
            let status = lookup(&["-A", "10.9.0.2"]);
            assert!(
                status.contains("GUEST           <20>") && status.contains("LAB             <00> - <GROUP>"),
                "{status}"
            );
            assert!(status.contains("MAC Address = 52-54-00-00-00-02"), "{status}");
            // Another machine of the same name is told that it is taken.
            let rival = lab.samba("rival", "guest", "c0");
            let child = Command::new("nmbd")
                .args(["-F", "-s", &rival, "-d", "1", "--debug-stdout"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            let mut rival = Process(child.unwrap());
            let mut lines = BufReader::new(rival.0.stdout.take().unwrap()).lines().map_while(Result::ok);
            let refused = lines.find(|line| line.contains("Failed to register my name"));
            assert!(refused.is_some_and(|line| line.contains("GUEST<")), "it took the name");
        });
    });
}
