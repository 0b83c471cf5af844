//! A driver between a scripted platform, a scripted surrogate and a real registry.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::{net::IpAddr, time::Duration};

use common::{Bench, SLEEP, WEB_MAC, create, file, hold, unaddressed_file, web, within};
use dormouse_api_types::{EventKind, MachineState, ProblemKind, Why};
use dormouse_daemon::{
    clock::{Clock as _, SystemClock},
    driver::Order,
};
use dormouse_machine::lifecycle::Process;
use dormouse_surrogate::{ExternalRule, Notice};
use dormouse_types::{Depth, LeasePolicy, Service, ServiceKind};
use dormouse_wire::Persona;

const SAVE: [&str; 8] =
    ["journal:settling", "capture", "drain", "save", "stand-in", "flush", "journal:asleep", "quit"];
const WAKE: [&str; 6] = ["prepare", "load", "journal:waking", "resume", "release", "journal:active"];

#[tokio::test]
async fn sleeps_and_wakes_step_by_step() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    let given = bench.order(SLEEP).await.unwrap();
    assert_eq!((given.settled, given.outcome.state), (true, MachineState::Asleep));
    assert_eq!(given.outcome.depth, Some(Depth::Saved));
    assert_eq!(bench.world.take_calls(), SAVE);
    let told = bench.events().pop().unwrap();
    assert_eq!((told.kind, told.to), (EventKind::State, Some(MachineState::Asleep)));
    assert_eq!(told.figures["freed_bytes"], f64::from(64 << 20));
    assert!(told.figures.contains_key("took_ms") && told.figures.contains_key("save_ms"));

    bench.packet();
    bench.wait_state(MachineState::Active).await;
    bench.order(Order::Wake).await.unwrap();
    assert_eq!(bench.world.take_calls(), WAKE);
    let told = bench.events().pop().unwrap();
    assert_eq!((told.from, told.to), (Some(MachineState::Waking), Some(MachineState::Active)));
    assert_eq!(told.cause.unwrap(), "packet: tcp 10.9.0.1:40000 > 10.9.0.2:80 [S]");
    assert_eq!((told.figures["replayed_frames"], told.figures["handover_ebpf"]), (3.0, 1.0));
    let why = bench.host.why(&web()).await.unwrap().last_wake.unwrap();
    assert_eq!(why.cause, "packet");
    assert_eq!(why.frame.unwrap(), "tcp 10.9.0.1:40000 > 10.9.0.2:80 [S]");
}

#[tokio::test]
async fn the_journal_is_written_while_a_process_loads() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.order(SLEEP).await.unwrap();
    bench.world.gate("load");
    bench.world.gate("journal:waking");
    let order = bench.order_later(Order::Wake);
    bench.world.reached("load").await;
    bench.platform.send(dormouse_platform::Notice::Spawned(web())).await.unwrap();
    bench.world.reached("journal:waking").await;
    bench.world.let_go("load");
    bench.world.let_go("journal:waking");
    within("the order", order).await.unwrap().unwrap();
    assert_eq!(bench.world.process(), Process::Running);
}

#[tokio::test]
async fn a_packet_turns_a_sleep_round_whose_state_is_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.world.gate("save");
    let order = bench.order_later(SLEEP);
    bench.world.reached("save").await;
    bench.packet();
    let problem = within("the order", order).await.unwrap().unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Refused);
    assert!(problem.detail.contains("packet: tcp 10.9.0.1:40000"), "{}", problem.detail);
    assert_eq!(bench.state().await, MachineState::Active);
    let calls = bench.world.take_calls();
    assert!(calls.contains(&"hurry".into()) && calls.contains(&"release".into()), "{calls:?}");
    assert!(!calls.contains(&"quit".into()), "{calls:?}");
}

#[tokio::test]
async fn a_hold_turns_a_sleep_round_and_forbids_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.world.gate("flush");
    let order = bench.order_later(SLEEP);
    bench.world.reached("flush").await;
    let id = bench.order(hold("backup")).await.unwrap().outcome.hold;
    assert_eq!(id, Some(1));
    assert!(within("the order", order).await.unwrap().is_err());
    assert_eq!(bench.state().await, MachineState::Active);
    let problem = bench.order(SLEEP).await.unwrap_err();
    assert!(problem.detail.contains("backup"), "{}", problem.detail);
    bench.world.let_go("flush");
    bench.order(Order::Release { hold: id }).await.unwrap();
    let problem = bench.order(Order::Release { hold: Some(9) }).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::NotFound);
    assert_eq!(bench.order(SLEEP).await.unwrap().outcome.state, MachineState::Asleep);
    assert_eq!(bench.order(hold("wakes")).await.unwrap().outcome.state, MachineState::Active);
}

