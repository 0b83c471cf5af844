//! Room in the budgets of awake memory: asked for before the machine wakes, and made by its sleep.

use std::time::Duration;

use dormouse_machine::{
    budget::{gives_back, room_depth},
    lifecycle::{Cause, Command, Event, SleepReason, State},
};
use dormouse_types::{Depth, Timestamp};
use tokio::sync::oneshot;

use super::{
    idleness::Look,
    jobs::{Finished, Job},
    run::Driver,
};
use crate::room::{Answer, Grant, Need};

/// What wants a machine for which there is no room asks again so often.
const AGAIN: Duration = Duration::from_secs(1);

/// What is done once there is room.
#[derive(Debug)]
pub(super) enum Wish {
    /// The lifecycle is told that something wants the machine.
    Wanted(Cause),
    /// It is told what a user wants.
    Command(Command),
}

/// What a driver knows of room for its machine.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// A question is under way, and how urgent it is.
    asked: Option<Need>,
    /// A user's order that waits for room.
    command: Option<Command>,
    /// What else wants the machine and waits for room.
    cause: Option<Cause>,
    /// There was none for it; why, and when to ask again.
    refused: Option<(String, Timestamp)>,
    /// The room that was granted, until others can see that the machine is awake.
    grant: Option<Grant>,
    /// Who waits to hear whether the machine makes room, once others can see that it does.
    replies: Vec<(oneshot::Sender<bool>, bool)>,
}

/// A request to make room by going to sleep.
#[derive(Debug)]
pub(super) struct Favour {
    pub(super) why: String,
    pub(super) reply: oneshot::Sender<bool>,
}

/// How urgent it is. Nobody waits for one that is woken before it is needed, or to be shut down.
const fn need(cause: &Cause) -> Need {
    match cause {
        Cause::Ahead(_) | Cause::Deeper => Need::Ahead,
        _ => Need::Now,
    }
}

/// Of two causes the one that lasts is kept: a hold may be released, and who is to be woken ahead may be let be.
const fn lasts(cause: &Cause) -> u8 {
    match cause {
        Cause::Deeper => 0,
        Cause::Ahead(_) => 1,
        Cause::Hold(_) => 2,
        _ => 3,
    }
}

impl Room {
    /// Does something wait for the answer whether there is room?
    pub(super) const fn is_asked_for(&self) -> bool {
        self.asked.is_some() && self.is_wanted()
    }

    /// Does it only sleep on until there is room?
    pub(super) const fn is_wanted(&self) -> bool {
        self.command.is_some() || self.cause.is_some()
    }

    /// Why it sleeps on, though something wants it.
    pub(super) fn why_none(&self) -> Option<String> {
        let (why, _) = self.refused.as_ref().filter(|_| self.is_wanted())?;
        Some(format!("cannot wake yet: {why}"))
    }

    /// When to ask again.
    pub(super) fn again(&self) -> Option<Timestamp> {
        self.refused.as_ref().filter(|_| self.asked.is_none() && self.is_wanted()).map(|(_, again)| *again)
    }

    /// Nobody wants it any more, or it is awake already.
    pub(super) fn give_up(&mut self) {
        (self.command, self.cause, self.refused) = (None, None, None);
    }

    /// The answer to whoever asked it to make room.
    pub(super) fn reply(&mut self, favour: Favour, sleeps: bool) {
        self.replies.push((favour.reply, sleeps));
    }

    /// Others can see now what the driver did.
    pub(super) fn is_seen(&mut self) {
        self.grant = None;
        for (reply, sleeps) in self.replies.drain(..) {
            let _ = reply.send(sleeps);
        }
    }

    fn note(&mut self, wish: Wish) {
        match wish {
            Wish::Command(command) => self.command = Some(command),
            Wish::Wanted(cause) => {
                if self.cause.as_ref().is_none_or(|known| lasts(known) < lasts(&cause)) {
                    self.cause = Some(cause);
                }
            }
        }
    }

    /// How urgent it is now.
    fn need(&self) -> Option<Need> {
        let order = self.command.map(|_| Need::Now);
        order.max(self.cause.as_ref().map(need))
    }
}

impl Driver {
    /// Does the machine need room to be awake, for which there may be a bound?
    pub(super) fn needs_room(&self) -> bool {
        let is_away =
            matches!(self.life.state(), State::Asleep { .. } | State::Stopped | State::Failed { .. });
        self.shared.rooms.are_bounded() && is_away
    }

    /// Asks for room; what is wished is carried out then.
    pub(super) fn ask_for_room(&mut self, wish: Wish) {
        self.room.note(wish);
        self.ask_room();
    }

    fn ask_room(&mut self) {
        if let Some(need) = self.room.need()
            && self.room.asked.is_none()
        {
            self.room.asked = Some(need);
            let (rooms, name) = (self.shared.rooms.clone(), self.subject.spec.name.clone());
            self.spawn(Job::Room, async move { Finished::Room(rooms.ask(&name, need).await) });
        }
    }

    /// There is room, or none.
    pub(super) fn room(&mut self, answer: Answer) {
        let asked = self.room.asked.take();
        // It may have been given up, and what was granted with it.
        if !self.room.is_wanted() {
            return;
        }
        match answer {
            Answer::Granted { grant, exceeded } => {
                self.room.grant = grant;
                self.room.refused = None;
                exceeded.into_iter().for_each(|why| self.warn(why));
                if let Some(command) = self.room.command.take() {
                    self.carry_out(command);
                }
                if let Some(cause) = self.room.cause.take() {
                    self.wake_by(cause);
                }
            }
            // What came meanwhile may be worth more.
            Answer::Refused(_) if self.room.need() > asked => self.ask_room(),
            Answer::Refused(why) => self.no_room(why),
        }
    }

