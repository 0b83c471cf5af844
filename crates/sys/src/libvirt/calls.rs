//! Calls that the binding does not have.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use libc::c_uint;
use virt::{domain::Domain, error::Error, network::Network};
use virt_sys as ffi;

use super::{Value, checked, params};

/// Asks the guest, by its agent, to suspend itself to memory (S3), or to disk (S4). Returns once the agent was
/// asked: that the guest sleeps an event tells.
///
/// # Errors
/// Without an agent, or where the guest cannot.
pub fn pm_suspend(domain: &Domain, to_disk: bool) -> Result<(), Error> {
    let target = if to_disk { ffi::VIR_NODE_SUSPEND_TARGET_DISK } else { ffi::VIR_NODE_SUSPEND_TARGET_MEM };
    // SAFETY: `domain` is valid; a duration of zero and no flags are all that libvirt knows.
    checked(unsafe { ffi::virDomainPMSuspendForDuration(domain.as_ptr(), target, 0, 0) }).map(drop)
}

/// Interrupts what is being done with the domain in another thread, as its save.
///
/// # Errors
/// When nothing is being done that can be interrupted.
pub fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: `domain` is valid.
    checked(unsafe { ffi::virDomainAbortJob(domain.as_ptr()) }).map(drop)
}

/// The domain's statistics, of the groups that are named by `VIR_DOMAIN_STATS_*`; `flags` are
/// `VIR_CONNECT_GET_ALL_DOMAINS_STATS_*`.
///
/// # Errors
/// When it cannot be asked. Of groups that it does not have nothing is told.
pub fn stats(domain: &Domain, groups: u32, flags: u32) -> Result<BTreeMap<String, Value>, Error> {
    let mut domains = [domain.as_ptr(), ptr::null_mut()];
    let mut records = ptr::null_mut();
    // SAFETY: `domains` ends with a null pointer; `records` is written.
    let count = checked(unsafe {
        ffi::virDomainListGetStats(domains.as_mut_ptr(), groups, &raw mut records, flags)
    })?;
    let told = if count == 0 || records.is_null() {
        BTreeMap::new()
    } else {
        // SAFETY: there are `count` records in it, one at least.
        let record = unsafe { &**records };
        // SAFETY: a record says how many parameters it has.
        unsafe { params::read(record.params, record.nparams) }
    };
    if !records.is_null() {
        // SAFETY: `records` is libvirt's, and not used any more.
        unsafe { ffi::virDomainStatsRecordListFree(records) };
    }
    Ok(told)
}

/// Does a job work on this disk (a copy, a commit, a pull, a backup)? `disk` is its target, as `vda`.
///
/// # Errors
/// When the domain does not run, has no such disk, or cannot be asked.
pub fn has_block_job(domain: &Domain, disk: &str) -> Result<bool, Error> {
    let Ok(disk) = CString::new(disk) else { return Ok(false) };
    let mut info = std::mem::MaybeUninit::<ffi::virDomainBlockJobInfo>::zeroed();
    // SAFETY: `domain` is valid, the name ends with a zero, and `info` has room for what is written.
    let answer =
        unsafe { ffi::virDomainGetBlockJobInfo(domain.as_ptr(), disk.as_ptr(), info.as_mut_ptr(), 0) };
    checked(answer).map(|count| count > 0)
}

