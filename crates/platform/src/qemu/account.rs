//! The user that QEMU runs as.

use std::sync::Once;

use nix::unistd::{Gid, Uid, User, geteuid};

use super::args::Engine;

/// Ids to run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Finds the user `wanted`, or `nobody` where it does not exist; `None` means as ourselves.
///
/// QEMU becomes this user before it is executed: `-runas` would need `setuid` after the sandbox
/// has forbidden it, and QEMU is killed for it.
pub(super) fn find(wanted: &str, engine: Engine) -> Option<Account> {
    static SAID: Once = Once::new();
    if !geteuid().is_root() {
        SAID.call_once(|| tracing::warn!("not root: QEMU runs as the daemon's own user"));
        return None;
    }
    let user = lookup(wanted).or_else(|| {
        SAID.call_once(|| {
            tracing::warn!(
                "there is no user {wanted}: QEMU runs as nobody; create it with `useradd --system {wanted}`"
            );
        });
        lookup("nobody")
    })?;
    let gid = if engine == Engine::Kvm { kvm_group() } else { None };
    Some(Account { uid: user.uid.as_raw(), gid: gid.unwrap_or(user.gid).as_raw() })
}

fn lookup(name: &str) -> Option<User> {
    User::from_name(name).ok().flatten().filter(|u| u.uid != Uid::from_raw(0))
}

/// QEMU opens /dev/kvm itself, and has only one group: that of the device, unless that is root's.
fn kvm_group() -> Option<Gid> {
    use std::os::unix::fs::MetadataExt;
    let gid = std::fs::metadata("/dev/kvm").ok()?.gid();
    (gid != 0).then(|| Gid::from_raw(gid))
}
