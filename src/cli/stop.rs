//! `errand stop`: stops tasks with all their processes.

use futures_util::future;

use super::{args::StopArgs, connection::Connection, console::Console, error::CliError, exit_code, text};
use errand_proto::v1::{StopTaskRequest, StopTasksRequest, Task};

/// Stops the named tasks, or all tasks of a bot or session.
pub(super) async fn stop(args: StopArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    if args.all { stop_all(args, connection, console).await } else { stop_each(args, connection, console).await }
}

async fn stop_all(args: StopArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let request = StopTasksRequest {
        bot_id: args.bot.unwrap_or_else(|| "default".to_owned()),
        session_id: args.session.unwrap_or_default(),
        grace: args.grace.map(text::wire_duration),
        reason: args.reason,
        acknowledge: args.acknowledge,
    };
    let answer = connection.tasks().stop_tasks(request).await?.into_inner();
    console.each(&answer.tasks, line).await?;
    if answer.more {
        let listed = i32::try_from(answer.tasks.len()).unwrap_or(i32::MAX);
        let rest = answer.stopped_count.saturating_sub(listed);
        console.note(&format!("{rest} more were stopped; `errand ps --all` lists them")).await;
    }
    Ok(exit_code::SUCCESS)
}

/// Stops the tasks concurrently, because each may take as long as its grace. A failure does not keep the others from being stopped.
async fn stop_each(args: StopArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let calls = args.tasks.into_iter().map(|task_id| {
        let mut tasks = connection.tasks();
        let grace = args.grace.map(text::wire_duration);
        let (reason, acknowledge) = (args.reason.clone(), args.acknowledge);
        let request = StopTaskRequest { task_id, grace, reason, acknowledge, ..StopTaskRequest::default() };
        async move { tasks.stop_task(request).await.map_err(CliError::from) }
    });
    let mut code = exit_code::SUCCESS;
    for answer in future::join_all(calls).await {
        match answer {
            Ok(answer) => console.each(&[answer.into_inner().task.unwrap_or_default()], line).await?,
            Err(error) => {
                console.error(&error).await;
                code = code.max(error.exit_code());
            }
        }
    }
    Ok(code)
}

fn line(task: &Task) -> String {
    format!("{}  {}", task.task_id, text::status_name(task.status))
}
