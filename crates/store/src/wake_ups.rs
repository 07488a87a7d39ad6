//! Wake-ups for subscribers, one channel for each scope: a commit wakes only the subscribers that it concerns.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::Scope;

/// The number of known scopes at which those without a subscriber are first removed.
const FIRST_SWEEP: usize = 64;

/// The wake-ups of every scope with a subscriber.
#[derive(Debug)]
pub(crate) struct WakeUps {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    channels: HashMap<Scope, watch::Sender<u64>>,
    /// The number of scopes at which those without a subscriber are removed.
    sweep_at: usize,
}

impl WakeUps {
    pub(crate) fn new() -> Self {
        Self { known: Mutex::new(Known { channels: HashMap::new(), sweep_at: FIRST_SWEEP }) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wake-ups of a scope. The value counts them.
    pub(crate) fn subscribe(&self, scope: &Scope) -> watch::Receiver<u64> {
        let mut known = self.known();
        if known.channels.len() >= known.sweep_at {
            known.channels.retain(|_, channel| channel.receiver_count() > 0);
            known.sweep_at = (known.channels.len() * 2).max(FIRST_SWEEP);
        }
        known.channels.entry(scope.clone()).or_default().subscribe()
    }

    /// Wakes every subscriber of a scope that overlaps: a session's scope wakes the session and its whole bot, a bot's scope wakes all of its
    /// sessions.
    pub(crate) fn wake(&self, scope: &Scope) {
        let known = self.known();
        let wake = |channel: &watch::Sender<u64>| channel.send_modify(|count| *count = count.wrapping_add(1));
        if scope.session.is_some() {
            let of_bot = Scope { session: None, ..scope.clone() };
            [scope, &of_bot].into_iter().filter_map(|scope| known.channels.get(scope)).for_each(wake);
        } else {
            let overlaps = |other: &Scope| other.tenant == scope.tenant && other.bot == scope.bot;
            known.channels.iter().filter(|(other, _)| overlaps(other)).for_each(|(_, channel)| wake(channel));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn scope(bot: &str, session: Option<&str>) -> Scope {
        Scope {
            tenant: "local".parse().unwrap(),
            bot: bot.parse().unwrap(),
            session: session.map(|session| session.parse().unwrap()),
        }
    }

    #[test]
    fn a_wake_up_reaches_overlapping_scopes() {
        let wake_ups = WakeUps::new();
        let scopes = [scope("a", Some("1")), scope("a", Some("2")), scope("a", None), scope("b", Some("1"))];
        let mut watched: Vec<_> = scopes.iter().map(|scope| wake_ups.subscribe(scope)).collect();
        let mut given = |scope: &Scope| {
            wake_ups.wake(scope);
            let changed: Vec<bool> = watched.iter().map(|receiver| receiver.has_changed().unwrap()).collect();
            watched.iter_mut().for_each(watch::Receiver::mark_unchanged);
            changed
        };
        assert_eq!(given(&scopes[0]), [true, false, true, false]);
        assert_eq!(given(&scopes[2]), [true, true, true, false]);
        assert_eq!(given(&scope("c", None)), [false; 4]);
    }

    #[test]
    fn scopes_without_subscribers_are_forgotten() {
        let wake_ups = WakeUps::new();
        let kept = wake_ups.subscribe(&scope("kept", None));
        for number in 0..1000 {
            drop(wake_ups.subscribe(&scope("bot", Some(&number.to_string()))));
        }
        assert!(wake_ups.known().channels.len() <= 2 * FIRST_SWEEP);
        wake_ups.wake(&scope("kept", None));
        assert!(kept.has_changed().unwrap());
    }
}
