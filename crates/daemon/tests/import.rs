//! Domains that others have defined become machines.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;

use common::{Bench, WEB_MAC, World, create, web, within};
use dormouse_api_types::{
    CheckStatus, ImportReport, ImportRequest, ImportStatus, MachineState, Problem, ProblemKind,
};
use dormouse_daemon::driver::Order;
use dormouse_machine::lifecycle::Process;
use dormouse_platform::{Activity, Candidate, Joined, Notice, Obstacle};
use dormouse_types::{Depth, MacAddr};

fn domain(name: &str, last_octet: u8) -> Candidate {
    let mac = MacAddr([0x52, 0x54, 0, 0, 0, last_octet]);
    Candidate {
        name: name.into(),
        uuid: Some(format!("c7a5fdbd-edaf-9455-926a-d65c16db18{last_octet:02x}")),
        activity: Activity::Running,
        memory: 64 << 20,
        interfaces: vec![Joined {
            mac,
            bridge: "br0".into(),
            addresses: vec![[10, 9, 0, last_octet].into()],
        }],
        unjoined: Vec::new(),
        obstacles: vec![],
    }
}

async fn bench(domains: Vec<Candidate>) -> (tempfile::TempDir, Bench) {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::start(dir.path()).await;
    bench.world.define(domains);
    (dir, bench)
}

fn named(names: &[&str]) -> ImportRequest {
    ImportRequest { names: names.iter().map(|&name| name.into()).collect(), ..ImportRequest::default() }
}

fn all() -> ImportRequest {
    ImportRequest { all: true, ..ImportRequest::default() }
}

fn statuses(report: &ImportReport) -> Vec<(&str, ImportStatus)> {
    report.domains.iter().map(|domain| (&*domain.domain, domain.status)).collect()
}

fn problem(report: &ImportReport, nth: usize) -> &Problem {
    report.domains[nth].problem.as_ref().unwrap()
}

#[tokio::test]
async fn a_running_domain_is_an_active_machine_with_the_addresses_that_are_known_of_it() {
    let (_dir, bench) = bench(vec![domain("web", 2)]).await;
    bench.world.set(Process::Running, false);
    let report = bench.host.import(named(&["web"])).await.unwrap();
    assert_eq!(statuses(&report), [("web", ImportStatus::Imported)]);
    bench.wait_state(MachineState::Active).await;
    let detail = bench.host.show(&web()).await.unwrap();
    assert_eq!(detail.interfaces[0].addresses, ["10.9.0.2".parse::<std::net::IpAddr>().unwrap()]);
    assert!(detail.toml.contains("[libvirt]\ndomain = \"web\""), "{}", detail.toml);
    assert_eq!(Some(detail.toml), report.domains[0].toml);
}

#[tokio::test]
async fn what_others_have_stopped_is_left_as_it_is() {
    for (activity, process, saved, state) in [
        (Activity::Off, Process::Absent, false, MachineState::Stopped),
        (Activity::Suspended, Process::Still, false, MachineState::Suspended),
        (Activity::Saved, Process::Absent, true, MachineState::Asleep),
    ] {
        let (_dir, bench) = bench(vec![Candidate { activity, ..domain("web", 2) }]).await;
        bench.world.set(process, saved);
        bench.host.import(all()).await.unwrap();
        bench.wait_state(state).await;
        assert_eq!(bench.world.process(), process, "{activity:?}");
    }
}

#[tokio::test]
async fn one_who_is_created_by_hand_is_found_as_others_have_left_it() {
    let (_dir, bench) = bench(vec![]).await;
    bench.world.set(Process::Still, false);
    let file = "name = \"web\"\nlibvirt = { domain = \"web\" }\n";
    bench.host.create(create(file)).await.unwrap();
    bench.wait_state(MachineState::Suspended).await;
    assert_eq!(bench.world.process(), Process::Still);
}

#[tokio::test]
async fn what_is_wrong_with_one_is_told_of_it_and_the_others_are_imported() {
    let bars = Obstacle::to(&Depth::ALL, "interface", "it is a macvtap").fix("use a bridge");
    let macvtap = Candidate { obstacles: vec![bars], ..domain("macvtap", 3) };
    let twin = Candidate { name: "twin".into(), uuid: None, ..domain("web", 2) };
    let (_dir, bench) = bench(vec![domain("web", 2), domain("My VM", 4), macvtap, twin]).await;
    let rehearsal = bench.host.importable(None).await.unwrap();
    let expected = [
        ("web", ImportStatus::Importable),
        ("My VM", ImportStatus::Refused),
        ("macvtap", ImportStatus::Refused),
        ("twin", ImportStatus::Refused),
    ];
    assert_eq!(statuses(&rehearsal), expected);
    assert!(bench.host.list().await.is_empty());
    let report = bench.host.import(all()).await.unwrap();
    assert_eq!(statuses(&report)[0], ("web", ImportStatus::Imported));
    for report in [&rehearsal, &report] {
        assert!(problem(report, 1).fix.as_ref().unwrap().contains("--as my-vm"));
        assert_eq!(problem(report, 2).kind, ProblemKind::Refused);
        assert_eq!(problem(report, 2).fix.as_deref(), Some("use a bridge"));
        assert_eq!(problem(report, 3).key.as_deref(), Some("interface[1].mac"));
    }
    let request = ImportRequest { machine: Some("vm".into()), ..named(&["My VM"]) };
    assert_eq!(statuses(&bench.host.import(request).await.unwrap()), [("My VM", ImportStatus::Imported)]);
}

