//! The budget of notifications about watches that all tasks of one session share.
//!
//! The engine keeps it in memory: a restart of the server ends a pause, and begins to count anew.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::WatchSettings;
use errand_task::Owner;

/// From this many sessions on, those that need not be remembered are forgotten.
const CROWD: usize = 64;

/// The answer to a task that has something to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// It may be told now, and counts.
    Open,
    /// The budget is used up: a pause has begun, which the session is to be told of.
    Suspended { until: Instant },
    /// There is a pause.
    Shut { until: Instant },
    /// A pause is over, which the session is to be told of first: so many matches were held back in it.
    Restored { held: u64 },
}

/// The budget of one session.
#[derive(Debug, Default)]
struct Budget {
    /// When the latest notifications were granted.
    granted: VecDeque<Instant>,
    pause: Option<Pause>,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    /// How many matches were held back.
    held: u64,
}

impl Budget {
    fn ask(&mut self, settings: &WatchSettings, now: Instant) -> Grant {
        if let Some(held) = self.reopen(now) {
            return Grant::Restored { held };
        }
        if let Some(pause) = &self.pause {
            return Grant::Shut { until: pause.until };
        }
        while self.granted.front().is_some_and(|at| *at + settings.budget_period <= now) {
            self.granted.pop_front();
        }
        if self.granted.len() >= settings.budget as usize {
            let until = now + settings.pause;
            self.pause = Some(Pause { until, held: 0 });
            self.granted.clear();
            return Grant::Suspended { until };
        }
        self.granted.push_back(now);
        Grant::Open
    }

    /// Ends a pause that is over. How many matches were held back in it.
    fn reopen(&mut self, now: Instant) -> Option<u64> {
        self.pause.take_if(|pause| pause.until <= now).map(|pause| pause.held)
    }

    fn hold(&mut self, count: u64) {
        if let Some(pause) = &mut self.pause {
            pause.held = pause.held.saturating_add(count);
        }
    }

    /// Whether forgetting it changes no answer, but for the end of a pause that no task has asked about for long.
    fn is_idle(&self, settings: &WatchSettings, now: Instant) -> bool {
        let counts = self.granted.back().is_some_and(|at| *at + settings.budget_period > now);
        let pauses = self.pause.as_ref().is_some_and(|pause| pause.until + settings.pause > now);
        !counts && !pauses
    }
}

/// The budgets of all sessions.
#[derive(Debug)]
pub(crate) struct Budgets {
    settings: WatchSettings,
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Default)]
struct Sessions {
    budgets: HashMap<Owner, Budget>,
    /// How many there were after idle ones were last forgotten.
    settled: usize,
}

impl Budgets {
    pub(crate) fn new(settings: WatchSettings) -> Self {
        Self { settings, sessions: Mutex::default() }
    }

    pub(crate) fn settings(&self) -> &WatchSettings {
        &self.settings
    }

    /// A task of this session has something to tell.
    pub(crate) fn ask(&self, owner: &Owner, now: Instant) -> Grant {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = sessions.budgets.get_mut(owner) {
            return budget.ask(&self.settings, now);
        }
        if sessions.budgets.len() >= CROWD.max(2 * sessions.settled) {
            sessions.budgets.retain(|_, budget| !budget.is_idle(&self.settings, now));
            sessions.settled = sessions.budgets.len();
        }
        sessions.budgets.entry(owner.clone()).or_default().ask(&self.settings, now)
    }

    /// Ends a pause that is over, for a task that has nothing to tell. Returns how many matches the pause held back.
    pub(crate) fn reopen(&self, owner: &Owner, now: Instant) -> Option<u64> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.budgets.get_mut(owner)?.reopen(now)
    }

    /// A pause holds so many matches back.
    pub(crate) fn hold(&self, owner: &Owner, count: u64) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(budget) = sessions.budgets.get_mut(owner) {
            budget.hold(count);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn owner(session: &str) -> Owner {
        Owner { tenant: "t".parse().unwrap(), bot: "b".parse().unwrap(), session: session.parse().unwrap() }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn session_is_shut_and_restored_with_one_notice_each() {
        let (budgets, now, owner) = (Budgets::new(WatchSettings::default()), Instant::now(), owner("s"));
        for _ in 0..15 {
            assert_eq!(budgets.ask(&owner, now), Grant::Open);
        }
        let until = now + seconds(30);
        assert_eq!(budgets.ask(&owner, now), Grant::Suspended { until });
        budgets.hold(&owner, 3);
        assert_eq!(budgets.ask(&owner, now + seconds(29)), Grant::Shut { until });
        budgets.hold(&owner, 4);
        assert_eq!(budgets.reopen(&owner, now + seconds(29)), None);
        assert_eq!(budgets.ask(&owner, until), Grant::Restored { held: 7 });
        assert_eq!((budgets.reopen(&owner, until), budgets.ask(&owner, until)), (None, Grant::Open));
        // Another session has a budget of its own.
        assert_eq!(budgets.ask(&self::owner("other"), now), Grant::Open);
    }

    #[test]
    fn idle_sessions_are_forgotten() {
        let (budgets, now) = (Budgets::new(WatchSettings::default()), Instant::now());
        for number in 0..100_000 {
            budgets.ask(&owner(&format!("s{number}")), now + Duration::from_millis(number * 100));
        }
        // 10 s, in which there are 100 sessions.
        assert!(budgets.sessions.lock().unwrap().budgets.len() <= 300);
    }

    proptest! {
        #[test]
        fn budget_is_never_exceeded(pauses in prop::collection::vec(0u64..4000, 1..300)) {
            let (mut budget, settings, mut now) = (Budget::default(), WatchSettings::default(), Instant::now());
            let (mut granted, mut shut): (Vec<Instant>, Option<Instant>) = (Vec::new(), None);
            for pause in pauses {
                now += Duration::from_millis(pause);
                match budget.ask(&settings, now) {
                    Grant::Open => {
                        prop_assert!(shut.is_none(), "granted in a pause, or before its end was told");
                        granted.push(now);
                        let latest = granted.iter().filter(|at| **at + settings.budget_period > now).count();
                        prop_assert!(latest <= 15, "{latest} within 10 s");
                    }
                    Grant::Suspended { until } => prop_assert!(shut.replace(until).is_none() && until == now + settings.pause),
                    Grant::Shut { until } => prop_assert!(shut == Some(until) && now < until),
                    Grant::Restored { .. } => prop_assert!(shut.take().is_some_and(|until| until <= now)),
                }
            }
        }
    }
}
