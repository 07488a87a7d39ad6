//! Holds a completion back while the answer that tells of it is on its way, and acknowledges it once the answer is known to have arrived.

use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use super::{acknowledging, count};
use crate::{
    BotFilter, StoreError,
    sqlite::{
        statement::Statement,
        tasks::push_patterns,
        values::{micros, time},
        writer::Change,
    },
};
use errand_task::{LeaseId, NotificationKind, TaskId, TenantId};

/// Leases the completion of a task, unless it is acknowledged or another lease runs on it.
pub(in crate::sqlite) struct HoldCompletion {
    pub(in crate::sqlite) tenant: TenantId,
    pub(in crate::sqlite) task: TaskId,
    pub(in crate::sqlite) lease: LeaseId,
    pub(in crate::sqlite) duration: Duration,
}

impl Change for HoldCompletion {
    type Answer = bool;

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }

    fn apply(&self, connection: &Connection, now: SystemTime) -> Result<bool, StoreError> {
        let ends_at = now.checked_add(self.duration).unwrap_or_else(|| time(i64::MAX));
        let lease = self.lease.to_string();
        let mut sql = Statement::new("UPDATE notifications INDEXED BY notifications_of_task SET lease = ");
        sql.bind(lease.clone()).push(", lease_until = ").bind(micros(ends_at)).push(", deliveries = deliveries + 1");
        sql.push(" WHERE acknowledged_at IS NULL AND tenant = ").bind(self.tenant.as_str().to_owned());
        sql.push(" AND task = ").bind(self.task.to_string());
        sql.push(" AND kind = ").bind(NotificationKind::Completed.word().to_owned());
        sql.push(" AND (lease IS NULL OR lease_until <= ").bind(micros(now)).push(" OR lease = ").bind(lease).push(")");
        Ok(sql.execute(connection)? > 0)
    }
}

/// Acknowledges what a lease holds, whichever bot it belongs to.
pub(in crate::sqlite) struct AcknowledgeHeld {
    pub(in crate::sqlite) tenant: TenantId,
    pub(in crate::sqlite) bots: BotFilter,
    pub(in crate::sqlite) lease: LeaseId,
}

impl Change for AcknowledgeHeld {
    type Answer = u32;

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }

    fn apply(&self, connection: &Connection, now: SystemTime) -> Result<u32, StoreError> {
        let mut sql = acknowledging(" INDEXED BY notifications_leased", now);
        sql.push("lease = ").bind(self.lease.to_string());
        sql.push(" AND tenant = ").bind(self.tenant.as_str().to_owned());
        match &self.bots {
            BotFilter::All => {}
            BotFilter::One(bot) => {
                sql.push(" AND bot = ").bind(bot.as_str().to_owned());
            }
            BotFilter::Matching(patterns) => push_patterns(&mut sql, patterns),
        }
        Ok(count(sql.execute(connection)?))
    }
}
