//! How programs of the kernel's are loaded and attached to interfaces.
//!
//! From Linux 6.6 on a program is attached by a link that ends with the process (TCX), before by a
//! filter of the clsact queueing discipline, which a killed daemon leaves behind: it is removed
//! when the next one attaches its own. Nothing is pinned.

use std::sync::{Mutex, PoisonError};

use aya::{
    Ebpf, EbpfError, EbpfLoader, Pod,
    maps::{Map, MapData, MapError},
    programs::{
        ProgramError, SchedClassifier, TcAttachType,
        tc::{self, SchedClassifierLinkId},
    },
};
use dormouse_sys::SharedWords;

/// Why the kernel's help cannot be had; what is done without it is done then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Unavailable {
    /// The kernel is too old.
    #[error("the kernel does not tell packet sockets the marks of frames: it needs Linux 5.19")]
    NoMarks,
    /// The kernel does not take the program.
    #[error("the kernel does not load BPF programs for us: grant CAP_BPF and CAP_NET_ADMIN")]
    Load(#[source] Box<EbpfError>),
    /// The kernel does not verify the program.
    #[error("the kernel refuses the BPF program: grant CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    Verify(#[source] Box<ProgramError>),
    /// The kernel does not attach the program.
    #[error("cannot attach the BPF program to {port}: grant CAP_BPF and CAP_NET_ADMIN")]
    Attach {
        /// The interface.
        port: String,
        /// What went wrong.
        #[source]
        source: Box<ProgramError>,
    },
    /// A program of a killed daemon is in the way.
    #[error("cannot remove the BPF program that an earlier daemon left on {port}")]
    Stale {
        /// The interface.
        port: String,
        /// What went wrong.
        #[source]
        source: Box<tc::TcError>,
    },
    /// The object is not the one that this code was written for.
    #[error("the BPF object has no {0}")]
    Object(&'static str),
    /// A map cannot be used.
    #[error("cannot use the BPF map {map}")]
    Map {
        /// Its name.
        map: &'static str,
        /// What went wrong.
        #[source]
        source: Box<MapError>,
    },
    /// The interface is not there.
    #[error(transparent)]
    Link(#[from] dormouse_sys::packet::Error),
    /// The array cannot be shared with the kernel.
    #[error(transparent)]
    Share(#[from] dormouse_sys::shared::Error),
}

/// Makes what a new loader reads, all types of the kernel, be read once in the life of the process
/// (some 100 ms of CPU time, before which nobody is stood in for) and not at each load.
static LOADER: Mutex<Option<EbpfLoader<'static>>> = Mutex::new(None);

/// Loads the object and has the kernel verify its program `name`.
pub(crate) fn load(object: &[u8], name: &'static str) -> Result<Ebpf, Unavailable> {
    let mut loader = LOADER.lock().unwrap_or_else(PoisonError::into_inner);
    let loader = loader.get_or_insert_with(|| {
        let mut loader = EbpfLoader::new();
        // The programs have no relocations against the kernel's types.
        loader.btf(None);
        loader
    });
    let mut object = loader.load(object).map_err(|error| Unavailable::Load(Box::new(error)))?;
    program(&mut object, name)?.load().map_err(|error| Unavailable::Verify(Box::new(error)))?;
    Ok(object)
}

/// Takes a hash map out of the object.
pub(crate) fn hash_map<K: Pod, V: Pod>(
    object: &mut Ebpf,
    name: &'static str,
) -> Result<aya::maps::HashMap<MapData, K, V>, Unavailable> {
    let map = object.take_map(name).ok_or(Unavailable::Object(name))?;
    aya::maps::HashMap::try_from(map)
        .map_err(|source| Unavailable::Map { map: name, source: Box::new(source) })
}

/// Maps an array of the object, of so many bytes, into the process.
pub(crate) fn shared_array(
    object: &mut Ebpf,
    name: &'static str,
    bytes: usize,
) -> Result<SharedWords, Unavailable> {
    match object.take_map(name) {
        Some(Map::Array(array)) => Ok(SharedWords::map(array.fd(), bytes)?),
        _ => Err(Unavailable::Object(name)),
    }
}

/// Attaches the object's program to the interface `port`, in the calling thread's network namespace;
/// removes one of the same name that a killed daemon left there.
pub(crate) fn attach(
    object: &mut Ebpf,
    name: &'static str,
    port: &str,
    way: TcAttachType,
) -> Result<SchedClassifierLinkId, Unavailable> {
    remove_stale(name, port, way)?;
    let program = program(object, name)?;
    if let Ok(link) = program.attach(port, way) {
        return Ok(link);
    }
    // Only kernels that attach no program without it get the queueing discipline: adding it
    // stops the port for a moment, and frames are lost. It is there already after a restart.
    let _ = tc::qdisc_add_clsact(port);
    let options = tc::TcAttachOptions::Netlink(tc::NlOptions::default());
    program
        .attach_with_options(port, way, options)
        .map_err(|source| Unavailable::Attach { port: port.to_owned(), source: Box::new(source) })
}

/// Detaches it. No error if the interface is gone.
pub(crate) fn detach(object: &mut Ebpf, name: &'static str, link: SchedClassifierLinkId) {
    if let Ok(program) = program(object, name)
        && let Err(error) = program.detach(link)
    {
        tracing::debug!(program = name, %error, "not detached");
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, Unavailable> {
    let program = object.program_mut(name).ok_or(Unavailable::Object(name))?;
    program.try_into().map_err(|_| Unavailable::Object(name))
}

/// Removes the filter that a killed daemon left.
fn remove_stale(name: &str, port: &str, way: TcAttachType) -> Result<(), Unavailable> {
    match tc::qdisc_detach_program(port, way, name) {
        Ok(()) => {
            tracing::info!(port, "removed the BPF program of an earlier daemon");
            Ok(())
        }
        Err(tc::TcError::IoError(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Unavailable::Stale { port: port.to_owned(), source: Box::new(source) }),
    }
}

/// Attaches a program as kernels before 6.6 do, and leaves it there.
#[cfg(test)]
pub(crate) fn tests_leave_stale(object: &[u8], name: &'static str, port: &str, way: TcAttachType) {
    let mut object = load(object, name).unwrap();
    tc::qdisc_add_clsact(port).unwrap();
    let options = tc::TcAttachOptions::Netlink(tc::NlOptions::default());
    program(&mut object, name).unwrap().attach_with_options(port, way, options).unwrap();
    std::mem::forget(object);
}
