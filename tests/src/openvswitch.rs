//! Open vSwitch, with the userspace datapath.

use crate::{SECOND, Scene};
use dormouse_lab::{Lab, api::MachineState};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

/// A lab whose bridge is one of Open vSwitch's. Its processes end with the lab's namespace.
#[derive(Debug)]
pub struct OpenVSwitch {
    dir: PathBuf,
    namespace: dormouse_lab::Namespace,
}

impl OpenVSwitch {
    /// Starts it, and puts its bridge in the place of the lab's.
    ///
    /// # Panics
    ///
    /// When it cannot.
    #[track_caller]
    #[must_use]
    pub fn start(lab: &Lab) -> Self {
        let switch = Self { dir: lab.dir().join("openvswitch"), namespace: lab.switch().clone() };
        fs::create_dir(&switch.dir).unwrap();
        let database = switch.dir.join("conf.db");
        let database = database.to_str().unwrap();
        switch.run("ovsdb-tool", &["create", database, "/usr/share/openvswitch/vswitch.ovsschema"]);
        let remote = format!("--remote=punix:{}/db.sock", switch.dir.display());
        switch.run("ovsdb-server", &[database, &remote, "--pidfile", "--detach", "--no-chdir"]);
        switch.run("ovs-vsctl", &["--no-wait", "init"]);
        switch.run("ovs-vswitchd", &["--pidfile", "--detach", "--no-chdir"]);
        lab.switch().ip("link del br0\n").unwrap();
        switch.run("ovs-vsctl", &["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"]);
        switch.run("ovs-vsctl", &["add-port", "br0", "cl0"]);
        switch
    }

    /// The environment variable by which its sockets are found.
    ///
    /// # Panics
    ///
    /// When the lab's path is no text.
    #[must_use]
    pub fn environment(&self) -> (&'static str, &str) {
        ("OVS_RUNDIR", self.dir.to_str().unwrap())
    }

    /// What its bridge has learned, and what it was told.
    ///
    /// # Panics
    ///
    /// When it does not answer.
    #[track_caller]
    #[must_use]
    pub fn table(&self) -> String {
        let mut command = self.program("ovs-appctl");
        let out = command.args(["fdb/show", "br0"]).stdout(Stdio::piped()).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    }

    fn program(&self, name: &str) -> Command {
        let mut command = self.namespace.command(name);
        command.envs([self.environment()]).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, name: &str, arguments: &[&str]) {
        let status = self.program(name).args(arguments).status().unwrap();
        assert!(status.success(), "{name} {arguments:?}");
    }
}

/// Where streams cannot be: asked by ICMP.
impl Scene {
    /// Puts it to sleep, and pings it.
    ///
    /// # Panics
    ///
    /// When it is not answered for.
    #[track_caller]
    pub fn sleeps_and_answers_pings(&self) {
        let ip = self.guest.ip();
        self.client.ping(ip, 10 * SECOND).unwrap();
        self.sleep();
        self.wait_no_qemu();
        self.client.forget_neighbours().unwrap();
        self.client.ping(ip, SECOND).unwrap();
        assert_eq!(self.state(), MachineState::Asleep);
    }

    /// Sends it what is for the guest itself: three fragments.
    ///
    /// # Panics
    ///
    /// When that is not answered, or was not replayed to it.
    #[track_caller]
    pub fn wakes_at_a_large_ping(&self) {
        let (mark, ip) = (self.mark(), self.guest.ip());
        let mut ping = self.client.namespace().command("ping");
        ping.args(["-n", "-c", "1", "-s", "4000", "-W", "60", &ip.to_string()]).stdout(Stdio::null());
        assert!(ping.status().unwrap().success(), "it wakes, and what woke it is replayed");
        let awake = self.entered(mark, MachineState::Active);
        assert!(awake.figures["replayed_frames"] > 0.0, "{awake:?}");
        self.client.ping(ip, 5 * SECOND).unwrap();
    }
}
