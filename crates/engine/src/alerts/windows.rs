//! When one task's matches are told: at once, then at most once in each window; and no more once three windows in a row had to hold back.

use std::time::{Duration, Instant};

use super::{Budgets, Grant};
use errand_task::{ArmedWatch, NotificationKind, Task, WatchCount, WatchMatches, WatchNotice, Watches};

/// How many windows in a row may hold matches back before the watches are turned off.
const BAD_WINDOWS: u32 = 3;
/// How long to wait before a notification that could not be stored is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What a session is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// The matches.
    Matches,
    /// The matches, and that their watches are turned off.
    Disabled,
    /// A pause of the session has begun.
    Suspended,
    /// A pause of the session is over, in which so many matches were held back.
    Restored { held: u64 },
}

impl News {
    pub(crate) fn kind(self) -> NotificationKind {
        match self {
            Self::Matches => NotificationKind::WatchMatched,
            Self::Disabled => NotificationKind::WatchDisabled,
            Self::Suspended => NotificationKind::WatchesSuspended,
            Self::Restored { .. } => NotificationKind::WatchesRestored,
        }
    }
}

/// The matches of one task that are not told yet, and when they may be.
#[derive(Debug, Default)]
pub(crate) struct Alerts {
    /// At most one entry for each watch, in the order of their first matches.
    pending: Vec<WatchMatches>,
    /// How many of them were not told at once.
    delayed: u64,
    /// How many of them were counted as held back by a pause of the session.
    counted: u64,
    unsearched: u64,
    /// When matches last came.
    came_at: Option<Instant>,
    /// Until then, matches wait.
    window_until: Option<Instant>,
    bad_windows: u32,
    /// The end of a pause of the session.
    shut_until: Option<Instant>,
    /// What the session has to be told of a pause.
    owed: Option<News>,
    /// Whether the session's budget has allowed a notification that is not stored yet.
    granted: bool,
    retry_at: Option<Instant>,
}

impl Alerts {
    /// Takes in matches. Leaves out what cannot be true, or was found before.
    pub(crate) fn add(
        &mut self,
        matches: Vec<WatchMatches>,
        unsearched: u64,
        task: &Task,
        budgets: &Budgets,
        now: Instant,
    ) {
        self.close_window(now);
        self.unsearched = self.unsearched.saturating_add(unsearched);
        let mut count = 0_u64;
        for found in matches.into_iter().filter(|found| task.watches.accepts(found)) {
            match self.pending.iter_mut().find(|pending| pending.index == found.index) {
                Some(pending) if pending.next > found.offset || is_once(&task.watches, found.index) => continue,
                Some(pending) => {
                    count = count.saturating_add(found.count);
                    (pending.count, pending.next) = (pending.count.saturating_add(found.count), found.next);
                    pending.lines.add(&found.lines);
                }
                None => {
                    count = count.saturating_add(found.count);
                    self.pending.push(found);
                }
            }
        }
        if count == 0 {
            return;
        }
        self.came_at = Some(now);
        if self.window_until.is_some() || self.shut_until.is_some() {
            self.delayed = self.delayed.saturating_add(count);
        }
        if self.shut_until.is_some() {
            self.count(&task.owner, budgets);
        }
    }

    /// Ends a window that is over.
    fn close_window(&mut self, now: Instant) {
        if self.window_until.take_if(|until| *until <= now).is_some() {
            self.bad_windows = if self.pending.is_empty() { 0 } else { self.bad_windows + 1 };
        }
    }

    /// Counts matches that a pause of the session holds back.
    fn count(&mut self, owner: &errand_task::Owner, budgets: &Budgets) {
        let all = self.rest();
        budgets.hold(owner, all.saturating_sub(self.counted));
        self.counted = all;
    }

    /// The watches that a new search is to look for: what waits to be told is not looked for again.
    pub(crate) fn armed(&self, watches: &Watches) -> Vec<ArmedWatch> {
        let mut armed = watches.armed();
        for pending in &self.pending {
            armed.retain(|watch| watch.index != pending.index || !watch.once);
            for watch in armed.iter_mut().filter(|watch| watch.index == pending.index) {
                watch.from = watch.from.max(pending.next);
            }
        }
        armed
    }

    /// How many matches are not told yet.
    pub(crate) fn rest(&self) -> u64 {
        self.pending.iter().fold(0, |all, pending| all.saturating_add(pending.count))
    }

