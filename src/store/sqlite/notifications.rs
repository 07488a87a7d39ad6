//! The table of notifications, and the leases on them.

use std::time::SystemTime;

use rusqlite::{Connection, Row};

use super::{
    statement::Statement,
    values::{decode, micros, time},
    writer::Change,
};
use crate::{
    store::{LeaseRequest, NotificationQuery, Scope, Selection, StoreError},
    task::{NewNotification, Notification, NotificationKind, TaskId, TenantId},
};

const COLUMNS: &str = "sequence, record, acknowledged_at, deliveries";

/// A notification from its [`COLUMNS`].
fn notification(row: &Row<'_>) -> Result<Notification, StoreError> {
    Ok(Notification {
        sequence: row.get(0)?,
        body: decode(row, 1)?,
        acknowledged_at: row.get::<_, Option<i64>>(2)?.map(time),
        deliveries: row.get(3)?,
    })
}

/// The notifications that a statement returns, which asks for their [`COLUMNS`].
fn notifications(sql: &Statement, connection: &Connection) -> Result<Vec<Notification>, StoreError> {
    let mut statement = sql.prepare(connection)?;
    let mut rows = statement.query(&sql.bound()[..])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(notification(row)?);
    }
    Ok(found)
}

/// Adds a notification, inside the transaction of the change it tells of.
pub(super) fn insert(connection: &Connection, notification: &NewNotification) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "INSERT INTO notifications (tenant, bot, session, task, kind, created_at, record) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    statement.execute((
        notification.owner.tenant.as_str(),
        notification.owner.bot.as_str(),
        notification.owner.session.as_str(),
        notification.task.to_string(),
        notification.kind.word(),
        micros(notification.created_at),
        serde_json::to_string(notification)?,
    ))?;
    Ok(())
}

/// Leases what nobody holds.
pub(super) struct Lease {
    pub(super) scope: Scope,
    pub(super) request: LeaseRequest,
}

impl Change for Lease {
    type Answer = Vec<Notification>;

    fn apply(&self, connection: &Connection) -> Result<Vec<Notification>, StoreError> {
        let LeaseRequest { lease, after, limit, now, until } = self.request;
        let mut sql = Statement::new("UPDATE notifications SET lease = ");
        sql.bind(lease.to_string()).push(", lease_until = ").bind(micros(until));
        sql.push(", deliveries = deliveries + 1 WHERE sequence IN (SELECT sequence FROM notifications WHERE ");
        push_scope(&mut sql, &self.scope);
        sql.push(" AND acknowledged_at IS NULL AND sequence > ").bind(after);
        sql.push(" AND (lease IS NULL OR lease_until <= ").bind(micros(now)).push(")");
        sql.push(" ORDER BY sequence LIMIT ").bind(limit);
        sql.push(") RETURNING ").push(COLUMNS);
        let mut leased = notifications(&sql, connection)?;
        // SQLite returns changed rows in no particular order.
        leased.sort_unstable_by_key(|notification| notification.sequence);
        Ok(leased)
    }
}

/// Ends the delivery of notifications.
pub(super) struct Acknowledge {
    pub(super) scope: Scope,
    pub(super) which: Selection,
    pub(super) now: SystemTime,
}

impl Change for Acknowledge {
    type Answer = u32;

    fn apply(&self, connection: &Connection) -> Result<u32, StoreError> {
        let mut sql = acknowledging(self.now);
        push_scope(&mut sql, &self.scope);
        push_selection(&mut sql, &self.which)?;
        Ok(count(sql.execute(connection)?))
    }
}

/// Ends the delivery of a task's completion.
pub(super) struct AcknowledgeCompletion {
    pub(super) tenant: TenantId,
    pub(super) task: TaskId,
    pub(super) now: SystemTime,
}

impl Change for AcknowledgeCompletion {
    type Answer = u32;

