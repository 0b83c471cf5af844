//! Domains of libvirt are looked at, and made machines.

use std::{sync::Arc, time::Duration};

use dormouse_api_types::{
    ImportReport, ImportRequest, ImportStatus, ImportedDomain, Problem, ProblemKind, SleepObstacle,
};
use dormouse_machine::lifecycle::State;
use dormouse_machine::spec::{LibvirtSpec, MachineSpec, PlatformSpec};
use dormouse_platform::{Activity, Candidate, NotFound, Obstacle};
use dormouse_types::MachineName;
use nix::unistd::{User, geteuid};

use super::{Host, Newcomer, admission};
use crate::import::{self, BASE, NO_PACKET, Plan, Wishes};

impl Host {
    /// What can be imported from a libvirt.
    ///
    /// # Errors
    ///
    /// When libvirt cannot be asked.
    pub async fn importable(self: &Arc<Self>, uri: Option<String>) -> Result<ImportReport, Problem> {
        self.import(ImportRequest { uri, all: true, dry_run: true, ..ImportRequest::default() }).await
    }

    /// Makes domains machines. What is wrong with one is told of that one, and the others are imported.
    ///
    /// # Errors
    ///
    /// When the request contradicts itself, or libvirt cannot be asked.
    pub async fn import(self: &Arc<Self>, request: ImportRequest) -> Result<ImportReport, Problem> {
        check(&request)?;
        let ImportRequest { uri, names, all, machine, set, dry_run } = request;
        let found = self.platforms.domains(uri.as_deref(), names).await;
        let found = found.map_err(|error| admission::unanswered(&error))?;
        let wishes = Wishes { uri, name: machine, set };
        let note = session(wishes.uri.as_ref().unwrap_or(&self.config().libvirt.uri));
        let mut report = ImportReport { note, ..ImportReport::default() };
        // What would be there already if this were no rehearsal.
        let mut planned = Vec::new();
        for finding in found {
            report.domains.push(match finding.found {
                Err(why) => nowhere(finding.name, &why, &wishes),
                Ok(candidate) => {
                    let known = self.machine_of(&candidate, wishes.uri.as_ref());
                    match known {
                        Some(machine) => already(&candidate, machine, all),
                        None if dry_run => self.rehearse(&candidate, &wishes, &mut planned),
                        None => self.take(&candidate, &wishes).await,
                    }
                }
            });
        }
        Ok(report)
    }

    /// The machine that a domain is already.
    fn machine_of(&self, candidate: &Candidate, uri: Option<&String>) -> Option<MachineName> {
        let is_it = |libvirt: &LibvirtSpec| match (libvirt.uuid, &candidate.uuid) {
            (Some(theirs), Some(ours)) => theirs.to_string() == *ours,
            _ => libvirt.domain == candidate.name && libvirt.uri.as_ref() == uri,
        };
        let machines = self.claims();
        let found = machines
            .iter()
            .find(|spec| matches!(&spec.platform, PlatformSpec::Libvirt(libvirt) if is_it(libvirt)));
        found.map(|spec| spec.name.clone())
    }

    /// Says what would come of it.
    fn rehearse(
        &self,
        candidate: &Candidate,
        wishes: &Wishes,
        planned: &mut Vec<Arc<MachineSpec>>,
    ) -> ImportedDomain {
        let plan = import::plan(candidate, wishes).and_then(|plan| {
            let mut claims = self.claims();
            claims.append(&mut planned.clone());
            admission::check_responders(&plan.spec, self.config())?;
            admission::check_claims(&plan.spec, &claims, &self.lost()).map_err(renamed(candidate, wishes))?;
            Ok(plan)
        });
        match plan {
            Ok(plan) => {
                planned.push(Arc::new(plan.spec.clone()));
                told(candidate, ImportStatus::Importable, Some(plan))
            }
            Err(problem) => refused(candidate, problem),
        }
    }

    async fn take(self: &Arc<Self>, candidate: &Candidate, wishes: &Wishes) -> ImportedDomain {
        let plan = match import::plan(candidate, wishes) {
            Ok(plan) => plan,
            Err(problem) => return refused(candidate, problem),
        };
        let Plan { toml, spec, hints, state, .. } = plan.clone();
        let newcomer = Newcomer { toml, base: BASE.into(), spec, state: Some(state), hints };
        match self.admit(newcomer).await {
            Ok(_) => told(candidate, ImportStatus::Imported, Some(plan)),
            Err(problem) => refused(candidate, renamed(candidate, wishes)(problem)),
        }
    }
}

/// Each user has a session libvirt of his own.
fn session(uri: &str) -> Option<String> {
    let (path, _) = uri.split_once('?').unwrap_or((uri, ""));
    let whose =
        User::from_uid(geteuid()).ok().flatten().map_or_else(|| geteuid().to_string(), |user| user.name);
    path.ends_with(":///session").then(|| {
        format!(
            "{uri} is the session of {whose}, as whom dormoused runs: what other users have defined in theirs is \
             not in it"
        )
    })
}

fn check(request: &ImportRequest) -> Result<(), Problem> {
    let invalid = |key, why: &str| Err(Problem::new(ProblemKind::Invalid, why).key(key));
    match (&*request.names, request.all) {
        ([], false) => invalid("names", "no domain is named; name some, or say that all are meant"),
        ([_, ..], true) => invalid("all", "either all domains are meant, or those that are named"),
        (names, all) if request.machine.is_some() && (all || names.len() > 1) => {
            invalid("as", "one name is for one machine: name one domain")
        }
        _ => Ok(()),
    }
}

