//! Events: one loop in a thread of its own for all connections of the process.

use std::{
    ffi::CStr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use libc::{c_char, c_int, c_void};
use virt::{connect::Connect, error::Error};
use virt_sys as ffi;

use super::checked;

/// `VIR_UUID_STRING_BUFLEN`: 36 characters and a zero.
const UUID_TEXT: usize = 37;

/// Pause after a turn of the loop that failed.
const TURN_FAILED: Duration = Duration::from_millis(100);

/// A change in a domain's life, as libvirt tells it: `virDomainEventType` and the detail that belongs to
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// The domain's name.
    pub domain: String,
    /// Its UUID, with hyphens.
    pub uuid: String,
    /// `VIR_DOMAIN_EVENT_*`.
    pub event: i32,
    /// `VIR_DOMAIN_EVENT_*_*`.
    pub detail: i32,
}

/// Somebody comes to a domain's screen, or leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graphics {
    /// The domain's name.
    pub domain: String,
    /// Its UUID, with hyphens.
    pub uuid: String,
    /// `VIR_DOMAIN_EVENT_GRAPHICS_*`: connected, disconnected or, once authenticated, initialized.
    pub phase: i32,
    /// Who.
    pub viewer: Viewer,
}

/// Where somebody who looks at a screen is: `virDomainEventGraphicsAddress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// `VIR_DOMAIN_EVENT_GRAPHICS_ADDRESS_*`: of IPv4, IPv6, a socket of the host's.
    pub family: i32,
    /// The address, or the socket's path.
    pub node: String,
    /// The port.
    pub service: String,
}

type OnDevice = Box<dyn Fn(String, String) + Send + Sync>;
type OnGraphics = Box<dyn Fn(Graphics) + Send + Sync>;
type OnLifecycle = Box<dyn Fn(Lifecycle) + Send + Sync>;
type OnClose = Box<dyn Fn(i32) + Send + Sync>;

/// Starts libvirt's event loop if it does not run yet. To be called before the first connection is
/// opened: one that was opened earlier has neither events nor keepalives.
///
/// # Errors
/// When libvirt or the system refuses.
pub fn start_event_loop() -> Result<(), std::io::Error> {
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*started {
        // Errors are returned to those who called; by default they are also printed.
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl().map_err(std::io::Error::other)?;
        thread::Builder::new().name("libvirt-events".into()).spawn(|| {
            loop {
                if virt::event::event_run_default_impl().is_err() {
                    thread::sleep(TURN_FAILED);
                }
            }
        })?;
        *started = true;
    }
    Ok(())
}

/// Events come as long as it lives.
#[derive(Debug)]
pub struct Subscription {
    connection: Connect,
    id: c_int,
}

/// Has `told` called, in the event loop's thread, with each change in the life of any domain. It must
/// return soon, and call nothing of libvirt.
///
/// # Errors
/// When the connection has no events, or is gone.
pub fn subscribe(
    connection: &Connect,
    told: impl Fn(Lifecycle) + Send + Sync + 'static,
) -> Result<Subscription, Error> {
    // SAFETY: for this event libvirt calls the callback with the arguments of `lifecycle`, and asks for it
    // to be given as the generic type (`VIR_DOMAIN_EVENT_CALLBACK`).
    let callback = unsafe {
        std::mem::transmute::<ffi::virConnectDomainEventCallback, ffi::virConnectDomainEventGenericCallback>(
            Some(lifecycle),
        )
    };
    // SAFETY: `callback` takes what this event has, and a pointer to an `OnLifecycle`.
    unsafe {
        register::<OnLifecycle>(connection, ffi::VIR_DOMAIN_EVENT_ID_LIFECYCLE, callback, Box::new(told))
    }
}