    fn apply(&self, connection: &Connection) -> Result<u32, StoreError> {
        let mut sql = acknowledging(self.now);
        sql.push("tenant = ").bind(self.tenant.as_str().to_owned());
        sql.push(" AND task = ").bind(self.task.to_string());
        sql.push(" AND kind = ").bind(NotificationKind::Completed.word().to_owned());
        Ok(count(sql.execute(connection)?))
    }
}

/// An acknowledgement of those unacknowledged for which what is pushed next holds.
fn acknowledging(now: SystemTime) -> Statement {
    let mut sql = Statement::new("UPDATE notifications SET lease = NULL, lease_until = NULL, acknowledged_at = ");
    sql.bind(micros(now)).push(" WHERE acknowledged_at IS NULL AND ");
    sql
}

/// Ends leases before their time.
pub(super) struct Release {
    pub(super) scope: Scope,
    pub(super) which: Selection,
}

impl Change for Release {
    type Answer = u32;

    fn apply(&self, connection: &Connection) -> Result<u32, StoreError> {
        let mut sql = Statement::new(
            "UPDATE notifications SET lease = NULL, lease_until = NULL WHERE acknowledged_at IS NULL AND lease IS NOT NULL AND ",
        );
        push_scope(&mut sql, &self.scope);
        push_selection(&mut sql, &self.which)?;
        Ok(count(sql.execute(connection)?))
    }

    fn wakes(&self, released: &u32) -> Option<Scope> {
        (*released > 0).then(|| self.scope.clone())
    }
}

/// Removes old notifications.
pub(super) struct RemoveOld {
    pub(super) acknowledged_before: SystemTime,
    pub(super) made_before: SystemTime,
}

impl Change for RemoveOld {
    type Answer = u64;

    fn apply(&self, connection: &Connection) -> Result<u64, StoreError> {
        let mut statement =
            connection.prepare_cached("DELETE FROM notifications WHERE acknowledged_at < ? OR created_at < ?")?;
        Ok(statement.execute((micros(self.acknowledged_before), micros(self.made_before)))? as u64)
    }
}

pub(super) fn list(connection: &Connection, wanted: &NotificationQuery) -> Result<Vec<Notification>, StoreError> {
    let mut sql = Statement::new(format!("SELECT {COLUMNS} FROM notifications WHERE "));
    push_scope(&mut sql, &wanted.scope);
    sql.push(" AND sequence > ").bind(wanted.after);
    if let Some(task) = wanted.task {
        sql.push(" AND task = ").bind(task.to_string());
    }
    if !wanted.acknowledged {
        sql.push(" AND acknowledged_at IS NULL");
    }
    sql.push(" ORDER BY sequence LIMIT ").bind(wanted.limit);
    notifications(&sql, connection)
}

pub(super) fn next_lease_end(
    connection: &Connection,
    scope: &Scope,
    after: i64,
) -> Result<Option<SystemTime>, StoreError> {
    let mut sql = Statement::new("SELECT min(lease_until) FROM notifications WHERE ");
    push_scope(&mut sql, scope);
    sql.push(" AND acknowledged_at IS NULL AND sequence > ").bind(after);
    let end: Option<i64> = sql.prepare(connection)?.query_row(&sql.bound()[..], |row| row.get(0))?;
    Ok(end.map(time))
}

fn push_scope(sql: &mut Statement, scope: &Scope) {
    sql.push("tenant = ").bind(scope.tenant.as_str().to_owned());
    sql.push(" AND bot = ").bind(scope.bot.as_str().to_owned());
    if let Some(session) = &scope.session {
        sql.push(" AND session = ").bind(session.as_str().to_owned());
    }
}

fn push_selection(sql: &mut Statement, which: &Selection) -> Result<(), StoreError> {
    match which {
        // One bound value however many there are: SQLite limits how many a statement may have.
        Selection::Sequences(sequences) => sql
            .push(" AND sequence IN (SELECT value FROM json_each(")
            .bind(serde_json::to_string(sequences)?)
            .push("))"),
        Selection::Lease(lease) => sql.push(" AND lease = ").bind(lease.to_string()),
    };
    Ok(())
}

fn count(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}
