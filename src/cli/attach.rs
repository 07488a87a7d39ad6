//! `errand attach`: attaches the keyboard and the terminal to a running task.

use tokio::sync::watch;

use super::{
    args::AttachArgs,
    connection::Connection,
    console::Console,
    error::CliError,
    exit_code,
    interaction::{Interaction, Leave},
    keyboard::Order,
    logs, outcome,
};
use errand_proto::v1::GetTaskRequest;

/// Follows the task until it ends or the user detaches. Returns the exit code for the task's end, or 0 if the task keeps running.
pub(super) async fn attach(args: AttachArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let mut tasks = connection.tasks();
    let request = GetTaskRequest { task_id: args.task, ..GetTaskRequest::default() };
    let task = tasks.get_task(request).await?.into_inner().task.unwrap_or_default();
    let from = args.from.unwrap_or(task.output_bytes);
    let terminal = task.terminal.is_some();
    let input = (task.stdin || terminal) && !args.no_stdin && task.outcome.is_none();
    let interaction = Interaction::begin(input, terminal && task.outcome.is_none(), Order::AmongOthers)?;
    let leaving = if interaction.can_detach() { "Ctrl-P Ctrl-Q detaches" } else { "Ctrl-C detaches" };
    let silent = if input { "" } else { ", which is given no input" };
    // In raw mode, a new line begins in the column where the last one ended.
    let end = if interaction.can_detach() { "\r" } else { "" };
    console.note(&format!("attached to task {}{silent}; {leaving}{end}", task.task_id)).await;

    let (_known, task_id) = watch::channel(Some(task.task_id.clone()));
    let left = tokio::select! {
        finished = logs::follow(&task.task_id, from, &mut tasks, console) => Ok(finished?),
        leave = interaction.run(connection.tasks(), task_id) => Err(leave?),
    };
    drop(interaction);
    match left {
        Ok(task) => Ok(outcome::report(&task, console).await),
        Err(Leave::Detached) => {
            console.detached(&task.task_id).await;
            Ok(exit_code::SUCCESS)
        }
        Err(Leave::Signal(code)) => Ok(code),
    }
}
