//! The persistent definition of a domain that wants a RAM file: what is put into it, and taken out again.
//!
//! It is put in ahead of a start, so that whoever starts the domain starts it so; but only where nothing is known
//! to keep QEMU from the file: nobody is told of another's start that fails. What a start of ours finds to be in
//! the way is taken out at once, and the domain started without.

use std::sync::{Arc, Weak, atomic::Ordering};

use dormouse_platform::{Error, Obstacle, saved};
use tokio::sync::watch;
use virt::{connect::Connect, domain::Domain as Handle, error::ErrorNumber};
use virt_sys as ffi;

use super::{
    Inner, Who,
    ram_file::{OTHER_FILE, blocking},
};
use crate::{
    hub::{CallError, Lane},
    ram_file as files,
    xml::Description,
};

/// How often a definition that others change meanwhile is read anew.
const TRIES: usize = 5;

const PERSISTENT: u32 = ffi::VIR_DOMAIN_XML_INACTIVE | ffi::VIR_DOMAIN_XML_SECURE;

const OURS: &str = "its memory is a file of ours (save = \"ram-file\"); `save = \"managed\"` undoes it";
const THEIRS: &str = "its memory is libvirt's again";

/// What is the case before a start.
struct Found {
    is_active: bool,
    /// What it starts from is not the definition.
    is_saved: bool,
    is_persistent: bool,
    /// The definition, for its next start.
    xml: String,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defined {
    Done,
    /// Others changed it since it was read, which stays so.
    Otherwise,
}

impl Inner {
    /// Has the definition ready for whoever starts the domain, from now on.
    pub(super) fn keep_definition(self: &Arc<Self>) {
        if self.ram_file.is_wanted || self.ram_file.files.0.path().exists() {
            tokio::spawn(keep(Arc::downgrade(self), self.changed.subscribe()));
        }
    }

    /// Before a boot of ours, with `defining` held: the definition is as the machine's file wants it, and the memory
    /// is empty. Does it boot on a RAM file?
    pub(super) async fn ready_ram_file(&self) -> Result<bool, Error> {
        for _ in 0..TRIES {
            if let Some(is_ready) = self.try_ready(false).await? {
                return Ok(is_ready);
            }
        }
        let source = "others change its definition again and again".into();
        Err(Error::Refused { whom: "libvirt", action: self.action("define"), source })
    }

    /// As soon as it may be: the same for starts of others.
    async fn ready_ahead(&self) -> Result<(), Error> {
        let _defining = self.ram_file.defining.lock().await;
        if self.is_asleep_beside_ram_file() || self.ram_file.is_erased.load(Ordering::Relaxed) {
            return Ok(());
        }
        // Changed once more, it is told once more.
        self.try_ready(true).await.map(drop)
    }

    /// Its memory is in the file, which is not to be touched.
    fn is_asleep_beside_ram_file(&self) -> bool {
        let dir = &self.ram_file.files.0;
        saved::exists(dir) || saved::taken(dir)
    }

    /// `None`: others changed the definition meanwhile.
    async fn try_ready(&self, is_ahead: bool) -> Result<Option<bool>, Error> {
        let found = self.definition_now().await?;
        let has = files::has_ram_file(&found.xml);
        let wanted = self.ram_file.is_wanted;
        if found.is_saved || !(wanted || has) {
            return Ok(Some(false));
        }
        let description = Description::from_xml(&found.xml).map_err(|e| Error::Unsupported(e.to_string()))?;
        let bar = files::obstacle(&description, &found.xml).map(str::to_owned);
        let bar = bar.or_else(|| self.ram_file.refused().clone()).filter(|_| wanted);
        if let Some(why) = bar.as_ref().filter(|_| !is_ahead) {
            tracing::warn!(
                domain = self.who.name,
                why,
                "save = \"ram-file\" cannot be: managed save is used"
            );
        }
        if !wanted || !found.is_persistent || bar.is_some() {
            // A transient domain has no definition that a start of ours would read.
            let changed =
                if has && found.is_persistent { files::without(&found.xml) } else { return Ok(Some(false)) };
            return Ok((self.redefine(found.xml, changed, THEIRS).await? == Defined::Done).then_some(false));
        }
        let (ram, size) = (self.ram_file.files.0.ram(), description.memory);
        let capabilities = self.host_capabilities().await?;
        let owner = files::owner(&capabilities, &description.kind);
        let is_current = files::is_current(&found.xml, &ram, size);
        if is_ahead && !is_current && self.doubt(&capabilities, owner).is_some() {
            return Ok(Some(false));
        }
        // First the file: whoever starts it finds it.
        self.ready_file(is_ahead, found.is_active, size, owner).await?;
        if !is_current {
            let changed = files::with_ram_file(&found.xml, &ram, size);
            if self.redefine(found.xml, changed, OURS).await? == Defined::Otherwise {
                return Ok(None);
            }
        }
        Ok(Some(true))
    }

