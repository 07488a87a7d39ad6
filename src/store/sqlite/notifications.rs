//! The table of notifications, and the leases on them.

use std::time::SystemTime;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqlitePool, query};

use super::{
    values::{micros, time},
    writer::Change,
};
use crate::{
    store::{LeaseRequest, NotificationQuery, Scope, Selection, StoreError},
    task::{NewNotification, Notification, NotificationKind, TaskId, TenantId},
};

const COLUMNS: &str = "sequence, record, acknowledged_at, deliveries";

/// [`COLUMNS`] of one notification.
type Row = (i64, String, Option<i64>, u32);

fn decode(rows: Vec<Row>) -> Result<Vec<Notification>, StoreError> {
    let decode_row = |(sequence, record, acknowledged_at, deliveries): Row| {
        Ok(Notification {
            sequence,
            body: serde_json::from_str(&record)?,
            acknowledged_at: acknowledged_at.map(time),
            deliveries,
        })
    };
    rows.into_iter().map(decode_row).collect()
}

/// Adds a notification, inside the transaction of the change it tells of.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    notification: &NewNotification,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO notifications (tenant, bot, session, task, kind, created_at, record) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(notification.owner.tenant.as_str())
    .bind(notification.owner.bot.as_str())
    .bind(notification.owner.session.as_str())
    .bind(notification.task.to_string())
    .bind(notification.kind.word())
    .bind(micros(notification.created_at))
    .bind(serde_json::to_string(notification)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// Leases what nobody holds.
pub(super) struct Lease {
    pub(super) scope: Scope,
    pub(super) request: LeaseRequest,
}

impl Change for Lease {
    type Answer = Vec<Notification>;

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<Vec<Notification>, StoreError> {
        let LeaseRequest { lease, after, limit, now, until } = self.request;
        let mut sql = QueryBuilder::new("UPDATE notifications SET lease = ");
        sql.push_bind(lease.to_string()).push(", lease_until = ").push_bind(micros(until));
        sql.push(", deliveries = deliveries + 1 WHERE sequence IN (SELECT sequence FROM notifications WHERE ");
        push_scope(&mut sql, &self.scope);
        sql.push(" AND acknowledged_at IS NULL AND sequence > ").push_bind(after);
        sql.push(" AND (lease IS NULL OR lease_until <= ").push_bind(micros(now)).push(")");
        sql.push(" ORDER BY sequence LIMIT ").push_bind(limit);
        sql.push(") RETURNING ").push(COLUMNS);
        let mut rows: Vec<Row> = sql.build_query_as().fetch_all(connection).await?;
        // SQLite returns changed rows in no particular order.
        rows.sort_unstable_by_key(|(sequence, ..)| *sequence);
        decode(rows)
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

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<u32, StoreError> {
        let mut sql = acknowledging(self.now);
        push_scope(&mut sql, &self.scope);
        push_selection(&mut sql, &self.which)?;
        let done = sql.build().execute(connection).await?;
        Ok(count(done.rows_affected()))
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

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<u32, StoreError> {
        let mut sql = acknowledging(self.now);
        sql.push("tenant = ").push_bind(self.tenant.as_str().to_owned());
        sql.push(" AND task = ").push_bind(self.task.to_string());
        sql.push(" AND kind = ").push_bind(NotificationKind::Completed.word());
        let done = sql.build().execute(connection).await?;
        Ok(count(done.rows_affected()))
    }
}

/// An acknowledgement of those unacknowledged for which what is pushed next holds.
fn acknowledging(now: SystemTime) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new("UPDATE notifications SET lease = NULL, lease_until = NULL, acknowledged_at = ");
    sql.push_bind(micros(now)).push(" WHERE acknowledged_at IS NULL AND ");
    sql
}

/// Ends leases before their time.
pub(super) struct Release {
    pub(super) scope: Scope,
    pub(super) which: Selection,
}

impl Change for Release {
    type Answer = u32;

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<u32, StoreError> {
        let mut sql = QueryBuilder::new(
            "UPDATE notifications SET lease = NULL, lease_until = NULL WHERE acknowledged_at IS NULL AND lease IS NOT NULL AND ",
        );
        push_scope(&mut sql, &self.scope);
        push_selection(&mut sql, &self.which)?;
        let done = sql.build().execute(connection).await?;
        Ok(count(done.rows_affected()))
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

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<u64, StoreError> {
        let done = query("DELETE FROM notifications WHERE acknowledged_at < ? OR created_at < ?")
            .bind(micros(self.acknowledged_before))
            .bind(micros(self.made_before))
            .execute(connection)
            .await?;
        Ok(done.rows_affected())
    }
}

pub(super) async fn list(pool: &SqlitePool, wanted: NotificationQuery) -> Result<Vec<Notification>, StoreError> {
    let mut sql = QueryBuilder::new(format!("SELECT {COLUMNS} FROM notifications WHERE "));
    push_scope(&mut sql, &wanted.scope);
    sql.push(" AND sequence > ").push_bind(wanted.after);
    if let Some(task) = wanted.task {
        sql.push(" AND task = ").push_bind(task.to_string());
    }
    if !wanted.acknowledged {
        sql.push(" AND acknowledged_at IS NULL");
    }
    sql.push(" ORDER BY sequence LIMIT ").push_bind(wanted.limit);
    decode(sql.build_query_as().fetch_all(pool).await?)
}

pub(super) async fn next_lease_end(
    pool: &SqlitePool,
    scope: &Scope,
    after: i64,
) -> Result<Option<SystemTime>, StoreError> {
    let mut sql = QueryBuilder::new("SELECT min(lease_until) FROM notifications WHERE ");
    push_scope(&mut sql, scope);
    sql.push(" AND acknowledged_at IS NULL AND sequence > ").push_bind(after);
    let end: Option<i64> = sql.build_query_scalar().fetch_one(pool).await?;
    Ok(end.map(time))
}

fn push_scope(sql: &mut QueryBuilder<Sqlite>, scope: &Scope) {
    sql.push("tenant = ").push_bind(scope.tenant.as_str().to_owned());
    sql.push(" AND bot = ").push_bind(scope.bot.as_str().to_owned());
    if let Some(session) = &scope.session {
        sql.push(" AND session = ").push_bind(session.as_str().to_owned());
    }
}

fn push_selection(sql: &mut QueryBuilder<Sqlite>, which: &Selection) -> Result<(), StoreError> {
    match which {
        // One bound value however many there are: SQLite limits how many a statement may have.
        Selection::Sequences(sequences) => sql
            .push(" AND sequence IN (SELECT value FROM json_each(")
            .push_bind(serde_json::to_string(sequences)?)
            .push("))"),
        Selection::Lease(lease) => sql.push(" AND lease = ").push_bind(lease.to_string()),
    };
    Ok(())
}

fn count(rows: u64) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}