#[tokio::test]
async fn a_hold_ends_when_its_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    let span = Some(Duration::from_millis(30));
    bench.order(Order::Hold { reason: "short".into(), by: "test".into(), span, tied: false }).await.unwrap();
    let ended = async {
        while !bench.events().iter().any(|e| e.kind == EventKind::Release) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within("the end of the hold", ended).await;
    assert_eq!(bench.order(SLEEP).await.unwrap().outcome.state, MachineState::Asleep);
}

#[tokio::test]
async fn whatever_fails_before_the_commit_is_undone() {
    for step in SAVE.iter().take(7) {
        let dir = tempfile::tempdir().unwrap();
        let bench = Bench::with_web(dir.path()).await;
        bench.world.fail(step, true);
        let problem = bench.order(SLEEP).await.unwrap_err();
        assert_eq!(problem.kind, ProblemKind::Refused, "{step}: {}", problem.detail);
        assert_eq!(bench.state().await, MachineState::Active, "{step}");
        assert_eq!(bench.world.process(), Process::Running, "{step}");
        assert!(!bench.world.is_captured(), "{step}");
        assert!(!bench.warnings().is_empty(), "{step}");
        bench.world.fail(step, false);
        let given = bench.order(SLEEP).await.unwrap();
        assert_eq!(given.outcome.state, MachineState::Asleep, "{step}");
    }
}

#[tokio::test]
async fn a_fault_in_a_step_is_a_failed_step() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.world.panic_at("save");
    let problem = bench.order(SLEEP).await.unwrap_err();
    assert!(problem.detail.contains("fault in dormoused"), "{}", problem.detail);
    assert_eq!(bench.state().await, MachineState::Active);
    bench.order(SLEEP).await.unwrap();
}

#[tokio::test]
async fn a_driver_that_faults_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.world.panic_at("capabilities");
    let problem = bench.order(SLEEP).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Unavailable);
    let adopted = async {
        while !bench.events().iter().any(|e| e.kind == EventKind::Adopted) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within("the new driver", adopted).await;
    assert!(bench.warnings().iter().any(|w| w.contains("fault in dormoused")));
    assert_eq!(bench.order(SLEEP).await.unwrap().outcome.state, MachineState::Asleep);
}

#[tokio::test]
async fn a_machine_whose_monitor_is_stuck_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.world.fail("observe", true);
    bench.world.panic_at("capabilities");
    bench.order(SLEEP).await.unwrap_err();
    let is_told = |w: &String| w.contains("cannot tell whether it runs");
    bench.wait("the new driver", async |bench| bench.warnings().iter().any(is_told)).await;
    let why = bench.host.why(&web()).await.unwrap();
    assert!(why.cause.unwrap().contains("observe was made to fail"));
    let problem = bench.order(SLEEP).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Unavailable);
    assert!(problem.fix.unwrap().contains("--force"));
    bench.world.take_calls();
    let order = bench.order_later(Order::Stop { force: true, patience: None });
    bench.wait("its end", async |bench| bench.world.process() == Process::Absent).await;
    bench.world.fail("observe", false);
    let given = within("the order", order).await.unwrap().unwrap();
    assert_eq!(given.outcome.state, MachineState::Stopped);
    assert_eq!(bench.world.take_calls()[0], "kill");
}

#[tokio::test]
async fn an_idle_machine_goes_to_sleep_by_itself_and_a_busy_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let idle = file("web", 2).replace("never", "1s");
    let bench = Bench::with_file(dir.path(), &idle, "").await;
    for _ in 0..15 {
        bench.world.work(Duration::from_millis(80));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(bench.state().await, MachineState::Active);
    let why = bench.host.why(&web()).await.unwrap();
    assert!(why.signals.iter().any(|s| s.name == "cpu" && s.busy), "{why:?}");
    bench.wait_state(MachineState::Asleep).await;
    assert_eq!(bench.host.why(&web()).await.unwrap().cause.as_deref(), Some("idle"));
}

