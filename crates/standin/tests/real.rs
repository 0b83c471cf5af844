//! Real clients against the stand-in, on a bridge between network namespaces. Needs root.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    io::Write,
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use dormouse_lab::{Lab, wait_until};
use dormouse_standin::{Settings, Standin};
use dormouse_sys::{Batch, PacketSocket, VnetHdr};
use dormouse_types::{MacAddr, Service, ServiceKind, Timestamp};
use dormouse_wire::{Frame, Identity, Outcome, Persona, Policy, Proxy};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const SLEEPER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
const LONG: Duration = Duration::from_secs(60);

fn now() -> Timestamp {
    Timestamp::default() + SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

/// A sleeper on a bridge: ARP, NDP and TCP services are spoken for it by a thread.
struct Scene {
    lab: Lab,
    stop: Arc<AtomicBool>,
    wakes: mpsc::Receiver<String>,
    thread: Option<JoinHandle<()>>,
}

impl Scene {
    fn new(prefix: &str) -> Self {
        let lab = Lab::new(prefix).unwrap();
        lab.switch()
            .ip(&format!(
                "link add s0 type veth peer name s1\n\
                 link set s1 address {SLEEPER} addrgenmode none\n\
                 link set s0 master br0 up\n\
                 link set s1 up\n"
            ))
            .unwrap();
        let socket = lab.switch().run(|| PacketSocket::open_receive("s1", 8 << 20)).unwrap().unwrap();
        let (told, wakes) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = Some(thread::spawn(move || speak(&socket, &stopped, &told)));
        Self { lab, stop, wakes, thread }
    }

    fn curl(&self, args: &[&str]) -> Command {
        let mut curl = self.lab.client_namespace().command("curl");
        curl.args(["-sS", "-m", "30"]).args(args);
        curl
    }

    fn curled(&self, args: &[&str]) -> String {
        let out = self.curl(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn wake(&self) -> String {
        self.wakes.recv_timeout(LONG).unwrap()
    }

    /// The machine runs: a real server has the addresses from now on.
    fn take_over(&mut self) {
        self.stop();
        self.lab.switch().ip("addr add 10.9.0.2/24 dev s1\naddr add fd77::2/64 dev s1 nodad\n").unwrap();
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Speaks for the sleeper until it is told to stop.
fn speak(socket: &PacketSocket, stop: &AtomicBool, told: &mpsc::Sender<String>) {
    let service = |port, kind| Service { port, kind, wakes: port != 23 };
    let addresses: Arc<[_]> = ["10.9.0.2".parse().unwrap(), "fd77::2".parse().unwrap()].into();
    let mut proxy = Proxy::new(
        Identity { mac: SLEEPER, addresses: addresses.to_vec(), configured: true },
        Persona::default(),
        Policy::default(),
        now(),
    );
    let mut standin = Standin::new(Settings {
        name: "web".parse().unwrap(),
        mac: SLEEPER,
        addresses,
        services: [
            service(7, ServiceKind::Echo),
            service(23, ServiceKind::Banner("web is asleep\r\n".into())),
            service(80, ServiceKind::WakingPage),
            service(443, ServiceKind::Connect),
        ]
        .into(),
        mtu: 1500,
        secret: [7; 16],
    });
    let send =
        |frames: &[Vec<u8>]| frames.iter().for_each(|frame| socket.send(&VnetHdr::PLAIN, frame).unwrap());
    let mut batch = Batch::new(64, Batch::LONGEST);
    while !stop.load(Ordering::Relaxed) {
        let wait = standin.deadline().map_or(20, |at| at.since(now()).as_millis().clamp(1, 20));
        let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(u16::try_from(wait).unwrap())).unwrap();
        socket.receive(&mut batch).unwrap();
        for received in batch.frames() {
            let (_, bytes) = received.restored();
            let frame = Frame::new(&bytes).unwrap();
            if let (_, Outcome::Reply(reply)) = proxy.take(&frame, now()) {
                send(&[reply]);
                continue;
            }
            let out = standin.take(&frame, now());
            send(&out.frames);
            out.wake.map(|why| told.send(why));
        }
        if standin.deadline().is_some_and(|at| at <= now()) {
            let out = standin.due(now());
            send(&out.frames);
            out.wake.map(|why| told.send(why));
        }
    }
    send(&standin.end(now()).frames);
}

#[test]
fn curl_is_told_to_come_again_and_a_browser_sees_the_page() {
    let scene = Scene::new("page");
    for url in ["http://10.9.0.2/a?b", "http://[fd77::2]/a?b"] {
        let text = scene.curled(&["-i", url]);
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
        assert!(
            text.contains("\r\nRetry-After: 1\r\n")
                && text.ends_with("\r\n\r\nweb is waking up. Try again in a moment.\n")
        );
        assert_eq!(scene.wake(), "tcp:80 GET /a?b (waking-page)");
        let page = scene.curled(&["-H", "Accept: text/html,*/*;q=0.8", url]);
        assert!(page.starts_with("<!doctype html>") && page.contains("<h1>web is waking up</h1>"), "{page}");
        assert_eq!(scene.wake(), "tcp:80 GET /a?b (waking-page)");
        assert!(scene.curled(&["-I", url]).contains("Content-Length: 41"));
        assert_eq!(scene.wake(), "tcp:80 HEAD /a?b (waking-page)");
    }
}

#[test]
fn an_upload_is_refused_and_not_lost() {
    let scene = Scene::new("post");
    let path = scene.lab.write("upload", &"x".repeat(300_000)).unwrap();
    let data = format!("@{}", path.display());
    for expect in ["Expect:", "Expect: 100-continue"] {
        let args = [
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            expect,
            "--data-binary",
            &data,
            "http://10.9.0.2/up",
        ];
        assert_eq!(scene.curled(&args), "503", "{expect}");
        assert_eq!(scene.wake(), "tcp:80 POST /up (waking-page)");
    }
}

#[test]
fn curl_that_tries_again_reaches_the_machine_when_it_runs() {
    let mut scene = Scene::new("over");
    scene.lab.write("index.html", "the guest's own page\n").unwrap();
    let mut server: Child = scene
        .lab
        .switch()
        .command("python3")
        .args(["-m", "http.server", "-b", "0.0.0.0", "-d"])
        .arg(scene.lab.dir())
        .arg("80")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let switch = scene.lab.switch().clone();
    let listens = || switch.run(|| std::net::TcpStream::connect("127.0.0.1:80").is_ok()).unwrap();
    wait_until("the server listens", LONG, || Ok(listens())).unwrap();
    let client = scene
        .curl(&["--retry", "5", "http://10.9.0.2/"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(scene.wake(), "tcp:80 GET / (waking-page)");
    scene.take_over();
    let out = client.wait_with_output().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && text.ends_with("the guest's own page\n"), "{text}");
}

#[test]
fn echo_and_banner_and_connect_speak_to_the_kernels_tcp() {
    use std::{io::Read, net::TcpStream};
    let scene = Scene::new("echo");
    let client = scene.lab.client_namespace();
    let say: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
    let heard = client
        .run(|| {
            let mut stream = TcpStream::connect("10.9.0.2:7").unwrap();
            let mut writer = stream.try_clone().unwrap();
            thread::scope(|scope| {
                scope.spawn(|| {
                    writer.write_all(&say).unwrap();
                    writer.shutdown(std::net::Shutdown::Write).unwrap();
                });
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).unwrap();
                heard
            })
        })
        .unwrap();
    assert!(heard == say);
    assert_eq!(scene.wake(), "tcp:7 (echo)");
    let read = |to: &'static str| {
        let read = || {
            let mut text = String::new();
            TcpStream::connect(to).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        client.run(read).unwrap()
    };
    assert_eq!(read("[fd77::2]:23"), "web is asleep\r\n");
    assert_eq!(read("10.9.0.2:443"), "");
    assert_eq!(scene.wake(), "tcp:443 (connect)", "and none by port 23");
}
