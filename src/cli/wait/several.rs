//! Waits for several tasks, with further calls for those that have not met a condition.

use std::collections::HashMap;

use super::{Clock, shown, word};
use crate::cli::{args::WaitArgs, connection::Connection, console::Console, error::CliError, exit_code, outcome, text};
use errand_proto::v1::{TaskWait, WaitMode, WaitResult, WaitTaskRequest, WaitTasksRequest};

/// Waits for the first task, or for all of them. Returns the exit code of the first task, in the order of the arguments, that did not
/// succeed.
pub(super) async fn wait(
    conditions: WaitTaskRequest,
    args: WaitArgs,
    clock: Clock,
    connection: &Connection,
    console: &mut Console,
) -> Result<u8, CliError> {
    let mut tasks = connection.tasks();
    let mode = if args.any { WaitMode::First } else { WaitMode::All };
    let mut request = WaitTasksRequest {
        task_ids: args.tasks.clone(),
        mode: mode.into(),
        until_stalled: conditions.until_stalled,
        until_idle: conditions.until_idle,
        until_match: conditions.until_match,
        until_listening: conditions.until_listening,
        acknowledge_mode: conditions.acknowledge_mode,
        ..WaitTasksRequest::default()
    };
    let mut codes: HashMap<String, u8> = HashMap::new();
    loop {
        request.timeout = Some(text::wire_duration(clock.next_call()));
        let answer = tasks.wait_tasks(request.clone()).await?.into_inner();
        for wait in answer.waits.iter().filter(|wait| is_met(wait)) {
            console.each(std::slice::from_ref(wait), line).await?;
            codes.insert(wait.task_id.clone(), code(wait));
        }
        let shown = answer.waits.iter().filter(|wait| !wait.lease_id.is_empty());
        let leases: Vec<String> = shown.map(|wait| wait.lease_id.clone()).collect();
        connection.received(&args.tasks[0], &leases).await;
        let left: Vec<&TaskWait> = answer.waits.iter().filter(|wait| !is_met(wait)).collect();
        if left.is_empty() || (args.any && !codes.is_empty()) {
            let failed = args.tasks.iter().filter_map(|task| codes.get(task)).find(|code| **code != exit_code::SUCCESS);
            return Ok(failed.copied().unwrap_or(exit_code::SUCCESS));
        }
        if let Some(timeout) = clock.expired() {
            let wait = text::duration_text(timeout);
            console.note(&format!("{} tasks met no condition after a wait of {wait}", left.len())).await;
            return Ok(exit_code::WAIT_TIMEOUT);
        }
        request.task_ids = left.iter().map(|wait| wait.task_id.clone()).collect();
        if request.until_match.is_some() {
            request.match_offsets = left.iter().map(|wait| (wait.task_id.clone(), wait.next_match_offset)).collect();
        }
    }
}

fn is_met(wait: &TaskWait) -> bool {
    !matches!(wait.result(), WaitResult::Timeout | WaitResult::Unspecified)
}

/// The exit code of a command that ended; success for a task that met another condition.
fn code(wait: &TaskWait) -> u8 {
    match (wait.result(), &wait.task) {
        (WaitResult::Finished, Some(task)) => outcome::exit_code(task),
        // The answer had no room for the record.
        (WaitResult::Finished, None) => exit_code::LOST,
        _ => exit_code::SUCCESS,
    }
}

/// One task and the condition that it met, on one line.
fn line(wait: &TaskWait) -> String {
    let ended = wait.task.as_ref().and_then(|task| task.outcome.as_ref()).map(outcome::words);
    let what = match wait.result() {
        WaitResult::Matched => shown(wait.output_match.as_ref()),
        _ => ended.map(|words| text::one_line(&words, 200)).unwrap_or_default(),
    };
    format!("{}  {:<9}  {what}", wait.task_id, word(wait.result())).trim_end().to_owned()
}
