//! Sandboxes that nobody uses: which bots are active, and stopping the sandboxes of those that are not.
//!
//! A bot is active while it has an unfinished task, or a call about its files is open. A sandbox that was not active for its idle time is
//! stopped; the next task starts it again. A task that is older than the settings allow counts no more: a forgotten server does not hold its
//! sandbox for ever. Processes that finished tasks left behind never count.
//!
//! Owns what is known of the use of sandboxes since this server began. A restart of the server counts as use.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep};

use crate::{Engine, EngineError, Inner};
use errand_store::BotFilter;
use errand_task::{BotId, SandboxRecord, StopCause, TenantId};

/// How often sandboxes are looked through, unless the idle time is shorter than four of these.
const INTERVAL: Duration = Duration::from_secs(15);
/// The shortest such time.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(250);
/// How many records are read at once.
const PAGE: u32 = 64;

type Key = (TenantId, BotId);

/// When sandboxes are stopped for not being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdlePolicy {
    /// How long a sandbox must not be used. None: it is never stopped. A sandbox's own specification goes before.
    pub stop_after: Option<Duration>,
    /// The age from which on an unfinished task is no use.
    pub task_age: Duration,
}

/// How sandboxes are used.
pub(super) struct Activity {
    began: Instant,
    bots: Mutex<HashMap<Key, Use>>,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    /// Calls that are open now.
    calls: u32,
    last: Instant,
    /// Whether the sandbox was seen stopped and not used since.
    stopped: bool,
}

/// An open call about a bot's sandbox. Dropping it ends the call.
pub(super) struct Busy {
    activity: Arc<Activity>,
    key: Key,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), bots: Mutex::default() })
    }

    /// Notes that a call about the bot's sandbox begins.
    pub(super) fn begin(self: &Arc<Self>, tenant: &TenantId, bot: &BotId) -> Busy {
        let key = (tenant.clone(), bot.clone());
        self.change(&key, |used| used.calls += 1);
        Busy { activity: Arc::clone(self), key }
    }

    /// Notes that the bot used its sandbox just now.
    pub(super) fn touch(&self, tenant: &TenantId, bot: &BotId) {
        self.change(&(tenant.clone(), bot.clone()), |_| {});
    }

    fn change(&self, key: &Key, change: impl FnOnce(&mut Use)) {
        let mut bots = self.bots.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let used = bots.entry(key.clone()).or_insert(Use { calls: 0, last: now, stopped: false });
        change(used);
        (used.last, used.stopped) = (now, false);
    }

    /// How long no call used the bot's sandbox; none while one does.
    fn unused_for(&self, key: &Key) -> Option<Duration> {
        match self.bots.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            Some(used) if used.calls > 0 => None,
            Some(used) => Some(used.last.elapsed()),
            None => Some(self.began.elapsed()),
        }
    }

    fn is_known_stopped(&self, key: &Key) -> bool {
        self.bots.lock().unwrap_or_else(PoisonError::into_inner).get(key).is_some_and(|used| used.stopped)
    }

    fn note_stopped(&self, key: &Key) {
        let mut bots = self.bots.lock().unwrap_or_else(PoisonError::into_inner);
        let used = bots.entry(key.clone()).or_insert(Use { calls: 0, last: self.began, stopped: true });
        used.stopped = used.calls == 0;
    }

    /// Forgets bots without a sandbox: callers choose names freely.
    fn keep(&self, has_sandbox: impl Fn(&Key) -> bool) {
        let mut bots = self.bots.lock().unwrap_or_else(PoisonError::into_inner);
        bots.retain(|key, used| used.calls > 0 || has_sandbox(key));
    }

    /// The bots of a tenant with open calls.
    fn calling(&self, tenant: &TenantId) -> Vec<(BotId, u32)> {
        let bots = self.bots.lock().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = bots.iter().filter(|((owner, _), used)| owner == tenant && used.calls > 0);
        of_tenant.map(|((_, bot), used)| (bot.clone(), used.calls)).collect()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.activity.change(&self.key, |used| used.calls = used.calls.saturating_sub(1));
    }
}

/// A bot that is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveBot {
    /// The bot.
    pub bot: BotId,
    /// Its unfinished tasks that are not too old.
    pub unfinished: u32,
    /// When the oldest of them was accepted.
    pub oldest: Option<SystemTime>,
    /// Open calls about its files.
    pub calls: u32,
}

impl Engine {
    /// The active bots of a tenant, by name: those after `after`, at most `limit`. Unfinished tasks that were accepted longer than `max_age` ago
    /// do not count.
    ///
    /// # Errors
    /// [`EngineError::Reconciling`].
    pub async fn active_bots(
        &self,
        tenant: &TenantId,
        bots: &BotFilter,
        max_age: Option<Duration>,
        after: Option<&BotId>,
        limit: usize,
    ) -> Result<Vec<ActiveBot>, EngineError> {
        self.inner.reconciling.wait(tenant, bots).await?;
        let wanted = |bot: &BotId| bots.admits(bot) && after.is_none_or(|after| bot > after);
        let mut active: BTreeMap<BotId, ActiveBot> = BTreeMap::new();
        let entry = |bot: BotId| ActiveBot { bot, unfinished: 0, oldest: None, calls: 0 };
        for live in self.inner.all_live() {
            let Some((bot, accepted)) = live.owned_by(tenant).filter(|(bot, _)| wanted(bot)) else { continue };
            let age = accepted.elapsed().unwrap_or_default();
            if max_age.is_none_or(|most| age <= most) {
                let bot = active.entry(bot.clone()).or_insert_with(|| entry(bot));
                bot.unfinished += 1;
                bot.oldest = Some(bot.oldest.map_or(accepted, |oldest| oldest.min(accepted)));
            }
        }
        for (bot, calls) in self.inner.activity.calling(tenant) {
            if wanted(&bot) {
                active.entry(bot.clone()).or_insert_with(|| entry(bot)).calls = calls;
            }
        }
        Ok(active.into_values().take(limit).collect())
    }
}

