//! Machines that are woken at the same time, with processes that stand by and without.
#![allow(missing_docs, clippy::unwrap_used, reason = "helpers of tests")]

use dormouse_e2e::{LONG, STANDBY};
use dormouse_lab::{Crowd, wait_until};

const GUESTS: u8 = 8;

#[test]
fn all_wake_at_once_each_as_it_was() {
    // Room for five: the others wake without.
    let config = STANDBY.replace("256MiB", "160MiB");
    let crowd = Crowd::boot("parallel", &config, GUESTS, "96MiB").unwrap();
    let boots = crowd.boots().unwrap();
    for round in 0..3 {
        crowd.sleep().unwrap();
        let standing_by = || {
            let all = crowd.guests.iter().map(|guest| crowd.daemon.show(guest.name()));
            let all = all.collect::<Result<Vec<_>, _>>()?;
            Ok(all.iter().filter(|machine| machine.summary.standby_bytes.is_some()).count())
        };
        if round > 0 {
            wait_until("two standbys", LONG, || Ok(standing_by()? >= 2)).unwrap();
        }
        let count = standing_by().unwrap();
        let woken = crowd.wake().unwrap();
        println!("{GUESTS} at once, {count} with a standby: {:?}", woken.took);
        assert!(woken.pages.iter().all(|page| page.status == 200), "{woken:?}");
        assert_eq!(crowd.boots().unwrap(), boots);
    }
}
