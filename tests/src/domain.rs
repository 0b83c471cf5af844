//! A lab with libvirt, a daemon and one domain.

use crate::{LONG, SECOND, Scene};
use dormouse_lab::{
    Daemon, Domain, Lab, Libvirtd,
    api::{MachineState, Outcome},
    guest::Image,
};
use std::ops::{Deref, DerefMut};

/// A [`Scene`] whose guest is a domain of libvirt.
#[derive(Debug)]
pub struct DomainScene {
    /// libvirt.
    pub libvirtd: Libvirtd,
    /// The domain.
    pub domain: Domain,
    /// Everything else. Last, so that the lab goes last.
    pub scene: Scene,
}

impl Deref for DomainScene {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}

impl DerefMut for DomainScene {
    fn deref_mut(&mut self) -> &mut Scene {
        &mut self.scene
    }
}

impl DomainScene {
    /// A domain that runs, and is a machine of the daemon's.
    ///
    /// # Panics
    ///
    /// When something of it cannot be made.
    #[track_caller]
    #[must_use]
    pub fn boot(prefix: &str, config: &str, domain: Domain) -> Self {
        let lab = Lab::new(prefix).unwrap();
        let libvirtd = Libvirtd::start(&lab).unwrap();
        Self::with(lab, libvirtd, config, &[], domain)
    }

    /// As [`Self::boot`], in a lab with a libvirtd that are there already, and with environment variables
    /// for the daemon.
    ///
    /// # Panics
    ///
    /// When something of it cannot be made.
    #[track_caller]
    #[must_use]
    pub fn with(
        lab: Lab,
        libvirtd: Libvirtd,
        config: &str,
        environment: &[(&str, &str)],
        domain: Domain,
    ) -> Self {
        let (image, guest) = (Image::build().unwrap(), domain.guest().clone());
        libvirtd.define(&lab, &image, &domain).unwrap();
        let daemon = Daemon::start_with(&lab, config, environment).unwrap();
        let file = domain.machine_file(&lab, &libvirtd).unwrap();
        daemon.run(&["create", &file.to_string_lossy()]).unwrap();
        let events = daemon.events().unwrap();
        let scene = Scene { events, daemon, client: lab.client(), guest, image, lab };
        let this = Self { libvirtd, domain, scene };
        this.daemon.run(&["start", this.name()]).unwrap();
        this.booted(1);
        this
    }

    /// A domain that is off, imported as a machine with these keys in its file.
    ///
    /// # Panics
    ///
    /// When something of it cannot be made.
    #[track_caller]
    #[must_use]
    pub fn imported(prefix: &str, config: &str, domain: Domain, keys: &[&str]) -> Self {
        let lab = Lab::new(prefix).unwrap();
        let libvirtd = Libvirtd::start(&lab).unwrap();
        Self::imported_from(lab, libvirtd, config, domain, keys)
    }

    /// As [`Self::imported`], in a lab with a libvirtd that are there already.
    ///
    /// # Panics
    ///
    /// When something of it cannot be made.
    #[track_caller]
    #[must_use]
    pub fn imported_from(lab: Lab, libvirtd: Libvirtd, config: &str, domain: Domain, keys: &[&str]) -> Self {
        let (image, guest) = (Image::build().unwrap(), domain.guest().clone());
        libvirtd.define(&lab, &image, &domain).unwrap();
        let daemon = Daemon::start_with(&lab, config, &[]).unwrap();
        let uri = libvirtd.uri();
        let set = keys.iter().flat_map(|key| ["--set", key]);
        let words: Vec<&str> =
            ["import", "libvirt", "--uri", &uri, guest.name()].into_iter().chain(set).collect();
        daemon.run(&words).unwrap();
        let events = daemon.events().unwrap();
        let scene = Scene { events, daemon, client: lab.client(), guest, image, lab };
        Self { libvirtd, domain, scene }
    }

    /// Waits until its services run, for so manieth time since it was defined.
    ///
    /// # Panics
    ///
    /// When they do not in time.
    #[track_caller]
    pub fn booted(&self, boots: usize) {
        self.domain.wait_ready(&self.lab, boots, 2 * LONG).unwrap();
        self.wait(MachineState::Active);
    }

    /// What somebody else does with it: `virsh WORDS... NAME`.
    ///
    /// # Panics
    ///
    /// When `virsh` fails.
    #[track_caller]
    pub fn virsh(&self, words: &[&str]) -> String {
        self.libvirtd.virsh(&[words, &[self.name()]].concat()).unwrap()
    }

    /// What libvirt says of it, as `running` or `shut off`.
    ///
    /// # Panics
    ///
    /// When libvirt does not answer.
    #[track_caller]
    #[must_use]
    pub fn domstate(&self) -> String {
        self.libvirtd.domstate(self.name()).unwrap()
    }

    /// Waits until the machine is in a state, because somebody brought the domain there. That takes tens of
    /// milliseconds, or a second where libvirt tells nobody; five are for a busy machine.
    ///
    /// # Panics
    ///
    /// When it is not in time.
    #[track_caller]
    pub fn follows(&self, state: MachineState) {
        let took = self.daemon.wait_state(self.name(), state, LONG).unwrap();
        assert!(took < 5 * SECOND, "{state} only {took:?} after virsh");
    }

    /// Puts it to sleep at a depth.
    ///
    /// # Panics
    ///
    /// When it does not sleep then.
    #[track_caller]
    pub fn sleep_at(&self, depth: &str) -> Outcome {
        let outcome = self.daemon.sleep_at(self.name(), depth).unwrap();
        assert_eq!(outcome.state, MachineState::Asleep, "{outcome:?}");
        outcome
    }
}
