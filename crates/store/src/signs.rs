//! Signs to look again, for those alone whom they concern: a thousand sessions must not be woken for one.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::Scope;

/// How many scopes are known before those are looked for that nobody watches any more.
const FIRST_SWEEP: usize = 64;

/// One sign for each scope that somebody watches.
#[derive(Debug)]
pub(super) struct Signs {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    signs: HashMap<Scope, watch::Sender<u64>>,
    /// At how many scopes to look for forgotten ones.
    sweep_at: usize,
}

impl Signs {
    pub(super) fn new() -> Self {
        Self { known: Mutex::new(Known { signs: HashMap::new(), sweep_at: FIRST_SWEEP }) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sign of a scope.
    pub(super) fn watch(&self, scope: &Scope) -> watch::Receiver<u64> {
        let mut known = self.known();
        if known.signs.len() >= known.sweep_at {
            known.signs.retain(|_, sign| sign.receiver_count() > 0);
            known.sweep_at = (known.signs.len() * 2).max(FIRST_SWEEP);
        }
        known.signs.entry(scope.clone()).or_default().subscribe()
    }

    /// Gives the sign to everybody who watches something of this scope: a session's to the session and to its whole bot, a bot's to all of
    /// its sessions.
    pub(super) fn give(&self, scope: &Scope) {
        let known = self.known();
        let change = |sign: &watch::Sender<u64>| sign.send_modify(|count| *count = count.wrapping_add(1));
        if scope.session.is_some() {
            let of_bot = Scope { session: None, ..scope.clone() };
            [scope, &of_bot].into_iter().filter_map(|scope| known.signs.get(scope)).for_each(change);
        } else {
            let concerned = |other: &Scope| other.tenant == scope.tenant && other.bot == scope.bot;
            known.signs.iter().filter(|(other, _)| concerned(other)).for_each(|(_, sign)| change(sign));
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
    fn a_sign_reaches_those_whom_it_concerns() {
        let signs = Signs::new();
        let scopes = [scope("a", Some("1")), scope("a", Some("2")), scope("a", None), scope("b", Some("1"))];
        let mut watched: Vec<_> = scopes.iter().map(|scope| signs.watch(scope)).collect();
        let mut given = |scope: &Scope| {
            signs.give(scope);
            let changed: Vec<bool> = watched.iter().map(|sign| sign.has_changed().unwrap()).collect();
            watched.iter_mut().for_each(watch::Receiver::mark_unchanged);
            changed
        };
        assert_eq!(given(&scopes[0]), [true, false, true, false]);
        assert_eq!(given(&scopes[2]), [true, true, true, false]);
        assert_eq!(given(&scope("c", None)), [false; 4]);
    }

    #[test]
    fn scopes_that_nobody_watches_are_forgotten() {
        let signs = Signs::new();
        let kept = signs.watch(&scope("kept", None));
        for number in 0..1000 {
            drop(signs.watch(&scope("bot", Some(&number.to_string()))));
        }
        assert!(signs.known().signs.len() <= 2 * FIRST_SWEEP);
        signs.give(&scope("kept", None));
        assert!(kept.has_changed().unwrap());
    }
}
