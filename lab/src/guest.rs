//! The guest image: a Debian kernel and an initrd with a web server, ssh and the lab's own services.
//!
//! `guest/build.sh` builds it from Debian packages into a cache, once.

use crate::{Result, command};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What makes the guest boot fast under emulation, and print to its serial console.
pub const KERNEL_OPTIONS: &str = "console=ttyS0 quiet panic=-1 reboot=t no_timer_check tsc=reliable \
    mitigations=off nokaslr cryptomgr.notests 8250.nr_uarts=1 i8042.noaux i8042.nokbd";

/// The guest prints this line when all of its services run.
pub const READY: &str = "READY";

/// Is there a KVM that can be relied on? The device alone does not tell.
#[must_use]
pub fn has_kvm() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    Path::new("/dev/kvm").exists() && flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm"))
}

/// A built guest image.
#[derive(Clone, Debug)]
pub struct Image {
    dir: PathBuf,
}

impl Image {
    /// Finds the image, building it if it is not there yet (some seconds, and Debian's packages).
    ///
    /// # Errors
    ///
    /// If it cannot be built.
    pub fn build() -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/build.sh");
        let printed = command::stdout(&mut Command::new(script))?;
        Ok(Self { dir: printed.trim().into() })
    }

    /// The kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// The initrd.
    #[must_use]
    pub fn initrd(&self) -> PathBuf {
        self.dir.join("initrd.img")
    }

    /// An empty qcow2 disk of 1 GiB, to be copied before use.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk.qcow2")
    }

    /// The private key that opens the guest's ssh.
    #[must_use]
    pub fn ssh_key(&self) -> PathBuf {
        self.dir.join("id_ed25519")
    }
}
