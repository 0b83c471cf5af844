//! A domain as the core sees it.

use std::time::Duration;

use async_trait::async_trait;
use dormouse_machine::lifecycle::{Observed, Shape};
use dormouse_platform::{Capabilities, Counters, Error, Facts, Faults, Inside, Instance, Obstacle, Port};

use super::Domain;

#[async_trait]
impl Instance for Domain {
    fn capabilities(&self) -> Capabilities {
        self.0.abilities()
    }

    async fn obstacles(&self) -> Vec<Obstacle> {
        self.0.look_for_obstacles().await
    }

    fn shape(&self) -> Shape {
        Shape { late_interfaces: true, save_ends_process: true, shared: true }
    }

    async fn observe(&self) -> Result<Observed, Error> {
        self.0.see().await
    }

    async fn has_process_here(&self) -> bool {
        self.0.has_process_here().await
    }

    async fn attach(&self) -> Result<Vec<Port>, Error> {
        self.0.attached().await
    }

    async fn ports(&self) -> Result<Vec<Port>, Error> {
        self.0.attached_or_named().await
    }

    /// They go with the process.
    async fn detach(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn boot(&self) -> Result<(), Error> {
        self.0.start_paused().await
    }

    async fn load(&self) -> Result<(), Error> {
        if self.0.load_ram_file().await? { Ok(()) } else { self.0.restore_paused().await }
    }

    async fn resume(&self) -> Result<(), Error> {
        self.0.paging.memory.wake();
        self.0.run_on().await
    }

    async fn suspend(&self, patience: Duration) -> Result<(), Error> {
        self.0.doze(patience).await?;
        self.0.paging.memory.sleep();
        Ok(())
    }

    async fn pause(&self) -> Result<(), Error> {
        self.0.stand_still().await?;
        self.0.paging.memory.sleep();
        Ok(())
    }

    async fn page_out(&self) -> Result<u64, Error> {
        self.0.know_our_pause().await;
        self.0.put_memory_away().await
    }

    async fn save(&self) -> Result<(), Error> {
        if self.0.is_saved_beside_ram_file().await? {
            self.0.save_ram_file().await
        } else {
            self.0.let_restore_open_ram().await?;
            self.0.save_managed().await
        }
    }

    /// The save has done it.
    async fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn hurry(&self) {
        self.0.hurry.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn quit(&self) -> Result<(), Error> {
        self.0.end_saved().await
    }

    async fn power_down(&self, patience: Duration) -> Result<(), Error> {
        self.0.shut_down(patience).await
    }

    async fn kill(&self) -> Result<(), Error> {
        self.0.destroy().await
    }

    async fn discard_state(&self) -> Result<(), Error> {
        self.0.forget_ram_file().await?;
        self.0.forget_state().await
    }

    /// Nothing of it is ours but its memory, if that is a file: its definition, disks and managed save are
    /// its user's.
    async fn erase(&self) -> Result<(), Error> {
        self.0.erase_ram_file().await
    }

    async fn counters(&self) -> Result<Counters, Error> {
        self.0.count().await
    }

    fn asks_guest(&self) -> bool {
        true
    }

    async fn faults(&self) -> Option<Faults> {
        self.0.count_faults().await
    }

    async fn viewers(&self) -> Option<u32> {
        self.0.count_viewers().await
    }

    async fn inside(&self) -> Option<Inside> {
        self.0.look_inside().await
    }

    async fn facts(&self) -> Facts {
        self.0.tell().await
    }
}
