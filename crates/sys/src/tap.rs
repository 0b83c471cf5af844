//! Taps: Ethernet interfaces whose other end is a file descriptor, as QEMU reads them.
//!
//! Reference: the kernel's `Documentation/networking/tuntap.rst`.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::{
    event::{PollFd, PollFlags},
    fs::{Mode, OFlags},
    io::Errno,
};

use crate::VnetHdr;

/// Why a tap could not be opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process has the tap's only queue.
    #[error("tap {0} is in use by another process: stop that virtual machine, or give this one another tap")]
    InUse(String),
    /// An interface of another kind has the name.
    #[error(
        "{0} is the name of an interface that is no tap, or of one with other options: choose another name"
    )]
    NotATap(String),
    /// A name that no interface can have.
    #[error("{0:?} is no name for an interface: use 1 to 15 characters, none of them '/' or a space")]
    Name(String),
    /// The process may not make taps.
    #[error("not allowed to open tap {0}: grant CAP_NET_ADMIN, and access to /dev/net/tun")]
    NotAllowed(String),
    /// The kernel has no taps.
    #[error("there is no /dev/net/tun: load the kernel module tun")]
    NoDevice(#[source] std::io::Error),
    /// Another failure of the named call.
    #[error("tap: {call}")]
    System {
        /// The call that failed.
        call: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// Opens the tap `name`, and makes it if it does not exist: raw Ethernet frames, each after a
/// virtio-net header; non-blocking, closed on exec. It goes away with the descriptor unless
/// [`set_persist`].
///
/// # Errors
/// [`Error::InUse`] when another descriptor has it; see the variants of [`Error`].
pub fn open(name: &str) -> Result<OwnedFd, Error> {
    let mut request = Request::named(name)?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open("/dev/net/tun", flags, Mode::empty()).map_err(|errno| match errno {
        Errno::PERM | Errno::ACCESS => Error::NotAllowed(name.to_owned()),
        other => Error::NoDevice(other.into()),
    })?;
    request.flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR).unwrap_or_default();
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which `Request` is laid out as.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    checked("TUNSETIFF", result).map_err(|errno| match errno.1 {
        Errno::BUSY => Error::InUse(name.to_owned()),
        Errno::INVAL => Error::NotATap(name.to_owned()),
        Errno::PERM | Errno::ACCESS => Error::NotAllowed(name.to_owned()),
        _ => system(errno),
    })?;
    Ok(fd)
}

/// Says whether the tap stays when its last descriptor is closed.
///
/// # Errors
/// When `tap` is no tap's descriptor.
pub fn set_persist(tap: impl AsFd, persist: bool) -> Result<(), Error> {
    // SAFETY: TUNSETPERSIST takes its argument by value.
    let result =
        unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNSETPERSIST, libc::c_ulong::from(persist)) };
    checked("TUNSETPERSIST", result).map_err(system)
}

/// Lets the user with this id open the tap without CAP_NET_ADMIN.
///
/// # Errors
/// When `tap` is no tap's descriptor.
pub fn set_owner(tap: impl AsFd, user: u32) -> Result<(), Error> {
    // SAFETY: TUNSETOWNER takes its argument by value.
    let result =
        unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNSETOWNER, libc::c_ulong::from(user)) };
    checked("TUNSETOWNER", result).map_err(system)
}

/// Bytes of virtio-net header before each frame that is read or written: 10, or 12 once QEMU
/// has set it so.
///
/// # Errors
/// When `tap` is no tap's descriptor.
pub fn header_len(tap: impl AsFd) -> Result<usize, Error> {
    let mut length: libc::c_int = 0;
    // SAFETY: TUNGETVNETHDRSZ writes one int.
    let result = unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNGETVNETHDRSZ, &raw mut length) };
    checked("TUNGETVNETHDRSZ", result).map_err(system)?;
    Ok(usize::try_from(length).unwrap_or(VnetHdr::LEN))
}

