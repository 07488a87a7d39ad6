//! Validates watches of tasks.

use tonic::Status;

use super::Violations;
use crate::api::{auth::Caller, page};
use errand_engine::WatchQuery;
use errand_proto::v1::WatchTasksRequest;

/// Reads a WatchTasks request.
pub(in crate::api) fn watch(request: &WatchTasksRequest, caller: &Caller) -> Result<WatchQuery, Status> {
    let mut violations = Violations::new();
    let bots = violations.bots(&request.bot_id);
    let session = violations.session(&request.session_id);
    let after = match request.cursor.as_str() {
        "" => Some(None),
        cursor => page::place(cursor).map(Some),
    };
    if after.is_none() {
        violations.add("cursor", "must be the cursor of an earlier stream");
    }
    let read = (|| {
        Some(WatchQuery {
            tenant: caller.tenant.clone(),
            bots: bots?.unwrap_or_else(|| caller.bots.clone()),
            session: session?,
            after: after?,
        })
    })();
    violations.or(read)
}
