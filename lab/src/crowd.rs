//! Many small guests of one daemon, put to sleep and woken together.

use crate::{
    Client, Daemon, Error, Guest, HttpAnswer, Lab, Result,
    api::{MachineState, Outcome},
    guest::Image,
};
use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

/// Guests by the names `g2`, `g3` and so on, with these numbers, all awake.
#[derive(Debug)]
pub struct Crowd {
    /// Who runs them.
    pub daemon: Daemon,
    /// They.
    pub guests: Vec<Guest>,
    client: Client,
    /// Last, so that it goes last and takes down what is still there.
    pub lab: Lab,
}

/// What came of a wake of all.
#[derive(Clone, Debug)]
pub struct Woken {
    /// From the first SYN until the last guest's page was there.
    pub took: Duration,
    /// Each guest's page, in their order.
    pub pages: Vec<HttpAnswer>,
}

impl Crowd {
    /// Boots them, a few at a time. At most 200.
    ///
    /// # Errors
    ///
    /// When one does not boot, or anything of the lab cannot be made.
    pub fn boot(prefix: &str, config: &str, count: u8, memory: &str) -> Result<Self> {
        let (lab, image) = (Lab::new(prefix)?, Image::build()?);
        let daemon = Daemon::start_with(&lab, config, &[])?;
        let guest = |number: u8| Guest::new(&format!("g{number}"), number).set("qemu.memory", memory);
        let guests: Vec<_> = (2..=count.saturating_add(1).min(201)).map(guest).collect();
        for some in guests.chunks(4) {
            for guest in some {
                daemon.create(&lab, &image, guest)?;
                daemon.run(&["start", "--no-wait", guest.name()])?;
            }
            for guest in some {
                daemon.wait_ready(guest, 1)?;
            }
        }
        let crowd = Self { daemon, guests, client: lab.client(), lab };
        // Each is heard of on the network before it sleeps.
        crowd.boots()?;
        Ok(crowd)
    }

    /// Does the same with each guest, with all at once.
    fn at_once<T: Send>(&self, work: impl Fn(&Guest) -> Result<T> + Sync) -> Result<Vec<T>> {
        let gone = |_| Error::Setup("a thread of the lab panicked".into());
        thread::scope(|scope| {
            let threads: Vec<_> = self.guests.iter().map(|guest| scope.spawn(|| work(guest))).collect();
            threads.into_iter().map(|thread| thread.join().map_err(gone)?).collect()
        })
    }

    /// Puts all to sleep, and waits until they are.
    ///
    /// # Errors
    ///
    /// When one does not sleep.
    pub fn sleep(&self) -> Result<Vec<Outcome>> {
        self.at_once(|guest| {
            // The last segment of a connection of the wake before rightly undoes a sleep.
            for _ in 0..5 {
                match self.daemon.sleep(guest.name()) {
                    Err(Error::Failed { .. }) => {
                        self.daemon.wait_state(
                            guest.name(),
                            MachineState::Active,
                            Duration::from_secs(60),
                        )?;
                    }
                    other => return other,
                }
            }
            self.daemon.sleep(guest.name())
        })
    }

    /// Wakes those that sleep by a connection to each, all at once.
    ///
    /// # Errors
    ///
    /// When one does not answer, or is not awake then.
    pub fn wake(&self) -> Result<Woken> {
        let start = Instant::now();
        let answers = self.at_once(|guest| {
            let to = SocketAddr::new(guest.ip().into(), 80);
            let page = self.client.http_get(to, "/cgi-bin/uptime", Duration::from_secs(120))?;
            Ok((start.elapsed(), page))
        })?;
        for guest in &self.guests {
            self.daemon.wait_state(guest.name(), MachineState::Active, Duration::from_secs(60))?;
        }
        let took = answers.iter().map(|(at, _)| *at).max().unwrap_or_default();
        Ok(Woken { took, pages: answers.into_iter().map(|(_, page)| page).collect() })
    }

    /// Wakes one that sleeps by a connection to it.
    ///
    /// # Errors
    ///
    /// As [`Crowd::wake`].
    pub fn wake_one(&self, guest: &Guest) -> Result<HttpAnswer> {
        let to = SocketAddr::new(guest.ip().into(), 80);
        self.client.http_get(to, "/cgi-bin/uptime", Duration::from_secs(120))
    }

    /// Each guest's boot, which differs after every one. Asking wakes them.
    ///
    /// # Errors
    ///
    /// When one does not answer.
    pub fn boots(&self) -> Result<Vec<String>> {
        self.guests.iter().map(|guest| Ok(self.client.sink(guest.ip())?.boot_id)).collect()
    }
}