    /// When to call [`Alerts::next`].
    pub(crate) fn due(&self) -> Option<Instant> {
        let earliest = self.retry_at.or(self.came_at)?;
        if self.owed.is_some() {
            return Some(earliest);
        }
        if let Some(until) = self.shut_until {
            return Some(earliest.max(until));
        }
        (!self.pending.is_empty()).then(|| self.window_until.map_or(earliest, |until| earliest.max(until)))
    }

    /// What the session is to be told now.
    pub(crate) fn next(&mut self, task: &Task, budgets: &Budgets, now: Instant) -> Option<News> {
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        self.close_window(now);
        if self.owed.is_some() {
            return self.owed;
        }
        self.shut_until = None;
        if self.pending.is_empty() {
            self.owed = budgets.reopen(&task.owner, now).map(|held| News::Restored { held });
            return self.owed;
        }
        let grant = if self.granted { Grant::Open } else { budgets.ask(&task.owner, now) };
        self.granted = grant == Grant::Open;
        match grant {
            Grant::Open if self.bad_windows >= BAD_WINDOWS => Some(News::Disabled),
            Grant::Open => Some(News::Matches),
            Grant::Restored { held } => {
                self.owed = Some(News::Restored { held });
                self.owed
            }
            Grant::Suspended { until } => {
                (self.shut_until, self.owed) = (Some(until), Some(News::Suspended));
                self.hold_all(task, budgets);
                self.owed
            }
            Grant::Shut { until } => {
                self.shut_until = Some(until);
                self.hold_all(task, budgets);
                None
            }
        }
    }

    fn hold_all(&mut self, task: &Task, budgets: &Budgets) {
        self.delayed = self.rest();
        self.count(&task.owner, budgets);
    }

    /// Notes in the record what is told.
    pub(crate) fn apply(&self, news: News, watches: &mut Watches) {
        let disables = match news {
            News::Matches => false,
            News::Disabled => true,
            News::Suspended | News::Restored { .. } => return,
        };
        self.note(watches, disables, false);
    }

    /// Notes in the record of a task that ends what was never told. Returns how many matches that are.
    pub(crate) fn finish(&self, watches: &mut Watches) -> u64 {
        self.note(watches, false, true);
        self.rest()
    }

    fn note(&self, watches: &mut Watches, disables: bool, untold: bool) {
        // Which matches came late is not kept apart for each watch: the first to wait are those of the last entries.
        let mut delayed = if untold { self.rest() } else { self.delayed };
        for pending in self.pending.iter().rev() {
            let Some(state) = watches.at(pending.index) else { continue };
            let waited = delayed.min(pending.count);
            delayed -= waited;
            state.matches = state.matches.saturating_add(pending.count);
            state.held_back = state.held_back.saturating_add(waited);
            state.next = pending.next;
            state.disabled |= disables;
        }
        for state in &mut watches.list {
            state.unsearched = state.unsearched.saturating_add(self.unsearched);
        }
    }

    /// What a notification says: what matched, and how many matches were not told when they were found.
    pub(crate) fn notice(&self, news: News, watches: &Watches) -> (Option<WatchNotice>, u64) {
        match news {
            News::Matches | News::Disabled => {}
            News::Suspended => return (None, self.rest()),
            News::Restored { held } => return (None, held),
        }
        let notice = self.pending.split_first().and_then(|(first, others)| {
            let state = watches.list.get(usize::try_from(first.index).ok()?)?;
            Some(WatchNotice {
                index: first.index,
                watch: state.watch.clone(),
                offset: first.offset,
                lines: first.lines.clone(),
                matches: first.count,
                others: others.iter().map(|other| WatchCount { index: other.index, matches: other.count }).collect(),
            })
        });
        (notice, self.delayed)
    }

    /// The news were stored.
    pub(crate) fn told(&mut self, news: News, interval: Duration, now: Instant) {
        self.retry_at = None;
        match news {
            News::Matches | News::Disabled => {
                self.granted = false;
                (self.delayed, self.counted, self.unsearched) = (0, 0, 0);
                self.pending.clear();
                self.window_until = Some(now + interval);
                if news == News::Disabled {
                    self.bad_windows = 0;
                }
            }
            News::Suspended | News::Restored { .. } => self.owed = None,
        }
    }

    /// The news could not be stored.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.retry_at = Some(now + RETRY);
    }

    /// The watches were replaced: what their predecessors found is not told any more.
    pub(crate) fn replaced(&mut self) {
        self.pending.clear();
        (self.delayed, self.counted, self.unsearched, self.bad_windows) = (0, 0, 0, 0);
    }
}

fn is_once(watches: &Watches, index: u32) -> bool {
    usize::try_from(index).ok().and_then(|index| watches.list.get(index)).is_some_and(|state| state.watch.once)
}

#[cfg(test)]
mod tests;
