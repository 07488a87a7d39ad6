//! The table of tasks.

use std::time::{Duration, Instant};

use rusqlite::{Connection, params, types::ValueRef};

use super::{
    notifications,
    spoiled::Spoiled,
    statement::Statement,
    usage,
    values::{decode, decode_all, decode_one, micros},
    writer::Change,
};
use crate::{BotFilter, Caps, Created, PAGE_BYTES, Scope, StoreError, TaskPage, TaskQuery};
use errand_task::{BotId, NewNotification, Task, TaskId, TenantId};

/// What errors call a record of this table.
const WHAT: &str = "task";
/// The most rows that one page looks at, and how long it may look: whoever wants more asks for the next page.
const EXAMINED: u32 = 4096;
const EXAMINED_FOR: Duration = Duration::from_millis(50);

/// Adds a task.
pub(super) struct Create {
    pub(super) task: Task,
    pub(super) caps: Caps,
}

impl Change for Create {
    type Answer = Created;

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.task.owner.tenant)
    }

    fn apply(&self, connection: &Connection) -> Result<Created, StoreError> {
        let owner = &self.task.owner;
        if let Some(request_id) = &self.task.spec.request_id
            && let Some(existing) = get_by_request(connection, &owner.tenant, &owner.bot, request_id)?
        {
            return Ok(Created::Existing(existing));
        }
        self.check_caps(connection)?;
        let record = serde_json::to_string(&self.task)?;
        let bytes = usage::bytes(&record);
        usage::check(connection, &owner.tenant, bytes, &self.caps)?;
        usage::add(connection, &owner.tenant, 1, bytes)?;
        let mut statement = connection.prepare_cached(
            "INSERT INTO tasks (id, tenant, bot, session, request_id, sandbox, status, created_at, finished_at, revision, record, \
             bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        statement.execute(params![
            self.task.id.to_string(),
            owner.tenant.as_str(),
            owner.bot.as_str(),
            owner.session.as_str(),
            self.task.spec.request_id.as_deref(),
            self.task.sandbox.to_string(),
            self.task.status().word(),
            micros(self.task.created_at),
            self.task.state.finished_at().map(micros),
            self.task.revision,
            record,
            bytes,
        ])?;
        Ok(Created::New(self.task.clone()))
    }
}

impl Create {
    /// Counted inside the transaction that adds the task: nothing can come between.
    fn check_caps(&self, connection: &Connection) -> Result<(), StoreError> {
        let mut statement = connection.prepare_cached(
            "SELECT count(*) FILTER (WHERE bot = ?), count(*) FROM tasks INDEXED BY tasks_unfinished \
             WHERE tenant = ? AND finished_at IS NULL",
        )?;
        let owner = &self.task.owner;
        let (of_bot, of_tenant): (u32, u32) =
            statement.query_row((owner.bot.as_str(), owner.tenant.as_str()), |row| Ok((row.get(0)?, row.get(1)?)))?;
        if of_bot >= self.caps.per_bot {
            return Err(StoreError::TooManyForBot { running: of_bot, limit: self.caps.per_bot });
        }
        if of_tenant >= self.caps.per_tenant {
            return Err(StoreError::TooManyForTenant { running: of_tenant, limit: self.caps.per_tenant });
        }
        Ok(())
    }
}

/// Replaces a task's record, and tells of it.
pub(super) struct Update {
    pub(super) task: Task,
    pub(super) notification: Option<NewNotification>,
}

impl Change for Update {
    type Answer = Task;

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.task.owner.tenant)
    }

    fn apply(&self, connection: &Connection) -> Result<Task, StoreError> {
        let mut updated = self.task.clone();
        updated.revision += 1;
        if !self.replace_unfinished(connection, &updated)? && !self.add_late_outcome(connection, &updated)? {
            return Err(StoreError::Conflict);
        }
        if let Some(notification) = &self.notification {
            notifications::insert(connection, notification)?;
        }
        Ok(updated)
    }

    fn wakes(&self, _answer: &Task) -> Option<Scope> {
        let owner = &self.notification.as_ref()?.owner;
        Some(Scope { tenant: owner.tenant.clone(), bot: owner.bot.clone(), session: Some(owner.session.clone()) })
    }
}

impl Update {
    fn replace_unfinished(&self, connection: &Connection, updated: &Task) -> Result<bool, StoreError> {
        let mut statement = connection.prepare_cached(
            "UPDATE tasks SET status = ?, finished_at = ?, revision = ?, record = ? \
             WHERE id = ? AND tenant = ? AND revision = ? AND finished_at IS NULL",
        )?;
        let changed = statement.execute(params![
            updated.status().word(),
            updated.state.finished_at().map(micros),
            updated.revision,
            serde_json::to_string(updated)?,
            self.task.id.to_string(),
            self.task.owner.tenant.as_str(),
            self.task.revision,
        ])?;
        Ok(changed == 1)
    }

    /// The one change that a finished task takes. The records are compared as values: JSON text of an older Errand may lack a field.
    fn add_late_outcome(&self, connection: &Connection, updated: &Task) -> Result<bool, StoreError> {
        let (id, tenant) = (self.task.id.to_string(), self.task.owner.tenant.as_str());
        let mut statement = connection.prepare_cached(
            "SELECT id, record FROM tasks WHERE id = ? AND tenant = ? AND revision = ? AND finished_at IS NOT NULL",
        )?;
        let Some(stored) = decode_one::<Task>(statement.query((&id, tenant, self.task.revision))?, WHAT)? else {
            return Ok(false);
        };
        let with_news = Task { late_outcome: self.task.late_outcome.clone(), ..stored.clone() };
        if stored.late_outcome.is_some() || self.task.late_outcome.is_none() || with_news != self.task {
            return Ok(false);
        }
        let mut statement =
            connection.prepare_cached("UPDATE tasks SET revision = ?, record = ? WHERE id = ? AND revision = ?")?;
        let record = serde_json::to_string(updated)?;
        Ok(statement.execute((updated.revision, record, id, self.task.revision))? == 1)
    }
}

