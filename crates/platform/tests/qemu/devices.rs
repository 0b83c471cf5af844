//! Disks, the power button, and what is counted.

use std::time::Duration;

use dormouse_machine::{lifecycle::Process, spec::DiskFormat};
use dormouse_platform::{Error, Instance, Notice};
use tokio::time::sleep;

use crate::bench::{Bench, DISK_TICKS, chain, disk, observed, timed};

#[tokio::test(flavor = "multi_thread")]
async fn disks_are_written_through_a_sleep_and_locked() {
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    for format in [DiskFormat::Qcow2, DiskFormat::Raw] {
        let image = disk(scratch.path(), format);
        let bench = Bench::new(|config| {
            config.qemu.cmdline = Some(DISK_TICKS.into());
            config.qemu.disks = vec![image.clone()];
        });
        let tick = bench.booted().await;
        bench.qemu.save().await.unwrap();
        bench.qemu.resume().await.unwrap();
        let tick = bench.ticks_beyond(tick).await;
        bench.asleep().await;
        bench.qemu.load().await.unwrap();
        bench.qemu.resume().await.unwrap();
        bench.ticks_beyond(tick).await;
        assert!(bench.qemu.counters().await.unwrap().disk_bytes > 0);

        let second = Bench::new(|config| config.qemu.disks = vec![image]);
        let error = chain(&second.qemu.boot().await.unwrap_err());
        println!("{error}");
        assert!(error.contains("lock"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_shuts_down_is_told_from_one_that_dies() {
    let mut bench = Bench::new(|config| {
        config.qemu.cmdline = Some(
            "console=ttyS0 quiet no_timer_check rdinit=/bin/sh -- -c \"echo tick 3; poweroff -f\"".into(),
        );
    });
    bench.booted().await;
    let notice = bench.notices.recv().await.unwrap();
    assert_eq!(notice, Notice::GuestShutdown("guest".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_shut_down_it_does_or_is_reported() {
    let mut bench = Bench::new(|config| config.qemu.cmdline = Some("console=ttyS0 quiet".into()));
    bench.qemu.boot().await.unwrap();
    while !bench.logs().contains("READY") {
        sleep(Duration::from_millis(50)).await;
    }
    timed("poweroff", bench.qemu.power_down(Duration::from_secs(30))).await;
    assert_eq!(bench.seen().await, observed(Process::Absent, false));
    assert!(bench.notices.try_recv().is_err(), "it was asked to");

    bench.config.qemu.cmdline = Some("console=ttyS0 quiet dm.nobutton=1".into());
    bench.restarted().boot().await.unwrap();
    let error = bench.qemu.power_down(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_tell_a_busy_guest_from_one_that_waits() {
    let mut shares = Vec::new();
    for work in ["sleep 1000", "while :; do :; done"] {
        let bench = Bench::new(|config| {
            let cmdline =
                format!("console=ttyS0 quiet no_timer_check rdinit=/bin/sh -- -c \"echo tick 3; {work}\"");
            config.qemu.cmdline = Some(cmdline);
        });
        bench.booted().await;
        sleep(Duration::from_secs(1)).await;
        let before = bench.qemu.counters().await.unwrap();
        sleep(Duration::from_secs(2)).await;
        let after = bench.qemu.counters().await.unwrap();
        shares.push((after.cpu - before.cpu).as_secs_f64() / after.at.since(before.at).as_secs_f64());
    }
    println!("shares of a processor: {shares:?}");
    assert!(shares[0] < 0.1 && shares[1] > 5.0 * shares[0]);
}
