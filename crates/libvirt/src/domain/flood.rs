//! New taps are kept quiet.
//!
//! While libvirt starts a domain that is asleep, the surrogate stands in for it and holds broadcasts for it;
//! those that the bridge floods into the new tap as well would reach the guest twice. So the tap is set down
//! as soon as it is in its bridge, which the kernel tells, and what came into it in the moment between is
//! taken out again. The surrogate sets it up when it makes it ready, and tells from then on what came twice.

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

impl Quiet {
    fn start(net: &Net, macs: BTreeSet<MacAddr>) -> Result<Self, dormouse_net::Error> {
        let (mut monitor, net) = (Net::monitor()?, net.clone());
        Ok(Self(tokio::spawn(async move {
            while let Some(event) = monitor.next().await {
                let LinkEvent::Changed(link) = event else { continue };
                // Open vSwitch's ports have a master, too. libvirt sets the tap up once it is there.
                let is_ours = link.mac.is_some_and(|mac| macs.contains(&mac)) && link.master.is_some();
                if is_ours && link.up {
                    silence(&net, &link).await;
                }
            }
        })))
    }
}

impl Quiet {
    /// Returns once it does nothing more: a tap that it sets down late would stay down.
    pub(super) async fn end(mut self) {
        self.0.abort();
        // It was cancelled, which is no news.
        let _ = (&mut self.0).await;
    }
}

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
        if macs.is_empty() {
            return None;
        }
        let quiet = Quiet::start(&self.net, macs);
        let told = |error| tracing::warn!(domain = self.who.name, %error, "broadcasts may reach it twice when it wakes");
        quiet.map_err(told).ok()
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

/// True once nothing comes into it: it is down, for a bridge floods what the host itself sends to all that
/// are up; and flooded nothing when it is set up.
async fn silence(net: &Net, link: &Link) -> bool {
    let silenced = async {
        net.set_down(link.index).await?;
        match net.switch_of(link).await? {
            Some(switch) => switch.flood(link.index, Flooding::Nothing).await,
            None => Ok(()),
        }
    };
    let silenced = silenced.await;
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
    use std::{os::fd::OwnedFd, sync::Arc, thread, time::Duration};

    use dormouse_sys::{PacketSocket, VnetHdr};

    use super::*;

    const GUEST: MacAddr = MacAddr([0x52, 0x54, 0, 1, 2, 3]);

    #[test]
    fn knows_the_taps_that_libvirt_makes() {
        assert_eq!(tap_mac(GUEST), MacAddr([0xfe, 0x54, 0, 1, 2, 3]));
        assert_eq!(tap_mac(MacAddr([0xfe, 0x54, 0, 1, 2, 3])), MacAddr([0xfa, 0x54, 0, 1, 2, 3]));
    }

    /// Runs a test in a network namespace of its own, which needs root.
    fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce(Net) -> F + Send + 'static) {
        let body = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { test(Net::connect().unwrap()).await });
        };
        thread::spawn(body).join().unwrap();
    }

    /// A bridge with a sender, and a tap as libvirt makes them, not yet in the bridge.
    async fn bridge_and_tap(net: &Net) -> (u32, u32, OwnedFd) {
        net.create_bridge("br").await.unwrap();
        net.create_veth("p0", "p1").await.unwrap();
        let tap = tap::open("vnet7").unwrap();
        let (bridge, port) = (net.index("br").await.unwrap(), net.index("vnet7").await.unwrap());
        net.set_mac(port, tap_mac(GUEST)).await.unwrap();
        let sender = net.index("p0").await.unwrap();
        net.set_master(sender, bridge).await.unwrap();
        for link in [bridge, sender, net.index("p1").await.unwrap(), port] {
            net.disable_ipv6(&net.link_by_index(link).await.unwrap().unwrap().name).unwrap();
            net.set_up(link).await.unwrap();
        }
        (bridge, port, tap)
    }

    fn port_of(tap: &OwnedFd) -> Port {
        let queue = Some(Arc::new(tap.try_clone().unwrap()));
        Port { mac: GUEST, bridge: "br".into(), tap: "vnet7".into(), queue }
    }

    fn broadcast() {
        let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &[0; 46]].concat();
        PacketSocket::open_inject("p1", false, 1 << 16).unwrap().send(&VnetHdr::PLAIN, &frame).unwrap();
    }

    async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        for _ in 0..3000 {
            if is_so().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain: {what}");
    }

    #[test]
    fn a_tap_is_quiet_as_soon_as_it_is_in_the_bridge() {
        in_namespace(|net| async move {
            let (bridge, port, tap) = bridge_and_tap(&net).await;
            let _quiet = Quiet::start(&net, BTreeSet::from([tap_mac(GUEST)])).unwrap();
            net.set_master(port, bridge).await.unwrap();
            until("it is down and flooded nothing", async || {
                let link = net.link_by_index(port).await.unwrap().unwrap();
                !link.up && net.port_flags(port).await.unwrap().bcast_flood == Some(false)
            })
            .await;
            // The bridge itself may have sent something in the moment before.
            empty(&port_of(&tap));
            // Another port shows when the bridge has dealt with a frame; with the first when it has the second.
            net.create_veth("q0", "q1").await.unwrap();
            let other = net.index("q0").await.unwrap();
            net.set_master(other, bridge).await.unwrap();
            net.set_up(net.index("q1").await.unwrap()).await.unwrap();
            net.set_up(other).await.unwrap();
            let flooded = async || net.link("q1").await.unwrap().unwrap().counters.received_frames;
            for _ in 0..2 {
                let before = flooded().await;
                until("another port has it", async || {
                    broadcast();
                    flooded().await > before
                })
                .await;
            }
            assert!(tap::is_empty(&tap).unwrap());
        });
    }

    #[test]
    fn others_taps_are_left_alone() {
        in_namespace(|net| async move {
            let (bridge, port, tap) = bridge_and_tap(&net).await;
            let _quiet = Quiet::start(&net, BTreeSet::from([tap_mac(MacAddr([2; 6]))])).unwrap();
            net.set_master(port, bridge).await.unwrap();
            until("a broadcast comes through", async || {
                broadcast();
                !tap::is_empty(&tap).unwrap()
            })
            .await;
        });
    }

    #[test]
    fn what_came_before_is_taken_out() {
        in_namespace(|net| async move {
            let (bridge, port, tap) = bridge_and_tap(&net).await;
            net.set_master(port, bridge).await.unwrap();
            until("a broadcast comes through", async || {
                broadcast();
                !tap::is_empty(&tap).unwrap()
            })
            .await;
            let link = net.link("vnet7").await.unwrap().unwrap();
            assert!(silence(&net, &link).await);
            empty(&port_of(&tap));
            assert!(tap::is_empty(&tap).unwrap());
        });
    }
}
