//! Saving, undoing and going on.

use std::fs;

use dormouse_machine::{
    lifecycle::Process,
    spec::{MachineType, MemoryBacking},
};
use dormouse_platform::{Error, Instance, Notice};

use crate::bench::{Bench, TICKS, chain, observed, timed};

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_machine_goes_on_where_it_was() {
    let mut bench = Bench::new(|_| ());
    timed("boot", bench.qemu.boot()).await;
    let mut tick = bench.ticks_beyond(3).await;
    for _ in 0..5 {
        timed("save", bench.qemu.save()).await;
        assert_eq!(bench.seen().await, observed(Process::Still, false));
        let before = bench.last_tick();
        timed("flush", bench.qemu.flush()).await;
        let awake = bench.qemu.facts().await;
        timed("quit", bench.qemu.quit()).await;
        assert_eq!(bench.seen().await, observed(Process::Absent, true));
        let asleep = bench.qemu.facts().await;
        let (resident, left) = (awake.resident_bytes.unwrap(), asleep.resident_bytes.unwrap());
        println!("resident {} -> {} MiB", resident >> 20, left >> 20);
        assert!(left < resident / 10);
        assert_eq!(asleep.pid, None);
        assert_eq!(bench.last_tick(), before, "the guest ran while it was asleep");
        timed("load", bench.qemu.load()).await;
        assert!(matches!(bench.notices.try_recv(), Ok(Notice::Spawned(_))));
        assert_eq!(bench.seen().await, observed(Process::Incoming, true));
        assert_eq!(bench.last_tick(), before, "the guest ran before resume");
        timed("resume", bench.qemu.resume()).await;
        assert_eq!(bench.seen().await, observed(Process::Running, false));
        let after = bench.ticks_beyond(before).await;
        assert!(after >= before && after < before + 100 && before >= tick, "{tick} {before} {after}");
        tick = after;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleep_is_undone_at_every_step() {
    let bench = Bench::new(|_| ());
    let tick = bench.booted().await;
    bench.qemu.pause().await.unwrap();
    assert_eq!(bench.seen().await, observed(Process::Still, false));
    bench.qemu.resume().await.unwrap();
    let tick = bench.ticks_beyond(tick).await;

    bench.qemu.save().await.unwrap();
    bench.qemu.resume().await.unwrap();
    let tick = bench.ticks_beyond(tick).await;

    bench.qemu.save().await.unwrap();
    bench.qemu.flush().await.unwrap();
    assert_eq!(bench.seen().await, observed(Process::Still, true));
    bench.qemu.resume().await.unwrap();
    assert_eq!(bench.seen().await, observed(Process::Running, false));
    bench.qemu.discard_state().await.unwrap();
    let tick = bench.ticks_beyond(tick).await;
    assert!(matches!(bench.qemu.load().await, Err(Error::AlreadyRunning { .. })));

    // And it can still sleep.
    bench.asleep().await;
    bench.qemu.load().await.unwrap();
    bench.qemu.resume().await.unwrap();
    bench.ticks_beyond(tick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hurried_flush_leaves_no_saved_state() {
    let bench = Bench::new(|_| ());
    let tick = bench.booted().await;
    for _ in 0..10 {
        bench.qemu.save().await.unwrap();
        let (flushed, ()) = tokio::join!(bench.qemu.flush(), bench.qemu.hurry());
        println!("{:?}", flushed.map_err(|e| chain(&e)));
        bench.qemu.resume().await.unwrap();
        assert_eq!(bench.seen().await, observed(Process::Running, false));
    }
    // What was still being written has come to its end by now.
    bench.ticks_beyond(tick + 5).await;
    assert_eq!(bench.seen().await, observed(Process::Running, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_no_file_is_saved_whole() {
    let mut bench = Bench::new(|config| config.memory_backing = MemoryBacking::Anonymous);
    assert!(!bench.qemu.capabilities().lazy_memory);
    let tick = bench.booted().await;
    timed("save", bench.qemu.save()).await;
    timed("flush", bench.qemu.flush()).await;
    timed("quit", bench.qemu.quit()).await;
    assert!(fs::metadata(bench.file("state")).unwrap().len() > 20 << 20);
    assert_eq!(bench.qemu.facts().await.resident_bytes, Some(0));
    timed("load", bench.qemu.load()).await;
    assert!(bench.notices.try_recv().is_err(), "the journal is to be written after a long load");
    timed("resume", bench.qemu.resume()).await;
    let tick = bench.ticks_beyond(tick).await;

    // Wanted while it is being saved: the guest goes on.
    let (saved, ()) = tokio::join!(bench.qemu.save(), async {
        while !bench.file("state").exists() {
            tokio::task::yield_now().await;
        }
        bench.qemu.hurry().await;
    });
    println!("hurried: {:?}", saved.as_ref().map_err(|e| chain(e)));
    bench.qemu.resume().await.unwrap();
    bench.ticks_beyond(tick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_microvm_sleeps_as_well() {
    let bench = Bench::new(|config| {
        config.qemu.machine = MachineType::Microvm;
        // It has no timer but the PIT to measure its clock by, and under TCG on a busy host it cannot.
        config.qemu.cmdline = Some(format!("tsc_early_khz=2000000 {TICKS}"));
    });
    let tick = bench.booted().await;
    bench.asleep().await;
    timed("load", bench.qemu.load()).await;
    timed("resume", bench.qemu.resume()).await;
    bench.ticks_beyond(tick).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_at_a_machine_disturbs_nothing() {
    let bench = Bench::new(|_| ());
    let mut tick = bench.booted().await;
    for _ in 0..5 {
        let sleep_and_wake = async {
            bench.asleep().await;
            let start = std::time::Instant::now();
            bench.qemu.load().await.unwrap();
            bench.qemu.resume().await.unwrap();
            println!("awake after {:?}", start.elapsed());
            tick = bench.ticks_beyond(tick).await;
        };
        let look = async {
            loop {
                bench.qemu.facts().await;
                let _ = bench.qemu.counters().await;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = sleep_and_wake => {}
            () = look => {}
        }
    }
}
