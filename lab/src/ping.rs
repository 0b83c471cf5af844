//! One echo request, timed to the microsecond.

use crate::{Error, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REQUEST_V6: u8 = 128;

/// Pings from the calling thread's namespace.
pub(crate) fn ping(ip: IpAddr, timeout: Duration) -> Result<Duration> {
    let error = || Error::net(format!("ping {ip}"));
    let (family, protocol, kind) = match ip {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, ECHO_REQUEST_V4),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, ECHO_REQUEST_V6),
    };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)
        .map_err(|e| error()(e.into()))?;
    // An echo socket is a datagram socket in all that matters here.
    let socket = UdpSocket::from(fd);
    socket.connect(SocketAddr::new(ip, 0)).map_err(error())?;
    socket.set_read_timeout(Some(timeout)).map_err(error())?;
    let mut request = [0; 64];
    request[0] = kind;
    request[7] = 1;
    let start = Instant::now();
    socket.send(&request).map_err(error())?;
    socket.recv(&mut [0; 128]).map_err(error())?;
    Ok(start.elapsed())
}
