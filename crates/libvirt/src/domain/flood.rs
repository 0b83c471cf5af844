//! New taps are kept quiet.
//!
//! While libvirt starts a domain that is asleep, the surrogate stands in for it and holds broadcasts for it;
//! those that the bridge floods into the new tap as well would reach the guest twice. So nothing is flooded
//! to the tap from when it is in its bridge, which the kernel tells, and what came into it in the moment
//! between is taken out again. The surrogate opens it when the guest runs.

use std::collections::BTreeSet;

use dormouse_net::{Flooding, Link, LinkEvent, Net};
use dormouse_platform::Port;
use dormouse_sys::tap;
use dormouse_types::MacAddr;
use tokio::task::JoinHandle;

use super::Inner;

/// Frames that are taken out of a tap at most: more than its queue holds.
const MOST: usize = 4096;
/// A frame with all that segmentation offload can put into it, and a header.
const LONGEST: usize = (64 << 10) + 1024;

/// Keeps taps quiet as long as it lives.
#[derive(Debug)]
pub(super) struct Quiet(JoinHandle<()>);

impl Drop for Quiet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Inner {
    /// From now on, until what is returned is dropped, a tap that libvirt makes for the domain is flooded
    /// nothing.
    pub(super) fn quiet_ports(&self) -> Option<Quiet> {
        let macs: BTreeSet<MacAddr> =
            self.interfaces.iter().map(|interface| tap_mac(interface.mac)).collect();
        match Net::monitor() {
            _ if macs.is_empty() => None,
            Ok(mut monitor) => {
                let net = self.net.clone();
                Some(Quiet(tokio::spawn(async move {
                    let mut quiet = BTreeSet::new();
                    while let Some(event) = monitor.next().await {
                        let LinkEvent::Changed(link) = event else { continue };
                        let is_new =
                            link.mac.is_some_and(|mac| macs.contains(&mac)) && !quiet.contains(&link.index);
                        if is_new && link.master.is_some() && silence(&net, &link).await {
                            quiet.insert(link.index);
                        }
                    }
                })))
            }
            Err(error) => {
                tracing::warn!(domain = self.who.name, %error, "broadcasts may reach it twice when it wakes");
                None
            }
        }
    }

    /// Keeps quiet all taps that it has, and takes out what is in them: the surrogate has it.
    pub(super) async fn quiet_all(&self) {
        let ports = match self.attached().await {
            Ok(ports) => ports,
            Err(error) => {
                tracing::debug!(domain = self.who.name, %error, "its taps are not known yet");
                return;
            }
        };
        for port in ports {
            match self.net.link(&port.tap).await {
                Ok(Some(link)) if silence(&self.net, &link).await => empty(&port),
                _ => {}
            }
        }
    }
}

/// True once nothing is flooded to it.
async fn silence(net: &Net, link: &Link) -> bool {
    let silenced = match net.switch_of(link).await {
        Ok(Some(switch)) => switch.flood(link.index, Flooding::Nothing).await,
        Ok(None) => return false,
        Err(error) => Err(error),
    };
    if let Err(error) = &silenced {
        tracing::debug!(tap = link.name, %error, "it is flooded");
    }
    silenced.is_ok()
}

fn empty(port: &Port) {
    let Some(queue) = &port.queue else { return };
    let mut frame = vec![0; LONGEST];
    for _ in 0..MOST {
        // Asked first: whoever has the tap open may have it block.
        match tap::is_empty(queue)
            .map(|is_empty| is_empty || !matches!(tap::read_frame(queue, &mut frame), Ok(Some(_))))
        {
            Ok(false) => {}
            Ok(true) => return,
            Err(error) => {
                tracing::debug!(tap = port.tap, %error, "what is in it cannot be taken out");
                return;
            }
        }
    }
}

/// The address that libvirt gives the host's side of a tap: the guest's, with a first octet that no bridge
/// takes for the least (libvirt's `virNetDevTapCreateInBridgePort`).
fn tap_mac(MacAddr([first, rest @ ..]): MacAddr) -> MacAddr {
    let first = if first == 0xfe { 0xfa } else { 0xfe };
    let [a, b, c, d, e] = rest;
    MacAddr([first, a, b, c, d, e])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_taps_that_libvirt_makes() {
        assert_eq!(tap_mac(MacAddr([0x52, 0x54, 0, 1, 2, 3])), MacAddr([0xfe, 0x54, 0, 1, 2, 3]));
        assert_eq!(tap_mac(MacAddr([0xfe, 0x54, 0, 1, 2, 3])), MacAddr([0xfa, 0x54, 0, 1, 2, 3]));
    }
}