#[tokio::test]
async fn a_machine_that_is_off_boots_and_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.order(Order::Sleep { depth: Some(Depth::Off) }).await.unwrap();
    assert!(bench.world.take_calls().contains(&"power-down".into()));
    bench.world.gate("watch");
    bench.packet();
    bench.world.reached("watch").await;
    bench.world.let_go("watch");
    let calls = bench.world.take_calls();
    assert_eq!(calls, ["journal:waking", "prepare", "boot", "watch"]);
    bench.presence.send(dormouse_surrogate::Notice::Heard { name: web() }).unwrap();
    bench.wait_state(MachineState::Active).await;
}

#[tokio::test]
async fn learned_addresses_are_answered_for() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_file(dir.path(), &unaddressed_file("web", 2), "").await;
    bench.learn(&[[10, 9, 0, 1].into()]);
    // A guest whose IPv6 addresses change all the time.
    for n in 0..30 {
        bench.learn(&[[0xfd77, 0, 0, 0, 0, 0, 0, n].into()]);
    }
    for last in 1..9 {
        bench.learn(&[[10, 9, 0, last].into()]);
    }
    // Seen again: not the one to make room.
    bench.learn(&[[10, 9, 0, 1].into()]);
    bench.learn(&[[10, 9, 0, 9].into()]);
    let knows = |address: IpAddr| {
        async move |bench: &Bench| bench.host.show(&web()).await.unwrap().summary.addresses.contains(&address)
    };
    bench.wait("the last address", knows([10, 9, 0, 9].into())).await;
    bench.order(SLEEP).await.unwrap();
    let addresses = bench.world.addresses(WEB_MAC);
    let v4: Vec<IpAddr> = [3, 4, 5, 6, 7, 8, 1, 9].map(|last| [10, 9, 0, last].into()).to_vec();
    let v6: Vec<IpAddr> = (22..30).map(|n| [0xfd77, 0, 0, 0, 0, 0, 0, n].into()).collect();
    assert_eq!(addresses, [v4, v6].concat());
}

#[tokio::test]
async fn what_boots_afresh_tells_its_addresses_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_file(dir.path(), &unaddressed_file("web", 2), "").await;
    bench.learn(&[[10, 9, 0, 2].into()]);
    let addresses = async |bench: &Bench| bench.host.show(&web()).await.unwrap().summary.addresses;
    bench.wait("an address", async |bench| !addresses(bench).await.is_empty()).await;
    bench.order(SLEEP).await.unwrap();
    bench.order(Order::Wake).await.unwrap();
    assert_eq!(addresses(&bench).await.len(), 1, "a wake is no boot");
    bench.order(Order::Stop { force: true, patience: None }).await.unwrap();
    bench.order(Order::Start { cold: false }).await.unwrap();
    assert_eq!(addresses(&bench).await, [] as [IpAddr; 0]);
}

/// What web is on its network, told as the surrogate does.
fn tell_persona(bench: &Bench, group: u8) -> Persona {
    let persona = Persona { groups: vec![[224, 0, 0, group].into()], ..Persona::default() };
    let (name, mac, persona) = (web(), WEB_MAC, Box::new(persona));
    bench.presence.send(Notice::Persona { name, mac, persona: persona.clone() }).unwrap();
    *persona
}

#[tokio::test]
async fn what_a_machine_was_on_its_network_is_kept_until_it_boots() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.order(SLEEP).await.unwrap();
    tell_persona(&bench, 1);
    let persona = tell_persona(&bench, 251);
    bench.order(Order::Wake).await.unwrap();
    bench.order(SLEEP).await.unwrap();
    assert_eq!(bench.world.sleeper().ports[0].persona, persona);
    bench.order(Order::Wake).await.unwrap();
    bench.order(Order::Stop { force: true, patience: None }).await.unwrap();
    bench.order(Order::Start { cold: false }).await.unwrap();
    bench.order(SLEEP).await.unwrap();
    assert_eq!(bench.world.sleeper().ports[0].persona, Persona::default());
}