/// Has `told` called, in the event loop's thread, with name and UUID of each running domain that a device was
/// added to, or removed from. It must return soon, and call nothing of libvirt.
///
/// # Errors
/// When the connection has no such events, or is gone.
pub fn subscribe_devices(
    connection: &Connect,
    is_added: bool,
    told: impl Fn(String, String) + Send + Sync + 'static,
) -> Result<Subscription, Error> {
    let event = if is_added {
        ffi::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED
    } else {
        ffi::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED
    };
    // SAFETY: for both events libvirt calls the callback with the arguments of `device`.
    let callback = unsafe {
        std::mem::transmute::<
            ffi::virConnectDomainEventDeviceAddedCallback,
            ffi::virConnectDomainEventGenericCallback,
        >(Some(device))
    };
    // SAFETY: `callback` takes what this event has, and a pointer to an `OnDevice`.
    unsafe { register::<OnDevice>(connection, event, callback, Box::new(told)) }
}

/// Has `told` called, in the event loop's thread, when somebody comes to the screen of any domain or leaves it. It
/// must return soon, and call nothing of libvirt.
///
/// # Errors
/// When the connection has no such events, or is gone.
pub fn subscribe_graphics(
    connection: &Connect,
    told: impl Fn(Graphics) + Send + Sync + 'static,
) -> Result<Subscription, Error> {
    // SAFETY: for this event libvirt calls the callback with the arguments of `graphics`.
    let callback = unsafe {
        std::mem::transmute::<
            ffi::virConnectDomainEventGraphicsCallback,
            ffi::virConnectDomainEventGenericCallback,
        >(Some(graphics))
    };
    // SAFETY: `callback` takes what this event has, and a pointer to an `OnGraphics`.
    unsafe { register::<OnGraphics>(connection, ffi::VIR_DOMAIN_EVENT_ID_GRAPHICS, callback, Box::new(told)) }
}

/// # Safety
/// `callback` is one for `event`, and takes a pointer to a `T` at last.
unsafe fn register<T>(
    connection: &Connect,
    event: ffi::virDomainEventID,
    callback: ffi::virConnectDomainEventGenericCallback,
    told: T,
) -> Result<Subscription, Error> {
    let opaque = into_opaque::<T>(told);
    let event = c_int::try_from(event).unwrap_or(c_int::MAX);
    // SAFETY: the connection is open as long as `connection` lives; `opaque` belongs to libvirt from here
    // on, which gives it to `callback`, and to `free` once nothing uses it any more.
    let id = unsafe {
        ffi::virConnectDomainEventRegisterAny(
            connection.as_ptr(),
            std::ptr::null_mut(),
            event,
            callback,
            opaque,
            Some(free::<T>),
        )
    };
    if id < 0 {
        let error = Error::last_error();
        // SAFETY: a refused registration leaves `opaque` to us, which `into_opaque` made of this type.
        unsafe { free::<T>(opaque) };
        return Err(error);
    }
    Ok(Subscription { connection: connection.clone(), id })
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // SAFETY: `connection` has a reference of its own. A refusal (the connection is gone) means that
        // there is nothing to end.
        unsafe { ffi::virConnectDomainEventDeregisterAny(self.connection.as_ptr(), self.id) };
        let _ = self.connection.close();
    }
}

/// The end of a connection is told as long as it lives.
#[derive(Debug)]
pub struct OnEnd {
    connection: Connect,
}

/// Has `told` called once, in the event loop's thread, when the connection ends without our doing;
/// with a `virConnectCloseReason`. It must return soon, and call nothing of libvirt.
///
/// # Errors
/// When the connection is gone already, or somebody is told of its end.
pub fn on_close(connection: &Connect, told: impl Fn(i32) + Send + Sync + 'static) -> Result<OnEnd, Error> {
    let opaque = into_opaque::<OnClose>(Box::new(told));
    // SAFETY: as in `subscribe`, with `closed`.
    let answer = unsafe {
        ffi::virConnectRegisterCloseCallback(connection.as_ptr(), Some(closed), opaque, Some(free::<OnClose>))
    };
    if let Err(error) = checked(answer) {
        // SAFETY: as in `subscribe`.
        unsafe { free::<OnClose>(opaque) };
        return Err(error);
    }
    Ok(OnEnd { connection: connection.clone() })
}

impl Drop for OnEnd {
    fn drop(&mut self) {
        // SAFETY: `connection` has a reference of its own. A refusal means that the end was told. Without
        // this the connection would be kept open by its own callback.
        unsafe { ffi::virConnectUnregisterCloseCallback(self.connection.as_ptr(), Some(closed)) };
        let _ = self.connection.close();
    }
}

