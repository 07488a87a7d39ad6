//! A page of a tenant's tasks.

use std::time::{Duration, Instant};

use rusqlite::{Connection, types::ValueRef};

use super::{decode, record};
use crate::{
    BotFilter, PAGE_BYTES, StoreError, TaskPage, TaskQuery,
    sqlite::{statement::Statement, undecodable::Undecodable},
};
use errand_task::Task;

/// The most rows that one page examines, and for how long. The caller continues with the next page.
const EXAMINED: u32 = 4096;
const EXAMINED_FOR: Duration = Duration::from_millis(50);

pub(in crate::sqlite) fn page(
    connection: &Connection,
    query: &TaskQuery,
    undecodable: &Undecodable,
) -> Result<TaskPage, StoreError> {
    let sql = selection(query);
    let mut statement = sql.prepare(connection)?;
    let mut rows = statement.query(&sql.bound()[..])?;
    let begun = Instant::now();
    let (mut page, mut last, mut examined, mut weight) = (TaskPage::default(), None, 0, 0);
    while let Some(row) = rows.next()? {
        if page.tasks.len() >= query.limit as usize
            || weight > PAGE_BYTES
            || (examined > 0 && begun.elapsed() > EXAMINED_FOR)
        {
            page.next = last;
            break;
        }
        examined += 1;
        last = row.get_ref(0)?.as_str().ok().and_then(|id| id.parse().ok()).or(last);
        if row.get_ref(1)? != ValueRef::Null {
            let found: Option<Task> = undecodable.skip(decode(row))?;
            weight += found.as_ref().map_or(0, Task::weight);
            page.tasks.extend(found);
        }
        if examined == EXAMINED {
            page.next = last;
        }
    }
    Ok(page)
}

/// The rows that a page examines, in order: the columns of each, with the record only where the row matches. The index is named because,
/// without statistics, SQLite's planner may prefer to walk the tasks of all tenants.
fn selection(query: &TaskQuery) -> Statement {
    let unfinished = query.is_unfinished();
    let index = match query.bots {
        _ if unfinished => "tasks_unfinished",
        BotFilter::One(_) => "tasks_of_bot",
        BotFilter::All | BotFilter::Matching(_) => "tasks_of_tenant",
    };
    let mut sql = Statement::new("SELECT id, CASE WHEN TRUE");
    push_match(&mut sql, query);
    sql.push(concat!(" THEN ", record!(), " END, progress, revision, retained FROM tasks INDEXED BY "));
    sql.push(index).push(" WHERE tenant = ").bind(query.tenant.as_str().to_owned());
    if unfinished {
        sql.push(" AND finished_at IS NULL");
    }
    if let BotFilter::One(bot) = &query.bots {
        sql.push(" AND bot = ").bind(bot.as_str().to_owned());
    }
    if let Some(before) = query.before {
        sql.push(" AND id < ").bind(before.to_string());
    }
    sql.push(" ORDER BY id DESC LIMIT ").bind(EXAMINED);
    sql
}

/// The conditions that no index answers.
fn push_match(sql: &mut Statement, query: &TaskQuery) {
    if let BotFilter::Matching(patterns) = &query.bots {
        push_patterns(sql, patterns);
    }
    if let Some(session) = &query.session {
        sql.push(" AND session = ").bind(session.as_str().to_owned());
    }
    if !query.statuses.is_empty() {
        sql.push(" AND status IN (");
        for (place, status) in query.statuses.iter().enumerate() {
            sql.push(if place == 0 { "" } else { ", " }).bind(status.word().to_owned());
        }
        sql.push(")");
    }
    for (key, value) in &query.labels {
        // Compares keys as values, because in a JSON path a dot or a quote in a key has a meaning. An undecodable record has no labels.
        sql.push(concat!(
            " AND EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(",
            record!(),
            ") THEN ",
            record!(),
            " ELSE '{}' END, '$.spec.labels') AS label WHERE label.key = "
        ))
        .bind(key.clone())
        .push(" AND label.value = ")
        .bind(value.clone())
        .push(")");
    }
}

/// The condition that a pattern matches the column `bot`.
pub(in crate::sqlite) fn push_patterns(sql: &mut Statement, patterns: &[String]) {
    sql.push(" AND (FALSE");
    for pattern in patterns {
        match pattern.strip_suffix('*') {
            // Not LIKE: an underscore is common in names and a wildcard there.
            Some(prefix) => sql
                .push(" OR substr(bot, 1, ")
                .bind(i64::try_from(prefix.chars().count()).unwrap_or(i64::MAX))
                .push(") = ")
                .bind(prefix.to_owned()),
            None => sql.push(" OR bot = ").bind(pattern.clone()),
        };
    }
    sql.push(")");
}
