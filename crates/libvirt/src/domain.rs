//! One domain as the core sees it.

use std::time::Duration;

use async_trait::async_trait;
use dormouse_machine::{
    lifecycle::{Observed, Shape},
    spec::{LibvirtSpec, MachineSpec},
};
use dormouse_platform::{Capabilities, Counters, Error, Facts, Instance, Notice, Port};
use tokio::sync::mpsc;

/// A domain of libvirt.
#[derive(Debug)]
pub struct Domain {
    _notices: mpsc::Sender<Notice>,
}

impl Domain {
    /// The domain that a machine's file names; asks nobody.
    ///
    /// # Errors
    ///
    /// When the file asks for what libvirt cannot do.
    pub fn new(
        _spec: &MachineSpec,
        _libvirt: &LibvirtSpec,
        notices: mpsc::Sender<Notice>,
    ) -> Result<Self, Error> {
        Ok(Self { _notices: notices })
    }
}

fn later<T>() -> Result<T, Error> {
    Err(Error::Unsupported("libvirt: not built yet".into()))
}

#[async_trait]
impl Instance for Domain {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn shape(&self) -> Shape {
        Shape { late_interfaces: true, save_ends_process: true, shared: true }
    }

    async fn observe(&self) -> Result<Observed, Error> {
        later()
    }

    async fn attach(&self) -> Result<Vec<Port>, Error> {
        later()
    }

    async fn ports(&self) -> Result<Vec<Port>, Error> {
        later()
    }

    async fn detach(&self) -> Result<(), Error> {
        later()
    }

    async fn boot(&self) -> Result<(), Error> {
        later()
    }

    async fn load(&self) -> Result<(), Error> {
        later()
    }

    async fn resume(&self) -> Result<(), Error> {
        later()
    }

    async fn pause(&self) -> Result<(), Error> {
        later()
    }

    async fn save(&self) -> Result<(), Error> {
        later()
    }

    async fn flush(&self) -> Result<(), Error> {
        later()
    }

    async fn hurry(&self) {}

    async fn quit(&self) -> Result<(), Error> {
        later()
    }

    async fn power_down(&self, _patience: Duration) -> Result<(), Error> {
        later()
    }

    async fn kill(&self) -> Result<(), Error> {
        later()
    }

    async fn discard_state(&self) -> Result<(), Error> {
        later()
    }

    async fn erase(&self) -> Result<(), Error> {
        later()
    }

    async fn counters(&self) -> Result<Counters, Error> {
        later()
    }

    async fn facts(&self) -> Facts {
        Facts::default()
    }
}
