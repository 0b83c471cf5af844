//! What tests on real networks share.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Runs a test in a new network namespace, which ends with its thread.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let result = thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
        test();
    })
    .join();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Tries until it holds: on a busy machine frames take their time.
pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain");
        thread::sleep(Duration::from_millis(1));
    }
}

/// How many filters of this name the interface has, as kernels before 6.6 attach programs.
pub(crate) fn filters(link: &str, way: &str, name: &str) -> usize {
    let shown = std::process::Command::new("tc").args(["filter", "show", "dev", link, way]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    shown.lines().filter(|line| line.contains("handle") && line.contains(name)).count()
}
