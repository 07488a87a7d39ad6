//! The invariants of watches: a match is told of once, at most one notification in a window, and none but the completion after the end.

use std::time::Instant;

use super::{rules::Observed, world::INTERVAL};
use crate::supervisor::machine::Notice;
use errand_task::{NotificationKind, Task, TaskState, WatchState};

impl Observed {
    /// A record is about to be stored in place of another one.
    pub(super) fn watching(
        &mut self,
        old: &Task,
        new: &Task,
        notice: Option<&Notice>,
        now: Instant,
    ) -> Result<(), String> {
        if new.watches.set != old.watches.set {
            let replaced = new.watches.set > old.watches.set && notice.is_none();
            return if replaced { Ok(()) } else { Err("the watches were replaced beside something else".to_owned()) };
        }
        let (before, after) = (matches(&old.watches.list), matches(&new.watches.list));
        let forward = old.watches.list.iter().zip(&new.watches.list).all(|(old, new)| old.next <= new.next);
        if after < before || !forward || (after > before && new.watches.list == old.watches.list) {
            return Err(format!("watches went from {:?} to {:?}", old.watches, new.watches));
        }
        let Some(notice) = notice else {
            // A task whose end is not announced ends with its matches counted.
            return if new.watches == old.watches || new.status().is_terminal() {
                Ok(())
            } else {
                Err("watches changed without a notice".to_owned())
            };
        };
        let told = notice
            .watch
            .as_ref()
            .map_or(0, |watch| watch.matches + watch.others.iter().map(|other| other.matches).sum::<u64>());
        let disabled = |task: &Task| task.watches.list.iter().filter(|state| state.disabled).count();
        let right = match notice.kind {
            NotificationKind::WatchMatched => after - before == told && told > 0 && disabled(new) == disabled(old),
            NotificationKind::WatchDisabled => after - before == told && told > 0 && disabled(new) > disabled(old),
            NotificationKind::Completed => after - before == notice.held_back && notice.watch.is_none(),
            _ => new.watches == old.watches && notice.watch.is_none(),
        };
        if !right {
            return Err(format!("{notice:?} with watches from {:?} to {:?}", old.watches, new.watches));
        }
        if !notice.kind.is_about_watches() {
            return Ok(());
        }
        if !matches!(new.state, TaskState::Running { .. }) {
            return Err(format!("{:?} was told of a task that is {:?}", notice.kind, new.status()));
        }
        if notice.watch.is_some() {
            if let Some(last) = self.told_matches_at.replace(now)
                && now.saturating_duration_since(last) < INTERVAL
            {
                return Err("two notifications about matches came in one window".to_owned());
            }
            self.matches_told += 1;
        }
        Ok(())
    }
}

/// How many matches there were in all.
pub(super) fn matches(states: &[WatchState]) -> u64 {
    states.iter().map(|state| state.matches).sum()
}
