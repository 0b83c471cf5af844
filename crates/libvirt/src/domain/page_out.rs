//! Gives the memory of a paused domain back to the host, where its machine's file wants that.

use dormouse_platform::{
    Error, Obstacle,
    page_out::{self, PageOut},
};

use super::Inner;
use crate::happening::Happening;

/// `page_out` of a machine's file, and what is away.
#[derive(Debug, Default)]
pub(super) struct Paging {
    pub(super) is_wanted: bool,
    pub(super) memory: PageOut,
}

impl Inner {
    /// Puts its memory into its file or swap, and tells how much. Ends early when it is let run, by whomever.
    pub(super) async fn put_memory_away(&self) -> Result<u64, Error> {
        if !self.paging.is_wanted {
            return Ok(0);
        }
        let Some(pid) = self.pid().await else {
            return Err(Error::Unsupported(format!(
                "page_out: the QEMU process of domain {} is not found on this host",
                self.who.name
            )));
        };
        let given = self.paging.memory.put_away(pid).await?;
        Ok(given.before.saturating_sub(given.left))
    }

    /// Others may have let it run.
    pub(super) fn mind_memory(&self, happening: Happening) {
        if let Happening::Resumed(_) | Happening::Started(_) = happening {
            self.paging.memory.wake();
        }
    }

    /// Why its memory cannot be given back while it is paused, as far as its process tells.
    pub(super) async fn paging_obstacle(&self) -> Option<Obstacle> {
        if !self.paging.is_wanted {
            return None;
        }
        let pid = self.pid().await?;
        let found = tokio::task::spawn_blocking(move || page_out::obstacle(pid)).await.ok()?;
        let why = found.unwrap_or_else(|error| Some(error.to_string()))?;
        Some(Obstacle::warning("page_out", why))
    }
}
