//! The commit record of a saved state, written last: what there must be for the state to be whole.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use crc::{CRC_64_XZ, Crc, Table};
use serde::{Deserialize, Serialize};

use super::dir::{MachineDir, remove};
use crate::Error;

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_XZ);
const VERSION: u32 = 1;

/// `state.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of this format.
    version: u32,
    /// QEMU's, for people.
    pub qemu: String,
    /// The board with its version, as `pc-q35-7.2`: a newer QEMU must play the old one.
    pub board: String,
    /// What the devices are made of; see [`super::args::devices`].
    pub devices: String,
    /// Length of `state` in bytes.
    state_len: u64,
    /// CRC-64/XZ of `state`, in hexadecimal digits.
    state_crc: String,
    /// The RAM file as it was; `None` if the memory is in `state`.
    ram: Option<RamRecord>,
}

/// The RAM file when the guest stood still and all was on disk. Any later write moves its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RamRecord {
    len: u64,
    /// Last change, in nanoseconds since the Unix epoch.
    mtime_ns: i128,
}

impl RamRecord {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        let mtime_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Ok(Self { len: meta.len(), mtime_ns })
    }
}

/// What the caller of [`commit`] knows of the machine.
#[derive(Clone, Debug)]
pub struct Origin {
    /// QEMU's version, for people.
    pub qemu: String,
    /// The board with its version, as `pc-q35-7.2`.
    pub board: String,
    /// What the devices are made of: another text is another machine.
    pub devices: String,
    /// The memory is in the RAM file, and not in the state.
    pub ram_in_file: bool,
}

/// Puts state and RAM on stable storage; the record that [`commit`] then needs.
pub fn prepare(dir: &MachineDir, origin: Origin) -> Result<Record, Error> {
    let ram = origin.ram_in_file.then(|| sync_ram(&dir.ram())).transpose()?;
    let (state_len, state_crc) = sync_state(&dir.state())?;
    // The names of `ram` and `state` must be durable before the record that speaks of them.
    dir.sync()?;
    let Origin { qemu, board, devices, .. } = origin;
    Ok(Record { version: VERSION, qemu, board, devices, state_len, state_crc, ram })
}

fn sync_ram(path: &Path) -> Result<RamRecord, Error> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    // Not fdatasync: the time of the last change is part of the record.
    file.sync_all().map_err(Error::io("sync", path))?;
    RamRecord::of(&file).map_err(Error::io("look at", path))
}

fn sync_state(path: &Path) -> Result<(u64, String), Error> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    file.sync_all().map_err(Error::io("sync", path))?;
    checksum(&mut file).map_err(Error::io("read", path))
}

fn checksum(file: &mut File) -> io::Result<(u64, String)> {
    let (mut digest, mut len, mut chunk) = (CRC.digest(), 0, vec![0; 256 << 10]);
    loop {
        let n = file.read(&mut chunk)?;
        if n == 0 {
            return Ok((len, format!("{:016x}", digest.finalize())));
        }
        digest.update(&chunk[..n]);
        len += n as u64;
    }
}

/// Makes what was prepared a saved state.
pub fn commit(dir: &MachineDir, record: &Record) -> Result<(), Error> {
    let path = dir.record();
    let new = path.with_extension("new");
    let put = || {
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    put().map_err(Error::io("write", &path))?;
    dir.sync()
}

/// Is there a commit record? (Whether all is as it says is for [`verify`] to tell.)
pub fn exists(dir: &MachineDir) -> bool {
    dir.record().exists()
}

/// Reads the record and compares it with what is there.
pub fn verify(dir: &MachineDir, devices: &str) -> Result<Record, Error> {
    let record = read(dir)?;
    if record.devices != devices {
        let what = format!("saved with {:?}, now {devices:?}", record.devices);
        return Err(Error::StateForeign { what });
    }
    if let Some(expected) = &record.ram {
        verify_ram(&dir.ram(), expected)?;
    }
    verify_state(&dir.state(), &record)?;
    Ok(record)
}

/// There is a record, and the memory was written since: others have run a guest on it.
pub fn moved_on(dir: &MachineDir) -> bool {
    let written = |record: Record| {
        let expected = record.ram?;
        let found = File::open(dir.ram()).and_then(|file| RamRecord::of(&file)).ok()?;
        Some(found != expected)
    };
    read(dir).ok().and_then(written).unwrap_or(false)
}

fn read(dir: &MachineDir) -> Result<Record, Error> {
    let path = dir.record();
    let text = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && dir.used_record().exists() => {
            return Err(Error::StateUsed { path: dir.path().into() });
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoState { path: dir.path().into() });
        }
        other => other.map_err(Error::io("read", &path))?,
    };
    let record: Record = serde_json::from_slice(&text)
        .map_err(|e| Error::StateDamaged { path: path.clone(), what: format!("no commit record: {e}") })?;
    if record.version != VERSION {
        let what = format!("version {} of a format of which version {VERSION} is known", record.version);
        return Err(Error::StateDamaged { path, what });
    }
    Ok(record)
}

fn open(path: &Path) -> Result<File, Error> {
    match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(Error::StateDamaged { path: path.into(), what: "the file is missing".into() })
        }
        other => other.map_err(Error::io("open", path)),
    }
}