#[tokio::test]
async fn a_domain_is_one_machine_only() {
    let (_dir, bench) = bench(vec![domain("web", 2)]).await;
    bench.host.import(all()).await.unwrap();
    let again = bench.host.import(named(&["web"])).await.unwrap();
    assert_eq!(statuses(&again), [("web", ImportStatus::Known)]);
    assert_eq!(problem(&again, 0).kind, ProblemKind::Exists);
    // For who means all, it is as it should be.
    let all = bench.host.import(all()).await.unwrap();
    assert_eq!((statuses(&all), &all.domains[0].problem), (vec![("web", ImportStatus::Known)], &None));
    // Renamed, it is the same.
    bench.world.define(vec![Candidate { name: "shop".into(), ..domain("web", 2) }]);
    let renamed = bench.host.import(named(&["shop"])).await.unwrap();
    assert_eq!(renamed.domains[0].machine, Some(web()));
    let uuid = domain("web", 2).uuid.unwrap();
    let file = format!("name = \"other\"\n[libvirt]\ndomain = \"web\"\nuuid = {uuid:?}\n");
    let refused = bench.host.create(create(&file)).await.unwrap_err();
    assert_eq!((refused.kind, refused.key.as_deref()), (ProblemKind::Exists, Some("libvirt.domain")));
}

#[tokio::test]
async fn a_name_that_is_taken_can_be_chosen_otherwise() {
    let (_dir, bench) = bench(vec![domain("web", 4)]).await;
    bench.host.create(create("name = \"web\"\nlibvirt = { domain = \"another\" }\n")).await.unwrap();
    let report = bench.host.import(named(&["web"])).await.unwrap();
    assert_eq!(problem(&report, 0).key.as_deref(), Some("name"));
    assert!(problem(&report, 0).fix.as_ref().unwrap().contains("--as"));
}

#[tokio::test]
async fn requests_that_contradict_themselves_are_refused() {
    let (_dir, bench) = bench(vec![domain("web", 2)]).await;
    let both = ImportRequest { all: true, ..named(&["web"]) };
    let two = ImportRequest { machine: Some("x".into()), ..named(&["web", "db"]) };
    for (request, key) in [(ImportRequest::default(), "names"), (both, "all"), (two, "as")] {
        let refused = bench.host.import(request).await.unwrap_err();
        assert_eq!((refused.kind, refused.key.as_deref()), (ProblemKind::Invalid, Some(key)));
    }
    let away = ImportRequest { uri: Some("qemu:///system".into()), ..all() };
    let away = bench.host.import(away).await.unwrap_err();
    assert_eq!(away.kind, ProblemKind::Unavailable);
    assert!(away.fix.is_some());
    let missing = bench.host.import(named(&["nobody"])).await.unwrap();
    assert_eq!(problem(&missing, 0).kind, ProblemKind::NotFound);
}

#[tokio::test]
async fn whose_session_is_looked_at_is_told() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let bench = Bench::start_with(dir.path(), world, "libvirt.uri = \"qemu:///session\"\n").await;
    let note = bench.host.importable(None).await.unwrap().note;
    assert!(note.as_ref().is_some_and(|note| note.contains("as whom dormoused runs")), "{note:?}");
    let (_dir, bench) = self::bench(vec![domain("web", 2)]).await;
    assert_eq!(bench.host.importable(None).await.unwrap().note, None);
}

#[tokio::test]
async fn doctor_says_what_a_machine_reaches_and_what_is_known_of_its_interfaces() {
    let (_dir, bench) = bench(vec![domain("web", 2)]).await;
    bench.world.set(Process::Running, false);
    bench.host.import(all()).await.unwrap();
    bench.wait_state(MachineState::Active).await;
    let report = bench.host.examine(&web()).await.unwrap();
    let status = |name: &str| report.checks.iter().find(|check| check.name == name).map(|check| check.status);
    assert_eq!(status("state"), Some(CheckStatus::Ok));
    for depth in Depth::ALL {
        assert_eq!(status(&format!("depth {depth}")), Some(CheckStatus::Ok));
    }
    assert_eq!(status(&format!("interface {WEB_MAC}")), Some(CheckStatus::Ok));
    // There is no such bridge on the host of this test.
    assert_eq!(status("bridge br0"), Some(CheckStatus::Fail));
    let nobody = bench.host.examine(&"nobody".parse().unwrap()).await.unwrap_err();
    assert_eq!(nobody.kind, ProblemKind::NotFound);
}

