//! Socket options and calls that AF_PACKET needs and rustix does not have.

use std::{
    mem::{size_of, zeroed},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use rustix::io::Errno;

use super::{Error, Filter, Statistics};

/// A socket option that takes an integer.
pub(super) struct Flag {
    level: i32,
    name: i32,
    text: &'static str,
}

const fn packet(name: i32, text: &'static str) -> Flag {
    Flag { level: libc::SOL_PACKET, name, text }
}

const fn socket_level(name: i32, text: &'static str) -> Flag {
    Flag { level: libc::SOL_SOCKET, name, text }
}

pub(super) const VNET_HDR: Flag = packet(libc::PACKET_VNET_HDR, "PACKET_VNET_HDR");
pub(super) const AUXDATA: Flag = packet(libc::PACKET_AUXDATA, "PACKET_AUXDATA");
pub(super) const QDISC_BYPASS: Flag = packet(libc::PACKET_QDISC_BYPASS, "PACKET_QDISC_BYPASS");
pub(super) const IGNORE_OUTGOING: Flag = packet(libc::PACKET_IGNORE_OUTGOING, "PACKET_IGNORE_OUTGOING");
pub(super) const RECEIVE_BUFFER: Flag = socket_level(libc::SO_RCVBUFFORCE, "SO_RCVBUFFORCE");
pub(super) const SEND_BUFFER: Flag = socket_level(libc::SO_SNDBUFFORCE, "SO_SNDBUFFORCE");
pub(super) const RECEIVE_MARK: Flag = socket_level(libc::SO_RCVMARK, "SO_RCVMARK");

/// The error of the last system call of this thread.
pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn checked(call: &'static str, result: i32) -> Result<i32, Error> {
    if result < 0 { Err(Error::of(call, last_errno())) } else { Ok(result) }
}

/// A length that the kernel takes as `socklen_t`.
fn length_of<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

fn set_raw<T>(fd: &OwnedFd, level: i32, name: i32, text: &'static str, value: &T) -> Result<(), Error> {
    // SAFETY: `value` is a live, initialised T and the length given is its size; the kernel only
    // reads it.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length_of::<T>())
    };
    checked(text, result).map(drop)
}

/// Sets an integer option.
pub(super) fn set(fd: &OwnedFd, flag: &Flag, value: u32) -> Result<(), Error> {
    set_raw(fd, flag.level, flag.name, flag.text, &value)
}

/// A raw, non-blocking packet socket of no protocol.
pub(super) fn socket() -> Result<OwnedFd, Error> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointers.
    let fd = checked("socket", unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds to a link: from here on the socket receives `protocol` (0: nothing).
pub(super) fn bind(fd: &OwnedFd, index: i32, protocol: i32) -> Result<(), Error> {
    // SAFETY: all-zero bytes are a valid `sockaddr_ll`, plain integers all through.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = u16::try_from(protocol).unwrap_or_default().to_be();
    address.sll_ifindex = index;
    // SAFETY: `address` is a live `sockaddr_ll` and the length given is its size.
    let result = unsafe {
        libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), length_of::<libc::sockaddr_ll>())
    };
    checked("bind", result).map(drop)
}

/// Has the link deliver frames for every address, for as long as the socket lives.
pub(super) fn promiscuous(fd: &OwnedFd, index: i32) -> Result<(), Error> {
    let request = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: u16::try_from(libc::PACKET_MR_PROMISC).unwrap_or_default(),
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_raw(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, "PACKET_ADD_MEMBERSHIP", &request)
}

/// Attaches a classic BPF program.
pub(super) fn attach_filter(fd: &OwnedFd, filter: &Filter) -> Result<(), Error> {
    let program = filter.program();
    let request = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or(u16::MAX),
        // The kernel copies the program and does not write to it.
        filter: program.as_ptr().cast_mut(),
    };
    set_raw(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, "SO_ATTACH_FILTER", &request)
}

/// Reads an option into words, of which the kernel fills as many as it has.
fn words<const N: usize>(fd: &OwnedFd, flag: &Flag) -> Result<[u32; N], Error> {
    let mut raw = [0_u32; N];
    let mut length = length_of::<[u32; N]>();
    // SAFETY: `raw` has room for `length` bytes and any bytes are valid in it.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            flag.level,
            flag.name,
            std::ptr::from_mut(&mut raw).cast(),
            &raw mut length,
        )
    };
    checked(flag.text, result)?;
    Ok(raw)
}

/// Reads the counters (`struct tpacket_stats`), which sets them to zero.
pub(super) fn statistics(fd: &OwnedFd) -> Result<Statistics, Error> {
    let [frames, dropped] = words(fd, &packet(libc::PACKET_STATISTICS, "PACKET_STATISTICS"))?;
    Ok(Statistics { frames: frames.into(), dropped: dropped.into() })
}

/// Octets of the receive buffer that are in use: the first word of `SO_MEMINFO`.
pub(super) fn in_use(fd: &OwnedFd) -> Result<u32, Error> {
    let [used] = words(fd, &socket_level(libc::SO_MEMINFO, "SO_MEMINFO"))?;
    Ok(used)
}
