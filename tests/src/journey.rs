//! Through a sleep and back, with everything that must come through it.

use crate::{SECOND, Scene};
use dormouse_lab::api::MachineState;
use std::thread;

impl Scene {
    /// It sleeps, is answered for, wakes at a connection, and is the same guest; a stream of datagrams
    /// through it all arrives whole. They must not wake it: its file has [`TCP_ONLY`](crate::TCP_ONLY).
    ///
    /// # Panics
    ///
    /// When any of it is not so.
    #[track_caller]
    pub fn sleeps_and_wakes(&self, depth: &str) {
        self.speaks();
        let before = self.before();
        let mut echo = self.client.echo(self.guest.ip()).unwrap();
        self.client.reset_sink(self.guest.ip()).unwrap();
        let stream = self.client.udp_stream(self.guest.ip(), 2_000, 100).unwrap();
        thread::sleep(SECOND / 4);
        let out = self.daemon.run(&["sleep", "--depth", depth, self.name()]).unwrap();
        assert!(out.contains(&format!("asleep ({depth})")), "{out}");
        if depth == "saved" {
            self.wait_no_qemu();
        } else {
            assert!(self.qemu() > 0);
        }
        self.speaks();
        assert_eq!(self.state(), MachineState::Asleep);
        thread::sleep(SECOND / 4);
        self.wakes_at_the_first_syn();
        let sent = stream.stop();
        let stats = self.settled_sink(sent.datagrams);
        assert!(stats.is_whole(sent.datagrams), "{depth}: {sent:?} {stats:?}");
        echo.say("still here").unwrap();
        assert_eq!(self.before(), before, "{depth}");
    }

    /// It, or who stands in for it, answers from both of its addresses. (From an answer of its own an
    /// address is learned.)
    ///
    /// # Panics
    ///
    /// When it does not.
    #[track_caller]
    pub fn speaks(&self) {
        assert!(self.pings(self.guest.ip()) && self.pings(self.guest.ip6()));
    }
}
