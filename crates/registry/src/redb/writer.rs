//! The thread that alone works on the file.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot};

use super::store::{Raw, Store};
use crate::{Error, Revision, Transaction};

/// What is asked of the thread. One whose asker is gone is carried out all the same.
pub(super) enum Request {
    Load(oneshot::Sender<Result<Vec<Raw>, Error>>),
    Commit(Transaction, oneshot::Sender<Result<Revision, Error>>),
    Work(Box<dyn FnOnce(&mut Store) + Send>),
}

/// Transactions that share an fsync at most.
const BATCH: usize = 256;

type Waiting = oneshot::Sender<Result<Revision, Error>>;

/// Runs until the last handle is gone.
pub(super) fn run(mut store: Store, mut queue: mpsc::Receiver<Request>) {
    let mut requests = Vec::new();
    while queue.blocking_recv_many(&mut requests, BATCH) > 0 {
        let mut batch = Vec::new();
        for request in requests.drain(..) {
            match request {
                Request::Commit(transaction, answer) => batch.push((transaction, answer)),
                Request::Load(answer) => {
                    // In the order of the requests: what was committed before is seen.
                    commit(&mut store, std::mem::take(&mut batch));
                    let _ = answer.send(store.load());
                }
                Request::Work(work) => {
                    commit(&mut store, std::mem::take(&mut batch));
                    // Redb asserts its own soundness. Whoever asked is told by the answer that never comes.
                    let _ = catch_unwind(AssertUnwindSafe(|| work(&mut store)));
                }
            }
        }
        commit(&mut store, batch);
    }
}

fn commit(store: &mut Store, batch: Vec<(Transaction, Waiting)>) {
    if batch.is_empty() {
        return;
    }
    let (transactions, waiting): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
    // Redb asserts its own soundness; should it fail, the writer answers and goes on.
    let done = catch_unwind(AssertUnwindSafe(|| store.commit(&transactions))).unwrap_or(Err(Error::Closed));
    match done {
        Ok(answers) => {
            for (waiting, answer) in waiting.into_iter().zip(answers) {
                let _ = waiting.send(answer);
            }
        }
        Err(error) => {
            for waiting in waiting {
                let _ = waiting.send(Err(again(&error)));
            }
        }
    }
}

/// The same error for each that waits.
fn again(error: &Error) -> Error {
    match error {
        Error::Write { path, source } => Error::Write { path: path.clone(), source: Arc::clone(source) },
        Error::InUse { path } => Error::InUse { path: path.clone() },
        Error::Damaged { path, why } => Error::Damaged { path: path.clone(), why: why.clone() },
        Error::Open { path, source } => {
            Error::Damaged { path: path.clone(), why: format!("it cannot be opened again: {source}") }
        }
        _ => Error::Closed,
    }
}
