//! The table of notifications, and the leases on them.

use std::{sync::Arc, time::SystemTime};

use rusqlite::{Connection, Row, types::ValueRef};

use super::{
    spoiled::Spoiled,
    statement::Statement,
    usage,
    values::{decode, micros, time},
    writer::Change,
};
use crate::{LeaseRequest, NotificationPage, NotificationQuery, PAGE_BYTES, Scope, Selection, StoreError};
use errand_task::{NewNotification, Notification, NotificationKind, TaskId, TenantId};

/// What errors call a record of this table.
const WHAT: &str = "notification";
/// The most rows that one page looks at.
const EXAMINED: u32 = 4096;
/// The most rows that one lease looks at: it does so where all wait that want to write.
const LEASE_EXAMINED: u32 = 1024;
/// The weight of notifications with which a lease ends: on their way to a client they take at least twice as much.
const LEASE_BYTES: usize = 1024 * 1024;

/// A notification from its sequence, record, `acknowledged_at` and `deliveries`.
fn notification(row: &Row<'_>) -> Result<Notification, StoreError> {
    Ok(Notification {
        sequence: row.get(0)?,
        body: decode::<NewNotification>(row, WHAT)?.bounded(),
        acknowledged_at: row.get::<_, Option<i64>>(2)?.map(time),
        deliveries: row.get(3)?,
    })
}

/// Adds a notification, inside the transaction of the change it tells of.
pub(super) fn insert(connection: &Connection, notification: &NewNotification) -> Result<(), StoreError> {
    let record = serde_json::to_string(notification)?;
    let bytes = usage::bytes(&record);
    usage::add(connection, &notification.owner.tenant, 0, bytes)?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO notifications (tenant, bot, session, task, kind, created_at, record, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    statement.execute((
        notification.owner.tenant.as_str(),
        notification.owner.bot.as_str(),
        notification.owner.session.as_str(),
        notification.task.to_string(),
        notification.kind.word(),
        micros(notification.created_at),
        record,
        bytes,
    ))?;
    Ok(())
}

/// Leases what nobody holds, among the first that are pending.
pub(super) struct Lease {
    pub(super) scope: Scope,
    pub(super) request: LeaseRequest,
    pub(super) spoiled: Arc<Spoiled>,
}

/// What was leased.
pub(super) struct Leased {
    pub(super) notifications: Vec<Notification>,
    /// Up to where it was looked, when there may be more behind.
    pub(super) next: Option<i64>,
}

impl Change for Lease {
    type Answer = Leased;

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.scope.tenant)
    }

    fn apply(&self, connection: &Connection) -> Result<Leased, StoreError> {
        let mut leased = self.free(connection)?;
        let sequences: Vec<i64> = leased.notifications.iter().map(|notification| notification.sequence).collect();
        if sequences.is_empty() {
            return Ok(leased);
        }
        let mut statement = connection.prepare_cached(
            "UPDATE notifications SET lease = ?, lease_until = ?, deliveries = deliveries + 1 \
             WHERE sequence IN (SELECT value FROM json_each(?))",
        )?;
        let LeaseRequest { lease, until, .. } = self.request;
        statement.execute((lease.to_string(), micros(until), serde_json::to_string(&sequences)?))?;
        for notification in &mut leased.notifications {
            notification.deliveries += 1;
        }
        Ok(leased)
    }
}

impl Lease {
    /// Those that can be leased. What cannot be understood is not leased, so that it stands in no other's way.
    fn free(&self, connection: &Connection) -> Result<Leased, StoreError> {
        let LeaseRequest { after, limit, now, .. } = self.request;
        let mut sql = Statement::new("SELECT sequence, CASE WHEN lease IS NULL OR lease_until <= ");
        sql.bind(micros(now)).push(" THEN record END, acknowledged_at, deliveries FROM notifications INDEXED BY ");
        sql.push(pending_index(&self.scope)).push(" WHERE ");
        push_scope(&mut sql, &self.scope);
        sql.push(" AND acknowledged_at IS NULL AND sequence > ").bind(after);
        sql.push(" ORDER BY sequence LIMIT ").bind(LEASE_EXAMINED);
        let found = examine(&sql, connection, limit, LEASE_EXAMINED, LEASE_BYTES, &self.spoiled)?;
        Ok(Leased { notifications: found.notifications, next: found.next })
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

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.scope.tenant)
    }

    fn apply(&self, connection: &Connection) -> Result<u32, StoreError> {
        let mut sql = acknowledging(index_of(&self.which), self.now);
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

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }

    fn apply(&self, connection: &Connection) -> Result<u32, StoreError> {
        let mut sql = acknowledging(" INDEXED BY notifications_of_task", self.now);
        sql.push("tenant = ").bind(self.tenant.as_str().to_owned());
        sql.push(" AND task = ").bind(self.task.to_string());
        sql.push(" AND kind = ").bind(NotificationKind::Completed.word().to_owned());
        Ok(count(sql.execute(connection)?))
    }
}

