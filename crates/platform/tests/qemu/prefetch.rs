//! What wakes touch is noted, and read ahead at the next.

use std::{fs, time::Duration};

use dormouse_platform::Instance;

use crate::bench::{Bench, timed};

/// Wakes it, and waits until what it touched is noted or nothing more is to be.
async fn wakes(bench: &Bench, tick: u64) -> u64 {
    timed("load", bench.qemu.load()).await;
    timed("resume", bench.qemu.resume()).await;
    bench.ticks_beyond(tick).await
}

async fn noted(bench: &Bench) -> Vec<u8> {
    loop {
        match fs::read(bench.file("touched")) {
            Ok(list) => return list,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wake_from_the_disk_is_noted_and_damaged_notes_do_no_harm() {
    let bench = Bench::new(|_| ());
    let mut tick = bench.booted().await;
    bench.asleep().await;
    if dormouse_sys::memory::resident_bytes(bench.file("ram")).unwrap() > 4 << 20 {
        eprintln!("this file system keeps its pages: not tested");
        return;
    }
    tick = wakes(&bench, tick).await;
    let list = noted(&bench).await;
    println!("noted in {} bytes", list.len());
    assert!(list.starts_with(b"dmtouch1") && list.len() > 28);
    for harm in [list[..list.len() / 2].to_vec(), Vec::new(), vec![0xff; 4096]] {
        bench.asleep().await;
        fs::write(bench.file("touched"), &harm).unwrap();
        tick = wakes(&bench, tick).await;
    }
    // Put to sleep again before all was looked at: what is noted is of whole wakes.
    bench.asleep().await;
    fs::write(bench.file("touched"), &list).unwrap();
    bench.qemu.load().await.unwrap();
    bench.qemu.resume().await.unwrap();
    bench.asleep().await;
    assert_eq!(fs::read(bench.file("touched")).unwrap(), list);
    // A boot has another memory.
    bench.qemu.discard_state().await.unwrap();
    bench.booted().await;
    assert!(!bench.file("touched").exists());
    assert!(tick > 0);
}

/// Prints what reading ahead gains; asserts nothing about it.
#[tokio::test(flavor = "multi_thread")]
async fn what_it_gains() {
    let bench = Bench::new(|_| ());
    let mut tick = bench.booted().await;
    bench.asleep().await;
    tick = wakes(&bench, tick).await;
    let list = noted(&bench).await;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        for (times, list) in [(&mut with, Some(&list)), (&mut without, None)] {
            bench.asleep().await;
            let _ = fs::remove_file(bench.file("touched"));
            if let Some(list) = list {
                fs::write(bench.file("touched"), list).unwrap();
            }
            let start = std::time::Instant::now();
            bench.qemu.load().await.unwrap();
            bench.qemu.resume().await.unwrap();
            while bench.last_tick() <= tick {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tick = bench.last_tick();
            times.push(start.elapsed());
            tokio::time::sleep(Duration::from_millis(200)).await;
            tick = bench.last_tick().max(tick);
        }
    }
    for (what, times) in [("read ahead", &mut with), ("by faults", &mut without)] {
        times.sort_unstable();
        println!("{what}: median {:?} of {times:?}", times[times.len() / 2]);
    }
}
