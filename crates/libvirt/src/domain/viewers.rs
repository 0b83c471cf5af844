//! Who looks at the domain's screen: somebody who connected to it by VNC or SPICE.
//!
//! Two sources, for neither knows all. libvirt's events tell of each who comes or goes, also by a socket of the
//! host's or a descriptor that libvirt passed on (`virDomainOpenGraphicsFD`), and of hosts
//! elsewhere; not of those who were there before. The kernel knows all TCP connections of this host.

use std::{
    fs::File,
    io::{BufRead, BufReader},
};

use dormouse_sys::libvirt::Viewer;

use super::Inner;
use crate::uri::is_local_qemu;

/// `VIR_DOMAIN_EVENT_GRAPHICS_CONNECT`, `_INITIALIZE`, `_DISCONNECT`
const CONNECT: i32 = 0;
const INITIALIZE: i32 = 1;
const DISCONNECT: i32 = 2;
/// `VIR_DOMAIN_EVENT_GRAPHICS_ADDRESS_UNIX`
const UNIX: i32 = 2;
/// More are not counted.
const MOST: usize = 1024;
/// `TCP_ESTABLISHED`, as proc_net_tcp writes it (Linux, Documentation/networking/proc_net_tcp.rst).
const ESTABLISHED: &str = "01";

/// Those whom events told of, and who have not left.
#[derive(Debug, Default)]
pub(super) struct Viewers(Vec<Viewer>);

impl Viewers {
    /// One connects, and then is initialized, or leaves. Those who come by a socket look all alike.
    pub(super) fn told(&mut self, phase: i32, viewer: Viewer) {
        let known = self.0.iter().position(|known| *known == viewer);
        match (phase, known) {
            (DISCONNECT, Some(known)) => drop(self.0.swap_remove(known)),
            (CONNECT, _) | (INITIALIZE, None) if self.0.len() < MOST => self.0.push(viewer),
            _ => {}
        }
    }

    /// How many there are, if there are so many TCP connections.
    fn count(&self, tcp: usize) -> u32 {
        let by_socket = self.0.iter().filter(|viewer| viewer.family == UNIX).count();
        let others = self.0.len() - by_socket;
        u32::try_from(by_socket + others.max(tcp)).unwrap_or(u32::MAX)
    }
}

impl Inner {
    /// `None` of a domain without such a screen, and if libvirt cannot be asked.
    pub(super) async fn count_viewers(&self) -> Option<u32> {
        let ports = self.description().await.ok()?.screen.clone()?;
        let tcp = if ports.is_empty() || !is_local_qemu(self.hub.uri()) {
            0
        } else {
            tokio::task::spawn_blocking(move || connections(&ports)).await.ok()?
        };
        Some(self.known().viewers.count(tcp))
    }
}

/// Established TCP connections at these ports of our network namespace, which is that of our domains.
fn connections(ports: &[u16]) -> usize {
    // Without IPv6 there is no second one.
    let tables =
        ["tcp", "tcp6"].into_iter().filter_map(|name| File::open(format!("/proc/self/net/{name}")).ok());
    let lines = tables.flat_map(|table| BufReader::new(table).lines().map_while(Result::ok));
    lines.filter(|line| is_at(line, ports)).count()
}

/// `0: 0100007F:170C 0100007F:A3F2 01 ...`: number, our end, the other, state.
fn is_at(line: &str, ports: &[u16]) -> bool {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (Some(local), Some(_), Some(ESTABLISHED)) = (words.next(), words.next(), words.next()) else {
        return false;
    };
    let port = local.rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
    port.is_some_and(|port| ports.contains(&port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn viewer(family: i32, service: &str) -> Viewer {
        let node = if family == UNIX { "" } else { "10.0.0.9" };
        Viewer { family, node: node.into(), service: service.into() }
    }

    #[test]
    fn who_comes_counts_once_until_it_leaves() {
        let mut viewers = Viewers::default();
        let (a, b) = (viewer(0, "40000"), viewer(0, "40001"));
        let mut told = |phase, viewer: &Viewer| {
            viewers.told(phase, viewer.clone());
            viewers.count(0)
        };
        assert_eq!([told(CONNECT, &a), told(INITIALIZE, &a), told(INITIALIZE, &a)], [1, 1, 1]);
        // Its connection was not told of.
        assert_eq!(told(INITIALIZE, &b), 2);
        assert_eq!([told(DISCONNECT, &a), told(DISCONNECT, &a), told(DISCONNECT, &b)], [1, 1, 0]);
        assert_eq!(told(7, &a), 0);
        for _ in 0..2 * MOST {
            told(CONNECT, &a);
        }
        assert_eq!(usize::try_from(told(CONNECT, &a)), Ok(MOST));
    }

    #[test]
    fn those_by_a_socket_are_told_and_those_by_tcp_are_seen_as_well() {
        let mut viewers = Viewers::default();
        for _ in 0..2 {
            viewers.told(CONNECT, viewer(UNIX, ""));
            viewers.told(INITIALIZE, viewer(UNIX, ""));
        }
        assert_eq!((viewers.count(0), viewers.count(3)), (2, 5));
        viewers.told(CONNECT, viewer(0, "40000"));
        assert_eq!((viewers.count(0), viewers.count(1), viewers.count(2)), (3, 3, 4));
        viewers.told(DISCONNECT, viewer(UNIX, ""));
        assert_eq!(viewers.count(0), 2);
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let line =
            "   1: 0100007F:170C 0100007F:A3F2 01 00000000:00000000 00:00000000 00000000     0        0 1";
        assert!(is_at(line, &[5901, 5900]) && !is_at(line, &[5901, 0xa3f2]));
        let v6 = "   0: 00000000000000000000000001000000:170C 00000000000000000000000001000000:9C40 01 0:0";
        assert!(is_at(v6, &[5900]));
        let listens = "   0: 0100007F:170C 00000000:0000 0A 00000000:00000000";
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid";
        for line in [listens, head, "", "0:", "0: x x 01", "0: 0:10000 x 01", "0: :170C"] {
            assert!(!is_at(line, &[5900, 0]), "{line:?}");
        }
    }

    #[test]
    fn finds_the_connections_that_there_are() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(listen) else { continue };
            let address = listener.local_addr().unwrap();
            assert_eq!(connections(&[address.port()]), 0);
            let viewer = TcpStream::connect(address).unwrap();
            let (screen, _) = listener.accept().unwrap();
            assert_eq!(connections(&[address.port()]), 1);
            drop((viewer, screen));
            assert_eq!(connections(&[address.port()]), 0);
        }
    }
}