/// The addresses that the DHCP servers of libvirt's network have given: Ethernet address and IP address, as texts.
///
/// # Errors
/// When the network has no leases to tell of, or cannot be asked.
pub fn leases(network: &Network) -> Result<Vec<(String, String)>, Error> {
    let mut all: *mut ffi::virNetworkDHCPLeasePtr = ptr::null_mut();
    // SAFETY: `network` is valid, no Ethernet address means any, and `all` is written.
    let count = unsafe { ffi::virNetworkGetDHCPLeases(network.as_ptr(), ptr::null(), &raw mut all, 0) };
    let count = usize::try_from(checked(count)?).unwrap_or(0);
    if all.is_null() {
        return Ok(Vec::new());
    }
    let mut told = Vec::new();
    for n in 0..count {
        // SAFETY: libvirt has said how many there are; each is its own until it is freed here.
        let lease = unsafe { *all.add(n) };
        // SAFETY: as above.
        let (mac, address) = unsafe { ((*lease).mac, (*lease).ipaddr) };
        if !mac.is_null() && !address.is_null() {
            // SAFETY: not null, and libvirt ends its texts with a zero.
            let text = |text| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
            told.push((text(mac), text(address)));
        }
        // SAFETY: it is ours by libvirt's word, and not used any more.
        unsafe { ffi::virNetworkDHCPLeaseFree(lease) };
    }
    // SAFETY: the list is ours by libvirt's word, by malloc(3), and not used any more.
    unsafe { libc::free(all.cast()) };
    Ok(told)
}

/// Gives QEMU's monitor a command, and a file beside it if the command takes one (`getfd`); the answer as
/// JSON, which may be a refusal.
///
/// # Errors
/// When the monitor cannot be asked, or `command` has a zero in it.
pub fn monitor_command(
    domain: &Domain,
    command: &str,
    file: Option<BorrowedFd<'_>>,
) -> Result<String, Error> {
    let Ok(command) = CString::new(command) else { return Err(Error::last_error()) };
    let mut files = [file.map_or(-1, |file| file.as_raw_fd())];
    let count = c_uint::from(file.is_some());
    let mut answer = ptr::null_mut();
    // SAFETY: `domain` is valid, the command ends with a zero, `files` has at least `count` open files, no
    // files are asked for in return, and `answer` is written.
    let done = unsafe {
        ffi::virDomainQemuMonitorCommandWithFiles(
            domain.as_ptr(),
            command.as_ptr(),
            count,
            files.as_mut_ptr(),
            ptr::null_mut(),
            ptr::null_mut(),
            &raw mut answer,
            0,
        )
    };
    checked(done)?;
    if answer.is_null() {
        return Ok(String::new());
    }
    // SAFETY: not null, and libvirt ends its texts with a zero.
    let text = unsafe { CStr::from_ptr(answer) }.to_string_lossy().into_owned();
    // SAFETY: the text is ours by libvirt's word, by malloc(3), and not used any more.
    unsafe { libc::free(answer.cast()) };
    Ok(text)
}

/// Has a managed save that was made of a paused guest run when it is started by whoever does not ask for
/// anything else.
///
/// # Errors
/// When there is no managed save, or it cannot be changed.
pub fn managed_save_starts_running(domain: &Domain) -> Result<(), Error> {
    let xml = managed_save_text(domain)?;
    // SAFETY: `domain` is valid, and the text ends with a zero.
    let answer = unsafe {
        ffi::virDomainManagedSaveDefineXML(domain.as_ptr(), xml.as_ptr(), ffi::VIR_DOMAIN_SAVE_RUNNING)
    };
    checked(answer).map(drop)
}

/// The XML of the process that a managed save will start.
///
/// # Errors
/// When there is no managed save, or it cannot be read.
pub fn managed_save_xml(domain: &Domain) -> Result<String, Error> {
    managed_save_text(domain).map(|xml| xml.to_string_lossy().into_owned())
}

fn managed_save_text(domain: &Domain) -> Result<CString, Error> {
    const SECURE: c_uint = 1; // VIR_DOMAIN_SAVE_IMAGE_XML_SECURE
    // SAFETY: `domain` is valid.
    let xml = unsafe { ffi::virDomainManagedSaveGetXMLDesc(domain.as_ptr(), SECURE) };
    if xml.is_null() {
        return Err(Error::last_error());
    }
    // SAFETY: not null, and libvirt ends its texts with a zero.
    let copy: CString = unsafe { CStr::from_ptr(xml) }.to_owned();
    // SAFETY: the text is ours by libvirt's word, by malloc(3), and not used any more.
    unsafe { libc::free(xml.cast()) };
    Ok(copy)
}