/// Stops idle sandboxes until the server ends.
pub(super) async fn run(engine: Engine) {
    let policy = engine.inner.settings.idle;
    let interval = policy.stop_after.map_or(INTERVAL, |after| (after / 4).clamp(SHORTEST_INTERVAL, INTERVAL));
    loop {
        tokio::select! {
            () = engine.inner.leave.cancelled() => return,
            () = sleep(interval) => {}
        }
        tokio::select! {
            () = engine.inner.leave.cancelled() => return,
            looked = look_through(&engine, policy) => {
                if let Err(error) = looked {
                    tracing::warn!(error = &error as &dyn std::error::Error, "idle sandboxes could not be looked for");
                }
            }
        }
    }
}

async fn look_through(engine: &Engine, policy: IdlePolicy) -> Result<(), EngineError> {
    let inner = &engine.inner;
    let young = bots_with_young_tasks(inner, policy.task_age);
    let (mut after, mut all) = (None, std::collections::HashSet::new());
    loop {
        let page = inner.store.sandboxes(None, after, PAGE).await?;
        for record in &page {
            let key = (record.tenant.clone(), record.bot.clone());
            let limit = record.spec.idle_stop_after.or(policy.stop_after).filter(|limit| !limit.is_zero());
            let is_idle = |limit| inner.activity.unused_for(&key).is_some_and(|unused| unused >= limit);
            if let Some(limit) = limit
                && !record.adopted
                && !young.contains(&key)
                && !inner.activity.is_known_stopped(&key)
                && is_idle(limit)
            {
                stop(engine, record, &key, limit).await;
            }
            all.insert(key);
        }
        match page.last() {
            Some(last) if page.len() >= PAGE as usize => after = Some(last.id),
            Some(_) | None => break,
        }
    }
    inner.activity.keep(|key| all.contains(key));
    Ok(())
}

/// The bots with an unfinished task that is younger than `limit`.
fn bots_with_young_tasks(inner: &Inner, limit: Duration) -> std::collections::HashSet<Key> {
    let young = inner.all_live().into_iter().filter(|live| live.since.elapsed() < limit);
    young.map(|live| live.owner()).collect()
}

/// Stops one sandbox, unless it is used again meanwhile. A failure is logged; the next look tries again.
async fn stop(engine: &Engine, record: &SandboxRecord, key: &Key, limit: Duration) {
    let (tenant, bot) = key;
    let stopping = async {
        let inner = &engine.inner;
        inner.reconciling.wait_for(tenant, bot).await?;
        let old = inner.all_live().into_iter().any(|live| live.owner() == *key);
        if old {
            engine.end_tasks(tenant, bot, StopCause::SandboxStopped).await?;
        }
        let age = inner.settings.idle.task_age;
        // The end of an old task is no use of the sandbox; anything else since is.
        let is_unused = || {
            let young = inner.all_live().into_iter().any(|live| live.owner() == *key && live.since.elapsed() < age);
            !young && inner.activity.unused_for(key).is_some_and(|unused| old || unused >= limit)
        };
        crate::retention::outputs::before_end(inner, tenant, bot).await;
        inner.sandboxes.stop_unused(tenant, bot, is_unused).await
    };
    match stopping.await {
        Ok(true) => {
            engine.inner.activity.note_stopped(key);
            tracing::info!(sandbox = %record.id, %bot, idle = ?limit, "stopped an idle sandbox");
        }
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(sandbox = %record.id, %bot, error = &error as &dyn std::error::Error, "an idle sandbox was not stopped");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    fn key(bot: &str) -> Key {
        ("t".parse().unwrap(), bot.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn open_calls_and_their_end_count_as_use() {
        let activity = Activity::new();
        let key = key("b");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(activity.unused_for(&key), Some(Duration::from_secs(5)), "since the server began");
        let call = activity.begin(&key.0, &key.1);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!((activity.unused_for(&key), activity.calling(&key.0)), (None, vec![(key.1.clone(), 1)]));
        drop(call);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(activity.unused_for(&key), Some(Duration::from_secs(2)));
        activity.note_stopped(&key);
        assert!(activity.is_known_stopped(&key));
        activity.touch(&key.0, &key.1);
        assert!(!activity.is_known_stopped(&key) && activity.unused_for(&key) == Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn bots_without_a_sandbox_are_forgotten() {
        let activity = Activity::new();
        let keys: Vec<Key> = (0..3).map(|number| key(&number.to_string())).collect();
        keys.iter().for_each(|key| activity.touch(&key.0, &key.1));
        let _call = activity.begin(&keys[1].0, &keys[1].1);
        activity.keep(|key| *key == keys[0]);
        let known: Vec<_> = keys.iter().map(|key| activity.bots.lock().unwrap().contains_key(key)).collect();
        assert_eq!(known, [true, true, false]);
    }
}
