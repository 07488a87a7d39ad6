//! The table of tasks.

use std::time::SystemTime;

use sqlx::{QueryBuilder, Sqlite, SqliteConnection, SqlitePool, query, query_as, query_scalar};

use super::{
    notifications,
    values::{decode_all, decode_one, micros},
    writer::Change,
};
use crate::{
    store::{BotFilter, Caps, Created, Scope, StoreError, TaskQuery},
    task::{BotId, NewNotification, Task, TaskId, TenantId},
};

/// Adds a task.
pub(super) struct Create {
    pub(super) task: Task,
    pub(super) caps: Caps,
}

impl Change for Create {
    type Answer = Created;

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<Created, StoreError> {
        let owner = &self.task.owner;
        if let Some(request_id) = &self.task.spec.request_id {
            let record = by_request(&owner.tenant, &owner.bot, request_id).fetch_optional(&mut *connection).await?;
            if let Some(existing) = decode_one(record)? {
                return Ok(Created::Existing(existing));
            }
        }
        self.check_caps(connection).await?;
        query(
            "INSERT INTO tasks (id, tenant, bot, session, request_id, sandbox, status, created_at, finished_at, revision, record) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(self.task.id.to_string())
        .bind(owner.tenant.as_str())
        .bind(owner.bot.as_str())
        .bind(owner.session.as_str())
        .bind(self.task.spec.request_id.as_deref())
        .bind(self.task.sandbox.to_string())
        .bind(self.task.status().word())
        .bind(micros(self.task.created_at))
        .bind(self.task.state.finished_at().map(micros))
        .bind(self.task.revision)
        .bind(serde_json::to_string(&self.task)?)
        .execute(connection)
        .await?;
        Ok(Created::New(self.task.clone()))
    }
}

impl Create {
    /// Counted inside the transaction that adds the task: nothing can come between.
    async fn check_caps(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        let (of_bot, of_tenant): (u32, u32) = query_as(
            "SELECT count(*) FILTER (WHERE bot = ?), count(*) FROM tasks INDEXED BY tasks_unfinished \
             WHERE tenant = ? AND finished_at IS NULL",
        )
        .bind(self.task.owner.bot.as_str())
        .bind(self.task.owner.tenant.as_str())
        .fetch_one(connection)
        .await?;
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

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<Task, StoreError> {
        let mut updated = self.task.clone();
        updated.revision += 1;
        if !self.replace_unfinished(connection, &updated).await? && !self.add_late_outcome(connection, &updated).await?
        {
            return Err(StoreError::Conflict);
        }
        if let Some(notification) = &self.notification {
            notifications::insert(connection, notification).await?;
        }
        Ok(updated)
    }

    fn wakes(&self, _answer: &Task) -> Option<Scope> {
        let owner = &self.notification.as_ref()?.owner;
        Some(Scope { tenant: owner.tenant.clone(), bot: owner.bot.clone(), session: Some(owner.session.clone()) })
    }
}

impl Update {
    async fn replace_unfinished(&self, connection: &mut SqliteConnection, updated: &Task) -> Result<bool, StoreError> {
        let done = query(
            "UPDATE tasks SET status = ?, finished_at = ?, revision = ?, record = ? \
             WHERE id = ? AND tenant = ? AND revision = ? AND finished_at IS NULL",
        )
        .bind(updated.status().word())
        .bind(updated.state.finished_at().map(micros))
        .bind(updated.revision)
        .bind(serde_json::to_string(updated)?)
        .bind(self.task.id.to_string())
        .bind(self.task.owner.tenant.as_str())
        .bind(self.task.revision)
        .execute(connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The one change that a finished task takes. The records are compared as values: JSON text of an older Errand may lack a field.
    async fn add_late_outcome(&self, connection: &mut SqliteConnection, updated: &Task) -> Result<bool, StoreError> {
        let record = query_scalar(
            "SELECT record FROM tasks WHERE id = ? AND tenant = ? AND revision = ? AND finished_at IS NOT NULL",
        )
        .bind(self.task.id.to_string())
        .bind(self.task.owner.tenant.as_str())
        .bind(self.task.revision)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(stored) = decode_one::<Task>(record)? else {
            return Ok(false);
        };
        let with_news = Task { late_outcome: self.task.late_outcome.clone(), ..stored.clone() };
        if stored.late_outcome.is_some() || self.task.late_outcome.is_none() || with_news != self.task {
            return Ok(false);
        }
        let done = query("UPDATE tasks SET revision = ?, record = ? WHERE id = ? AND revision = ?")
            .bind(updated.revision)
            .bind(serde_json::to_string(updated)?)
            .bind(self.task.id.to_string())
            .bind(self.task.revision)
            .execute(connection)
            .await?;
        Ok(done.rows_affected() == 1)
    }
}

/// Removes tasks that are over for long.
pub(super) struct RemoveFinished {
    pub(super) before: SystemTime,
    pub(super) limit: u32,
}

impl Change for RemoveFinished {
    type Answer = Vec<Task>;

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<Vec<Task>, StoreError> {
        let records: Vec<String> = query_scalar(
            "DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE finished_at < ? ORDER BY finished_at LIMIT ?) \
             RETURNING record",
        )
        .bind(micros(self.before))
        .bind(self.limit)
        .fetch_all(connection)
        .await?;
        decode_all(&records)
    }
}

pub(super) async fn get(pool: &SqlitePool, tenant: &TenantId, id: TaskId) -> Result<Option<Task>, StoreError> {
    let record = query_scalar("SELECT record FROM tasks WHERE id = ? AND tenant = ?")
        .bind(id.to_string())
        .bind(tenant.as_str())
        .fetch_optional(pool)
        .await?;
    decode_one(record)
}

pub(super) async fn get_by_request(
    pool: &SqlitePool,
    tenant: &TenantId,
    bot: &BotId,
    request_id: &str,
) -> Result<Option<Task>, StoreError> {
    decode_one(by_request(tenant, bot, request_id).fetch_optional(pool).await?)
}

type Record<'q> = sqlx::query::QueryScalar<'q, Sqlite, String, sqlx::sqlite::SqliteArguments>;

fn by_request<'q>(tenant: &TenantId, bot: &BotId, request_id: &str) -> Record<'q> {
    query_scalar("SELECT record FROM tasks WHERE tenant = ? AND bot = ? AND request_id = ?")
        .bind(tenant.as_str().to_owned())
        .bind(bot.as_str().to_owned())
        .bind(request_id.to_owned())
}

pub(super) async fn list(pool: &SqlitePool, wanted: TaskQuery) -> Result<Vec<Task>, StoreError> {
    let records: Vec<String> = selection(&wanted).build_query_scalar().fetch_all(pool).await?;
    decode_all(&records)
}

pub(super) async fn unfinished(pool: &SqlitePool) -> Result<Vec<Task>, StoreError> {
    let records: Vec<String> =
        query_scalar("SELECT record FROM tasks INDEXED BY tasks_unfinished WHERE finished_at IS NULL ORDER BY id")
            .fetch_all(pool)
            .await?;
    decode_all(&records)
}

fn selection(wanted: &TaskQuery) -> QueryBuilder<Sqlite> {
    let unfinished = !wanted.statuses.is_empty() && wanted.statuses.iter().all(|status| !status.is_terminal());
    // Without statistics the planner walks all that was ever run to spare sorting the few that are.
    let table = if unfinished { "tasks INDEXED BY tasks_unfinished" } else { "tasks" };
    let mut sql = QueryBuilder::new(format!("SELECT record FROM {table} WHERE tenant = "));
    sql.push_bind(wanted.tenant.as_str().to_owned());
    if unfinished {
        sql.push(" AND finished_at IS NULL");
    }
    push_bots(&mut sql, &wanted.bots);
    if let Some(session) = &wanted.session {
        sql.push(" AND session = ").push_bind(session.as_str().to_owned());
    }
    if !wanted.statuses.is_empty() {
        sql.push(" AND status IN (");
        let mut words = sql.separated(", ");
        for status in &wanted.statuses {
            words.push_bind(status.word());
        }
        sql.push(")");
    }
    for (key, value) in &wanted.labels {
        // Keys are compared as values: in a JSON path, a dot or a quote in a key would have a meaning.
        sql.push(" AND EXISTS (SELECT 1 FROM json_each(record, '$.spec.labels') AS label WHERE label.key = ")
            .push_bind(key.clone())
            .push(" AND label.value = ")
            .push_bind(value.clone())
            .push(")");
    }
    if let Some(before) = wanted.before {
        sql.push(" AND id < ").push_bind(before.to_string());
    }
    sql.push(" ORDER BY id DESC LIMIT ").push_bind(wanted.limit);
    sql
}

fn push_bots(sql: &mut QueryBuilder<Sqlite>, bots: &BotFilter) {
    match bots {
        BotFilter::All => {}
        BotFilter::One(bot) => {
            sql.push(" AND bot = ").push_bind(bot.as_str().to_owned());
        }
        BotFilter::Matching(patterns) => {
            sql.push(" AND (FALSE");
            for pattern in patterns {
                match pattern.strip_suffix('*') {
                    // Not LIKE: an underscore is a common character in a name and a wildcard there.
                    Some(prefix) => sql
                        .push(" OR substr(bot, 1, ")
                        .push_bind(i64::try_from(prefix.chars().count()).unwrap_or(i64::MAX))
                        .push(") = ")
                        .push_bind(prefix.to_owned()),
                    None => sql.push(" OR bot = ").push_bind(pattern.clone()),
                };
            }
            sql.push(")");
        }
    }
}