    /// What is held for the machine waits until there is room; who ordered it awake is told that there is none.
    fn no_room(&mut self, why: String) {
        let is_known = self.room.refused.is_some();
        let is_order = self.room.command.take().is_some();
        if self.room.cause == Some(Cause::Deeper) {
            self.room.cause = None;
        }
        if is_order || (self.room.cause.is_some() && !is_known) {
            self.warn(format!("cannot wake: {why}"));
        }
        if is_order || self.room.cause.is_some() {
            self.undone = Some(why.clone());
        }
        self.room.refused = self.room.cause.is_some().then(|| (why, self.now() + AGAIN));
        if self.room.cause.is_none() {
            self.story.unwanted();
        }
    }

    /// The order was taken when it could be followed; that may have changed.
    fn carry_out(&mut self, command: Command) {
        let now = self.now();
        match self.life.command(command, now) {
            Ok(actions) => {
                self.hitch = None;
                self.act(actions);
            }
            Err(refusal) => self.undone = Some(format!("it was {} meanwhile", refusal.state)),
        }
    }

    fn wake_by(&mut self, cause: Cause) {
        if cause == Cause::Deeper {
            if let Some((_, depth)) = self.deeper_at() {
                self.event(Event::Deeper(depth));
            }
        } else {
            self.event(Event::Wanted(cause));
        }
    }

    /// The time is over for which it was to be woken ahead.
    pub(super) fn forget_ahead(&mut self) {
        self.forget_cause(|cause| matches!(cause, Cause::Ahead(_)));
    }

    /// Holds have ended: if those were all, no hold wants it any more.
    pub(super) fn forget_holds(&mut self) {
        if self.journal.record().holds.blocking(self.now()).next().is_none() {
            self.forget_cause(|cause| matches!(cause, Cause::Hold(_)));
        }
    }

    fn forget_cause(&mut self, is_over: impl FnOnce(&Cause) -> bool) {
        if self.room.cause.as_ref().is_some_and(is_over) {
            (self.room.cause, self.room.refused) = (None, None);
            if self.room.command.is_none() {
                self.story.unwanted();
            }
        }
    }

    /// Asks again for what wants the machine, if it is time.
    pub(super) fn ask_again_for_room(&mut self) {
        if self.room.again().is_some_and(|again| again <= self.now()) {
            self.ask_room();
        }
    }

    /// Puts the machine where it gives its memory back, if it is idle at one more look, or sleeps already.
    pub(super) fn make_room(&mut self, favour: Favour) {
        match *self.life.state() {
            State::Active if self.life.settled() => {
                self.idleness.favour = Some(favour);
                self.sample_for_favour();
            }
            State::Asleep { depth } => {
                let is_free = self.life.settled() && self.life.absent().is_none() && !self.room.is_wanted();
                let deeper = self.room_depth().filter(|deeper| is_free && *deeper > depth);
                if let Some(deeper) = deeper
                    && !gives_back(&self.subject.spec.platform, depth)
                {
                    self.event(Event::Deeper(deeper));
                }
                self.answer_favour(favour);
            }
            _ => self.room.reply(favour, false),
        }
    }

    /// How deep it sleeps to make room, if it does.
    fn room_depth(&self) -> Option<Depth> {
        let depths = self.subject.instance.capabilities().depths;
        room_depth(&self.subject.spec).filter(|depth| depths.contains(depth))
    }

    /// Makes room if that is asked for: as ordinary idleness does, but for the time that it waits.
    pub(super) fn make_room_if_idle(&mut self, look: Look) {
        let Some(favour) = self.idleness.favour.take() else { return };
        let is_idle = self.idleness.report.as_ref().is_some_and(|verdict| verdict.idle_since.is_some());
        let depth = self.room_depth().filter(|_| is_idle && self.idleness.word.keep().is_none());
        if let Some(depth) = depth
            && !self.idleness.is_asking()
        {
            let why = favour.why.clone();
            self.sleep_by(look, |_| Event::Sleep(depth, SleepReason::Budget(why)));
        }
        if self.idleness.is_asking() {
            // The last look is under way.
            self.idleness.favour = Some(favour);
        } else {
            self.answer_favour(favour);
        }
    }

    fn answer_favour(&mut self, favour: Favour) {
        let sleeps = matches!(self.life.state(), State::Settling { .. });
        self.room.reply(favour, sleeps);
    }

    /// It could not be judged whether the machine can make room.
    pub(super) fn refuse_favour(&mut self) {
        if let Some(favour) = self.idleness.favour.take() {
            self.room.reply(favour, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_that_wants_a_machine_what_lasts_is_kept_and_the_most_urgent_asked_for() {
        let mut room = Room::default();
        assert_eq!((room.need(), room.is_wanted()), (None, false));
        let causes = [
            (Cause::Deeper, Need::Ahead),
            (Cause::Ahead("noon".into()), Need::Ahead),
            (Cause::Hold("backup".into()), Need::Now),
            (Cause::Packet("tcp".into()), Need::Now),
        ];
        for (cause, need) in &causes {
            room.note(Wish::Wanted(cause.clone()));
            assert_eq!((room.cause.as_ref(), room.need()), (Some(cause), Some(*need)));
        }
        for (cause, _) in causes {
            room.note(Wish::Wanted(cause));
            assert_eq!(room.cause, Some(Cause::Packet("tcp".into())));
        }
        room.give_up();
        room.note(Wish::Command(Command::Wake));
        assert_eq!(room.need(), Some(Need::Now));
    }
}