#[tokio::test]
async fn a_sleeper_is_what_its_file_says() {
    let dir = tempfile::tempdir().unwrap();
    let file = format!(
        "{}[wake]\non = [\"tcp:22 rate 2/3s\"]\nignore = [\"tcp:5666\"]\nlease = \"ignore\"\n\
         [[service]]\nport = 80\nanswer = \"waking-page\"\n\
         [[responder]]\nname = \"snmp\"\nframes = [\"udp:161\"]\n",
        file("web", 2)
    );
    let bench = Bench::with_file(dir.path(), &file, "[responder.snmp]\nprogram = \"/bin/cat\"\n").await;
    bench.order(SLEEP).await.unwrap();
    let sleeper = bench.world.sleeper();
    let texts = (sleeper.wake[0].to_string(), sleeper.ignore[0].to_string());
    assert_eq!(texts, ("tcp:22 rate 2/3s".into(), "tcp:5666".into()));
    assert_eq!(sleeper.policy.lease, LeasePolicy::Ignore);
    assert_eq!(sleeper.services, [Service { port: 80, kind: ServiceKind::WakingPage, wakes: true }]);
    let frames = vec!["udp:161".parse().unwrap()];
    assert_eq!(sleeper.externals, [ExternalRule { program: "snmp".into(), frames }]);
}

#[tokio::test]
async fn a_machine_that_nobody_could_answer_for_does_not_sleep_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let idle = unaddressed_file("web", 2).replace("never", "1s");
    let bench = Bench::with_file(dir.path(), &idle, "").await;
    let idle_for = async |bench: &Bench| bench.host.show(&web()).await.unwrap().summary.idle_for_ms;
    bench.wait("its time", async |bench| idle_for(bench).await > Some(1_300)).await;
    let why = bench.host.why(&web()).await.unwrap();
    assert_eq!((why.state, why.would_sleep_at), (MachineState::Active, None));
    assert!(why.obstacles[0].contains("interface.addresses"), "{why:?}");
    bench.learn(&[[10, 9, 0, 2].into()]);
    bench.wait_state(MachineState::Asleep).await;
}

#[tokio::test]
async fn a_sleep_that_nobody_can_answer_for_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_file(dir.path(), &unaddressed_file("web", 2), "").await;
    let outcome = bench.order(SLEEP).await.unwrap().outcome;
    assert!(outcome.detail.contains("no address is known of 52:54:00:00:00:02"), "{outcome:?}");
    assert_eq!(bench.warnings().pop(), Some(outcome.detail));
}

#[tokio::test]
async fn a_lost_bridge_is_told_of_once_and_served_again() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.order(SLEEP).await.unwrap();
    let before = bench.warnings().len();
    bench.world.fail("stand-in", true);
    let (bridge, why) = ("br0".to_owned(), "it was deleted".to_owned());
    bench.presence.send(Notice::BridgeLost { bridge: bridge.clone(), why }).unwrap();
    let absent = async |bench: &Bench| bench.host.list().await[0].absent.clone();
    bench.wait("the loss", async |bench| absent(bench).await.is_some()).await;
    bench.world.take_calls();
    // Whoever asks learns why it does not wake, and it is tried at once.
    let problem = bench.order(Order::Wake).await.unwrap_err();
    assert!(problem.detail.contains("stand-in was made to fail"), "{problem:?}");
    assert_eq!(bench.world.take_calls(), ["stand-in"]);
    let why = bench.host.why(&web()).await.unwrap();
    assert_eq!((why.state, why.obstacles.len()), (MachineState::Asleep, 1));
    assert_eq!(bench.warnings().len(), before + 1, "{:?}", bench.warnings());
    bench.world.fail("stand-in", false);
    bench.presence.send(Notice::BridgeBack { bridge }).unwrap();
    bench.wait_state(MachineState::Active).await;
    assert_eq!(absent(&bench).await, None);
}

#[tokio::test]
async fn a_machine_that_lost_one_of_its_bridges_wakes_from_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.order(SLEEP).await.unwrap();
    bench.world.stand_in_partly();
    let (bridge, why) = ("br0".to_owned(), "it was deleted".to_owned());
    bench.presence.send(Notice::BridgeLost { bridge, why }).unwrap();
    let absent = async |bench: &Bench| bench.host.list().await[0].absent.clone();
    bench.wait("the loss", async |bench| absent(bench).await.is_some_and(|why| why.contains("br1"))).await;
    bench.presence.send(Notice::Wake { name: web(), frame: "tcp SYN".into() }).unwrap();
    bench.wait_state(MachineState::Active).await;
    assert_eq!(absent(&bench).await, None);
}

