//! `errand wait`: waits until tasks have finished or meet another condition, however long that takes.

mod several;
mod until;

use std::time::{Duration, Instant};

use super::{args::WaitArgs, connection::Connection, console::Console, error::CliError, exit_code, outcome, text};
use errand_proto::v1::{AcknowledgeMode, OutputMatch, WaitResult, WaitTaskRequest, WaitTaskResponse};
pub use until::Until;

/// The longest that one call waits.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// Waits and returns the exit code. Acknowledges what it has shown, if that is wanted.
pub(super) async fn wait(args: WaitArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let mut request = until::request(args.until.clone())?;
    if args.acknowledge {
        request.acknowledge_mode = AcknowledgeMode::OnReceipt.into();
    }
    let clock = Clock::new(args.timeout);
    match &args.tasks[..] {
        [task] => one(request, task, !args.until.is_empty(), clock, connection, console).await,
        _ => several::wait(request, args, clock, connection, console).await,
    }
}

/// How long a wait may still take, over all its calls.
struct Clock {
    started: Instant,
    timeout: Option<Duration>,
}

impl Clock {
    fn new(timeout: Option<Duration>) -> Self {
        Self { started: Instant::now(), timeout }
    }

    /// The timeout of the next call. When the time is just over, asks once more: a task may have finished at the same moment.
    fn next_call(&self) -> Duration {
        let left = self.timeout.map_or(LONGEST_WAIT, |timeout| timeout.saturating_sub(self.started.elapsed()));
        left.clamp(Duration::from_millis(1), LONGEST_WAIT)
    }

    /// The timeout, once it is over.
    fn expired(&self) -> Option<Duration> {
        self.timeout.filter(|timeout| self.started.elapsed() >= *timeout)
    }
}

/// Waits for one task.
async fn one(
    mut request: WaitTaskRequest,
    task: &str,
    conditional: bool,
    clock: Clock,
    connection: &Connection,
    console: &mut Console,
) -> Result<u8, CliError> {
    let mut tasks = connection.tasks();
    task.clone_into(&mut request.task_id);
    loop {
        request.timeout = Some(text::wire_duration(clock.next_call()));
        let answer = tasks.wait_task(request.clone()).await?.into_inner();
        match answer.result() {
            WaitResult::Timeout | WaitResult::Unspecified => {}
            _ => {
                let code = met(&answer, conditional, console).await?;
                let leases: Vec<String> = Some(answer.lease_id).filter(|lease| !lease.is_empty()).into_iter().collect();
                connection.received(&request.task_id, &leases).await;
                return Ok(code);
            }
        }
        let task = answer.task.unwrap_or_default();
        if let Some(timeout) = clock.expired() {
            let status = text::status_name(task.status);
            let wait = text::duration_text(timeout);
            console.note(&format!("task {} is {status} after a wait of {wait}", request.task_id)).await;
            return Ok(exit_code::WAIT_TIMEOUT);
        }
        if let Some(pattern) = &mut request.until_match {
            pattern.offset = answer.next_match_offset;
        }
    }
}

/// Says which condition one task met.
async fn met(answer: &WaitTaskResponse, conditional: bool, console: &mut Console) -> Result<u8, CliError> {
    let task = answer.task.clone().unwrap_or_default();
    if console.is_json() {
        if conditional { console.message(answer).await? } else { console.message(&task).await? }
    }
    match answer.result() {
        WaitResult::Finished => return Ok(outcome::report(&task, console).await),
        WaitResult::Matched if !console.is_json() => {
            console.line(&shown(answer.output_match.as_ref())).await?;
        }
        result => console.note(&format!("task {} is {}", task.task_id, word(result))).await,
    }
    Ok(exit_code::SUCCESS)
}

/// The line of a match, as one line for people.
fn shown(found: Option<&OutputMatch>) -> String {
    found.map(|found| text::one_line(&found.line, 2000)).unwrap_or_default()
}

/// A result in one word.
fn word(result: WaitResult) -> String {
    result.as_str_name().trim_start_matches("WAIT_RESULT_").to_lowercase()
}
