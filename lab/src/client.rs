//! Someone on the network, measuring.

use crate::{
    EchoSession, Error, MemoryCheck, Namespace, Result, SinkStats, SshSession, UdpStream, command,
    guest::Image, ping, sink,
};
use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// An answer to an ARP request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArpReply {
    /// From the last request to the answer.
    pub elapsed: Duration,
    /// Who says it has the address, as `52:54:00:00:00:02`.
    pub mac: String,
    /// How many requests it took.
    pub requests: u32,
}

/// A TCP connection, opened.
#[derive(Debug)]
pub struct Connected {
    /// The connection. It stays in the client's namespace, whatever thread uses it.
    pub stream: TcpStream,
    /// From the first SYN to the SYN-ACK.
    pub elapsed: Duration,
    /// SYNs that the client's kernel sent again meanwhile: 0 if the first was enough.
    pub syn_retransmits: u64,
}

/// The answer to an HTTP request.
#[derive(Clone, Debug)]
pub struct HttpAnswer {
    /// From SYN to SYN-ACK.
    pub connected: Duration,
    /// From SYN to the first byte of the answer.
    pub first_byte: Duration,
    /// SYNs sent again.
    pub syn_retransmits: u64,
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// The client of a [`Lab`](crate::Lab): everything it does happens in its namespace.
#[derive(Clone, Debug)]
pub struct Client {
    namespace: Namespace,
}

impl Client {
    pub(crate) const fn new(namespace: Namespace) -> Self {
        Self { namespace }
    }

    /// Its namespace, for programs and closures of the caller's own.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Asks by broadcast who has an IPv4 address.
    ///
    /// # Errors
    ///
    /// If nobody answers within `timeout`.
    pub fn arping(&self, ip: Ipv4Addr, timeout: Duration) -> Result<ArpReply> {
        let mut arping = self.namespace.command("arping");
        arping.args(["-f", "-I", crate::Lab::CLIENT_INTERFACE, "-w"]);
        arping.arg(timeout.as_secs().max(1).to_string()).arg(ip.to_string());
        let text = command::stdout(&mut arping)?;
        parse_arping(&text).ok_or(Error::Answer { from: "arping".into(), answer: text })
    }

    /// Sends one ICMP or ICMPv6 echo request and waits for its answer.
    ///
    /// # Errors
    ///
    /// If there is none within `timeout`.
    pub fn ping(&self, ip: impl Into<IpAddr>, timeout: Duration) -> Result<Duration> {
        let ip = ip.into();
        self.namespace.run(|| ping::ping(ip, timeout))?
    }

    /// Forgets what the client's kernel knows of its neighbours, so that it must ask again.
    ///
    /// # Errors
    ///
    /// What `ip` complains about.
    pub fn forget_neighbours(&self) -> Result<()> {
        self.namespace.ip("neigh flush all\n")
    }

    /// Sets how idle connections are probed: after `idle` seconds, then every `interval`; `count` probes
    /// without an answer end the connection. For those that ask for it, as ssh does.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a value.
    pub fn keepalive(&self, idle: u32, interval: u32, count: u32) -> Result<()> {
        for (key, value) in [("time", idle), ("intvl", interval), ("probes", count)] {
            self.namespace.sysctl(&format!("net/ipv4/tcp_keepalive_{key}"), &value.to_string())?;
        }
        Ok(())
    }

    /// Opens a TCP connection.
    ///
    /// # Errors
    ///
    /// If it is refused or not open within `timeout`.
    pub fn tcp_connect(&self, to: SocketAddr, timeout: Duration) -> Result<Connected> {
        self.namespace.run(|| {
            let before = syn_retransmits();
            let start = Instant::now();
            let stream = TcpStream::connect_timeout(&to, timeout);
            let elapsed = start.elapsed();
            let stream = stream.map_err(Error::net(format!("connect to {to}")))?;
            stream.set_nodelay(true).map_err(Error::net("set TCP_NODELAY"))?;
            Ok(Connected { stream, elapsed, syn_retransmits: syn_retransmits() - before })
        })?
    }

    /// Fetches `path` by HTTP/1.0.
    ///
    /// # Errors
    ///
    /// If there is no whole answer within `timeout`.
    pub fn http_get(&self, to: SocketAddr, path: &str, timeout: Duration) -> Result<HttpAnswer> {
        let start = Instant::now();
        let Connected { mut stream, elapsed, syn_retransmits } = self.tcp_connect(to, timeout)?;
        let setup = start.elapsed().saturating_sub(elapsed);
        let error = |doing: &str| Error::net(format!("{doing} http://{to}{path}"));
        stream.set_read_timeout(Some(timeout)).map_err(error("fetch"))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).map_err(error("request"))?;
        let mut answer = vec![0];
        stream.read_exact(&mut answer).map_err(error("fetch"))?;
        let first_byte = start.elapsed().saturating_sub(setup);
        stream.read_to_end(&mut answer).map_err(error("fetch"))?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let (status, body) = parse_http(&text)
            .ok_or_else(|| Error::Answer { from: format!("http://{to}{path}"), answer: text.clone() })?;
        Ok(HttpAnswer { connected: elapsed, first_byte, syn_retransmits, status, body })
    }