#[tokio::test]
async fn a_machine_without_interfaces_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.world.unplug();
    bench.order(Order::Sleep { depth: Some(Depth::Off) }).await.unwrap();
    let woken = bench.order(Order::Wake).await.unwrap();
    assert_eq!(woken.outcome.state, MachineState::Active);
    assert!(!bench.world.take_calls().contains(&"watch".into()));
}

#[tokio::test]
async fn a_guest_that_ends_by_itself_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    bench.world.set(Process::Absent, false);
    bench.platform.send(dormouse_platform::Notice::GuestShutdown(web())).await.unwrap();
    bench.wait_state(MachineState::Stopped).await;
    bench.order(Order::Start { cold: false }).await.unwrap();
    bench.world.set(Process::Absent, false);
    let notice = dormouse_platform::Notice::Exited(web(), "signal 9".into());
    bench.platform.send(notice).await.unwrap();
    bench.wait_state(MachineState::Failed).await;
    let failure = bench.host.show(&web()).await.unwrap().failure.unwrap();
    assert!(failure.why.contains("signal 9"), "{failure:?}");
    bench.order(Order::Start { cold: true }).await.unwrap();
    assert_eq!(bench.state().await, MachineState::Active);
}

#[tokio::test]
async fn removal_says_what_is_lost_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_web(dir.path()).await;
    let problem = bench.host.remove(&web(), false).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Refused);
    assert!(problem.fix.unwrap().contains("its disks stay"));
    bench.order(SLEEP).await.unwrap();
    let problem = bench.host.remove(&web(), false).await.unwrap_err();
    assert!(problem.fix.unwrap().contains("saved state"));
    bench.world.fail("erase", true);
    let problem = bench.host.remove(&web(), true).await.unwrap_err();
    assert_eq!(problem.kind, ProblemKind::Failed);
    assert_eq!(bench.state().await, MachineState::Stopped);
    bench.world.fail("erase", false);
    bench.host.remove(&web(), false).await.unwrap();
    assert_eq!(bench.host.list().await, []);
    bench.host.create(create(&file("web", 2))).await.unwrap();
}

#[tokio::test]
async fn an_open_connection_keeps_awake_if_the_file_says_so_and_is_in_the_outlook() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "\"1s\"\nconnections = [{ match = \"tcp:22\" }]";
    let idle = file("web", 2).replace("\"never\"", rules);
    let bench = Bench::with_file(dir.path(), &idle, "").await;
    bench.world.connect(22);
    let why = bench.wait_why(|why| why.signals.len() == 4 && why.signals[..3].iter().all(|s| !s.busy)).await;
    let session = &why.signals[3];
    assert_eq!((&*session.name, session.busy, session.value), ("connections tcp:22", true, Some(1.0)));
    assert_eq!((why.state, why.would_sleep_at), (MachineState::Active, None));
    bench.world.disconnect();
    bench.wait_state(MachineState::Asleep).await;
}

#[tokio::test]
async fn users_keep_awake_and_a_silent_guest_counts_as_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let idle = file("web", 2).replace("never\"", "1s\"\nusers = \"keep-awake\"");
    let bench = Bench::with_file(dir.path(), &idle, "").await;
    let why = bench.wait_why(|why| why.signals.len() == 4 && why.signals[..3].iter().all(|s| !s.busy)).await;
    assert_eq!((why.signals[3].value, why.signals[3].busy), (None, true), "{why:?}");
    assert_eq!(why.state, MachineState::Active);
}

#[tokio::test]
async fn who_came_between_the_timer_and_the_last_look_wins() {
    let dir = tempfile::tempdir().unwrap();
    let idle = file("web", 2).replace("never", "1s");
    let bench = Bench::with_file(dir.path(), &idle, "").await;
    bench.world.ambush(Duration::from_millis(900));
    let is_used = |why: &Why| why.signals.iter().any(|s| s.name == "cpu" && s.busy && s.value > Some(0.0));
    let why = bench.wait_why(is_used).await;
    assert_eq!(why.state, MachineState::Active, "it was due, and is in use");
    bench.wait_state(MachineState::Asleep).await;
}

