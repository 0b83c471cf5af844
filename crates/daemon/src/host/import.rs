//! Domains of libvirt are looked at, and made machines.

use std::sync::Arc;

use dormouse_api_types::{
    ImportReport, ImportRequest, ImportStatus, ImportedDomain, Problem, ProblemKind, SleepObstacle,
};
use dormouse_machine::spec::{LibvirtSpec, MachineSpec, PlatformSpec};
use dormouse_platform::{Activity, Candidate, NotFound, Obstacle};
use dormouse_types::MachineName;
use nix::unistd::{User, geteuid};

use super::{Host, Newcomer, admission};
use crate::import::{self, BASE, Plan, Wishes};

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
                Err(why) => nowhere(finding.name, &why),
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
            admission::check_claims(&plan.spec, &claims, &self.lost()).map_err(renamed(candidate))?;
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
        let Plan { toml, spec, hints, state } = plan.clone();
        let newcomer = Newcomer { toml, base: BASE.into(), spec, state: Some(state), hints };
        match self.admit(newcomer).await {
            Ok(_) => told(candidate, ImportStatus::Imported, Some(plan)),
            Err(problem) => refused(candidate, renamed(candidate)(problem)),
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
fn renamed(candidate: &Candidate) -> impl FnOnce(Problem) -> Problem {
    let fix = format!("name the machine otherwise: dormouse import libvirt {:?} --as OTHER", candidate.name);
    move |problem| match problem.key.as_deref() {
        Some("name") => problem.fix(fix),
        _ => problem,
    }
}

fn nowhere(domain: String, why: &NotFound) -> ImportedDomain {
    let problem = match why {
        NotFound::Missing => Problem::new(ProblemKind::NotFound, format!("there is no domain {domain}"))
            .fix("list them: dormouse import libvirt"),
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
    ImportedDomain {
        domain: candidate.name.clone(),
        uuid: candidate.uuid.clone(),
        activity: Some(activity.into()),
        status,
        machine: plan.as_ref().map(|plan| plan.spec.name.clone()),
        toml: plan.map(|plan| plan.toml),
        obstacles: candidate.obstacles.iter().map(obstacle).collect(),
        problem: None,
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
    fn whose_session_it_is_is_said() {
        for uri in ["qemu:///session", "qemu+unix:///session?socket=/run/x"] {
            assert!(session(uri).unwrap().contains("as whom dormoused runs"), "{uri}");
        }
        for uri in ["qemu:///system", "qemu+ssh://host/session", "test:///default"] {
            assert_eq!(session(uri), None, "{uri}");
        }
    }
}
