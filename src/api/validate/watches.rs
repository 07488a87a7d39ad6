//! Validates watches of a task's output.

use tonic::Status;

use super::{Violations, tasks::reference};
use crate::api::auth::Caller;
use errand_engine::{TaskRef, check_watch};
use errand_proto::v1::{OutputWatch, SetWatchesRequest, output_watch::Kind};
use errand_task::{WATCH_LIMIT, Watch, WatchPattern};

/// Reads a SetWatches request: the task, its new watches, and the first byte that a match may begin with.
pub(in crate::api) fn set(
    request: SetWatchesRequest,
    caller: &Caller,
) -> Result<(TaskRef, Vec<Watch>, Option<u64>), Status> {
    let mut violations = Violations::new();
    let task = reference(&request.task_id, &request.bot_id, &request.session_id, caller, &mut violations);
    let watches = watches(request.watches, &mut violations);
    let from = match request.from_offset {
        None => Some(None),
        Some(offset) => violations.number("from_offset", offset, 0, i64::MAX as u64).map(Some),
    };
    let read = (|| Some((task?, watches?, from?)))();
    let (task, watches, from) = violations.or(read)?;
    Ok((task?, watches, from))
}

/// Reads the field `watches`.
pub(super) fn watches(given: Vec<OutputWatch>, violations: &mut Violations) -> Option<Vec<Watch>> {
    if given.len() > WATCH_LIMIT {
        violations.add("watches", format!("must have at most {WATCH_LIMIT} entries, has {}", given.len()));
        return None;
    }
    // All are read, so that everything that is wrong is told at once.
    let read: Vec<_> = given
        .into_iter()
        .enumerate()
        .map(|(index, watch)| {
            violations.within(&format!("watches[{index}]"), |violations| self::watch(watch, violations))
        })
        .collect();
    read.into_iter().collect()
}

fn watch(given: OutputWatch, violations: &mut Violations) -> Option<Watch> {
    let (field, pattern) = match given.kind {
        None => {
            violations.add("substring", "must be set, unless `regex` is");
            return None;
        }
        Some(Kind::Substring(text)) => ("substring", WatchPattern::Text(text)),
        Some(Kind::Regex(pattern)) => ("regex", WatchPattern::Regex(pattern)),
    };
    check_watch(&pattern).map_err(|error| violations.add(field, error.to_string())).ok()?;
    Some(Watch { pattern, once: given.once })
}