    async fn ready_file(
        &self,
        is_ahead: bool,
        is_active: bool,
        size: u64,
        owner: Option<(u32, u32)>,
    ) -> Result<(), Error> {
        let files = self.ram_file.files.clone();
        // The memory of who runs is left alone.
        if is_ahead && ((is_active && files.0.ram().exists()) || files.has_empty_ram(size, owner)) {
            return Ok(());
        }
        // It may fall asleep just now; and no longer than this, for who looks at it meanwhile looks at half of it.
        let _busy = if is_ahead { Some(self.ram_file.busy.lock().await) } else { None };
        if is_ahead && self.is_asleep_beside_ram_file() {
            return Ok(());
        }
        blocking(move || files.make_ram(size, owner)).await
    }

    /// What libvirt says of its host; asked once, for it may probe QEMU first, for seconds.
    pub(super) async fn host_capabilities(&self) -> Result<Arc<str>, Error> {
        if let Some(known) = self.ram_file.host().clone() {
            return Ok(known);
        }
        let told = self.hub.call(Lane::Guest, |connect| Ok(connect.get_capabilities()?)).await;
        let told: Arc<str> = told.map_err(self.failed("find who runs"))?.into();
        *self.ram_file.host() = Some(Arc::clone(&told));
        Ok(told)
    }

    /// Why it is not known that QEMU can open the file.
    fn doubt(&self, capabilities: &str, owner: Option<(u32, u32)>) -> Option<String> {
        if let Some(model) = files::confinement(capabilities) {
            return Some(format!("{model} may keep QEMU from it"));
        }
        let Some(owner) = owner else { return Some("libvirt does not say as whom it runs QEMU".into()) };
        let closed = self.ram_file.files.closed_to(owner)?;
        Some(format!("QEMU, as user {} and group {}, cannot pass {}", owner.0, owner.1, closed.display()))
    }

    /// It started without the RAM file, and not with it.
    pub(super) fn ram_file_is_refused(&self, why: &CallError) {
        let why = match why {
            CallError::Said { message, .. } => message.clone(),
            other => format!("{other:?}"),
        };
        let why = format!("QEMU could not start with it: {}", why.trim());
        tracing::warn!(domain = self.who.name, why, "save = \"ram-file\" is given up: managed save is used");
        *self.ram_file.refused() = Some(why);
    }

    /// The definition is its user's alone; gone, it stays gone.
    pub(super) async fn take_ram_file_out(&self) -> Result<(), Error> {
        for _ in 0..TRIES {
            let xml = match self.ask(Lane::Quick, |domain| Ok(domain.get_xml_desc(PERSISTENT)?)).await {
                Err(error) if super::is_missing(&error) => return Ok(()),
                xml => xml.map_err(self.failed("describe"))?,
            };
            if !files::has_ram_file(&xml) {
                return Ok(());
            }
            let changed = files::without(&xml);
            if self.redefine(xml, changed, THEIRS).await? == Defined::Done {
                return Ok(());
            }
        }
        let source = "others change its definition again and again".into();
        Err(Error::Refused { whom: "libvirt", action: self.action("define"), source })
    }

    async fn definition_now(&self) -> Result<Found, Error> {
        let found = self.ask(Lane::Quick, |domain| {
            Ok(Found {
                is_active: domain.is_active()?,
                is_saved: domain.has_managed_save(0)?,
                is_persistent: domain.is_persistent()?,
                xml: domain.get_xml_desc(PERSISTENT)?,
            })
        });
        found.await.map_err(self.failed("describe"))
    }

    async fn redefine(&self, before: String, xml: Option<String>, why: &str) -> Result<Defined, Error> {
        let Some(xml) = xml else {
            return Err(Error::Unsupported(format!(
                "save = \"ram-file\": the definition of domain {} cannot be changed: its prefix `qemu` is another's",
                self.who.name
            )));
        };
        let who = self.who.clone();
        let defined = self.hub.call(Lane::Deed, move |connect| define(connect, &who, &before, &xml)).await;
        let defined = defined.map_err(self.failed("define"))?;
        match defined {
            Defined::Done => tracing::warn!(domain = self.who.name, "its definition is changed: {why}"),
            Defined::Otherwise => {
                tracing::info!(domain = self.who.name, "others change its definition as well")
            }
        }
        Ok(defined)
    }

    /// What is to be known of its RAM file, if its machine's file wants one.
    pub(super) async fn ram_file_obstacle(&self) -> Option<Obstacle> {
        const WHAT: &str = "save = \"ram-file\"";
        if !self.ram_file.is_wanted {
            return None;
        }
        let ram = self.ram_file.files.0.ram();
        if let Some(why) = self.ram_file.refused().clone() {
            let fix = format!(
                "let QEMU open {0} (modes of the folders above it; AppArmor: `{0} rwk,` in \
                 /etc/apparmor.d/local/abstractions/libvirt-qemu; SELinux: type svirt_image_t), restart dormoused, \
                 then stop and start the machine",
                ram.display()
            );
            return Some(Obstacle::warning(WHAT, format!("managed save is used: {why}")).fix(fix));
        }
        let live = self.ask(Lane::Quick, |domain| Ok((domain.is_active()?, domain.get_xml_desc(0)?)));
        let (is_active, live) = live.await.ok()?;
        if let Some(why) = files::obstacle(&Description::from_xml(&live).ok()?, &live) {
            return Some(Obstacle::warning(WHAT, format!("managed save is used: {why}")));
        }
        if is_active && files::has_ram_file(&live) {
            let pid = self.pid().await?;
            let is_other = !self.ram_file.files.is_memory_of(pid);
            return is_other.then(|| Obstacle::warning(WHAT, format!("managed save is used: {OTHER_FILE}")));
        }
        self.without_ram_file(is_active).await
    }

