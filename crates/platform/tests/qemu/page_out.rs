//! The memory of a paused guest goes to its file, and the guest runs on from there.

use dormouse_machine::spec::MemoryBacking;
use dormouse_platform::{Instance, page_out};

use crate::bench::{Bench, chain, timed};

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_guest_gives_its_memory_back_and_runs_on() {
    let bench = Bench::new(|_| ());
    let mut tick = bench.booted().await;
    for _ in 0..3 {
        bench.qemu.pause().await.unwrap();
        let before = bench.qemu.facts().await.resident_bytes.unwrap();
        let freed = timed("page out", bench.qemu.page_out()).await;
        let after = bench.qemu.facts().await.resident_bytes.unwrap();
        println!("{before} bytes before, {freed} freed, {after} left");
        assert!(freed > 1 << 20 && after < before, "{before} {freed} {after}");
        // Most of what is left is the process's own.
        assert!(after < bench.config.qemu.memory / 2 + (64 << 20), "{after}");
        timed("resume", bench.qemu.resume()).await;
        tick = bench.ticks_beyond(tick).await;
    }
    // What runs keeps its memory, whoever asks late.
    assert_eq!(bench.qemu.page_out().await.unwrap(), 0);
    bench.ticks_beyond(tick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wake_does_not_wait_for_it() {
    let bench = Bench::new(|_| ());
    let tick = bench.booted().await;
    bench.qemu.pause().await.unwrap();
    let (freed, resumed) = tokio::join!(bench.qemu.page_out(), bench.qemu.resume());
    freed.unwrap();
    resumed.unwrap();
    bench.ticks_beyond(tick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_file_and_swap_it_is_refused_with_what_to_do() {
    if page_out::swap_bytes() > 0 {
        eprintln!("this host has swap: not tested");
        return;
    }
    let bench = Bench::new(|config| config.memory_backing = MemoryBacking::Anonymous);
    let tick = bench.booted().await;
    bench.qemu.pause().await.unwrap();
    let error = chain(&bench.qemu.page_out().await.unwrap_err());
    assert!(error.contains("no swap") && error.contains("memoryBacking"), "{error}");
    bench.qemu.resume().await.unwrap();
    bench.ticks_beyond(tick).await;
}
