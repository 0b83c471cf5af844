//! What machines used, on a real disk.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use dormouse_machine::meter::{Account, Amounts, Bucket, Class, Open, Posting, Tags};
use dormouse_registry::{Error, Expect, Record, Redb, Registry, Tidy, Transaction, UsageStore};
use dormouse_types::{MachineName, Timestamp};

const ALL: (Timestamp, Timestamp) = (Timestamp(0), Timestamp(u64::MAX));

fn name(name: &str) -> MachineName {
    name.parse().unwrap()
}

fn bucket(start: u64, span: u64) -> Bucket {
    let mut amounts = Amounts::default();
    amounts.spans.insert(Class::Awake, span);
    Bucket { start: Timestamp(start), end: Timestamp(start + span), tags: Tags::default(), amounts }
}

fn posting(machine: &str, serial: u64, closed: Vec<Bucket>) -> Posting {
    let open = Open {
        class: Class::Awake,
        configured: 1,
        occupied: 2,
        before: None,
        counter: Some(3),
        reason: None,
        boot: None,
    };
    let account = Account { serial, nudge: 0, bucket: bucket(1000, serial), open: Some(open) };
    Posting { machine: name(machine), closed, account }
}

fn alone(posting: Posting) -> Transaction {
    Transaction::default().with_usage([posting])
}

async fn buckets(registry: &Redb, machine: &str) -> Vec<Bucket> {
    registry.buckets(&name(machine), ALL.0, ALL.1).await.unwrap()
}

#[tokio::test]
async fn a_store_that_never_had_any_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Redb::open(dir.path()).unwrap();
    assert_eq!((registry.accounts().await.unwrap(), buckets(&registry, "web").await), (vec![], vec![]));
}

#[tokio::test]
async fn usage_is_durable_with_the_record_and_outlives_it() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Redb::open(dir.path()).unwrap();
    let record = Record::new(name("web"), String::new(), "/".into(), Timestamp(1));
    let first = posting("web", 1, vec![bucket(1, 2), bucket(5, 6)]);
    registry
        .commit(Transaction::put(Expect::Absent, record.clone()).with_usage([first.clone()]))
        .await
        .unwrap();
    // A refused transaction writes nothing at all.
    let refused =
        Transaction::put(Expect::Absent, record).with_usage([posting("web", 9, vec![bucket(8, 1)])]);
    assert!(matches!(registry.commit(refused).await, Err(Error::Conflict { .. })));
    registry.commit(Transaction::remove(Expect::Anything, name("web"))).await.unwrap();
    assert_eq!(registry.accounts().await.unwrap(), [(name("web"), first.account)]);
    assert_eq!(buckets(&registry, "web").await, first.closed);
    assert_eq!(registry.buckets(&name("web"), Timestamp(2), Timestamp(6)).await.unwrap(), [bucket(5, 6)]);
    assert_eq!(registry.buckets(&name("web"), Timestamp(1), Timestamp(5)).await.unwrap(), [bucket(1, 2)]);
    assert_eq!(registry.buckets(&name("web"), Timestamp(5), Timestamp(1)).await.unwrap(), []);
}

#[tokio::test]
async fn names_that_begin_alike_are_apart() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Redb::open(dir.path()).unwrap();
    for machine in ["we", "web", "web-1"] {
        registry.commit(alone(posting(machine, 1, vec![bucket(1, 1)]))).await.unwrap();
    }
    assert_eq!(buckets(&registry, "web").await.len(), 1);
    assert_eq!(registry.accounts().await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_posting_that_was_overtaken_takes_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Redb::open(dir.path()).unwrap();
    registry.commit(alone(posting("web", 7, vec![bucket(5, 6)]))).await.unwrap();
    registry.commit(alone(posting("web", 6, vec![bucket(1, 2)]))).await.unwrap();
    assert_eq!(registry.accounts().await.unwrap()[0].1.serial, 7);
    assert_eq!(buckets(&registry, "web").await.len(), 2);
}

fn tidy(days_before: u64, forget_before: u64) -> Tidy {
    Tidy {
        days_before: Timestamp(days_before),
        forget_before: Timestamp(forget_before),
        day: Arc::new(|at| Timestamp(at.0 / 24 * 24)),
    }
}

#[tokio::test]
async fn old_hours_become_days_and_are_forgotten_at_last() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Redb::open(dir.path()).unwrap();
    let hours = (0..60).map(|hour| bucket(hour, 1)).collect();
    registry.commit(alone(posting("web", 1, hours))).await.unwrap();
    registry.commit(alone(posting("db", 1, vec![bucket(1, 1), bucket(2, 1)]))).await.unwrap();
    assert_eq!(registry.tidy(&name("web"), tidy(48, 0)).await.unwrap(), 2 + 12);
    let sum = |buckets: &[Bucket]| buckets.iter().map(|b| b.amounts.total().as_nanos()).sum::<u128>();
    let kept = buckets(&registry, "web").await;
    assert_eq!((sum(&kept), kept[0].end, kept[1].start), (60, Timestamp(24), Timestamp(24)));
    assert_eq!(registry.tidy(&name("web"), tidy(48, 30)).await.unwrap(), 1 + 12);
    assert_eq!(sum(&buckets(&registry, "web").await), 36);
    assert_eq!(buckets(&registry, "db").await.len(), 2, "others are left alone");
}

#[tokio::test]
async fn the_account_of_a_removed_machine_goes_with_its_last_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Redb::open(dir.path()).unwrap();
    let mut last = posting("web", 1, vec![bucket(1, 1)]);
    last.account.open = None;
    registry.commit(alone(last)).await.unwrap();
    registry.commit(alone(posting("db", 1, vec![]))).await.unwrap();
    registry.tidy(&name("web"), tidy(0, 0)).await.unwrap();
    assert_eq!(registry.accounts().await.unwrap().len(), 2);
    for machine in ["web", "db"] {
        assert_eq!(registry.tidy(&name(machine), tidy(2000, 2000)).await.unwrap(), 0);
    }
    let left: Vec<_> = registry.accounts().await.unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, [name("db")], "one that is there stays");
}
