//! Where a connection leads (<https://libvirt.org/uri.html>).

/// Does it lead to another host, as far as can be told? An alias (libvirt.conf) may.
pub(crate) fn is_elsewhere(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once("://") else { return true };
    let is_by_socket = matches!(scheme.split_once('+'), None | Some((_, "unix")));
    !(is_by_socket && rest.starts_with('/'))
}

/// Is it QEMU's libvirtd of this host?
pub(crate) fn is_local_qemu(uri: &str) -> bool {
    uri.starts_with("qemu") && !is_elsewhere(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_is_on_this_host() {
        for uri in ["qemu:///system", "qemu:///session", "qemu+unix:///system?socket=/run/x"] {
            assert!(is_local_qemu(uri), "{uri}");
        }
        for uri in [
            "qemu+ssh://root@b/system",
            "qemu+ssh:///system",
            "qemu+tcp://b/system",
            "qemu+tls:///system",
            "qemu://b/system",
            "b",
            "",
        ] {
            assert!(is_elsewhere(uri) && !is_local_qemu(uri), "{uri}");
        }
        assert!(!is_elsewhere("test:///default") && !is_local_qemu("test:///default"));
    }
}