pub(super) fn get(connection: &Connection, tenant: &TenantId, id: TaskId) -> Result<Option<Task>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT id, record FROM tasks WHERE id = ? AND tenant = ?")?;
    decode_one(statement.query((id.to_string(), tenant.as_str()))?, WHAT)
}

pub(super) fn get_by_request(
    connection: &Connection,
    tenant: &TenantId,
    bot: &BotId,
    request_id: &str,
) -> Result<Option<Task>, StoreError> {
    let mut statement =
        connection.prepare_cached("SELECT id, record FROM tasks WHERE tenant = ? AND bot = ? AND request_id = ?")?;
    decode_one(statement.query((tenant.as_str(), bot.as_str(), request_id))?, WHAT)
}

pub(super) fn page(connection: &Connection, wanted: &TaskQuery, spoiled: &Spoiled) -> Result<TaskPage, StoreError> {
    let sql = selection(wanted);
    let mut statement = sql.prepare(connection)?;
    let mut rows = statement.query(&sql.bound()[..])?;
    let begun = Instant::now();
    let (mut page, mut last, mut examined, mut weight) = (TaskPage::default(), None, 0, 0);
    while let Some(row) = rows.next()? {
        if page.tasks.len() >= wanted.limit as usize
            || weight > PAGE_BYTES
            || (examined > 0 && begun.elapsed() > EXAMINED_FOR)
        {
            page.next = last;
            break;
        }
        examined += 1;
        last = row.get_ref(0)?.as_str().ok().and_then(|id| id.parse().ok()).or(last);
        if row.get_ref(1)? != ValueRef::Null {
            let found: Option<Task> = spoiled.skip(decode(row, WHAT))?;
            weight += found.as_ref().map_or(0, Task::weight);
            page.tasks.extend(found);
        }
        if examined == EXAMINED {
            page.next = last;
        }
    }
    Ok(page)
}

pub(super) fn unfinished(connection: &Connection, spoiled: &Spoiled) -> Result<Vec<Task>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT id, record FROM tasks INDEXED BY tasks_unfinished WHERE finished_at IS NULL ORDER BY id",
    )?;
    decode_all(statement.query([])?, WHAT, spoiled)
}

/// Which of these tasks the table does not have.
pub(super) fn unknown(connection: &Connection, ids: &[TaskId]) -> Result<Vec<TaskId>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM tasks WHERE id = ?")?;
    let mut unknown = Vec::new();
    for id in ids {
        if !statement.exists([id.to_string()])? {
            unknown.push(*id);
        }
    }
    Ok(unknown)
}

/// The rows that a page looks at, in their order: the id of each, and the record of those that are wanted. By an index of the tenant's or
/// the bot's, named because without statistics the planner may prefer to walk what all tenants have ever run.
fn selection(wanted: &TaskQuery) -> Statement {
    let unfinished = wanted.is_unfinished();
    let index = match wanted.bots {
        _ if unfinished => "tasks_unfinished",
        BotFilter::One(_) => "tasks_of_bot",
        BotFilter::All | BotFilter::Matching(_) => "tasks_of_tenant",
    };
    let mut sql = Statement::new("SELECT id, CASE WHEN TRUE");
    if let BotFilter::Matching(patterns) = &wanted.bots {
        push_patterns(&mut sql, patterns);
    }
    if let Some(session) = &wanted.session {
        sql.push(" AND session = ").bind(session.as_str().to_owned());
    }
    if !wanted.statuses.is_empty() {
        sql.push(" AND status IN (");
        for (place, status) in wanted.statuses.iter().enumerate() {
            sql.push(if place == 0 { "" } else { ", " }).bind(status.word().to_owned());
        }
        sql.push(")");
    }
    for (key, value) in &wanted.labels {
        // Keys are compared as values: in a JSON path, a dot or a quote in a key would have a meaning. What is no JSON has no labels.
        sql.push(
            " AND EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(record) THEN record ELSE '{}' END, '$.spec.labels') \
             AS label WHERE label.key = ",
        )
        .bind(key.clone())
        .push(" AND label.value = ")
        .bind(value.clone())
        .push(")");
    }
    sql.push(" THEN record END FROM tasks INDEXED BY ").push(index).push(" WHERE tenant = ");
    sql.bind(wanted.tenant.as_str().to_owned());
    if unfinished {
        sql.push(" AND finished_at IS NULL");
    }
    if let BotFilter::One(bot) = &wanted.bots {
        sql.push(" AND bot = ").bind(bot.as_str().to_owned());
    }
    if let Some(before) = wanted.before {
        sql.push(" AND id < ").bind(before.to_string());
    }
    sql.push(" ORDER BY id DESC LIMIT ").bind(EXAMINED);
    sql
}

fn push_patterns(sql: &mut Statement, patterns: &[String]) {
    sql.push(" AND (FALSE");
    for pattern in patterns {
        match pattern.strip_suffix('*') {
            // Not LIKE: an underscore is a common character in a name and a wildcard there.
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