    /// Opens a session with the guest's echo service.
    ///
    /// # Errors
    ///
    /// If it cannot connect.
    pub fn echo(&self, ip: impl Into<IpAddr>) -> Result<EchoSession> {
        let to = SocketAddr::new(ip.into(), 7);
        self.tcp_connect(to, Duration::from_secs(30)).and_then(|c| EchoSession::new(c.stream))
    }

    /// Starts a shell in the guest by ssh and holds it open.
    ///
    /// # Errors
    ///
    /// If `ssh` cannot be started or the guest does not answer.
    pub fn ssh(&self, image: &Image, ip: impl Into<IpAddr>) -> Result<SshSession> {
        SshSession::open(&self.namespace, image, ip.into())
    }

    /// Starts a stream of numbered datagrams, `rate` a second, `size` bytes each, to the guest's sink, or to
    /// those of all guests by a broadcast address.
    ///
    /// # Errors
    ///
    /// If the socket cannot be made.
    pub fn udp_stream(&self, ip: impl Into<IpAddr>, rate: u32, size: usize) -> Result<UdpStream> {
        UdpStream::start(&self.namespace, SocketAddr::new(ip.into(), sink::SINK_PORT), rate, size)
    }

    /// What the guest's sink has received, and facts about the guest.
    ///
    /// # Errors
    ///
    /// If the guest does not answer.
    pub fn sink(&self, ip: impl Into<IpAddr>) -> Result<SinkStats> {
        sink::stats(self, ip.into())
    }

    /// Sets the sink's counts back to nothing.
    ///
    /// # Errors
    ///
    /// If the guest does not answer.
    pub fn reset_sink(&self, ip: impl Into<IpAddr>) -> Result<()> {
        sink::reset(self, ip.into())
    }

    /// ICMP echo requests that the client's kernel was sent so far.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn echoes_asked(&self) -> Result<u64> {
        let text = self.namespace.run(|| fs::read_to_string("/proc/thread-self/net/snmp"))?;
        let text = text.map_err(Error::file("read", "/proc/thread-self/net/snmp"))?;
        let unknown = || Error::Answer { from: "/proc/net/snmp".into(), answer: text.clone() };
        let values =
            text.lines().filter_map(|line| line.strip_prefix("Icmp: ")).nth(1).ok_or_else(unknown)?;
        // InEchos.
        values.split(' ').nth(8).and_then(|count| count.parse().ok()).ok_or_else(unknown)
    }

    /// Has the guest compare the memory it filled at boot with what it must hold.
    ///
    /// # Errors
    ///
    /// If the guest does not answer.
    pub fn verify_memory(&self, ip: impl Into<IpAddr>) -> Result<MemoryCheck> {
        sink::verify_memory(self, ip.into())
    }
}

/// `Unicast reply from 10.9.0.2 [52:54:00:00:00:02]  0.734ms`, then `Sent 1 probes (1 broadcast(s))`.
fn parse_arping(text: &str) -> Option<ArpReply> {
    let reply = text.lines().find(|line| line.contains("reply from"))?;
    let (_, rest) = reply.split_once('[')?;
    let (mac, time) = rest.split_once(']')?;
    let millis: f64 = time.trim().strip_suffix("ms")?.parse().ok()?;
    let sent = text.lines().find_map(|line| line.strip_prefix("Sent "))?;
    Some(ArpReply {
        elapsed: Duration::from_secs_f64(millis / 1000.0),
        mac: mac.to_lowercase(),
        requests: sent.split_whitespace().next()?.parse().ok()?,
    })
}

fn parse_http(text: &str) -> Option<(u16, String)> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some((status.split_whitespace().next()?.parse().ok()?, body.to_owned()))
}

/// SYNs sent again in the calling thread's namespace since it exists.
fn syn_retransmits() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap_or_default();
    let mut rows = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (rows.next(), rows.next()) else { return 0 };
    let column = names.split(' ').position(|name| name == "TCPSynRetrans");
    column.and_then(|n| values.split(' ').nth(n)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_arping() {
        let text = "ARPING 10.9.0.2 from 10.9.0.1 eth0\n\
            Unicast reply from 10.9.0.2 [52:54:00:00:00:0A]  0.500ms\n\
            Sent 1 probes (1 broadcast(s))\nReceived 1 response(s)\n";
        let reply = parse_arping(text).unwrap();
        assert_eq!(reply.elapsed, Duration::from_micros(500));
        assert_eq!((reply.mac.as_str(), reply.requests), ("52:54:00:00:00:0a", 1));
        assert_eq!(parse_arping("Sent 3 probes (3 broadcast(s))"), None);
    }

    #[test]
    fn reads_http() {
        let answer = parse_http("HTTP/1.0 200 OK\r\nA: b\r\n\r\nhello").unwrap();
        assert_eq!(answer, (200, "hello".into()));
        assert_eq!(parse_http("nonsense"), None);
    }
}
