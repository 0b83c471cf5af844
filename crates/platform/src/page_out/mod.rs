//! Gives the memory of a paused guest back to the host, while its process stays.
//!
//! What is mapped from a file goes there, all else to swap; the guest finds it again by page
//! faults when it runs on, some of them foreseen: what the last wake touched is asked for as
//! the guest is let run. Nobody waits for it: a wake ends it after the part that is under way.

mod memory;

use std::{
    fs,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;

use self::memory::Memory;
use crate::{Error, blocking, touched::Touched};

/// Bytes that are put away in one go: some tens of milliseconds on a slow disk.
const PART: u64 = 4 << 20;
/// When it is looked at what a woken guest has touched, since it was let run.
const LOOKS: [Duration; 5] = [
    Duration::from_millis(15),
    Duration::from_millis(40),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(1000),
];
/// Of so much memory none is looked at: a look takes some 10 ms for each GiB.
const TOO_LARGE: u64 = 32 << 30;
/// With more than this part of its memory left, what a guest touches cannot be told.
const LEFT_PART: u64 = 16;

/// The memory of one machine: away, or not.
#[derive(Debug, Default)]
pub struct PageOut {
    /// Counts sleeps and wakes: odd while the guest runs or is about to. Who began at another number ends.
    round: Arc<AtomicU64>,
    away: Mutex<Option<Arc<Memory>>>,
    /// What the last wakes touched.
    touched: Arc<Mutex<Touched>>,
    watch: Mutex<Option<JoinHandle<()>>>,
}

/// What was given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Bytes that were in memory before.
    pub before: u64,
    /// Bytes that still are.
    pub left: u64,
    /// A wake ended it early.
    pub cut_short: bool,
}

impl PageOut {
    /// The guest stands still: from now on its memory may be put away.
    pub fn sleep(&self) {
        hold(&self.watch, None);
        self.turn(|round| round % 2 == 1);
    }

    /// Puts the memory of the guest of process `pid` away, if it stands still. Returns when all is done
    /// that can be, or soon after [`PageOut::wake`].
    ///
    /// # Errors
    /// When there is no place for it, or the process's memory cannot be seen or advised on.
    pub async fn put_away(&self, pid: u32) -> Result<Given, Error> {
        let round = self.round.load(Ordering::Acquire);
        if round % 2 == 1 {
            return Ok(Given { cut_short: true, ..Given::default() });
        }
        let now = Arc::clone(&self.round);
        let is_over = move || now.load(Ordering::Acquire) != round;
        let memory = blocking(move || see(pid)).await?;
        let memory = Arc::new(memory);
        let ours = Arc::clone(&memory);
        let given = blocking(move || put_away(&ours, pid, is_over)).await?;
        // Of less it cannot be told what a wake touches.
        if !given.cut_short && given.left <= memory.len() / LEFT_PART {
            let mut away = lock(&self.away);
            if self.round.load(Ordering::Acquire) == round {
                *away = Some(memory);
            }
        }
        Ok(given)
    }

    /// The guest is about to run: nothing more is put away, and what it will touch is asked for.
    pub fn wake(&self) {
        self.turn(|round| round % 2 == 0);
        let Some(memory) = lock(&self.away).take() else { return };
        let touched = Arc::clone(&self.touched);
        let began = tokio::time::Instant::now();
        hold(
            &self.watch,
            Some(tokio::spawn(async move {
                let (ahead, list) = (Arc::clone(&memory), Arc::clone(&touched));
                // Whoever waits for one of the pages waits for the disk, not for this.
                tokio::task::spawn_blocking(move || {
                    let ranges = lock(&list).ranges().to_vec();
                    if let Err(error) = ranges.iter().try_for_each(|range| ahead.page_in(range)) {
                        tracing::debug!(%error, "the memory is not read ahead");
                    }
                });
                watch_pages(&memory, &touched, began).await;
            })),
        );
    }

    fn turn(&self, is_due: impl Fn(u64) -> bool) {
        let next = |round: u64| is_due(round).then(|| round.wrapping_add(1));
        // An error says that it is so already.
        let _ = self.round.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }
}

/// Why the memory of process `pid` cannot be given back while its guest is paused, in words for the user.
///
/// # Errors
/// When the process cannot be looked at.
pub fn obstacle(pid: u32) -> Result<Option<String>, Error> {
    let memory = Memory::of(pid).map_err(Error::io("look at", format!("/proc/{pid}/maps")))?;
    Ok(obstacle_of(&memory, swap_bytes()))
}

fn see(pid: u32) -> Result<Memory, Error> {
    let memory = Memory::of(pid).map_err(Error::io("look at", format!("/proc/{pid}/maps")))?;
    obstacle_of(&memory, swap_bytes()).map_or(Ok(memory), |why| Err(Error::Unsupported(why)))
}