/// Is nothing waiting to be read, that is, has the guest read all that was sent to it?
///
/// # Errors
/// When `tap` cannot be polled.
pub fn is_empty(tap: impl AsFd) -> Result<bool, Error> {
    let mut interest = [PollFd::from_borrowed_fd(tap.as_fd(), PollFlags::IN)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut interest, Some(&now)).map_err(|errno| system(("poll", errno)))?;
    Ok(!interest[0].revents().contains(PollFlags::IN))
}

/// Takes one waiting frame out of the tap, as a guest would: its header, then its bytes, which
/// stand in `buffer` after the header. `None` when nothing waits.
///
/// # Errors
/// When `tap` cannot be read. A frame longer than `buffer` is cut: give it 64 KiB and some.
pub fn read_frame(tap: impl AsFd, buffer: &mut [u8]) -> Result<Option<(VnetHdr, &[u8])>, Error> {
    let header = header_len(&tap)?;
    loop {
        match rustix::io::read(&tap, &mut *buffer) {
            Ok(length) => {
                let frame = &buffer[..length];
                let info = frame.first_chunk().map_or(VnetHdr::PLAIN, |bytes| VnetHdr(*bytes));
                return Ok(Some((info, frame.get(header..).unwrap_or_default())));
            }
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(system(("read", errno))),
        }
    }
}

/// Sends one frame from the guest's side of the tap; `header` may be followed by zeros.
///
/// # Errors
/// When the tap is down or the kernel refuses the header.
pub fn write_frame(tap: impl AsFd, header: &VnetHdr, frame: &[u8]) -> Result<(), Error> {
    let mut whole = header.0.to_vec();
    whole.resize(header_len(&tap)?.max(VnetHdr::LEN), 0);
    whole.extend_from_slice(frame);
    rustix::io::write(&tap, &whole).map(drop).map_err(|errno| system(("write", errno)))
}

/// A second descriptor of the queue of tap `name` that process `pid` has, to watch whether it is
/// empty; `None` if the process has no such queue. Needs ptrace rights over it; pidfd_getfd(2).
///
/// # Errors
/// When the process is gone, or may not be looked into.
pub fn borrow_queue(pid: u32, name: &str) -> Result<Option<OwnedFd>, Error> {
    let gone = || system(("pidfd_open", Errno::SRCH));
    let process = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).ok_or_else(gone)?;
    let process = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty())
        .map_err(|errno| system(("pidfd_open", errno)))?;
    let Some(number) = queue_number(pid, name).map_err(|source| Error::System { call: "fdinfo", source })?
    else {
        return Ok(None);
    };
    rustix::process::pidfd_getfd(&process, number, rustix::process::PidfdGetfdFlags::empty())
        .map(Some)
        .map_err(|errno| system(("pidfd_getfd", errno)))
}

/// Which of the process's descriptors is the tap's: tuntap tells in fdinfo, as `iff: NAME`.
fn queue_number(pid: u32, name: &str) -> std::io::Result<Option<i32>> {
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let path = entry?.path();
        // A descriptor may be closed while we look.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if text.lines().any(|line| line.strip_prefix("iff:").map(str::trim) == Some(name)) {
            return Ok(path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok()));
        }
    }
    Ok(None)
}

/// `struct ifreq` with flags, see netdevice(7).
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: i16,
    rest: [u8; 22],
}

impl Request {
    fn named(name: &str) -> Result<Self, Error> {
        let bad = name.is_empty()
            || name.len() >= libc::IFNAMSIZ
            || matches!(name, "." | "..")
            // The kernel would read a % as a pattern to be numbered.
            || name.bytes().any(|b| b == b'/' || b == b':' || b == b'%' || b == 0 || b.is_ascii_whitespace());
        if bad {
            return Err(Error::Name(name.to_owned()));
        }
        let mut request = Self { name: [0; libc::IFNAMSIZ], flags: 0, rest: [0; 22] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        Ok(request)
    }
}

fn checked(call: &'static str, result: i32) -> Result<(), (&'static str, Errno)> {
    if result < 0 {
        let error = std::io::Error::last_os_error();
        return Err((call, Errno::from_io_error(&error).unwrap_or(Errno::IO)));
    }
    Ok(())
}

fn system((call, errno): (&'static str, Errno)) -> Error {
    Error::System { call, source: errno.into() }
}
