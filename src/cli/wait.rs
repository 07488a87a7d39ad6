//! `errand wait`: waits until a task has finished, however long that takes.

use std::time::{Duration, Instant};

use super::{args::WaitArgs, connection::Connection, console::Console, error::CliError, exit_code, outcome, text};
use errand_proto::v1::{WaitResult, WaitTaskRequest};

/// The longest that one call waits.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// Waits and returns the exit code for the task's end. Acknowledges nothing.
pub(super) async fn wait(args: WaitArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let mut tasks = connection.tasks();
    let started = Instant::now();
    loop {
        let left = args.timeout.map_or(LONGEST_WAIT, |timeout| timeout.saturating_sub(started.elapsed()));
        // When the time is just over, asks once more: the task may have finished at the same moment.
        let timeout = left.clamp(Duration::from_millis(1), LONGEST_WAIT);
        let request = WaitTaskRequest {
            task_id: args.task.clone(),
            timeout: Some(text::wire_duration(timeout)),
            ..WaitTaskRequest::default()
        };
        let answer = tasks.wait_task(request).await?.into_inner();
        let task = answer.task.unwrap_or_default();
        if answer.result == i32::from(WaitResult::Finished) {
            if console.is_json() {
                console.message(&task).await?;
            }
            return Ok(outcome::report(&task, console).await);
        }
        if let Some(timeout) = args.timeout
            && started.elapsed() >= timeout
        {
            let status = text::status_name(task.status);
            console
                .note(&format!("task {} is {status} after a wait of {}", args.task, text::duration_text(timeout)))
                .await;
            return Ok(exit_code::WAIT_TIMEOUT);
        }
    }
}
