//! A DHCP server beside the client.

use crate::{Client, Error, Guest, Lab, Result, command, wait_until};
use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

/// dnsmasq at the client's address. It ends when it is dropped.
#[derive(Debug)]
pub struct DhcpServer {
    process: Child,
    log: PathBuf,
}

impl DhcpServer {
    /// Gives a guest its address for two minutes, dnsmasq's shortest lease, and asks it to renew that
    /// every `renew` seconds.
    ///
    /// # Errors
    ///
    /// If dnsmasq is not installed or does not serve.
    pub fn start(lab: &Lab, client: &Client, guest: &Guest, renew: u32) -> Result<Self> {
        let log = lab.dir().join("dnsmasq.log");
        let file = File::create(&log).map_err(Error::file("create", &log))?;
        let mut command = client.namespace().command("dnsmasq");
        command.args(["--no-daemon", "--conf-file=/dev/null", "--port=0", "--bind-interfaces", "--no-ping"]);
        command.args(["--user=root", "--leasefile-ro", "--dhcp-authoritative", "--log-dhcp"]);
        command.arg(format!("--interface={}", Lab::CLIENT_INTERFACE));
        command.arg("--dhcp-range=10.9.0.0,static,2m");
        command.arg(format!("--dhcp-host={},{}", guest.mac(), guest.ip()));
        command.arg(format!("--dhcp-option=option:T1,{renew}"));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
        let process = process.map_err(|source| command::cannot_run(&command, source))?;
        let server = Self { process, log };
        wait_until("dnsmasq to serve", Duration::from_secs(10), || {
            Ok(server.log().contains("DHCP, sockets bound"))
        })?;
        Ok(server)
    }

    /// All that it has said.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How often it has given a guest its address, or given it again.
    #[must_use]
    pub fn given_to(&self, guest: &Guest) -> usize {
        let what = format!("{} {}", guest.ip(), guest.mac());
        self.log().lines().filter(|line| line.contains("DHCPACK") && line.contains(&what)).count()
    }
}

impl Drop for DhcpServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
