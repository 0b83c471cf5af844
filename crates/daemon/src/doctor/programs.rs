//! QEMU, its user, and the tools beside it.

use std::{path::Path, process::Command};

use dormouse_api_types::Check;
use nix::unistd::User;

use super::{fail, ok, warn};

/// The oldest QEMU that is known to sleep and wake well.
const OLDEST: (u32, u32) = (7, 2);

/// Is there a QEMU, new enough?
pub(super) fn qemu(binary: &Path) -> Check {
    let name = "qemu";
    let install = "install it (Debian: qemu-system-x86), or set qemu.binary";
    let output = match Command::new(binary).arg("--version").output() {
        Ok(output) if output.status.success() => output,
        Ok(output) => return fail(name, format!("{}: {}", binary.display(), output.status), install),
        Err(error) => return fail(name, format!("{}: {error}", binary.display()), install),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().next().unwrap_or_default().to_owned();
    match version(&first) {
        Some(version) if version >= OLDEST => ok(name, first),
        Some(_) => warn(name, format!("{first}: older than 7.2, which is untested"), "install a newer QEMU"),
        None => warn(name, format!("{first}: of an unknown version"), "set qemu.binary to a QEMU"),
    }
}

/// `QEMU emulator version 7.2.22 (Debian ...)`
fn version(line: &str) -> Option<(u32, u32)> {
    let text = line.split_once("version ")?.1;
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Does QEMU run as a user of its own?
pub(super) fn qemu_user(user: &str) -> Check {
    let name = "qemu-user";
    match User::from_name(user) {
        Ok(Some(found)) if !found.uid.is_root() => ok(name, format!("QEMU runs as {user}")),
        Ok(Some(_)) => warn(
            name,
            format!("QEMU runs as {user}, with all its rights: a guest that breaks out has them"),
            "set qemu.user to an unprivileged user",
        ),
        _ => warn(
            name,
            format!("there is no user {user:?}: QEMU runs as nobody, which other programs may share"),
            format!("useradd --system --no-create-home --shell /usr/sbin/nologin {user}"),
        ),
    }
}

/// The tool that makes disk images.
pub(super) fn qemu_img() -> Check {
    match Command::new("qemu-img").arg("--version").output() {
        Ok(output) if output.status.success() => ok("qemu-img", "is there"),
        _ => warn(
            "qemu-img",
            "is missing; only you need it, to make disk images",
            "install it (Debian: qemu-utils)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dormouse_api_types::CheckStatus;

    #[test]
    fn reads_qemu_versions() {
        assert_eq!(version("QEMU emulator version 7.2.22 (Debian 1:7.2)"), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.1.0"), Some((10, 1)));
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn a_missing_program_fails_with_a_fix() {
        let check = qemu(Path::new("/nonexistent/qemu"));
        assert_eq!(check.status, CheckStatus::Fail);
        assert!(check.found.contains("/nonexistent/qemu") && check.fix.is_some());
    }

    #[test]
    fn root_is_no_user_for_qemu() {
        assert_eq!(qemu_user("root").status, CheckStatus::Warn);
        assert_eq!(qemu_user("no-such-user-here").status, CheckStatus::Warn);
    }
}