/// Which index leads to a selection: never one by which all that is pending would be looked at.
fn index_of(which: &Selection) -> &'static str {
    match which {
        // By the primary key.
        Selection::Sequences(_) => " NOT INDEXED",
        Selection::Lease(_) => " INDEXED BY notifications_leased",
    }
}

/// An acknowledgement, by an index, of those unacknowledged for which what is pushed next holds.
fn acknowledging(index: &str, now: SystemTime) -> Statement {
    let mut sql = Statement::new("UPDATE notifications");
    sql.push(index).push(" SET lease = NULL, lease_until = NULL, acknowledged_at = ");
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

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.scope.tenant)
    }

    fn apply(&self, connection: &Connection) -> Result<u32, StoreError> {
        let mut sql = Statement::new("UPDATE notifications");
        sql.push(index_of(&self.which)).push(" SET lease = NULL, lease_until = NULL");
        sql.push(" WHERE acknowledged_at IS NULL AND lease IS NOT NULL AND ");
        push_scope(&mut sql, &self.scope);
        push_selection(&mut sql, &self.which)?;
        Ok(count(sql.execute(connection)?))
    }

    fn wakes(&self, released: &u32) -> Option<Scope> {
        (*released > 0).then(|| self.scope.clone())
    }
}

/// A page of notifications. Where a task is asked for, or what is pending, an index leads there; else those of the bot are looked at.
pub(super) fn page(
    connection: &Connection,
    wanted: &NotificationQuery,
    spoiled: &Spoiled,
) -> Result<NotificationPage, StoreError> {
    let mut sql = Statement::new("SELECT sequence, CASE WHEN ");
    push_scope(&mut sql, &wanted.scope);
    if !wanted.acknowledged {
        sql.push(" AND acknowledged_at IS NULL");
    }
    sql.push(" THEN record END, acknowledged_at, deliveries FROM notifications INDEXED BY ");
    match wanted.task {
        Some(task) => {
            sql.push("notifications_of_task WHERE task = ").bind(task.to_string());
        }
        None if wanted.acknowledged => {
            sql.push("notifications_of_bot WHERE ");
            push_scope(&mut sql, &Scope { session: None, ..wanted.scope.clone() });
        }
        None => {
            sql.push(pending_index(&wanted.scope)).push(" WHERE acknowledged_at IS NULL AND ");
            push_scope(&mut sql, &wanted.scope);
        }
    }
    sql.push(" AND sequence > ").bind(wanted.after);
    sql.push(" ORDER BY sequence LIMIT ").bind(EXAMINED);
    examine(&sql, connection, wanted.limit, EXAMINED, PAGE_BYTES, spoiled)
}

/// Takes up to `limit` notifications from the rows that a statement returns, up to `examined` of them, and none after those with which they
/// weigh more than `bytes`; the record is there only in those
/// that are wanted.
fn examine(
    sql: &Statement,
    connection: &Connection,
    limit: u32,
    examined: u32,
    bytes: usize,
    spoiled: &Spoiled,
) -> Result<NotificationPage, StoreError> {
    let mut statement = sql.prepare(connection)?;
    let mut rows = statement.query(&sql.bound()[..])?;
    let (mut page, mut last, mut seen, mut weight) = (NotificationPage::default(), 0, 0, 0);
    while let Some(row) = rows.next()? {
        if page.notifications.len() >= limit as usize || weight > bytes {
            page.next = Some(last);
            break;
        }
        seen += 1;
        last = row.get(0)?;
        if row.get_ref(1)? != ValueRef::Null {
            let found = spoiled.skip(notification(row))?;
            weight += found.as_ref().map_or(0, |found| found.body.weight());
            page.notifications.extend(found);
        }
        if seen == examined {
            page.next = Some(last);
        }
    }
    Ok(page)
}

/// The index of what is pending in a scope.
fn pending_index(scope: &Scope) -> &'static str {
    if scope.session.is_some() { "notifications_pending_of_session" } else { "notifications_pending_of_bot" }
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