/// A policy program that does `body` for each question, in `dir`, and the configuration that has it.
fn policy_program(dir: &std::path::Path, body: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = dir.join("policy");
    let text = format!(
        "#!/usr/bin/python3\nimport json, sys\ndef say(**a): print(json.dumps(a), flush=True)\n\
         for line in sys.stdin:\n    q = json.loads(line)\n    {body}\n"
    );
    std::fs::write(&path, text).unwrap();
    for path in [dir, &*path] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    format!("[policy.test]\nprogram = {path:?}\ntimeout = \"20s\"\n")
}

/// The machine `web`, of which that program says when it sleeps.
fn judged_by_program(idle_after: &str) -> String {
    let keys = format!("{idle_after:?}\npolicy = \"external:test\"\nmin_awake = \"0s\"");
    file("web", 2).replace("\"never\"", &keys)
}

#[tokio::test]
async fn a_policy_program_says_when_to_sleep() {
    let (dir, programs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let body = "say(id=q['id'], why='quiet', verdict='sleep' if q['version'] == 1 and q['machine'] == 'web' and \
                q['idle_after'] is None and q['idle_for'] and len(q['signals']) == 3 else 'keep')";
    let config = policy_program(programs.path(), body);
    let bench = Bench::with_file(dir.path(), &judged_by_program("never"), &config).await;
    bench.wait_state(MachineState::Asleep).await;
    let causes: Vec<_> = bench.events().into_iter().filter_map(|event| event.cause).collect();
    assert!(causes.iter().any(|cause| cause == "policy test: quiet"), "{causes:?}");
}

#[tokio::test]
async fn a_policy_program_keeps_awake_and_says_why() {
    let (dir, programs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = policy_program(programs.path(), "say(id=q['id'], verdict='keep', why='month end')");
    let bench = Bench::with_file(dir.path(), &judged_by_program("1s"), &config).await;
    // It would sleep by its idle time, and does not.
    let is_overdue = |why: &Why| {
        let quiet = |s: &dormouse_api_types::Signal| {
            !s.busy
                && s.since
                    .is_some_and(|since| SystemClock.now().since(since.timestamp()) > Duration::from_secs(2))
        };
        why.keeps.len() == 1 && why.signals.len() == 3 && why.signals.iter().all(quiet)
    };
    let why = bench.wait_why(is_overdue).await;
    assert_eq!((&*why.keeps[0].kind, &*why.keeps[0].why), ("policy", "month end"));
    assert_eq!((why.state, why.would_sleep_at), (MachineState::Active, None));
    assert!(!bench.warnings().iter().any(|why| why.contains("policy")));
}

#[tokio::test]
async fn without_an_answer_of_a_policy_program_the_idle_time_decides() {
    let bodies = [
        ("ended", "sys.exit(1)", "20s"),
        ("nonsense", "print('nonsense', flush=True)", "100ms"),
        ("no verdict", "say(id=q['id'], verdict='wake')", "100ms"),
        ("late", "pass", "100ms"),
    ];
    for (what, body, timeout) in bodies {
        let (dir, programs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = policy_program(programs.path(), body).replace("20s", timeout);
        let bench = Bench::with_file(dir.path(), &judged_by_program("1s"), &config).await;
        let why = bench.wait_why(|why| why.signals.iter().any(|s| s.name == "policy")).await;
        let detail = why.signals.last().unwrap().detail.clone().unwrap();
        assert!(detail.contains("does not answer"), "{what}: {detail}");
        bench.wait_state(MachineState::Asleep).await;
        let told = bench.warnings().into_iter().filter(|why| why.contains("policy test does not answer"));
        assert_eq!(told.count(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_machine_with_an_unknown_policy_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::start(dir.path()).await;
    let problem = bench.host.create(create(&judged_by_program("1s"))).await.unwrap_err();
    assert_eq!((problem.kind, problem.key.as_deref()), (ProblemKind::Invalid, Some("sleep.policy")));
    assert!(problem.fix.unwrap().contains("[policy.test]"));
}
