//! What the machine does about watches: tells of matches, replaces the watches when a caller asks for it, and lets the sandbox search for the
//! watches that are there.
//!
//! Matches are told only of a command that runs: not between its end and the commit of that, and not while it is being stopped.

use super::{
    Action, Machine, Moment, Notice, Phase,
    commit::Then,
    follow::{Following, Stage},
};
use crate::{alerts::News, live::WatchOrder};
use errand_task::{ArmedWatch, TaskState, WatchMatches, Watches};

/// Which watches an attachment searches for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Armed {
    set: u32,
    /// A bit for each watch that is turned off.
    disabled: u32,
}

impl Armed {
    pub(super) fn of(watches: &Watches) -> Self {
        let bits = watches.list.iter().enumerate().filter(|(_, state)| state.disabled);
        Self { set: watches.set, disabled: bits.fold(0, |bits, (index, _)| bits | 1 << (index % 32)) }
    }
}

impl Machine {
    /// Takes in matches.
    pub(super) fn matched(&mut self, matches: Vec<WatchMatches>, unsearched: u64, now: Moment) {
        // An attachment that was asked to search for other watches has been dropped; what it had reported before is dropped here.
        if self.armed != Armed::of(&self.task.watches) {
            return;
        }
        let end = self.output.end;
        let known = matches.into_iter().filter(|found| found.next <= end).collect();
        self.alerts.add(known, unsearched, &self.task, &self.budgets, now.at);
        let Phase::Following(following) = &self.phase else { return };
        match following.stage {
            // A match is told of a command whose start is committed.
            Stage::Begun { .. } if self.alerts.rest() > 0 => self.commit_start(Then::Proceed, now),
            Stage::Running { .. } => self.tend_watches(now),
            Stage::Silent { .. } | Stage::Begun { .. } | Stage::Ended { .. } => {}
        }
    }

    /// The watches that a new search is to look for.
    pub(crate) fn watches_to_search(&self) -> Vec<ArmedWatch> {
        self.alerts.armed(&self.task.watches)
    }

    /// When there is something to tell.
    pub(super) fn alert_due(&self, following: &Following) -> Option<std::time::Instant> {
        if self.may_tell(following) { self.alerts.due() } else { None }
    }

    fn may_tell(&self, following: &Following) -> bool {
        let runs =
            matches!(following.stage, Stage::Running { .. }) && matches!(self.task.state, TaskState::Running { .. });
        // A commit would displace the read of the tail that a look for a stall waits for.
        runs && self.stopping.is_none() && self.unsaved.is_none() && !following.reads_tail
    }

    /// Does the next thing that is to be done about watches, if nothing is being stored.
    pub(super) fn tend_watches(&mut self, now: Moment) {
        self.replace_watches(now);
        self.tell(now);
        self.rearm();
    }

    /// Tells the session what is due.
    fn tell(&mut self, now: Moment) {
        let Phase::Following(following) = &self.phase else { return };
        if self.storing.is_some() || !self.may_tell(following) {
            return;
        }
        let Some(news) = self.alerts.next(&self.task, &self.budgets, now.at) else { return };
        let mut task = self.draft(now);
        self.alerts.apply(news, &mut task.watches);
        let (watch, held_back) = self.alerts.notice(news, &self.task.watches);
        tracing::info!(kind = news.kind().word(), index = ?watch.as_ref().map(|watch| watch.index), held_back, "watches");
        let then = Then::WatchTold { news, revision: self.task.revision };
        let notice = Notice { watch: watch.map(Box::new), held_back, ..Notice::new(news.kind(), now) };
        self.try_commit(task, Some(notice), then, now);
    }

    /// The news were committed, or are tried again later.
    pub(super) fn watch_told(&mut self, news: News, revision: i64, now: Moment) {
        if self.task.revision > revision {
            let interval = self.budgets.settings().interval;
            self.alerts.told(news, interval, now.at);
        } else {
            self.alerts.failed(now.at);
        }
        self.proceed(now);
    }

    /// A caller wants other watches.
    pub(super) fn watch_ordered(&mut self, order: WatchOrder, now: Moment) {
        self.watch_order = Some(order);
        self.tend_watches(now);
    }

    /// Replaces the watches if a caller has asked for it. While the store fails, the order waits.
    fn replace_watches(&mut self, now: Moment) {
        let Phase::Following(Following { stage: Stage::Running { .. }, reads_tail: false, .. }) = &self.phase else {
            return;
        };
        if self.storing.is_some() || self.unsaved.is_some() {
            return;
        }
        let stored = self.task.watches.set;
        let Some(order) = self.watch_order.clone().filter(|order| order.set > stored) else { return };
        let mut task = self.draft(now);
        task.watches = Watches::new(order.set, order.watches, order.from.unwrap_or(self.output.end));
        self.try_commit(task, None, Then::WatchesReplaced { set: order.set }, now);
    }

    pub(super) fn watches_replaced(&mut self, set: u32, now: Moment) {
        if self.task.watches.set == set {
            self.watch_order = None;
            self.alerts.replaced();
        }
        self.proceed(now);
    }

    /// Attaches anew if the attachment searches for other watches than there are.
    fn rearm(&mut self) {
        let Phase::Following(following) = &self.phase else { return };
        if self.storing.is_none() && self.may_tell(following) && self.armed != Armed::of(&self.task.watches) {
            self.actions.push(Action::Detach);
            self.attach();
        }
    }
}
