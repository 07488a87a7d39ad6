//! Whether a bot and a tenant have room for one more task. Counted within the transaction of the change, so that no other change comes
//! between.

use rusqlite::Connection;

use crate::{Caps, StoreError};
use errand_task::Owner;

/// Refuses one more unfinished task if it would exceed the caps. Tasks that wait for room do not count.
pub(super) fn check(connection: &Connection, owner: &Owner, caps: &Caps) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT count(*) FILTER (WHERE bot = ?), count(*) FROM tasks INDEXED BY tasks_admitted \
         WHERE tenant = ? AND finished_at IS NULL AND waits = 0",
    )?;
    let (of_bot, of_tenant): (u32, u32) =
        statement.query_row((owner.bot.as_str(), owner.tenant.as_str()), |row| Ok((row.get(0)?, row.get(1)?)))?;
    if of_bot >= caps.per_bot {
        return Err(StoreError::TooManyForBot { running: of_bot, limit: caps.per_bot });
    }
    if of_tenant >= caps.per_tenant {
        return Err(StoreError::TooManyForTenant { running: of_tenant, limit: caps.per_tenant });
    }
    Ok(())
}

/// Refuses one more task that waits for room, and has so many bytes, if it would exceed the caps.
pub(super) fn check_queue(connection: &Connection, owner: &Owner, bytes: i64, caps: &Caps) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT count(*) FILTER (WHERE bot = ?), count(*), coalesce(sum(bytes), 0) FROM tasks INDEXED BY tasks_waiting \
         WHERE tenant = ? AND finished_at IS NULL AND waits = 1",
    )?;
    let (of_bot, of_tenant, stored): (u32, u32, i64) = statement
        .query_row((owner.bot.as_str(), owner.tenant.as_str()), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    if of_bot >= caps.queued_per_bot {
        return Err(StoreError::TooManyQueuedForBot { queued: of_bot, limit: caps.queued_per_bot });
    }
    if of_tenant >= caps.queued_per_tenant {
        return Err(StoreError::TooManyQueuedForTenant { queued: of_tenant, limit: caps.queued_per_tenant });
    }
    let queued = stored.max(0).unsigned_abs();
    if queued.saturating_add(bytes.unsigned_abs()) > caps.queued_bytes {
        return Err(StoreError::TooMuchQueued { queued, limit: caps.queued_bytes });
    }
    Ok(())
}
