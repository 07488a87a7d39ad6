//! The table of sandboxes.

use sqlx::{QueryBuilder, SqliteConnection, SqlitePool, query, query_scalar};

use super::{
    values::{decode_all, decode_one, micros},
    writer::Change,
};
use crate::{
    store::StoreError,
    task::{BotId, SandboxId, SandboxRecord, TenantId},
};

/// Adds or replaces a sandbox.
pub(super) struct Put(pub(super) SandboxRecord);

impl Change for Put {
    type Answer = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        let Self(sandbox) = self;
        let done = query(
            "INSERT INTO sandboxes (id, tenant, bot, created_at, record) VALUES (?, ?, ?, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET created_at = excluded.created_at, record = excluded.record \
             WHERE tenant = excluded.tenant AND bot = excluded.bot",
        )
        .bind(sandbox.id.to_string())
        .bind(sandbox.tenant.as_str())
        .bind(sandbox.bot.as_str())
        .bind(micros(sandbox.created_at))
        .bind(serde_json::to_string(sandbox)?)
        .execute(connection)
        .await;
        match done {
            Ok(done) if done.rows_affected() == 1 => Ok(()),
            Ok(_) => Err(StoreError::Conflict),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Err(StoreError::Conflict),
            Err(error) => Err(error.into()),
        }
    }
}

/// Forgets a bot's sandbox.
pub(super) struct Remove {
    pub(super) tenant: TenantId,
    pub(super) bot: BotId,
}

impl Change for Remove {
    type Answer = ();

    async fn apply(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        query("DELETE FROM sandboxes WHERE tenant = ? AND bot = ?")
            .bind(self.tenant.as_str())
            .bind(self.bot.as_str())
            .execute(connection)
            .await?;
        Ok(())
    }
}

pub(super) async fn get(
    pool: &SqlitePool,
    tenant: &TenantId,
    bot: &BotId,
) -> Result<Option<SandboxRecord>, StoreError> {
    let record = query_scalar("SELECT record FROM sandboxes WHERE tenant = ? AND bot = ?")
        .bind(tenant.as_str())
        .bind(bot.as_str())
        .fetch_optional(pool)
        .await?;
    decode_one(record)
}

pub(super) async fn list(
    pool: &SqlitePool,
    tenant: Option<&TenantId>,
    after: Option<SandboxId>,
    limit: u32,
) -> Result<Vec<SandboxRecord>, StoreError> {
    let mut sql = QueryBuilder::new("SELECT record FROM sandboxes WHERE TRUE");
    if let Some(tenant) = tenant {
        sql.push(" AND tenant = ").push_bind(tenant.as_str().to_owned());
    }
    if let Some(after) = after {
        sql.push(" AND id > ").push_bind(after.to_string());
    }
    sql.push(" ORDER BY id LIMIT ").push_bind(limit);
    let records: Vec<String> = sql.build_query_scalar().fetch_all(pool).await?;
    decode_all(&records)
}
