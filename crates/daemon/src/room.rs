//! Room in the budgets of awake memory: how a driver asks for it, and how it is kept for who got it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dormouse_types::MachineName;
use tokio::sync::{mpsc, oneshot};

/// Where drivers ask for room. Cheap to clone; where there is no budget there is nobody to ask.
#[derive(Clone, Debug, Default)]
pub struct Rooms(Option<mpsc::UnboundedSender<Ask>>);

/// Where their questions arrive.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) asks: mpsc::UnboundedReceiver<Ask>,
    pub(crate) granted: Granted,
}

/// How urgent it is that a machine is awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// Nobody waits for it: no budget is exceeded for its sake.
    Ahead,
    /// Somebody does.
    Now,
}

/// A machine that is about to be awake.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) name: MachineName,
    pub(crate) need: Need,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// What it is told.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It may be awake; what is said of it if there is no room for it all the same.
    Granted { grant: Option<Grant>, exceeded: Option<String> },
    /// It is to sleep on; why.
    Refused(String),
}

/// Those to whom room was granted and who are not seen to be awake yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Granted(Arc<Mutex<BTreeMap<MachineName, usize>>>);

/// Room is kept for a machine while this lives: until others can see by its state that it is awake.
pub(crate) struct Grant {
    name: MachineName,
    all: Granted,
}

impl Rooms {
    /// A way to ask, and where it leads.
    pub(crate) fn open() -> (Self, Desk) {
        let (to_desk, asks) = mpsc::unbounded_channel();
        (Self(Some(to_desk)), Desk { asks, granted: Granted::default() })
    }

    /// Is there a budget?
    pub(crate) const fn are_bounded(&self) -> bool {
        self.0.is_some()
    }

    /// Asks for room for a machine that is about to be awake. Whoever drops the question gives it up.
    pub(crate) async fn ask(&self, name: &MachineName, need: Need) -> Answer {
        let (reply, answer) = oneshot::channel();
        if let Some(desk) = &self.0 {
            let _ = desk.send(Ask { name: name.clone(), need, reply });
        }
        // Nobody keeps budgets any more: the daemon ends.
        answer.await.unwrap_or(Answer::FREE)
    }
}

impl Answer {
    /// There is no bound.
    pub(crate) const FREE: Self = Self::Granted { grant: None, exceeded: None };
}

impl Granted {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<MachineName, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps room for `name`.
    pub(crate) fn grant(&self, name: &MachineName) -> Grant {
        *self.lock().entry(name.clone()).or_default() += 1;
        Grant { name: name.clone(), all: self.clone() }
    }

    pub(crate) fn has(&self, name: &MachineName) -> bool {
        self.lock().contains_key(name)
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(count) = all.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.name);
            }
        }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Grant").field(&self.name).finish()
    }
}
