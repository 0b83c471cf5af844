//! The surrogate's pair of interfaces for a bridge: `s0` in the bridge, `s1` to read.

use dormouse_net::{Flooding, Net, Switch};
use dormouse_types::MacAddr;
use dormouse_wire::digest;

use crate::Error;

/// The longest name of an interface (`IFNAMSIZ` less its zero).
const LONGEST_NAME: usize = 15;

/// The pair of one bridge.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// Index of the end in the bridge.
    pub(crate) s0: u32,
    /// Name of the end in the bridge.
    pub(crate) port: String,
    /// Name of the end that is read.
    pub(crate) reader: String,
}

/// The names of a bridge's `s0` and `s1`: always the same for the same bridge.
pub(crate) fn names(prefix: &str, bridge: &str) -> (String, String) {
    let whole = |end: u8| format!("{prefix}{end}-{bridge}");
    if whole(0).len() <= LONGEST_NAME {
        return (whole(0), whole(1));
    }
    let short = |end: u8| format!("{prefix}{end}-{:08x}", digest(bridge.as_bytes()) >> 32);
    (short(0), short(1))
}

/// Is this the name of an `s0`?
pub(crate) fn is_port(prefix: &str, name: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("0-"))
}

/// Makes sure that the pair of a bridge exists and is set up; takes over what is there.
pub(crate) async fn ensure(net: &Net, prefix: &str, switch: &Switch) -> Result<Pair, Error> {
    let (port, reader) = names(prefix, switch.name());
    let setup = set_up(net, switch, &port, &reader).await;
    let s0 = setup.map_err(Error::net(format!("connect to bridge {}", switch.name())))?;
    Ok(Pair { s0, port, reader })
}

async fn set_up(net: &Net, switch: &Switch, port: &str, reader: &str) -> Result<u32, dormouse_net::Error> {
    if net.link(port).await?.is_none() || net.link(reader).await?.is_none() {
        net.delete_link(port).await?;
        net.delete_link(reader).await?;
        net.create_veth(port, reader).await?;
    }
    for name in [port, reader] {
        let end = net.index(name).await?;
        net.disable_ipv6(name)?;
        net.set_arp_off(end).await?;
        // Else the bridge would shrink to this port's.
        net.set_mtu(end, switch.mtu()).await?;
    }
    net.set_up(net.index(reader).await?).await?;
    let s0 = net.index(port).await?;
    net.set_mac(s0, port_mac(port)).await?;
    switch.join(s0).await?;
    switch.flood(s0, Flooding::Listener).await?;
    net.set_up(s0).await?;
    Ok(s0)
}

/// A high address: a bridge takes over the lowest of its ports', and must not take this one's.
fn port_mac(port: &str) -> MacAddr {
    let [a, b, c, d, ..] = digest(port.as_bytes()).to_be_bytes();
    MacAddr([0xfe, 0xff, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_stay() {
        assert_eq!(names("dm", "br0"), ("dm0-br0".into(), "dm1-br0".into()));
        let (s0, s1) = names("dorm", "a-bridge-name-x");
        assert!(s0.len() <= LONGEST_NAME && s1.len() <= LONGEST_NAME && s0 != s1);
        assert_eq!(names("dorm", "a-bridge-name-x").0, s0);
        assert_ne!(names("dorm", "a-bridge-name-y").0, s0);
    }

    #[test]
    fn ports_are_told_by_their_names() {
        assert!(is_port("dm", "dm0-br0"));
        assert!(!is_port("dm", "dm1-br0") && !is_port("dm", "dummy0"));
    }
}
