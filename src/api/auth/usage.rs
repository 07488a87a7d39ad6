//! Counts how much of the server each tenant uses at a time: requests per second, calls, connections, subscriptions per bot.
//!
//! Owns the counts. A [`Held`] holds one slot; dropping it frees the slot.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tonic::Status;

use crate::api::status;
use errand_task::{BotId, TenantId};

/// When to retry after a limit was reached that the end of another call relieves.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// For how long a tenant may save up unused requests.
const BURST: Duration = Duration::from_secs(2);

/// How much of the server a tenant may use at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Requests per second. Twice as many may come at once.
    pub requests_per_second: u32,
    /// Concurrent calls, including streams and waits.
    pub calls: u32,
    /// Concurrent subscriptions of one bot.
    pub subscriptions_per_bot: u32,
    /// Concurrent connections.
    pub connections: u32,
}

/// The usage of all tenants.
pub(super) struct Usage {
    usual: RequestLimits,
    tenants: Mutex<HashMap<TenantId, Arc<TenantUse>>>,
}

impl Usage {
    pub(super) fn new(usual: RequestLimits) -> Self {
        Self { usual, tenants: Mutex::default() }
    }

    /// The limits of a tenant without exceptions.
    pub(super) fn usual(&self) -> RequestLimits {
        self.usual
    }

    /// The usage of one tenant. Entries are never removed: the tenants come from the tokens file, so there are few.
    pub(super) fn of(&self, tenant: &TenantId) -> Arc<TenantUse> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        match tenants.get(tenant) {
            Some(found) => Arc::clone(found),
            None => Arc::clone(tenants.entry(tenant.clone()).or_default()),
        }
    }
}

/// The usage of one tenant.
#[derive(Debug, Default)]
pub(in crate::api) struct TenantUse {
    requests: Mutex<Option<Bucket>>,
    calls: Arc<AtomicU32>,
    connections: Arc<AtomicU32>,
    subscriptions: Mutex<BotCounts>,
    /// Streams of the tasks of one bot.
    bot_watches: Mutex<BotCounts>,
    /// Streams of the tasks of all bots.
    watches: Arc<AtomicU32>,
}

/// How many streams each bot has. Bots without streams may be left out.
type BotCounts = HashMap<BotId, Arc<AtomicU32>>;

/// Requests that the tenant may make now.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl TenantUse {
    /// Counts a request.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED with the time until the next request is allowed.
    pub(super) fn count_request(&self, limits: &RequestLimits, now: Instant) -> Result<(), Status> {
        let rate = f64::from(limits.requests_per_second);
        let most = rate * BURST.as_secs_f64();
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let Bucket { left, at } = requests.unwrap_or(Bucket { left: most, at: now });
        let left = (left + now.saturating_duration_since(at).as_secs_f64() * rate).min(most);
        if left < 1.0 {
            *requests = Some(Bucket { left, at: now });
            let quota = format!("{} requests in a second", limits.requests_per_second);
            let message = format!("the tenant makes more than {quota}");
            let wait = Duration::from_secs_f64((1.0 - left) / rate);
            return Err(status::exhausted("tenant", &quota, &message, Some(wait)));
        }
        *requests = Some(Bucket { left: left - 1.0, at: now });
        Ok(())
    }

    /// Takes one of the tenant's call slots.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED.
    pub(super) fn begin_call(&self, limits: &RequestLimits) -> Result<Held, Status> {
        Held::take(&self.calls, limits.calls).ok_or_else(|| full("tenant", "calls of the tenant", limits.calls))
    }

    /// Takes one of the tenant's connection slots.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED.
    pub(in crate::api) fn connect(&self, limits: &RequestLimits) -> Result<Held, Status> {
        let taken = Held::take(&self.connections, limits.connections);
        taken.ok_or_else(|| full("tenant", "connections of the tenant", limits.connections))
    }

    /// Takes one of a bot's subscription slots.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED.
    pub(in crate::api) fn subscribe(&self, bot: &BotId, limit: u32) -> Result<Held, Status> {
        of_bot(&self.subscriptions, bot, limit).ok_or_else(|| full("bot", "subscriptions of the bot", limit))
    }

    /// Takes one of a bot's slots for streams of its tasks.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED.
    pub(in crate::api) fn watch_bot(&self, bot: &BotId, limit: u32) -> Result<Held, Status> {
        of_bot(&self.bot_watches, bot, limit).ok_or_else(|| full("bot", "streams of the bot's tasks", limit))
    }

    /// Takes one of the tenant's slots for streams of the tasks of all bots.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED.
    pub(in crate::api) fn watch_all(&self, limit: u32) -> Result<Held, Status> {
        Held::take(&self.watches, limit).ok_or_else(|| full("tenant", "streams of all bots' tasks", limit))
    }
}

/// Takes a slot of a bot.
fn of_bot(counts: &Mutex<BotCounts>, bot: &BotId, limit: u32) -> Option<Held> {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    if !counts.contains_key(bot) {
        // Callers choose bot names freely, so only bots with streams are remembered.
        counts.retain(|_, count| count.load(Ordering::Relaxed) > 0);
    }
    Held::take(counts.entry(bot.clone()).or_default(), limit)
}

fn full(subject: &str, what: &str, limit: u32) -> Status {
    let message = format!("there are {limit} {what}, the most that there may be at the same time");
    status::exhausted(subject, &format!("{limit} {what}"), &message, Some(RETRY_DELAY))
}

/// A slot that stays taken until this is dropped.
#[derive(Debug)]
pub(in crate::api) struct Held {
    count: Arc<AtomicU32>,
}

impl Held {
    /// Takes a slot if fewer than `limit` are taken.
    pub(in crate::api) fn take(count: &Arc<AtomicU32>, limit: u32) -> Option<Self> {
        let more = |taken: u32| (taken < limit).then_some(taken + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { count: Arc::clone(count) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use tonic_types::StatusExt as _;

    use super::*;

    const LIMITS: RequestLimits =
        RequestLimits { requests_per_second: 10, calls: 2, subscriptions_per_bot: 1, connections: 1 };

    #[test]
    fn requests_beyond_the_rate_must_wait() {
        let (usage, start) = (TenantUse::default(), Instant::now());
        let passed = |at| (0..100).take_while(|_| usage.count_request(&LIMITS, at).is_ok()).count();
        assert_eq!(passed(start), 20);
        let status = usage.count_request(&LIMITS, start).unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert_eq!(wait.as_millis(), 100);
        assert_eq!(status.get_details_quota_failure().unwrap().violations[0].subject, "tenant");
        assert_eq!(passed(start + Duration::from_millis(510)), 5);
        assert_eq!(passed(start + Duration::from_secs(3600)), 20);
    }

    #[test]
    fn dropped_permit_is_free_again() {
        let usage = TenantUse::default();
        let held = [usage.begin_call(&LIMITS).unwrap(), usage.begin_call(&LIMITS).unwrap()];
        assert!(usage.begin_call(&LIMITS).unwrap_err().message().contains('2'));
        drop(held);
        usage.begin_call(&LIMITS).unwrap();
        let (one, two) = (BotId::new("one").unwrap(), BotId::new("two").unwrap());
        let held = usage.subscribe(&one, 1).unwrap();
        assert!(usage.subscribe(&one, 1).is_err());
        usage.subscribe(&two, 1).unwrap();
        drop(held);
        usage.subscribe(&one, 1).unwrap();
        assert!(usage.subscriptions.lock().unwrap().len() <= 2);
    }
}
