//! What the guest's balloon driver counts.

use std::{collections::BTreeMap, time::Duration};

use dormouse_platform::Faults;
use dormouse_sys::libvirt::{self as more, Value};
use dormouse_types::Timestamp;
use roxmltree::Document;

use super::{Inner, measure::NOWAIT};
use crate::{clock::now, hub::Lane};

/// `VIR_DOMAIN_STATS_BALLOON`
const BALLOON: u32 = 4;
/// The balloon driver is asked so often, if its domain's definition does not say; in seconds.
const PERIOD: i32 = 5;
/// A count that is older than this may be the only one.
const OLD: Duration = Duration::from_secs(2 * PERIOD.unsigned_abs() as u64);
/// `VIR_DOMAIN_AFFECT_LIVE`: the definition stays as it is.
const LIVE: u32 = 1;

impl Inner {
    /// `None` of a guest without a balloon driver that says it.
    pub(super) async fn count_faults(&self) -> Option<Faults> {
        let asked = self.ask(Lane::Guest, |domain| {
            let told = more::stats(domain, BALLOON, NOWAIT)?;
            let counted = faults(&told);
            // The first count is made when the driver begins, whether or not there is to be another.
            let is_old = counted.is_none_or(|faults| now().since(faults.at) > OLD);
            if is_old && told.contains_key("balloon.current") && !counts(&domain.get_xml_desc(0)?) {
                domain.set_memory_stats_period(PERIOD, LIVE)?;
            }
            Ok(counted)
        });
        asked.await.unwrap_or_else(|error| {
            tracing::debug!(domain = self.who.name, ?error, "its guest's balloon driver is not asked");
            None
        })
    }
}

/// Is the balloon driver of the domain with this XML asked from time to time (`<stats period='10'/>`)?
fn counts(xml: &str) -> bool {
    let Ok(document) = Document::parse(xml) else { return false };
    let mut stats = document.descendants().filter(|node| node.has_tag_name("stats"));
    stats.any(|node| node.attribute("period").is_some_and(|period| period != "0"))
}

/// `balloon.major_fault` at `balloon.last-update`, in seconds, which is zero until the driver has answered once.
fn faults(told: &BTreeMap<String, Value>) -> Option<Faults> {
    let seconds = told.get("balloon.last-update").and_then(Value::count).filter(|seconds| *seconds > 0)?;
    let count = told.get("balloon.major_fault").and_then(Value::count)?;
    Some(Faults { at: Timestamp(seconds.saturating_mul(1_000_000_000)), count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_balloon_driver_counted() {
        let told = |update, faults| {
            let update = ("balloon.last-update".to_owned(), Value::Unsigned(update));
            BTreeMap::from([update, ("balloon.major_fault".to_owned(), Value::Unsigned(faults))])
        };
        let counted = Faults { at: Timestamp(1_795_291_787_000_000_000), count: 7 };
        assert_eq!(faults(&told(1_795_291_787, 7)), Some(counted));
        assert_eq!(faults(&told(0, 0)), None);
        assert_eq!(faults(&BTreeMap::new()), None);
        let xml = |stats| format!("<domain><devices><memballoon>{stats}</memballoon></devices></domain>");
        assert!(counts(&xml("<stats period='10'/>")));
        assert!(!counts(&xml("<stats period='0'/>")) && !counts(&xml("")) && !counts("<domain"));
    }
}
