//! Ends the delivery of notifications, or starts it again.

use std::time::SystemTime;

use rusqlite::Connection;

use super::{acknowledging, count, list, push_scope};
use crate::{
    Scope, Selection, StoreError,
    sqlite::{statement::Statement, writer::Change},
};
use errand_task::{NotificationKind, TaskId, TenantId};

/// Acknowledges notifications.
pub(in crate::sqlite) struct Acknowledge {
    pub(in crate::sqlite) scope: Scope,
    pub(in crate::sqlite) which: Selection,
}

impl Change for Acknowledge {
    type Answer = u32;

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.scope.tenant)
    }

    fn apply(&self, connection: &Connection, now: SystemTime) -> Result<u32, StoreError> {
        let mut sql = acknowledging(index_of(&self.which), now);
        push_scope(&mut sql, &self.scope);
        push_selection(&mut sql, &self.which)?;
        Ok(count(sql.execute(connection)?))
    }
}

/// Acknowledges a task's completion.
pub(in crate::sqlite) struct AcknowledgeCompletion {
    pub(in crate::sqlite) tenant: TenantId,
    pub(in crate::sqlite) task: TaskId,
}

impl Change for AcknowledgeCompletion {
    type Answer = u32;

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }

    fn apply(&self, connection: &Connection, now: SystemTime) -> Result<u32, StoreError> {
        let mut sql = acknowledging(" INDEXED BY notifications_of_task", now);
        sql.push("tenant = ").bind(self.tenant.as_str().to_owned());
        sql.push(" AND task = ").bind(self.task.to_string());
        sql.push(" AND kind = ").bind(NotificationKind::Completed.word().to_owned());
        Ok(count(sql.execute(connection)?))
    }
}

/// Ends leases before their time.
pub(in crate::sqlite) struct Release {
    pub(in crate::sqlite) scope: Scope,
    pub(in crate::sqlite) which: Selection,
}

impl Change for Release {
    type Answer = u32;

    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.scope.tenant)
    }

    fn apply(&self, connection: &Connection, _now: SystemTime) -> Result<u32, StoreError> {
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

/// The index that leads to a selection. Never an index of all unacknowledged notifications, which may be many.
fn index_of(which: &Selection) -> &'static str {
    match which {
        // By the primary key.
        Selection::Sequences(_) => " NOT INDEXED",
        Selection::Lease(_) => " INDEXED BY notifications_leased",
    }
}

fn push_selection(sql: &mut Statement, which: &Selection) -> Result<(), StoreError> {
    match which {
        Selection::Sequences(sequences) => {
            sql.push(" AND sequence IN (SELECT value FROM json_each(").bind(list(sequences)?).push("))")
        }
        Selection::Lease(lease) => sql.push(" AND lease = ").bind(lease.to_string()),
    };
    Ok(())
}