/// A name that is taken can be chosen otherwise.
fn renamed(candidate: &Candidate, wishes: &Wishes) -> impl FnOnce(Problem) -> Problem + use<> {
    let (domain, uri) = (&candidate.name, wishes.uri_argument());
    let fix = format!("name the machine otherwise: dormouse import libvirt {domain:?}{uri} --as OTHER");
    move |problem| match problem.key.as_deref() {
        Some("name") => problem.fix(fix),
        _ => problem,
    }
}

fn nowhere(domain: String, why: &NotFound, wishes: &Wishes) -> ImportedDomain {
    let problem = match why {
        NotFound::Missing => Problem::new(ProblemKind::NotFound, format!("there is no domain {domain}"))
            .fix(format!("list them: dormouse import libvirt{}", wishes.uri_argument())),
        NotFound::Unreadable(why) => Problem::new(ProblemKind::Failed, why.clone()),
    };
    ImportedDomain {
        domain,
        uuid: None,
        activity: None,
        status: ImportStatus::Refused,
        machine: None,
        toml: None,
        obstacles: Vec::new(),
        next: None,
        problem: Some(problem),
    }
}

/// For who means all, that is no problem.
fn already(candidate: &Candidate, machine: MachineName, all: bool) -> ImportedDomain {
    let detail = format!("domain {} is the machine {machine} already", candidate.name);
    let problem = (!all).then(|| {
        Problem::new(ProblemKind::Exists, detail).fix(format!("look at it: dormouse show {machine}"))
    });
    ImportedDomain { machine: Some(machine), problem, ..told(candidate, ImportStatus::Known, None) }
}

fn refused(candidate: &Candidate, problem: Problem) -> ImportedDomain {
    ImportedDomain { problem: Some(problem), ..told(candidate, ImportStatus::Refused, None) }
}

fn told(candidate: &Candidate, status: ImportStatus, plan: Option<Plan>) -> ImportedDomain {
    let activity = match candidate.activity {
        Activity::Running => "running",
        Activity::Suspended => "suspended",
        Activity::Saved => "saved",
        Activity::Off => "off",
    };
    let awake = plan.as_ref().filter(|plan| plan.stays_awake).map(|_| stays_awake());
    ImportedDomain {
        domain: candidate.name.clone(),
        uuid: candidate.uuid.clone(),
        activity: Some(activity.into()),
        status,
        machine: plan.as_ref().map(|plan| plan.spec.name.clone()),
        next: plan.as_ref().map(next),
        obstacles: candidate.obstacles.iter().map(obstacle).chain(awake).collect(),
        toml: plan.map(|plan| plan.toml),
        problem: None,
    }
}

fn stays_awake() -> SleepObstacle {
    SleepObstacle {
        depths: Vec::new(),
        what: "interfaces".into(),
        reason: format!("sleep.idle_after is \"never\": {NO_PACKET}"),
        fix: Some("to have it sleep by itself all the same: --set sleep.idle_after=10m".into()),
    }
}

/// What is to come of the machine, unless somebody does something.
fn next(plan: &Plan) -> String {
    let Plan { spec, state, .. } = plan;
    let (name, depth) = (&spec.name, spec.sleep.depth);
    let wakes = if spec.interfaces.is_empty() || spec.wake.on.is_empty() {
        format!("`dormouse wake {name}` wakes it")
    } else {
        let rules: Vec<_> = spec.wake.on.iter().map(ToString::to_string).collect();
        format!("what comes for it wakes it ({})", rules.join(", "))
    };
    let sleeps = match spec.sleep.idle_after {
        Some(span) => format!("it sleeps ({depth}) after {} idle", text(span)),
        None => format!("it sleeps ({depth}) by `dormouse sleep {name}` alone"),
    };
    match state {
        State::Asleep { .. } => format!("it is asleep; {wakes}; then {sleeps}"),
        State::Stopped => format!("`dormouse start {name}` starts it; then {sleeps}; {wakes}"),
        State::Suspended { .. } => {
            format!("it is left suspended until others resume it; then {sleeps}; {wakes}")
        }
        _ => format!("{sleeps}; {wakes}"),
    }
}

/// A time as a machine file has it.
fn text(span: Duration) -> String {
    match span.as_secs() {
        secs if secs >= 3600 && secs.is_multiple_of(3600) => format!("{}h", secs / 3600),
        secs if secs >= 60 && secs.is_multiple_of(60) => format!("{}m", secs / 60),
        _ => format!("{}s", span.as_secs_f64()),
    }
}

fn obstacle(obstacle: &Obstacle) -> SleepObstacle {
    let Obstacle { depths, what, reason, fix } = obstacle.clone();
    SleepObstacle { depths, what, reason, fix }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_not_there_is_to_be_looked_for_where_it_was() {
        for (uri, fix) in [
            (None, "list them: dormouse import libvirt"),
            (Some("qemu:///session"), "list them: dormouse import libvirt --uri 'qemu:///session'"),
        ] {
            let wishes = Wishes { uri: uri.map(Into::into), ..Wishes::default() };
            let problem = nowhere("web".into(), &NotFound::Missing, &wishes).problem.unwrap();
            assert_eq!(problem.fix.as_deref(), Some(fix));
        }
    }

    #[test]
    fn times_are_told_as_in_machine_files() {
        let told = [3600, 600, 90, 5400].map(|secs| text(Duration::from_secs(secs)));
        assert_eq!(told, ["1h", "10m", "90s", "90m"]);
        assert_eq!(text(Duration::from_millis(1500)), "1.5s");
    }

    #[test]
    fn whose_session_it_is_is_said() {
        for uri in ["qemu:///session", "qemu+unix:///session?socket=/run/x"] {
            assert!(session(uri).unwrap().contains("as whom dormoused runs"), "{uri}");
        }
        for uri in ["qemu:///system", "qemu+ssh://host/session", "test:///default"] {
            assert_eq!(session(uri), None, "{uri}");
        }
    }
}
