//! A machine on QEMU as the core sees it.

use std::time::Duration;

use async_trait::async_trait;
use dormouse_machine::{lifecycle::Observed, spec::MemoryBacking};
use dormouse_types::Depth;

use super::{Qemu, blocking};
use crate::{Capabilities, Counters, Error, Facts, Instance, Obstacle, Port};

#[async_trait]
impl Instance for Qemu {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            depths: vec![Depth::Paused, Depth::Saved, Depth::Off],
            obstacles: vec![
                Obstacle::to(&[Depth::Pmsuspended], "platform", "only for domains of libvirt")
                    .fix("choose the depth paused or saved"),
            ],
            lazy_memory: self.config.memory_backing == MemoryBacking::File,
        }
    }

    async fn observe(&self) -> Result<Observed, Error> {
        self.see().await
    }

    async fn attach(&self) -> Result<Vec<Port>, Error> {
        self.attach_all().await
    }

    async fn ports(&self) -> Result<Vec<Port>, Error> {
        self.ports_as_known().await
    }

    async fn detach(&self) -> Result<(), Error> {
        self.detach_all().await
    }

    async fn boot(&self) -> Result<(), Error> {
        self.power_on().await
    }

    async fn load(&self) -> Result<(), Error> {
        self.load_state().await
    }

    async fn warm(&self) -> Result<bool, Error> {
        self.warm_up().await
    }

    async fn cool(&self) -> Result<(), Error> {
        self.cool_down().await
    }

    async fn standby_bytes(&self) -> Option<u64> {
        self.standby_memory().await
    }

    async fn resume(&self) -> Result<(), Error> {
        self.run_on().await
    }

    async fn pause(&self) -> Result<(), Error> {
        self.stand_still().await
    }

    async fn page_out(&self) -> Result<u64, Error> {
        self.put_memory_away().await
    }

    async fn save(&self) -> Result<(), Error> {
        self.save_state().await
    }

    async fn flush(&self) -> Result<(), Error> {
        self.make_durable().await
    }

    async fn hurry(&self) {
        self.hurry.send_modify(|n| *n = n.wrapping_add(1));
    }

    async fn quit(&self) -> Result<(), Error> {
        self.end_saved().await
    }

    async fn power_down(&self, patience: Duration) -> Result<(), Error> {
        self.shut_down(patience).await
    }

    async fn kill(&self) -> Result<(), Error> {
        self.end_now().await
    }

    async fn discard_state(&self) -> Result<(), Error> {
        self.forget_state().await
    }

    async fn erase(&self) -> Result<(), Error> {
        self.forbid_second().await?;
        self.cool_down().await?;
        self.detach_all().await?;
        let dir = self.dir.path().to_owned();
        blocking(move || match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &dir)(error))
            }
            _ => Ok(()),
        })
        .await
    }

    async fn counters(&self) -> Result<Counters, Error> {
        self.count().await
    }

    async fn facts(&self) -> Facts {
        self.tell().await
    }
}