fn into_opaque<T>(callback: T) -> *mut c_void {
    Box::into_raw(Box::new(callback)).cast()
}

/// # Safety
/// `opaque` was made by `into_opaque` of a `T`, and is not used any more.
unsafe extern "C" fn free<T>(opaque: *mut c_void) {
    // SAFETY: as this function demands.
    drop(unsafe { Box::from_raw(opaque.cast::<T>()) });
}

/// # Safety
/// As libvirt calls it: `domain` is valid during the call, `opaque` is what was registered.
unsafe extern "C" fn lifecycle(
    _: ffi::virConnectPtr,
    domain: ffi::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: made by `into_opaque` of this type, and freed only after the last call.
    let told = unsafe { &*opaque.cast::<OnLifecycle>() };
    // SAFETY: the domain is valid during the call.
    if let Some((domain, uuid)) = unsafe { names(domain) } {
        // A panic must not unwind into C.
        let _ = catch_unwind(AssertUnwindSafe(|| told(Lifecycle { domain, uuid, event, detail })));
    }
    0
}

/// # Safety
/// As libvirt calls it: `domain` is valid during the call, `opaque` is what was registered.
unsafe extern "C" fn device(
    _: ffi::virConnectPtr,
    domain: ffi::virDomainPtr,
    _alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: made by `into_opaque` of this type, and freed only after the last call.
    let told = unsafe { &*opaque.cast::<OnDevice>() };
    // SAFETY: the domain is valid during the call.
    if let Some((domain, uuid)) = unsafe { names(domain) } {
        let _ = catch_unwind(AssertUnwindSafe(|| told(domain, uuid)));
    }
}

/// # Safety
/// As libvirt calls it: `domain` and `remote` are valid during the call, `opaque` is what was registered.
unsafe extern "C" fn graphics(
    _: ffi::virConnectPtr,
    domain: ffi::virDomainPtr,
    phase: c_int,
    _local: *const ffi::virDomainEventGraphicsAddress,
    remote: *const ffi::virDomainEventGraphicsAddress,
    _auth_scheme: *const c_char,
    _subject: *const ffi::virDomainEventGraphicsSubject,
    opaque: *mut c_void,
) {
    // SAFETY: made by `into_opaque` of this type, and freed only after the last call.
    let told = unsafe { &*opaque.cast::<OnGraphics>() };
    // SAFETY: the domain is valid during the call.
    let names = unsafe { names(domain) };
    // SAFETY: null, or valid during the call.
    let remote = unsafe { remote.as_ref() };
    if let (Some((domain, uuid)), Some(remote)) = (names, remote) {
        let part = |kept| text(kept).unwrap_or_default();
        let viewer = Viewer { family: remote.family, node: part(remote.node), service: part(remote.service) };
        let _ = catch_unwind(AssertUnwindSafe(|| told(Graphics { domain, uuid, phase, viewer })));
    }
}

/// Name and UUID.
///
/// # Safety
/// `domain` is valid.
unsafe fn names(domain: ffi::virDomainPtr) -> Option<(String, String)> {
    // SAFETY: as this function demands.
    let name = text(unsafe { ffi::virDomainGetName(domain) })?;
    let mut uuid = [0; UUID_TEXT];
    // SAFETY: as above, and there is room for a UUID as text. No question is sent: the domain knows.
    let known = unsafe { ffi::virDomainGetUUIDString(domain, uuid.as_mut_ptr()) };
    if known == 0 { Some((name, text(uuid.as_ptr())?)) } else { None }
}

/// # Safety
/// As libvirt calls it: `opaque` is what was registered.
unsafe extern "C" fn closed(_: ffi::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: made by `into_opaque` of this type, and freed only after the call.
    let told = unsafe { &*opaque.cast::<OnClose>() };
    let _ = catch_unwind(AssertUnwindSafe(|| told(reason)));
}

/// A copy of a text that libvirt keeps.
fn text(kept: *const c_char) -> Option<String> {
    if kept.is_null() {
        return None;
    }
    // SAFETY: not null, and libvirt ends its texts with a zero.
    Some(unsafe { CStr::from_ptr(kept) }.to_string_lossy().into_owned())
}
