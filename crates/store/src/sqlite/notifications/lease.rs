//! Leases on notifications.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rusqlite::Connection;

use super::{
    list,
    page::{Limits, examine},
    pending_index, push_scope,
};
use crate::{
    LeaseRequest, Leased, NotificationPage, Scope, StoreError,
    sqlite::{
        statement::Statement,
        undecodable::Undecodable,
        values::{micros, time},
        writer::Change,
    },
};
use errand_task::TenantId;

/// The most rows that one lease examines. Fewer than a page, because the writer does it.
const EXAMINED: u32 = 1024;
/// The weight after which a lease ends. Sent to a client, notifications take at least twice as much.
const BYTES: usize = 1024 * 1024;

/// Leases the first unacknowledged notifications on which no lease is running.
pub(in crate::sqlite) struct Lease {
    pub(in crate::sqlite) scope: Scope,
    pub(in crate::sqlite) request: LeaseRequest,
    pub(in crate::sqlite) undecodable: Arc<Undecodable>,
}

impl Change for Lease {
    /// What was leased, and the sequence to continue after when there may be more.
    type Answer = (Leased, Option<i64>);

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.scope.tenant)
    }

    fn apply(&self, connection: &Connection, now: SystemTime) -> Result<Self::Answer, StoreError> {
        let NotificationPage { mut notifications, next } = self.free(connection, now)?;
        let ends_at = now.checked_add(self.request.duration).unwrap_or_else(|| time(i64::MAX));
        let sequences: Vec<i64> = notifications.iter().map(|notification| notification.sequence).collect();
        if !sequences.is_empty() {
            let mut statement = connection.prepare_cached(
                "UPDATE notifications SET lease = ?, lease_until = ?, deliveries = deliveries + 1 \
                 WHERE sequence IN (SELECT value FROM json_each(?))",
            )?;
            statement.execute((self.request.lease.to_string(), micros(ends_at), list(&sequences)?))?;
            for notification in &mut notifications {
                notification.deliveries += 1;
            }
        }
        Ok((Leased { notifications, ends_at }, next))
    }
}

impl Lease {
    /// The notifications that can be leased. Undecodable ones are not leased, so that they do not block others.
    fn free(&self, connection: &Connection, now: SystemTime) -> Result<NotificationPage, StoreError> {
        let LeaseRequest { after, limit, .. } = self.request;
        let mut sql = Statement::new("SELECT sequence, CASE WHEN lease IS NULL OR lease_until <= ");
        sql.bind(micros(now)).push(" THEN record END, acknowledged_at, deliveries FROM notifications INDEXED BY ");
        sql.push(pending_index(&self.scope)).push(" WHERE ");
        push_scope(&mut sql, &self.scope);
        sql.push(" AND acknowledged_at IS NULL AND sequence > ").bind(after);
        sql.push(" ORDER BY sequence LIMIT ").bind(EXAMINED);
        let limits = Limits { notifications: limit, rows: EXAMINED, bytes: BYTES };
        examine(&sql, connection, limits, &self.undecodable)
    }
}

/// How long from `now` until the first lease after a sequence ends.
pub(in crate::sqlite) fn next_lease_end(
    connection: &Connection,
    scope: &Scope,
    after: i64,
    now: SystemTime,
) -> Result<Option<Duration>, StoreError> {
    let mut sql = Statement::new("SELECT min(lease_until) FROM notifications WHERE ");
    push_scope(&mut sql, scope);
    sql.push(" AND acknowledged_at IS NULL AND sequence > ").bind(after);
    let end: Option<i64> = sql.prepare(connection)?.query_row(&sql.bound()[..], |row| row.get(0))?;
    Ok(end.map(|end| time(end).duration_since(now).unwrap_or_default()))
}
