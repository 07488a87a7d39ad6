//! Which bots still have to be reconciled after a start, and how calls about these bots wait.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::EngineError;
use errand_store::BotFilter;
use errand_task::{BotId, TenantId};

/// How long a call about a bot waits for the bot to be reconciled.
const PATIENCE: Duration = Duration::from_secs(5);

type Key = (TenantId, BotId);

/// The bots that are not reconciled yet. Clones share the list and are cheap.
#[derive(Clone, Default)]
pub(super) struct Reconciling {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// How many bots there are, so that a call on a fully reconciled server costs one atomic load.
    count: AtomicUsize,
    bots: Mutex<HashMap<Key, Pending>>,
}

/// One bot that is not reconciled yet.
struct Pending {
    done: CancellationToken,
    /// What the reconciliation waits for, as callers are told.
    reason: String,
}

impl Shared {
    fn bots(&self) -> MutexGuard<'_, HashMap<Key, Pending>> {
        self.bots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps calls about a bot waiting. Everything that still has to find out what became of one of the bot's tasks holds a clone; dropping the
/// last one lets the calls proceed.
pub(super) struct Hold {
    shared: Weak<Shared>,
    key: Key,
}

impl Hold {
    /// Sets what the reconciliation waits for.
    pub(super) fn because(&self, reason: &str) {
        if let Some(shared) = self.shared.upgrade()
            && let Some(pending) = shared.bots().get_mut(&self.key)
        {
            reason.clone_into(&mut pending.reason);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade()
            && let Some(pending) = shared.bots().remove(&self.key)
        {
            shared.count.fetch_sub(1, Ordering::AcqRel);
            pending.done.cancel();
        }
    }
}

impl Reconciling {
    /// Begins to reconcile a bot. Called once for each bot, before the server answers any call.
    pub(super) fn hold(&self, tenant: &TenantId, bot: &BotId) -> Arc<Hold> {
        let key = (tenant.clone(), bot.clone());
        let pending = Pending { done: CancellationToken::new(), reason: "the server has just started".to_owned() };
        if self.shared.bots().insert(key.clone(), pending).is_none() {
            self.shared.count.fetch_add(1, Ordering::AcqRel);
        }
        Arc::new(Hold { shared: Arc::downgrade(&self.shared), key })
    }

    /// True when every bot is reconciled.
    pub(super) fn is_over(&self) -> bool {
        self.shared.count.load(Ordering::Acquire) == 0
    }

    /// Waits until the bots that a call concerns are reconciled, for at most [`PATIENCE`]. Cancel safe.
    ///
    /// # Errors
    /// [`EngineError::Reconciling`] when the wait takes longer.
    pub(super) async fn wait(&self, tenant: &TenantId, bots: &BotFilter) -> Result<(), EngineError> {
        if self.is_over() {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        let waiting: Vec<_> = self
            .shared
            .bots()
            .iter()
            .filter(|((owner, bot), _)| owner == tenant && bots.admits(bot))
            .map(|(key, pending)| (key.clone(), pending.done.clone()))
            .collect();
        for (key, done) in waiting {
            if timeout_at(deadline, done.cancelled()).await.is_err() {
                let reason = self.shared.bots().get(&key).map(|pending| pending.reason.clone());
                return Err(EngineError::Reconciling { bot: key.1, reason: reason.unwrap_or_default() });
            }
        }
        Ok(())
    }

    /// Like [`Reconciling::wait`], for one bot.
    ///
    /// # Errors
    /// As for [`Reconciling::wait`].
    pub(super) async fn wait_for(&self, tenant: &TenantId, bot: &BotId) -> Result<(), EngineError> {
        if self.is_over() { Ok(()) } else { self.wait(tenant, &BotFilter::One(bot.clone())).await }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_calls_about_an_unreconciled_bot_wait() {
        let reconciling = Reconciling::default();
        let (tenant, other) = (TenantId::new("t").unwrap(), TenantId::new("u").unwrap());
        let (slow, quick) = (BotId::new("slow").unwrap(), BotId::new("quick").unwrap());
        let hold = reconciling.hold(&tenant, &slow);
        let second = Arc::clone(&hold);
        hold.because("the engine does not answer");
        let begun = Instant::now();
        reconciling.wait_for(&tenant, &quick).await.unwrap();
        reconciling.wait_for(&other, &slow).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for bots in [BotFilter::One(slow.clone()), BotFilter::All, BotFilter::Matching(vec!["sl*".to_owned()])] {
            let begun = Instant::now();
            let refused = reconciling.wait(&tenant, &bots).await;
            assert!(
                matches!(&refused, Err(EngineError::Reconciling { bot, reason })
                    if *bot == slow && reason == "the engine does not answer"),
                "{refused:?}"
            );
            assert_eq!(begun.elapsed(), PATIENCE);
        }
        let waiting = reconciling.wait_for(&tenant, &slow);
        drop(hold);
        assert!(!reconciling.is_over(), "one task of the bot is still to be judged");
        drop(second);
        waiting.await.unwrap();
        assert!(reconciling.is_over());
    }
}