fn obstacle_of(memory: &Memory, swap: u64) -> Option<String> {
    let (all, huge, anonymous) = (memory.len(), memory.is_huge(), memory.needs_swap());
    if all == 0 {
        return Some("its process has no memory of a guest mapped".into());
    }
    if huge == all {
        return Some("the guest's memory is in huge pages, which stay in memory: use depth saved".into());
    }
    // Less than half of it elsewhere is hardly worth a sleep.
    (swap == 0 && anonymous > all / 2).then(|| {
        "the guest's memory is in no file, and the host has no swap to put it in: add swap, or give the domain \
         <memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>"
            .into()
    })
}

/// Bytes of swap that the host has, used or not: proc_swaps(5).
#[must_use]
pub fn swap_bytes() -> u64 {
    sum_of_swaps(&fs::read_to_string("/proc/swaps").unwrap_or_default())
}

/// A head line, then `/swapfile file 4194300 0 -2` for each, in KiB.
fn sum_of_swaps(text: &str) -> u64 {
    let sizes = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    sizes.fold(0, u64::saturating_add).saturating_mul(1024)
}

fn put_away(memory: &Memory, pid: u32, is_over: impl Fn() -> bool) -> Result<Given, Error> {
    let count = || {
        let resident = memory.resident().map_err(Error::io("read", format!("/proc/{pid}/pagemap")))?;
        Ok(resident.iter().map(|range| range.end - range.start).sum())
    };
    let mut given = Given { before: count()?, ..Given::default() };
    for part in memory.parts(PART) {
        given.cut_short = is_over();
        if given.cut_short {
            break;
        }
        match memory.page_out(&part) {
            // Locked in memory, for a device that is passed through, say: the next part may not be.
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {}
            other => other.map_err(Error::io("page out the memory of", format!("/proc/{pid}")))?,
        }
    }
    if !given.cut_short {
        memory.drop_caches().map_err(Error::io("drop the cached memory of", format!("/proc/{pid}")))?;
    }
    given.left = count()?;
    Ok(given)
}

/// Notes what is touched by a guest that was just let run.
async fn watch_pages(memory: &Arc<Memory>, touched: &Mutex<Touched>, began: tokio::time::Instant) {
    let size = memory.len();
    if size > TOO_LARGE {
        return;
    }
    let known = lock(touched).clone();
    let mut missed = Touched::default();
    for look in LOOKS {
        tokio::time::sleep_until(began + look).await;
        let seen = Arc::clone(memory);
        let Ok(Ok(resident)) = tokio::task::spawn_blocking(move || seen.resident()).await else { return };
        missed.add(&resident, &known, size);
    }
    *lock(touched) = known.renewed(missed, size);
}

fn hold(slot: &Mutex<Option<JoinHandle<()>>>, watch: Option<JoinHandle<()>>) {
    if let Some(old) = std::mem::replace(&mut *lock(slot), watch) {
        old.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, process::Stdio};

    #[test]
    fn reads_what_the_kernel_says_of_swap() {
        let text =
            "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/swap.img  file\t4194300\t0\t-2\n/b file x";
        assert_eq!(sum_of_swaps(text), 4_194_300 * 1024);
        assert_eq!(sum_of_swaps(""), 0);
    }

    /// A process that has mapped a file of 32 MiB, changed all of it, and reads it again for each line.
    fn process(path: &std::path::Path) -> std::process::Child {
        let program = "import mmap, sys\n\
            f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0)\n\
            m[:] = bytes(range(256)) * (len(m) // 256); print('ready', flush=True)\n\
            for line in sys.stdin: print(sum(m[1:1 << 20:4096]), flush=True)";
        let mut command = std::process::Command::new("python3");
        command.args(["-c", program]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().unwrap()
    }

    #[tokio::test]
    async fn memory_in_a_file_goes_there_and_what_a_wake_touched_is_asked_for_at_the_next() {
        // Not in /tmp, which may be in memory.
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        file.as_file().set_len(32 << 20).unwrap();
        let mut child = process(file.path());
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut next = move || {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut output, &mut line).unwrap();
            line
        };
        assert_eq!(next(), "ready\n");
        let page_out = PageOut::default();
        let given = page_out.put_away(child.id()).await.unwrap();
        assert!(given.before >= 32 << 20 && !given.cut_short, "{given:?}");
        assert!(given.left < 4 << 20, "{given:?}");
        assert!(dormouse_sys::memory::resident_bytes(file.path()).unwrap() < 4 << 20);
        page_out.wake();
        assert!(page_out.put_away(child.id()).await.unwrap().cut_short, "the guest runs");
        let mut read = || {
            child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
            next()
        };
        assert_eq!(read(), "256\n");
        let watch = lock(&page_out.watch).take().unwrap();
        watch.await.unwrap();
        let touched = lock(&page_out.touched).bytes();
        assert!(touched >= 1 << 20, "{touched}");
        child.kill().unwrap();
        child.wait().unwrap();
        page_out.sleep();
        assert!(page_out.put_away(child.id()).await.is_err());
    }

    #[tokio::test]
    async fn a_wake_ends_it_early() {
        let memory = Memory::of(std::process::id()).unwrap();
        let given = put_away(&memory, std::process::id(), || true).unwrap();
        assert!(given.cut_short && given.left > 0 || memory.len() == 0, "{given:?}");
    }
}