    /// It runs without one, or would be started so.
    async fn without_ram_file(&self, is_active: bool) -> Option<Obstacle> {
        let found = self.definition_now().await.ok()?;
        let now = "managed save is used: this run was started without one";
        let description = Description::from_xml(&found.xml).ok()?;
        if files::is_current(&found.xml, &self.ram_file.files.0.ram(), description.memory) {
            let fix = "shut it down and start it, by whatever tool";
            return is_active.then(|| {
                Obstacle::warning("save = \"ram-file\"", format!("{now}, the next has one")).fix(fix)
            });
        }
        let capabilities =
            self.hub.call(Lane::Quick, |connect| Ok(connect.get_capabilities()?)).await.ok()?;
        let doubt = self.doubt(&capabilities, files::owner(&capabilities, &description.kind));
        let doubt = doubt.unwrap_or_else(|| "its definition is not changed yet".into());
        let mut why =
            format!("only `dormouse start` gives it one, and finds out whether QEMU can open it: {doubt}");
        if is_active {
            why = format!("{now}; {why}");
        }
        let fix = format!("dormouse stop {0}, then dormouse start {0}", self.machine);
        Some(Obstacle::warning("save = \"ram-file\"", why).fix(fix))
    }
}

/// Defines `xml` in place of `before`, if that is what is defined still. libvirt has no such call: what others
/// define in the instant between the two is lost.
fn define(connect: &Connect, who: &Who, before: &str, xml: &str) -> Result<Defined, CallError> {
    let domain = who.find(connect)?;
    if !domain.is_persistent()? {
        let message = "its definition was removed by another client of libvirt".into();
        return Err(CallError::Said { code: ErrorNumber::NoDomain, message });
    }
    if domain.get_xml_desc(PERSISTENT)? != before {
        return Ok(Defined::Otherwise);
    }
    Handle::define_xml(connect, xml)?;
    Ok(Defined::Done)
}

/// Looks again whenever something has happened to the domain.
async fn keep(domain: Weak<Inner>, mut changed: watch::Receiver<u64>) {
    loop {
        let Some(inner) = domain.upgrade() else { return };
        changed.borrow_and_update();
        if let Err(error) = inner.ready_ahead().await {
            tracing::debug!(domain = inner.who.name, %error, "its definition is not made ready");
        }
        drop(inner);
        if changed.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URI: &str = "test:///default";

    fn xml(name: &str, title: &str) -> String {
        format!(
            "<domain type='test'><name>{name}</name><title>{title}</title><memory unit='MiB'>64</memory>\
             <vcpu>1</vcpu><os><type>hvm</type></os></domain>"
        )
    }

    #[test]
    fn what_others_define_or_undefine_meanwhile_stays_so() {
        let (ours, theirs) = (Connect::open(Some(URI)).unwrap(), Connect::open(Some(URI)).unwrap());
        let who = Who { name: "raced".into(), uuid: None };
        let now = |domain: &Handle| domain.get_xml_desc(PERSISTENT).unwrap();
        let domain = Handle::define_xml(&theirs, &xml("raced", "first")).unwrap();
        let before = now(&domain);
        let changed = before.replace("first", "ours");
        // Somebody edits it after it was read.
        Handle::define_xml(&theirs, &before.replace("first", "theirs")).unwrap();
        assert_eq!(define(&ours, &who, &before, &changed).unwrap(), Defined::Otherwise);
        assert!(now(&domain).contains("theirs"));
        // Read anew, it is changed.
        let before = now(&domain);
        assert_eq!(define(&ours, &who, &before, &before.replace("theirs", "both")).unwrap(), Defined::Done);
        assert!(now(&domain).contains("both"));
        // Somebody undefines it: it does not come back.
        let before = now(&domain);
        domain.undefine().unwrap();
        let gone = define(&ours, &who, &before, &before).unwrap_err();
        assert_eq!(gone.code(), Some(ErrorNumber::NoDomain));
        assert!(who.find(&theirs).is_err());
        // Undefined while it runs, it is there, and is not made persistent again.
        let domain = Handle::define_xml(&theirs, &xml("raced", "runs")).unwrap();
        let before = now(&domain);
        domain.create().unwrap();
        domain.undefine().unwrap();
        assert_eq!(define(&ours, &who, &before, &before).unwrap_err().code(), Some(ErrorNumber::NoDomain));
        assert!(!domain.is_persistent().unwrap());
        domain.destroy().unwrap();
    }
}
