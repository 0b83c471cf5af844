//! The redb registry on a real disk.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{fs, os::unix::fs::FileExt, path::Path, time::Instant};

use dormouse_machine::lifecycle::State;
use dormouse_registry::{Change, Error, Expect, FILE_NAME, Record, Redb, Registry, Revision, Transaction};
use dormouse_types::{Depth, Timestamp};

fn record(name: &str) -> Record {
    Record::new(name.parse().unwrap(), format!("name = {name:?}"), "/srv".into(), Timestamp(1))
}

async fn names(registry: &Redb) -> Vec<String> {
    registry.load().await.unwrap().into_iter().map(|e| e.name.to_string()).collect()
}

async fn put(registry: &Redb, name: &str) -> Revision {
    registry.commit(Transaction::put(Expect::Absent, record(name))).await.unwrap()
}

/// Opens again what another handle has just let go: its thread may still be closing it.
fn reopen(dir: &Path) -> Redb {
    for _ in 0..500 {
        match Redb::open(dir) {
            Err(Error::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(2)),
            other => return other.unwrap(),
        }
    }
    panic!("still in use");
}

#[tokio::test]
async fn remembers_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let first = Redb::open(dir.path()).unwrap();
    put(&first, "web").await;
    put(&first, "db").await;
    first.commit(Transaction::remove(Expect::Anything, "db".parse().unwrap())).await.unwrap();
    drop(first);
    let second = reopen(dir.path());
    let entries = second.load().await.unwrap();
    assert_eq!(entries.len(), 1);
    let (revision, read) = entries.into_iter().next().unwrap().record.unwrap();
    assert_eq!((revision, read), (Revision(1), record("web")));
}

#[tokio::test]
async fn a_transaction_is_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Redb::open(dir.path()).unwrap();
    let revision = put(&registry, "web").await;
    let stale = Transaction::put(Expect::Absent, record("new"))
        .and(Expect::At(Revision(revision.0 + 7)), Change::Remove("web".parse().unwrap()));
    assert!(matches!(registry.commit(stale).await, Err(Error::Conflict { name }) if name == "web"));
    assert_eq!(names(&registry).await, ["web"]);
    let right = Transaction::put(Expect::Absent, record("new"))
        .and(Expect::At(revision), Change::Remove("web".parse().unwrap()));
    registry.commit(right).await.unwrap();
    assert_eq!(names(&registry).await, ["new"]);
}

#[tokio::test]
async fn refuses_the_second_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Redb::open(dir.path()).unwrap();
    let error = Redb::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("another dormoused"), "{error}");
}

#[tokio::test]
async fn reports_a_damaged_file_and_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    fs::write(&path, vec![0x5a; 64 * 1024]).unwrap();
    let error = Redb::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains("nothing was deleted"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), vec![0x5a; 64 * 1024]);
}

#[tokio::test]
async fn damage_anywhere_is_an_error_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Redb::open(dir.path()).unwrap();
    for n in 0..20 {
        put(&registry, &format!("machine-{n}")).await;
    }
    drop(registry);
    drop(reopen(dir.path()));
    let sound = loop {
        // The lock is gone once the thread has closed the file.
        if let Ok(registry) = Redb::open(dir.path()) {
            let bytes = fs::read(dir.path().join(FILE_NAME)).unwrap();
            drop(registry);
            break bytes;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    for at in (0..sound.len().min(64 * 1024)).step_by(509) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::write(&path, &sound).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[0xff; 16], at as u64).unwrap();
        // Whatever it says: no panic, no endless loop, no file gone.
        if let Ok(registry) = Redb::open(dir.path()) {
            let _ = registry.load().await;
        }
        assert!(path.exists());
    }
}

#[tokio::test]
async fn says_which_record_is_unreadable() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Redb::open(dir.path()).unwrap();
    put(&registry, "web").await;
    let mut newer = record("later");
    newer.format = 99;
    registry.commit(Transaction::put(Expect::Absent, newer)).await.unwrap();
    let entries = registry.load().await.unwrap();
    assert_eq!(entries.len(), 2);
    for entry in entries {
        assert_eq!(entry.record.is_err(), entry.name.as_str() == "later");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_share_the_disk() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let registry = Redb::open(dir.path()).unwrap();
    let started = Instant::now();
    let writers: Vec<_> = (0..200)
        .map(|n| {
            let registry = registry.clone();
            tokio::spawn(async move { put(&registry, &format!("machine-{n}")).await })
        })
        .collect();
    let mut revisions = Vec::new();
    for writer in writers {
        revisions.push(writer.await.unwrap());
    }
    println!("200 machines journalled at once: {:?}", started.elapsed());
    revisions.sort();
    assert_eq!(revisions, (1..=200).map(Revision).collect::<Vec<_>>());
    assert_eq!(names(&registry).await.len(), 200);
}

/// `cargo test -p dormouse-registry --test redb -- --ignored --nocapture` prints the figures.
#[tokio::test]
#[ignore = "a measurement"]
async fn time_of_a_journal_commit() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let registry = Redb::open(dir.path()).unwrap();
    let mut times = Vec::new();
    for n in 0..100_u64 {
        let mut record = record("web");
        record.state = State::Asleep { depth: Depth::Saved };
        record.since = Timestamp(n);
        let started = Instant::now();
        registry.commit(Transaction::put(Expect::Anything, record)).await.unwrap();
        times.push(started.elapsed());
    }
    times.sort();
    println!("commit: min {:?} median {:?} max {:?}", times[0], times[50], times[99]);
}
