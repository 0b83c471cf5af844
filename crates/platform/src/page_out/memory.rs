//! The memory of a guest, as its process has it mapped.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, MetadataExt},
    },
    path::Path,
};

use dormouse_sys::paging;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A smaller mapping is not worth it, and may be of the process itself.
const LEAST: u64 = 16 << 20;
/// Pages of which the table is read in one go.
const TABLE: usize = 32 << 10;
/// statfs(2): where files are made of memory.
const TMPFS_MAGIC: u64 = 0x0102_1994;
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// One mapping.
#[derive(Debug)]
struct Region {
    addresses: Range<u64>,
    /// What it maps on a disk, and from where; `None` for what only swap can hold.
    file: Option<(File, u64)>,
    huge: bool,
}

impl Region {
    const fn len(&self) -> u64 {
        self.addresses.end - self.addresses.start
    }
}

/// What a process has mapped as its guest's memory, in the order of its addresses. A place in it is
/// counted from its start, as if there were no gaps.
#[derive(Debug)]
pub(super) struct Memory {
    pid: u32,
    process: OwnedFd,
    regions: Vec<Region>,
}

impl Memory {
    /// Of a process: all of it that can be written, is not code, and is large.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        // First, so that all that follows is of this very process or fails.
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let process = pidfd_open(number, PidfdFlags::empty())?;
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let mapped = maps.lines().filter_map(Mapped::read).filter(Mapped::is_guests);
        let regions = mapped.map(|mapped| mapped.region(pid)).collect();
        Ok(Self { pid, process, regions })
    }

    pub(super) fn len(&self) -> u64 {
        self.regions.iter().map(Region::len).sum()
    }

    /// Bytes that only swap can hold.
    pub(super) fn needs_swap(&self) -> u64 {
        self.regions.iter().filter(|r| r.file.is_none() && !r.huge).map(Region::len).sum()
    }

    /// Bytes in huge pages, which stay in memory.
    pub(super) fn is_huge(&self) -> u64 {
        self.regions.iter().filter(|region| region.huge).map(Region::len).sum()
    }

    /// The parts of at most `size` bytes that it can be paged out in.
    pub(super) fn parts(&self, size: u64) -> Vec<Range<u64>> {
        let (mut parts, mut at) = (Vec::new(), 0);
        for region in &self.regions {
            let end = at + region.len();
            while at < end {
                let next = end.min(at + size);
                if !region.huge {
                    parts.push(at..next);
                }
                at = next;
            }
        }
        parts
    }

    /// Puts a part on its disk or into swap.
    pub(super) fn page_out(&self, part: &Range<u64>) -> io::Result<()> {
        self.each(part, |region, addresses| {
            if let Some((file, offset)) = &region.file {
                let from = offset + (addresses.start - region.addresses.start);
                paging::write_back(file, &(from..from + (addresses.end - addresses.start)))?;
            }
            paging::page_out(&self.process, &addresses)
        })
    }

    /// Drops what the page cache has of its files beside what is mapped.
    pub(super) fn drop_caches(&self) -> io::Result<()> {
        self.regions
            .iter()
            .filter_map(|region| region.file.as_ref())
            .try_for_each(|(file, _)| dormouse_sys::memory::evict(file))
    }

    /// Asks for a part to be read.
    pub(super) fn page_in(&self, part: &Range<u64>) -> io::Result<()> {
        self.each(part, |_, addresses| paging::page_in(&self.process, &addresses))
    }

    fn each(
        &self,
        part: &Range<u64>,
        mut act: impl FnMut(&Region, Range<u64>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut at = 0;
        for region in &self.regions {
            let (first, last) = (part.start.max(at), part.end.min(at + region.len()));
            if first < last {
                let address = |place: u64| region.addresses.start + (place - at);
                act(region, address(first)..address(last))?;
            }
            at += region.len();
        }
        Ok(())
    }

    /// What of it is in memory, ascending, in whole pages: by the process's table of pages
    /// (Linux `Documentation/admin-guide/mm/pagemap.rst`, bit 63).
    pub(super) fn resident(&self) -> io::Result<Vec<Range<u64>>> {
        let page = u64::try_from(rustix::param::page_size()).map_err(io::Error::other)?;
        let table = File::open(format!("/proc/{}/pagemap", self.pid))?;
        let (mut ranges, mut at, mut entries) = (Vec::<Range<u64>>::new(), 0, vec![0_u8; TABLE * 8]);
        for region in &self.regions {
            let mut entry = region.addresses.start / page;
            let end = region.addresses.end / page;
            while entry < end {
                let count = usize::try_from(end - entry).unwrap_or(TABLE).min(TABLE);
                let Some(entries) = entries.get_mut(..count * 8) else { break };
                table.read_exact_at(entries, entry * 8)?;
                for chunk in entries.chunks_exact(8) {
                    // The highest bit of a number in the host's order of octets.
                    let present = <[u8; 8]>::try_from(chunk).is_ok_and(|c| u64::from_ne_bytes(c) >> 63 == 1);
                    match ranges.last_mut() {
                        Some(last) if present && last.end == at => last.end = at + page,
                        _ if present => ranges.push(at..at + page),
                        _ => {}
                    }
                    at += page;
                }
                entry += u64::try_from(count).map_err(io::Error::other)?;
            }
        }
        Ok(ranges)
    }
}

/// A line of `/proc/PID/maps`; proc_pid_maps(5).
#[derive(Debug, PartialEq, Eq)]
struct Mapped<'a> {
    addresses: Range<u64>,
    rights: &'a str,
    offset: u64,
    inode: u64,
    path: &'a str,
}

