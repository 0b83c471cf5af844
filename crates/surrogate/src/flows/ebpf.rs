//! Following by `bpf/flows.c`: one table for each [`REGIONS`] taps, a region of it for each tap.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use aya::{
    maps::MapData,
    programs::{TcAttachType, tc::SchedClassifierLinkId},
};
use dormouse_sys::{SharedWords, packet::link_index};
use dormouse_types::MacAddr;
use dormouse_wire::{Flow, Followed};

use super::table::{Clock, REGIONS, Region, TABLE_BYTES};
use crate::bpf::{self, Unavailable};

/// The compiled program, aligned as the object parser wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flows.o"));

/// The program's name in `bpf/flows.c`.
const PROGRAM: &str = "follow";

/// Guests that are followed. Dropping it detaches the programs.
#[derive(Debug, Default)]
pub(super) struct Taps {
    tables: Vec<Table>,
    guests: HashMap<MacAddr, Guest>,
}

/// A program, and the table that it keeps.
#[derive(Debug)]
struct Table {
    object: aya::Ebpf,
    owners: aya::maps::HashMap<MapData, u32, Owner>,
    words: Arc<SharedWords>,
    /// Regions to give out; those given back come last, long after the program has left them.
    free: VecDeque<u32>,
}

/// `struct owner` in `bpf/flows.c`: the guest's address, and its region.
type Owner = [u64; 2];

/// A guest's part of a table.
#[derive(Clone, Debug)]
pub(super) struct View {
    words: Arc<SharedWords>,
    region: u32,
}

impl View {
    /// See [`super::Flows::all_of`].
    pub(super) fn flows(&self) -> Vec<Followed> {
        Region::new(&self.words, self.region).flows(Clock::read())
    }
}

#[derive(Debug)]
struct Guest {
    table: usize,
    region: u32,
    /// The tap's index.
    tap: u32,
    link: SchedClassifierLinkId,
}

impl Taps {
    /// See [`super::Flows::follow`].
    ///
    /// # Errors
    /// When the tap is missing or the kernel refuses the program.
    pub(super) fn follow(&mut self, mac: MacAddr, tap: &str, known: &[Flow]) -> Result<(), Unavailable> {
        let index = link_index(tap)?;
        match self.guests.get(&mac) {
            Some(guest) if guest.tap == index => return Ok(()),
            Some(_) => return self.move_to(mac, tap, index),
            None => {}
        }
        let strangers = self.guests.iter().find(|(_, guest)| guest.tap == index);
        if let Some((&before, _)) = strangers {
            self.stop(before);
        }
        let (at, region) = self.room()?;
        let Some(table) = self.tables.get_mut(at) else { return Ok(()) };
        let part = Region::new(&table.words, region);
        part.clear();
        part.enter(known, Clock::read());
        match table.attach(mac, tap, index, region) {
            Ok(link) => drop(self.guests.insert(mac, Guest { table: at, region, tap: index, link })),
            Err(error) => {
                table.free.push_front(region);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Where a guest's connections are to be read; `None`: it is not followed.
    pub(super) fn view(&self, mac: MacAddr) -> Option<View> {
        let guest = self.guests.get(&mac)?;
        let words = self.tables.get(guest.table)?.words.clone();
        Some(View { words, region: guest.region })
    }

    /// See [`super::Flows::stop`].
    pub(super) fn stop(&mut self, mac: MacAddr) {
        if let Some(guest) = self.guests.remove(&mac)
            && let Some(table) = self.tables.get_mut(guest.table)
        {
            table.detach(guest.tap, guest.link);
            table.free.push_back(guest.region);
        }
    }

    /// The guest has another tap now; its connections are what they were.
    fn move_to(&mut self, mac: MacAddr, tap: &str, index: u32) -> Result<(), Unavailable> {
        let Some(Guest { table: at, region, tap: old, link }) = self.guests.remove(&mac) else {
            return Ok(());
        };
        let Some(table) = self.tables.get_mut(at) else { return Ok(()) };
        table.detach(old, link);
        match table.attach(mac, tap, index, region) {
            Ok(link) => drop(self.guests.insert(mac, Guest { table: at, region, tap: index, link })),
            Err(error) => {
                table.free.push_back(region);
                return Err(error);
            }
        }
        Ok(())
    }

    /// A free region, and the table that it is of.
    fn room(&mut self) -> Result<(usize, u32), Unavailable> {
        for (at, table) in self.tables.iter_mut().enumerate() {
            if let Some(region) = table.free.pop_front() {
                return Ok((at, region));
            }
        }
        let mut table = Table::load()?;
        let region = table.free.pop_front().unwrap_or_default();
        self.tables.push(table);
        Ok((self.tables.len() - 1, region))
    }
}

impl Table {
    fn load() -> Result<Self, Unavailable> {
        let mut object = bpf::load(OBJECT, PROGRAM)?;
        let owners = bpf::hash_map(&mut object, "owner_of")?;
        let words = bpf::shared_array(&mut object, "sets", TABLE_BYTES)?;
        Ok(Self { object, owners, words: Arc::new(words), free: (0..REGIONS).collect() })
    }

    fn attach(
        &mut self,
        MacAddr([a, b, c, d, e, f]): MacAddr,
        tap: &str,
        index: u32,
        region: u32,
    ) -> Result<SchedClassifierLinkId, Unavailable> {
        let owner = [u64::from_be_bytes([0, 0, a, b, c, d, e, f]), region.into()];
        self.owners
            .insert(index, owner, 0)
            .map_err(|source| Unavailable::Map { map: "owner_of", source: Box::new(source) })?;
        bpf::attach(&mut self.object, PROGRAM, tap, TcAttachType::Ingress).inspect_err(|_| {
            let _ = self.owners.remove(&index);
        })
    }

    fn detach(&mut self, tap: u32, link: SchedClassifierLinkId) {
        // A program that is still on its way through finds no owner.
        let _ = self.owners.remove(&tap);
        bpf::detach(&mut self.object, PROGRAM, link);
    }
}

/// Attaches the program as kernels before 6.6 do, and leaves it there.
#[cfg(test)]
pub(super) fn tests_leave_stale(tap: &str) {
    bpf::tests_leave_stale(OBJECT, PROGRAM, tap, TcAttachType::Ingress);
}
