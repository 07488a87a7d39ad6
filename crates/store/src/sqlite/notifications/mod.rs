//! The table of notifications.
//!
//! Its sequences are unique and grow for all bots together, which is more than the contract promises. One writer commits, so they grow in
//! the order of commits.

mod delivery;
mod held;
mod lease;
mod page;

use std::time::SystemTime;

use rusqlite::{Connection, Row};

use super::{
    statement::Statement,
    usage,
    values::{micros, text, time, undecodable},
};
use crate::{
    Scope, StoreError,
    stored::{decode_notification, encode_notification},
};
use errand_task::{NewNotification, Notification};

pub(super) use delivery::{Acknowledge, AcknowledgeCompletion, Release};
pub(super) use held::{AcknowledgeHeld, HoldCompletion};
pub(super) use lease::{Lease, next_lease_end};
pub(super) use page::page;

/// The kind of these records in errors.
const WHAT: &str = "notification";

/// Decodes a row of sequence, record, `acknowledged_at` and `deliveries`.
fn decode(row: &Row<'_>) -> Result<Notification, StoreError> {
    let body = decode_notification(text(row, 1)?).map_err(|fault| undecodable(row, WHAT, fault))?;
    Ok(Notification {
        sequence: row.get(0)?,
        // An older server stored notifications as they came.
        body: body.bounded(),
        acknowledged_at: row.get::<_, Option<i64>>(2)?.map(time),
        deliveries: row.get(3)?,
    })
}

/// Adds a notification, inside the transaction of the change that it reports. It may be acknowledged from the start.
pub(super) fn insert(
    connection: &Connection,
    notification: &NewNotification,
    now: SystemTime,
) -> Result<(), StoreError> {
    let record = encode_notification(notification)?;
    let bytes = usage::bytes(record.len());
    usage::add(connection, &notification.owner.tenant, 0, bytes)?;
    let mut statement = connection.prepare_cached(
        "INSERT INTO notifications (tenant, bot, session, task, kind, created_at, acknowledged_at, record, bytes) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?;
    statement.execute((
        notification.owner.tenant.as_str(),
        notification.owner.bot.as_str(),
        notification.owner.session.as_str(),
        notification.task.to_string(),
        notification.kind.word(),
        micros(now),
        notification.acknowledged.then(|| micros(now)),
        record,
        bytes,
    ))?;
    Ok(())
}

/// The index of a scope's unacknowledged notifications.
fn pending_index(scope: &Scope) -> &'static str {
    if scope.session.is_some() { "notifications_pending_of_session" } else { "notifications_pending_of_bot" }
}

/// The start of an acknowledgement of those unacknowledged notifications that meet the condition pushed next.
fn acknowledging(index: &str, now: SystemTime) -> Statement {
    let mut sql = Statement::new("UPDATE notifications");
    sql.push(index).push(" SET lease = NULL, lease_until = NULL, acknowledged_at = ");
    sql.bind(micros(now)).push(" WHERE acknowledged_at IS NULL AND ");
    sql
}

fn count(rows: usize) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}

fn push_scope(sql: &mut Statement, scope: &Scope) {
    sql.push("tenant = ").bind(scope.tenant.as_str().to_owned());
    sql.push(" AND bot = ").bind(scope.bot.as_str().to_owned());
    if let Some(session) = &scope.session {
        sql.push(" AND session = ").bind(session.as_str().to_owned());
    }
}

/// Sequences as one bound value, because SQLite limits the number of values in a statement.
fn list(sequences: &[i64]) -> Result<String, StoreError> {
    serde_json::to_string(sequences).map_err(StoreError::Unstorable)
}