impl<'a> Mapped<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (addresses, rest) = line.split_once(' ')?;
        let (rights, rest) = rest.split_once(' ')?;
        let (offset, rest) = rest.split_once(' ')?;
        let (_device, rest) = rest.split_once(' ')?;
        let (inode, path) = rest.split_once(' ').unwrap_or((rest, ""));
        let number = |text| u64::from_str_radix(text, 16).ok();
        let (start, end) = addresses.split_once('-')?;
        let addresses = number(start)?..number(end)?;
        (addresses.start <= addresses.end).then_some(())?;
        Some(Self {
            addresses,
            rights,
            offset: number(offset)?,
            inode: inode.parse().ok()?,
            path: path.trim_start(),
        })
    }

    /// Not its code, not a device's, and not what it keeps for itself, which is small.
    fn is_guests(&self) -> bool {
        let is_device = self.path.starts_with("/dev/")
            && !["/dev/shm/", "/dev/zero", "/dev/hugepages/"].iter().any(|p| self.path.starts_with(p));
        self.rights.starts_with("rw-") && !is_device && self.addresses.end - self.addresses.start >= LEAST
    }

    fn region(self, pid: u32) -> Region {
        let is_shared = self.rights.ends_with('s');
        let file = if self.inode == 0 { None } else { find_file(pid, self.inode) };
        let kind = file.as_ref().and_then(|file| rustix::fs::fstatfs(file).ok());
        let kind = kind.and_then(|found| u64::try_from(found.f_type).ok());
        let huge = kind == Some(HUGETLBFS_MAGIC)
            || self.path.starts_with("/anon_hugepage")
            || self.path.starts_with("/dev/hugepages/");
        // What a private mapping has changed is nowhere but in memory.
        let on_disk = is_shared && !huge && kind.is_some_and(|kind| kind != TMPFS_MAGIC);
        Region { addresses: self.addresses, file: file.filter(|_| on_disk).map(|f| (f, self.offset)), huge }
    }
}

/// The file that a process has mapped, by one of its descriptors: it may have no name any more, or one in
/// another namespace, and QEMU keeps those of its guest's memory open.
fn find_file(pid: u32, inode: u64) -> Option<File> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(Path::new(&folder)).ok()?.flatten();
    let mut paths = entries.map(|entry| entry.path());
    // Numbers of devices differ between stat(2) and maps on some file systems.
    let path = paths.find(|path| fs::metadata(path).is_ok_and(|m| m.ino() == inode && m.is_file()))?;
    File::open(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANONYMOUS: &str = "7f2b3fe00000-7f2b4fe00000 rw-p 00000000 00:00 0 ";
    const FILE: &str = "7f2b3fe00000-7f2b4fe00000 rw-s 00100000 08:01 4711                       /m/web/r am";

    #[test]
    fn reads_what_the_kernel_writes() {
        let read = Mapped::read(FILE).unwrap();
        assert_eq!((read.offset, read.inode, read.path), (1 << 20, 4711, "/m/web/r am"));
        assert_eq!(read.addresses.end - read.addresses.start, 256 << 20);
        assert_eq!(Mapped::read(ANONYMOUS).unwrap().path, "");
    }

    #[test]
    fn only_what_may_be_the_guests_is() {
        let is_guests = |line: &str| Mapped::read(line).unwrap().is_guests();
        assert!(is_guests(ANONYMOUS) && is_guests(FILE));
        for other in [
            ANONYMOUS.replace("rw-p", "rwxp"),
            ANONYMOUS.replace("rw-p", "---p"),
            FILE.replace("rw-s", "r--s"),
            FILE.replace("/m/web/r am", "/dev/vfio/12"),
            ANONYMOUS.replace("7f2b4fe00000", "7f2b40000000"),
        ] {
            assert!(!is_guests(&other), "{other}");
        }
        assert!(is_guests(&FILE.replace("/m/web/r am", "/dev/shm/ram")));
    }

    #[test]
    fn parts_and_pages_are_counted_without_the_gaps() {
        let region = |addresses, huge| Region { addresses, file: None, huge };
        let process = pidfd_open(Pid::from_raw(1).unwrap(), PidfdFlags::empty()).unwrap();
        let regions =
            vec![region(0x1000..0x4000, false), region(0x8000..0x9000, true), region(0xa000..0xc000, false)];
        let memory = Memory { pid: 1, process, regions };
        assert_eq!((memory.len(), memory.is_huge(), memory.needs_swap()), (0x6000, 0x1000, 0x5000));
        assert_eq!(memory.parts(0x2000), [0..0x2000, 0x2000..0x3000, 0x4000..0x6000]);
        let mut seen = Vec::new();
        let see = |_: &Region, addresses| {
            seen.push(addresses);
            Ok(())
        };
        memory.each(&(0x2000..0x5000), see).unwrap();
        assert_eq!(seen, [0x3000..0x4000, 0x8000..0x9000, 0xa000..0xb000]);
    }

    #[test]
    fn sees_which_pages_are_there() {
        // Of this process, whose test data is touched and whose untouched pages are not there.
        let mut large = vec![0_u8; 64 << 20];
        large[20 << 20..24 << 20].fill(7);
        let memory = Memory::of(std::process::id()).unwrap();
        let resident: u64 = memory.resident().unwrap().iter().map(|range| range.end - range.start).sum();
        assert!((4 << 20..=memory.len()).contains(&resident), "{resident} of {}", memory.len());
        assert!(large[20 << 20] == 7 && memory.needs_swap() >= 64 << 20);
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in "[0-9a-f]{0,18}-?[0-9a-f]{0,18} ?[rwxps-]{0,4} ?[0-9a-f]{0,18} ?.{0,9} ?[0-9]{0,22}.{0,9}") {
            if let Some(read) = Mapped::read(&line) {
                prop_assert!(read.addresses.start <= read.addresses.end);
                let _ = read.is_guests();
            }
        }
    }
}
