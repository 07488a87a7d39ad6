//! Reads notifications in order of sequence, a bounded number at a time.

use rusqlite::{Connection, types::ValueRef};

use super::{decode, pending_index, push_scope};
use crate::{
    NotificationPage, NotificationQuery, PAGE_BYTES, Scope, StoreError,
    sqlite::{statement::Statement, undecodable::Undecodable},
};

/// The most rows that one page examines.
const EXAMINED: u32 = 4096;

/// A page of notifications. An index leads to those of a task, or to the unacknowledged ones of a scope; otherwise all of the bot are examined.
pub(in crate::sqlite) fn page(
    connection: &Connection,
    query: &NotificationQuery,
    undecodable: &Undecodable,
) -> Result<NotificationPage, StoreError> {
    let mut sql = Statement::new("SELECT sequence, CASE WHEN ");
    push_scope(&mut sql, &query.scope);
    if !query.acknowledged {
        sql.push(" AND acknowledged_at IS NULL");
    }
    sql.push(" THEN record END, acknowledged_at, deliveries FROM notifications INDEXED BY ");
    match query.task {
        Some(task) => {
            sql.push("notifications_of_task WHERE task = ").bind(task.to_string());
        }
        None if query.acknowledged => {
            sql.push("notifications_of_bot WHERE ");
            push_scope(&mut sql, &Scope { session: None, ..query.scope.clone() });
        }
        None => {
            sql.push(pending_index(&query.scope)).push(" WHERE acknowledged_at IS NULL AND ");
            push_scope(&mut sql, &query.scope);
        }
    }
    sql.push(" AND sequence > ").bind(query.after);
    sql.push(" ORDER BY sequence LIMIT ").bind(EXAMINED);
    let limits = Limits { notifications: query.limit, rows: EXAMINED, bytes: PAGE_BYTES };
    examine(&sql, connection, limits, undecodable)
}

/// How much one page holds.
pub(super) struct Limits {
    pub(super) notifications: u32,
    /// The rows that the statement returns at most.
    pub(super) rows: u32,
    /// The weight after which the page ends.
    pub(super) bytes: usize,
}

/// Takes notifications from the rows of a statement. A row's record is null where the notification does not match.
pub(super) fn examine(
    sql: &Statement,
    connection: &Connection,
    limits: Limits,
    undecodable: &Undecodable,
) -> Result<NotificationPage, StoreError> {
    let mut statement = sql.prepare(connection)?;
    let mut rows = statement.query(&sql.bound()[..])?;
    let (mut page, mut last, mut examined, mut weight) = (NotificationPage::default(), 0, 0, 0);
    while let Some(row) = rows.next()? {
        if page.notifications.len() >= limits.notifications as usize || weight > limits.bytes {
            page.next = Some(last);
            break;
        }
        examined += 1;
        last = row.get(0)?;
        if row.get_ref(1)? != ValueRef::Null {
            let found = undecodable.skip(decode(row))?;
            weight += found.as_ref().map_or(0, |found| found.body.weight());
            page.notifications.extend(found);
        }
        if examined == limits.rows {
            page.next = Some(last);
        }
    }
    Ok(page)
}