fn verify_ram(path: &Path, expected: &RamRecord) -> Result<(), Error> {
    let found = RamRecord::of(&open(path)?).map_err(Error::io("look at", path))?;
    let damaged = |what| Err(Error::StateDamaged { path: path.into(), what });
    if found.len != expected.len {
        return damaged(format!("{} bytes instead of {}", found.len, expected.len));
    }
    if found.mtime_ns != expected.mtime_ns {
        return damaged("it was written after the machine was saved".into());
    }
    Ok(())
}

fn verify_state(path: &Path, record: &Record) -> Result<(), Error> {
    let (len, crc) = checksum(&mut open(path)?).map_err(Error::io("read", path))?;
    let damaged = |what| Err(Error::StateDamaged { path: path.into(), what });
    if len != record.state_len {
        return damaged(format!("{len} bytes instead of {}", record.state_len));
    }
    if crc != record.state_crc {
        return damaged(format!("checksum {crc} instead of {}", record.state_crc));
    }
    Ok(())
}

/// Durably makes the state unusable, unless [`give_back`] says that it was not used.
pub fn take(dir: &MachineDir) -> Result<(), Error> {
    fs::rename(dir.record(), dir.used_record()).map_err(Error::io("use up", dir.record()))?;
    dir.sync()
}

/// The state was taken, and no guest ever ran from it.
pub fn give_back(dir: &MachineDir) -> Result<(), Error> {
    if !dir.used_record().exists() {
        return Ok(());
    }
    fs::rename(dir.used_record(), dir.record()).map_err(Error::io("give back", dir.record()))?;
    dir.sync()
}

/// Was a state given to a process, of which nobody knows yet that its guest ran?
pub fn taken(dir: &MachineDir) -> bool {
    dir.used_record().exists()
}

/// The guest ran: what is left of a state that was taken is of no more use.
pub fn spent(dir: &MachineDir) -> Result<(), Error> {
    if !remove(&dir.used_record())? {
        return Ok(());
    }
    remove(&dir.state()).map(drop)
}

/// Removes the state for good; the record first, so that no half of a state can look whole.
pub fn discard(dir: &MachineDir) -> Result<(), Error> {
    let record = remove(&dir.record())?;
    if remove(&dir.used_record())? || record {
        dir.sync()?;
    }
    remove(&dir.state()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> (tempfile::TempDir, MachineDir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = MachineDir::new(temp.path().join("m"));
        dir.create().unwrap();
        fs::write(dir.ram(), vec![1; 8192]).unwrap();
        fs::write(dir.state(), b"devices").unwrap();
        commit(&dir, &prepare(&dir, origin()).unwrap()).unwrap();
        (temp, dir)
    }

    fn origin() -> Origin {
        Origin { qemu: "7.2".into(), board: "b".into(), devices: "d".into(), ram_in_file: true }
    }

    #[test]
    fn what_was_committed_is_whole() {
        let (_temp, dir) = saved();
        assert_eq!(verify(&dir, "d").unwrap().board, "b");
    }

    #[test]
    fn every_damage_is_found_and_named() {
        type Harm = fn(&MachineDir);
        let harms: [(Harm, &str); 7] = [
            (|d| fs::write(d.state(), b"devicez").unwrap(), "checksum"),
            (|d| fs::write(d.state(), b"device").unwrap(), "6 bytes instead of 7"),
            (|d| fs::remove_file(d.state()).unwrap(), "missing"),
            (|d| fs::remove_file(d.ram()).unwrap(), "missing"),
            (|d| File::options().write(true).open(d.ram()).unwrap().set_len(4096).unwrap(), "4096 bytes"),
            (|d| fs::write(d.ram(), vec![2; 8192]).unwrap(), "written after"),
            (|d| fs::write(d.record(), b"{\"version\":1").unwrap(), "no commit record"),
        ];
        for (harm, word) in harms {
            let (_temp, dir) = saved();
            harm(&dir);
            let error = verify(&dir, "d").unwrap_err();
            assert!(matches!(error, Error::StateDamaged { .. }), "{error}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn a_memory_that_others_wrote_is_known() {
        let (_temp, dir) = saved();
        assert!(!moved_on(&dir));
        fs::write(dir.ram(), vec![1; 8192]).unwrap();
        assert!(moved_on(&dir));
        discard(&dir).unwrap();
        assert!(!moved_on(&dir));
    }

    #[test]
    fn a_changed_machine_is_refused() {
        let (_temp, dir) = saved();
        assert!(matches!(verify(&dir, "other"), Err(Error::StateForeign { .. })));
    }

    #[test]
    fn a_state_is_taken_once() {
        let (_temp, dir) = saved();
        take(&dir).unwrap();
        assert!(matches!(verify(&dir, "d"), Err(Error::StateUsed { .. })));
        give_back(&dir).unwrap();
        assert!(verify(&dir, "d").is_ok());
        take(&dir).unwrap();
        spent(&dir).unwrap();
        give_back(&dir).unwrap();
        assert!(matches!(verify(&dir, "d"), Err(Error::NoState { .. })));
    }

    #[test]
    fn discarding_twice_is_as_good() {
        let (_temp, dir) = saved();
        discard(&dir).unwrap();
        discard(&dir).unwrap();
        assert!(!exists(&dir) && !dir.state().exists());
    }
}