#[tokio::test]
async fn one_that_no_packet_can_wake_is_told_of() {
    let (_dir, bench) = bench(vec![Candidate { interfaces: vec![], ..domain("web", 2) }]).await;
    bench.world.set(Process::Running, false);
    let report = bench.host.import(all()).await.unwrap();
    let imported = &report.domains[0];
    assert!(imported.obstacles.iter().any(|note| note.reason.contains("never")), "{imported:?}");
    let next = imported.next.as_deref();
    assert_eq!(next, Some("it sleeps (saved) by `dormouse sleep web` alone; `dormouse wake web` wakes it"));
    bench.wait_state(MachineState::Active).await;
    assert_eq!(bench.host.why(&web()).await.unwrap().would_wake, [""; 0]);
}

#[tokio::test]
async fn what_comes_next_is_told_as_it_is_found() {
    let sleeps = "it sleeps (saved) after 10m idle";
    let wakes = "what comes for it wakes it (any-unicast)";
    for (activity, next) in [
        (Activity::Running, format!("{sleeps}; {wakes}")),
        (Activity::Saved, format!("it is asleep; {wakes}; then {sleeps}")),
        (Activity::Off, format!("`dormouse start web` starts it; then {sleeps}; {wakes}")),
        (Activity::Suspended, format!("it is left suspended until others resume it; then {sleeps}; {wakes}")),
    ] {
        let (_dir, bench) = bench(vec![Candidate { activity, ..domain("web", 2) }]).await;
        let report = bench.host.importable(None).await.unwrap();
        assert_eq!(report.domains[0].next.as_ref(), Some(&next));
    }
}

#[tokio::test]
async fn doctor_warns_of_one_that_falls_asleep_and_that_no_packet_can_wake() {
    for (idle_after, status) in [("5m", CheckStatus::Warn), ("never", CheckStatus::Ok)] {
        let (_dir, bench) = bench(vec![]).await;
        bench.world.set(Process::Still, false);
        let file = format!(
            "name = \"web\"\nlibvirt = {{ domain = \"shop\" }}\nsleep.idle_after = \"{idle_after}\"\n"
        );
        bench.host.create(create(&file)).await.unwrap();
        bench.wait_state(MachineState::Suspended).await;
        let report = bench.host.examine(&web()).await.unwrap();
        let check = |name: &str| report.checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(check("interfaces").status, status, "{idle_after}");
        // None of Dormouse's commands lets it run on, so that none is named.
        let fix = check("state").fix.as_deref().unwrap();
        assert!(fix.contains("virsh resume \"shop\"") && fix.contains("virsh dompmwakeup \"shop\""), "{fix}");
        assert!(!fix.contains("dormouse"), "{fix}");
    }
}

#[tokio::test]
async fn a_definition_that_others_change_is_followed_once_nothing_is_going_on() {
    let (_dir, bench) = bench(vec![domain("web", 2)]).await;
    bench.world.set(Process::Running, false);
    bench.host.import(all()).await.unwrap();
    bench.wait_state(MachineState::Active).await;
    bench.order(Order::Sleep { depth: None }).await.unwrap();
    let mut shop = Candidate { name: "shop".into(), ..domain("web", 2) };
    shop.interfaces.push(domain("web", 7).interfaces.remove(0));
    bench.world.define(vec![shop]);
    bench.platform.send(Notice::Redefined(web())).await.unwrap();
    // It is answered for as it fell asleep.
    bench.wait_warning("it is domain shop now").await;
    let asleep = bench.host.show(&web()).await.unwrap();
    assert_eq!((asleep.summary.state, asleep.interfaces.len()), (MachineState::Asleep, 1));
    bench.order(Order::Wake).await.unwrap();
    within("the new file", async {
        while bench.host.show(&web()).await.unwrap().interfaces.len() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
    bench.wait_state(MachineState::Active).await;
    let detail = bench.host.show(&web()).await.unwrap();
    assert!(detail.toml.contains("domain = \"shop\""), "{}", detail.toml);
    // It is driven on.
    bench.order(Order::Sleep { depth: None }).await.unwrap();
    assert_eq!(bench.state().await, MachineState::Asleep);
}

#[tokio::test]
async fn a_definition_that_takes_the_address_of_another_machine_is_told_of_and_not_followed() {
    let (_dir, bench) = bench(vec![domain("web", 2), domain("db", 3)]).await;
    bench.world.set(Process::Running, false);
    bench.host.import(all()).await.unwrap();
    bench.wait_state(MachineState::Active).await;
    let mut thief = domain("web", 2);
    thief.interfaces = domain("db", 3).interfaces;
    bench.world.define(vec![thief, domain("db", 3)]);
    bench.platform.send(Notice::Redefined(web())).await.unwrap();
    bench.wait_warning("cannot follow").await;
    assert_eq!(bench.host.show(&web()).await.unwrap().interfaces[0].mac, WEB_MAC);
}
