//! Programs that say when their machine sleeps (`sleep.policy = "external:NAME"`): what they are told, and what
//! becomes of their answers.
//!
//! One is asked with each sample. What cannot be helped by its word, a hold or the schedule, keeps the machine
//! awake all the same; where it says nothing in time, or nothing that is an answer, idle time decides.

use std::time::Duration;

use dormouse_external::{Occasion, Opinion};
use dormouse_machine::{
    idle::{Keep, Signal, Verdict},
    lifecycle::{Event, SleepReason, State},
};
use dormouse_types::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    idleness::Look,
    jobs::{Finished, Job},
    run::Driver,
};

/// What the program of a machine last said.
#[derive(Debug, Default)]
pub(super) enum Word {
    /// Nothing yet, or there is none to ask.
    #[default]
    None,
    /// The machine may sleep.
    Sleep,
    /// It is to stay awake, and why.
    Keep(String),
    /// The program has been silent since.
    Silent(Timestamp),
}

impl Word {
    /// The machine's use, of which it spoke, is over.
    pub(super) fn forget(&mut self) {
        if !matches!(self, Self::Silent(_)) {
            *self = Self::None;
        }
    }

    /// What of it keeps the machine awake.
    pub(super) fn keep(&self) -> Option<Keep> {
        let Self::Keep(why) = self else { return None };
        Some(Keep { what: "policy", why: why.clone(), until: None })
    }

    /// What is told where it says nothing.
    pub(super) fn silence(&self) -> Option<Signal> {
        let Self::Silent(since) = *self else { return None };
        Some(Signal {
            name: "policy".into(),
            unit: "",
            value: None,
            threshold: None,
            busy: false,
            since,
            ends: None,
            detail: Some("its program does not answer: idle_after decides".into()),
        })
    }
}

impl Driver {
    /// Asks the program that is to say whether the machine sleeps; `false` if its file names none.
    pub(super) fn ask_policy(&mut self, verdict: &Verdict, look: Look) -> bool {
        let Some(name) = &self.subject.spec.sleep.policy.external else { return false };
        let occasion = Occasion { machine: self.subject.spec.name.clone(), facts: self.facts(verdict) };
        let answer = self.shared.policies.get(name).and_then(|program| program.ask_policy(occasion));
        self.spawn(Job::Sample, async move {
            let opinion = match answer {
                Some(answer) => answer.await.ok(),
                None => None,
            };
            Finished::Opinion(opinion, look)
        });
        true
    }

    /// What a program is told of the machine's use; `docs/policies.md` says what each field is.
    fn facts(&self, verdict: &Verdict) -> Map<String, Value> {
        let now = self.now();
        let seconds = |at: Timestamp| now.since(at).as_secs_f64();
        let signal = |signal: &Signal| {
            json!({
                "name": signal.name, "value": signal.value, "unit": signal.unit,
                "busy_from": signal.threshold, "busy": signal.busy, "for": seconds(signal.since),
            })
        };
        let idle_after = self.subject.spec.sleep.idle_after.map(|span| span.as_secs_f64());
        let facts = [
            ("now", Duration::from_nanos(now.0).as_secs_f64().into()),
            ("awake_for", seconds(self.since).into()),
            ("idle_for", verdict.idle_since.map(seconds).into()),
            ("idle_after", idle_after.into()),
            ("signals", verdict.signals.iter().map(signal).collect()),
        ];
        facts.into_iter().map(|(name, fact)| (name.to_owned(), fact)).collect()
    }

    /// Takes in the program's opinion; `None` if it has none.
    pub(super) fn judge_by(&mut self, opinion: Option<Opinion>, look: Look) {
        self.idleness.asked();
        if *self.life.state() != State::Active || self.took(look) > self.age() {
            return;
        }
        let now = self.now();
        let was_silent = matches!(self.idleness.word, Word::Silent(_));
        let Some(Opinion { sleep, why }) = opinion else {
            if !was_silent {
                self.idleness.word = Word::Silent(now);
                self.warn(format!(
                    "{} does not answer, or not as docs/policies.md says: its idle_after decides meanwhile",
                    self.policy_name()
                ));
            }
            self.sleep_if_idle(look);
            return;
        };
        if was_silent {
            tracing::info!(machine = %self.subject.spec.name, "{} answers again", self.policy_name());
        }
        if sleep {
            self.idleness.word = Word::Sleep;
            let reason = format!("{}: {why}", self.policy_name());
            self.sleep_by(look, |depth| Event::Sleep(depth, SleepReason::Policy(reason)));
        } else {
            self.idleness.word = Word::Keep(why);
        }
        self.make_room_if_idle(look);
    }

    fn policy_name(&self) -> String {
        let name = self.subject.spec.sleep.policy.external.as_deref();
        name.map_or_else(|| "policy".into(), |name| format!("policy {name}"))
    }
}
