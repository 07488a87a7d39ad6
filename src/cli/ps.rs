//! `errand ps`: the tasks as a table.

use std::time::SystemTime;

use super::{
    args::PsArgs,
    connection::Connection,
    console::Console,
    error::CliError,
    exit_code, follow_tasks, outcome,
    table::{Cell, Colour, Table},
    text,
};
use errand_proto::v1::{ListTasksRequest, Task, TaskStatus};

/// How many tasks are requested at a time.
const PAGE: u32 = 100;

const UNFINISHED: [TaskStatus; 4] =
    [TaskStatus::Queued, TaskStatus::Starting, TaskStatus::Running, TaskStatus::Stopping];

/// Lists tasks, newest first.
pub(super) async fn ps(args: PsArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    if args.follow {
        return follow_tasks::follow(args, connection, console).await;
    }
    let mut tasks = connection.tasks();
    let statuses = if args.all { Vec::new() } else { UNFINISHED.map(i32::from).to_vec() };
    let mut left = args.limit.unwrap_or(u32::MAX);
    let mut page_token = String::new();
    let mut table = Table::new(&["TASK", "STATUS", "BOT", "SESSION", "AGE", "RAN", "OUTPUT", "OUTCOME", "COMMAND"]);
    let now = SystemTime::now();
    loop {
        let request = ListTasksRequest {
            bot_id: args.bot.clone(),
            session_id: args.session.clone(),
            statuses: statuses.clone(),
            page_size: left.min(PAGE).cast_signed(),
            page_token,
            ..ListTasksRequest::default()
        };
        let page = tasks.list_tasks(request).await?.into_inner();
        for task in &page.tasks {
            if console.is_json() { console.message(task).await? } else { table.row(row(task, now)) }
        }
        left = left.saturating_sub(u32::try_from(page.tasks.len()).unwrap_or(u32::MAX));
        page_token = page.next_page_token;
        if page_token.is_empty() || left == 0 {
            break;
        }
    }
    if !console.is_json() {
        console.table(&table).await?;
    }
    Ok(exit_code::SUCCESS)
}

fn row(task: &Task, now: SystemTime) -> Vec<Cell> {
    let mut status = text::status_name(task.status);
    if task.stall.is_some() {
        status.push_str(" (stalled)");
    }
    let purpose = purpose(task);
    vec![
        task.task_id.as_str().into(),
        Cell::coloured(&status, colour(task.status())),
        task.bot_id.as_str().into(),
        task.session_id.as_str().into(),
        text::span_text(text::wire_time(task.created_at), now).into(),
        text::span_text(text::wire_time(task.started_at), text::wire_time(task.finished_at).unwrap_or(now)).into(),
        text::bytes_text(task.output_bytes).into(),
        task.outcome.as_ref().map(outcome::words).unwrap_or_default().into(),
        purpose.into(),
    ]
}

/// What a task is for: its description, else its command.
pub(super) fn purpose(task: &Task) -> String {
    match (task.description.as_str(), task.command.as_str()) {
        ("", "") => shlex::try_join(task.argv.iter().map(String::as_str)).unwrap_or_else(|_| task.argv.join(" ")),
        ("", command) => command.to_owned(),
        (description, _) => description.to_owned(),
    }
}

fn colour(status: TaskStatus) -> Option<Colour> {
    match status {
        TaskStatus::Unspecified | TaskStatus::Queued | TaskStatus::Starting => None,
        TaskStatus::Running => Some(Colour::Live),
        TaskStatus::Stopping | TaskStatus::Stopped => Some(Colour::Odd),
        TaskStatus::Succeeded => Some(Colour::Good),
        TaskStatus::Failed | TaskStatus::TimedOut | TaskStatus::FailedToStart | TaskStatus::Lost => Some(Colour::Bad),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use errand_proto::v1::{Exited, Outcome, outcome::Kind};

    #[test]
    fn finished_task_shows_age_duration_and_outcome() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let task = Task {
            task_id: "0192".to_owned(),
            bot_id: "b".to_owned(),
            session_id: "s".to_owned(),
            command: "make\ntest".to_owned(),
            status: TaskStatus::Failed.into(),
            outcome: Some(Outcome {
                kind: Some(Kind::Exited(Exited { code: 2 })),
                shell_exit_code: Some(2),
                out_of_memory: None,
            }),
            output_bytes: 2048,
            created_at: at(100),
            started_at: at(110),
            finished_at: at(200),
            ..Task::default()
        };
        let mut table = Table::new(&["TASK", "STATUS", "BOT", "SESSION", "AGE", "RAN", "OUTPUT", "OUTCOME", "COMMAND"]);
        table.row(row(&task, SystemTime::UNIX_EPOCH + Duration::from_secs(3700)));
        let expected = "TASK  STATUS  BOT  SESSION  AGE  RAN     OUTPUT  OUTCOME   COMMAND\n\
                        0192  failed  b    s        1h   1m 30s  2 KiB   exited 2  make test\n";
        assert_eq!(table.render(false), expected);
    }
}
