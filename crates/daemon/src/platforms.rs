//! From a machine's file to its instance on a platform.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_machine::spec::{LibvirtSpec, MachineSpec, PlatformSpec};
use dormouse_platform::{
    Capabilities, Error, Finding, Instance, Notice,
    qemu::{self, Qemu, QemuConfig},
};
use tokio::sync::mpsc;

use crate::config::Config;

/// Makes instances. A trait, so that tests can have machines without processes.
#[async_trait]
pub trait Platforms: Send + Sync {
    /// The instance of a machine; touches nothing that runs.
    ///
    /// # Errors
    ///
    /// When the platform cannot do what the file asks for.
    fn instance(&self, spec: &MachineSpec) -> Result<Arc<dyn Instance>, Error>;

    /// The domains of a libvirt that have these names or UUIDs, or all where none is named.
    ///
    /// # Errors
    ///
    /// When libvirt cannot be asked.
    async fn domains(&self, _uri: Option<&str>, _names: Vec<String>) -> Result<Vec<Finding>, Error> {
        Err(without_libvirt())
    }

    /// The domain of a machine as it is defined now, or as it runs; without addresses.
    ///
    /// # Errors
    ///
    /// When its libvirt cannot be asked.
    async fn definition(&self, _libvirt: &LibvirtSpec) -> Result<Finding, Error> {
        Err(without_libvirt())
    }
}

/// What its platform can do with it. One that is shared with others is looked at afresh.
pub(crate) async fn abilities(instance: &dyn Instance) -> Capabilities {
    if !instance.shape().shared {
        return instance.capabilities();
    }
    let obstacles = instance.obstacles().await;
    let mut abilities = instance.capabilities();
    abilities.depths.retain(|depth| !obstacles.iter().any(|obstacle| obstacle.bars(*depth)));
    Capabilities { obstacles, ..abilities }
}

fn without_libvirt() -> Error {
    let why = "libvirt: this dormoused was built without it; use one built with its feature `libvirt`";
    Error::Unsupported(why.into())
}

/// The platforms of this host.
#[derive(Debug)]
pub struct Local {
    qemu: qemu::Settings,
    net: dormouse_net::Net,
    notices: mpsc::Sender<Notice>,
    #[cfg(feature = "libvirt")]
    libvirt: dormouse_libvirt::Libvirt,
}

impl Local {
    /// Platforms as the configuration has them; what happens unasked goes to `notices`.
    #[must_use]
    pub fn new(config: &Config, net: dormouse_net::Net, notices: mpsc::Sender<Notice>) -> Self {
        let qemu = qemu::Settings {
            machines_dir: config.state_dir.join("machines"),
            program: config.qemu.binary.clone(),
            user: config.qemu.user.clone(),
            memory_backing: config.qemu.memory,
            preallocate: config.qemu.preallocate,
            ..qemu::Settings::default()
        };
        #[cfg(feature = "libvirt")]
        let libvirt = dormouse_libvirt::Libvirt::new(
            config.libvirt.uri.clone(),
            config.state_dir.join("domains"),
            net.clone(),
            notices.clone(),
        );
        Self {
            qemu,
            net,
            notices,
            #[cfg(feature = "libvirt")]
            libvirt,
        }
    }
}

#[async_trait]
impl Platforms for Local {
    fn instance(&self, spec: &MachineSpec) -> Result<Arc<dyn Instance>, Error> {
        match &spec.platform {
            PlatformSpec::Qemu(qemu) => {
                let config = QemuConfig::from_spec(spec, qemu, &self.qemu);
                Ok(Arc::new(Qemu::new(config, self.qemu.clone(), self.net.clone(), self.notices.clone())?))
            }
            PlatformSpec::Libvirt(libvirt) => self.domain(spec, libvirt),
        }
    }

    #[cfg(feature = "libvirt")]
    async fn domains(&self, uri: Option<&str>, names: Vec<String>) -> Result<Vec<Finding>, Error> {
        self.libvirt.candidates(uri, names).await
    }

    #[cfg(feature = "libvirt")]
    async fn definition(&self, libvirt: &LibvirtSpec) -> Result<Finding, Error> {
        self.libvirt.definition(libvirt).await
    }
}

impl Local {
    #[cfg(feature = "libvirt")]
    fn domain(&self, spec: &MachineSpec, libvirt: &LibvirtSpec) -> Result<Arc<dyn Instance>, Error> {
        Ok(Arc::new(self.libvirt.domain(spec, libvirt)?))
    }

    #[cfg(not(feature = "libvirt"))]
    #[expect(clippy::unused_self, reason = "the same call with and without the feature")]
    fn domain(&self, _: &MachineSpec, _: &LibvirtSpec) -> Result<Arc<dyn Instance>, Error> {
        Err(without_libvirt())
    }
}
