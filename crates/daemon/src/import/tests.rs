//! Machine files that are written for domains, and which domains are refused.

use dormouse_machine::spec::PlatformSpec;
use dormouse_platform::{Joined, Obstacle};

use super::*;

fn web() -> Candidate {
    Candidate {
        name: "web".into(),
        uuid: Some("c7a5fdbd-edaf-9455-926a-d65c16db1809".into()),
        activity: Activity::Running,
        memory: 2 << 30,
        interfaces: vec![
            Joined {
                mac: "52:54:00:00:00:02".parse().unwrap(),
                bridge: "virbr0".into(),
                addresses: vec!["192.168.122.34".parse().unwrap()],
            },
            Joined { mac: "52:54:00:00:00:03".parse().unwrap(), bridge: "br0".into(), addresses: vec![] },
        ],
        unjoined: Vec::new(),
        obstacles: vec![Obstacle::to(&[Depth::Pmsuspended], "guest agent", "none").fix("add it")],
    }
}

fn set(wishes: &[&str]) -> Wishes {
    Wishes { set: wishes.iter().map(|&wish| wish.into()).collect(), ..Wishes::default() }
}

#[test]
fn a_domain_becomes_a_machine_file() {
    let plan = plan(&web(), &Wishes::default()).unwrap();
    let expected = "\
name = \"web\"

[libvirt]
domain = \"web\"
uuid = \"c7a5fdbd-edaf-9455-926a-d65c16db1809\"
memory = \"2GiB\"

[[interface]]
mac = \"52:54:00:00:00:02\"
bridge = \"virbr0\"

[[interface]]
mac = \"52:54:00:00:00:03\"
bridge = \"br0\"
";
    assert_eq!(plan.toml, expected);
    assert_eq!((plan.spec.name.as_str(), plan.spec.sleep.depth), ("web", Depth::Saved));
    // Addresses are hints, and not in the file, where they would be taken as they are for ever.
    assert_eq!(plan.hints.len(), 1);
    assert_eq!(
        plan.hints[&"52:54:00:00:00:02".parse().unwrap()],
        ["192.168.122.34".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(plan.state, State::Active);
}

#[test]
fn the_user_has_a_say() {
    let wishes = Wishes {
        uri: Some("qemu+ssh://host/system".into()),
        name: Some("shop".into()),
        set: ["sleep.idle_after=30m", "sleep.depth=\"paused\"", "wake.on=[\"tcp:22,80\"]", "owner=alice"]
            .map(Into::into)
            .into(),
    };
    let spec = plan(&web(), &wishes).unwrap().spec;
    assert_eq!((spec.name.as_str(), spec.owner.as_deref()), ("shop", Some("alice")));
    assert_eq!(spec.sleep.idle_after, Some(std::time::Duration::from_secs(1800)));
    assert_eq!((spec.sleep.depth, spec.wake.on.len()), (Depth::Paused, 1));
    let PlatformSpec::Libvirt(libvirt) = spec.platform else { panic!("{:?}", spec.platform) };
    assert_eq!((&*libvirt.domain, libvirt.uri.as_deref()), ("web", Some("qemu+ssh://host/system")));
}

#[test]
fn one_that_no_packet_can_wake_does_not_fall_asleep_by_itself() {
    let alone = Candidate { interfaces: vec![], ..web() };
    let plan = |wishes: &[&str]| plan(&alone, &set(wishes)).unwrap();
    let usual = plan(&[]);
    assert_eq!((usual.spec.sleep.idle_after, usual.stays_awake), (None, true));
    let why = format!("# Not by itself: {NO_PACKET}.\n[sleep]\nidle_after = \"never\"\n");
    assert!(usual.toml.contains(&why), "{}", usual.toml);
    let wished = plan(&["sleep.idle_after=30m"]);
    assert_eq!(wished.spec.sleep.idle_after, Some(std::time::Duration::from_secs(1800)));
    assert!(!wished.stays_awake && !wished.toml.contains("Not by itself"), "{}", wished.toml);
    assert!(plan(&["sleep.cpu_below=5%"]).stays_awake);
    assert!(!super::plan(&web(), &Wishes::default()).unwrap().stays_awake);
}

#[test]
fn what_cannot_be_set_is_refused() {
    for (wish, key) in [
        ("sleep", "set"),
        ("=1", "set"),
        ("sleep..depth=paused", "set"),
        ("name=other", "set"),
        ("libvirt.domain=other", "set"),
        ("name.first=x", "set"),
        ("interface.mac=x", "set"),
        ("sleep.idle_afer=1m", "sleep.idle_afer"),
        ("sleep.depth=pmsuspended", "sleep.depth"),
        ("sleep.depth=deep", "sleep.depth"),
    ] {
        let problem = plan(&web(), &set(&[wish])).unwrap_err();
        assert_eq!((problem.kind, problem.key.as_deref()), (ProblemKind::Invalid, Some(key)), "{wish}");
    }
}

#[test]
fn a_name_that_is_none_comes_with_one_that_is() {
    let candidate = Candidate { name: "Web Server".into(), ..web() };
    let problem = plan(&candidate, &Wishes::default()).unwrap_err();
    assert_eq!(problem.key.as_deref(), Some("name"));
    assert!(problem.fix.unwrap().ends_with("dormouse import libvirt \"Web Server\" --as web-server"));
    let elsewhere = Wishes { uri: Some("qemu:///session".into()), ..Wishes::default() };
    let fix = super::plan(&candidate, &elsewhere).unwrap_err().fix.unwrap();
    assert!(fix.ends_with("import libvirt \"Web Server\" --uri 'qemu:///session' --as web-server"), "{fix}");
    let wishes = Wishes { name: Some("web-server".into()), ..Wishes::default() };
    let plan = plan(&candidate, &wishes).unwrap();
    assert!(plan.toml.contains("domain = \"Web Server\""), "{}", plan.toml);
}

#[test]
fn it_sleeps_as_deep_as_it_can_without_loss_or_is_refused() {
    let with = |depths: &[Depth]| Candidate {
        obstacles: vec![
            Obstacle::to(depths, "hostdev pci 0000:06:02.0", "cannot be\nsaved").fix("remove it"),
        ],
        ..web()
    };
    let paused = plan(&with(&[Depth::Saved]), &Wishes::default()).unwrap();
    assert_eq!(paused.spec.sleep.depth, Depth::Paused);
    let why = "# Not saved: hostdev pci 0000:06:02.0: cannot be saved.\n[sleep]\n";
    assert!(paused.toml.contains(why), "{}", paused.toml);
    let suspended = plan(&with(&[Depth::Paused, Depth::Saved]), &Wishes::default()).unwrap();
    assert_eq!(suspended.spec.sleep.depth, Depth::Pmsuspended);
    // Off loses what is in memory: only its user may say so.
    let refused = plan(&with(&[Depth::Paused, Depth::Pmsuspended, Depth::Saved]), &Wishes::default());
    let refused = refused.unwrap_err();
    assert_eq!((refused.kind, refused.fix.as_deref()), (ProblemKind::Refused, Some("remove it")));
    assert!(refused.detail.contains("hostdev"), "{refused:?}");
}

#[test]
fn it_is_what_others_have_made_of_it() {
    let state = |activity| plan(&Candidate { activity, ..web() }, &Wishes::default()).unwrap().state;
    assert_eq!(state(Activity::Off), State::Stopped);
    assert_eq!(state(Activity::Saved), State::Asleep { depth: Depth::Saved });
    assert!(matches!(state(Activity::Suspended), State::Suspended { .. }));
}

#[test]
fn memory_is_written_in_whole_units() {
    for (bytes, text) in [(1 << 30, "1GiB"), (1536 << 20, "1536MiB"), ((256 << 20) + 1, "257MiB")] {
        assert_eq!(file::memory(bytes), text);
    }
}

/// A file with a user's own words in it.
const WRITTEN: &str = "\
# The shop's front end.
name = \"web\"

[libvirt]
domain = \"web\"  # by virt-manager
uuid = \"c7a5fdbd-edaf-9455-926a-d65c16db1809\"
memory = \"2GiB\"

# To the world.
[[interface]]
mac = \"52:54:00:00:00:02\"
bridge = \"virbr0\"
addresses = [\"192.168.122.34\"] # fixed

[[interface]]
mac = \"52:54:00:00:00:03\"
bridge = \"br0\"

[sleep]
idle_after = \"30m\"
";

fn follow(candidate: &Candidate) -> Option<Change> {
    let spec = MachineSpec::from_toml(WRITTEN, Path::new(BASE)).unwrap();
    let change = redefined(WRITTEN, &spec, candidate).unwrap()?;
    let again = MachineSpec::from_toml(&change.file, Path::new(BASE)).unwrap();
    assert_eq!(redefined(&change.file, &again, candidate).unwrap(), None, "{}", change.file);
    Some(change)
}

#[test]
fn a_file_whose_domain_is_as_it_says_stays() {
    assert_eq!(follow(&web()), None);
}

#[test]
fn a_file_follows_its_domain_and_keeps_what_its_user_wrote() {
    let mut candidate = web();
    (candidate.name, candidate.memory) = ("shop".into(), 4 << 30);
    candidate.interfaces[0].bridge = "br1".into();
    candidate.interfaces[1].mac = "52:54:00:00:00:04".parse().unwrap();
    let change = follow(&candidate).unwrap();
    let expected = WRITTEN
        .replace("domain = \"web\"", "domain = \"shop\"")
        .replace("2GiB", "4GiB")
        .replace("virbr0", "br1")
        .replace("00:00:03", "00:00:04");
    assert_eq!(change.file, expected);
    assert_eq!(
        change.what,
        "it is domain shop now; it has 4GiB of memory; interface 52:54:00:00:00:02 is in br1 now; interface \
         52:54:00:00:00:04 in br0 is new; interface 52:54:00:00:00:03 is gone"
    );
}

#[test]
fn interfaces_come_and_go() {
    let none = Candidate { interfaces: vec![], ..web() };
    let change = follow(&none).unwrap();
    assert!(!change.file.contains("interface"), "{}", change.file);
    let mut three = web();
    let mac = "52:54:00:00:00:05".parse().unwrap();
    three.interfaces.push(Joined { mac, bridge: "br2".into(), addresses: vec![] });
    assert!(follow(&three).unwrap().file.contains("192.168.122.34\"] # fixed"));
}

/// As of a network that is not started, or was not to be read.
#[test]
fn an_interface_whose_bridge_cannot_be_told_stays_as_it_is() {
    let mut unjoined = web();
    unjoined.unjoined = unjoined.interfaces.drain(..).map(|joined| joined.mac).collect();
    assert_eq!(follow(&unjoined), None);
}
