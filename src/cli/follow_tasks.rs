//! `errand ps --follow`: the unfinished tasks, then what happens to them, one line each.

use std::time::SystemTime;

use super::{args::PsArgs, connection::Connection, console::Console, error::CliError, exit_code, outcome, ps, text};
use errand_proto::v1::{
    Task, TaskChange, TaskEvent, WatchTasksRequest, WatchTasksResponse, watch_tasks_response::Event,
};

/// Prints events until the stream ends or the user interrupts.
pub(super) async fn follow(args: PsArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let request = WatchTasksRequest { bot_id: args.bot, session_id: args.session, cursor: args.cursor };
    let mut stream = connection.tasks().watch_tasks(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        if console.is_json() {
            console.message(&message).await?;
        } else if let Some(line) = line(&message, SystemTime::now()) {
            console.line(&line).await?;
        }
    }
    Ok(exit_code::SUCCESS)
}

/// A message on one line; none where people need none. Column widths are fixed, because later lines must align with those already printed.
fn line(message: &WatchTasksResponse, now: SystemTime) -> Option<String> {
    match message.event.as_ref()? {
        Event::SnapshotStarted(snapshot) if snapshot.cursor_too_old => {
            Some("events were lost; the tasks as they are now:".to_owned())
        }
        Event::SnapshotStarted(_) | Event::SnapshotComplete(_) | Event::Progress(_) => None,
        Event::Listed(task) => Some(columns("listed", task, &what(task), now)),
        Event::Changed(change) => Some(changed(change, now)),
    }
}

fn changed(change: &TaskChange, now: SystemTime) -> String {
    let event = change.event();
    let name = event.as_str_name().trim_start_matches("TASK_EVENT_").to_lowercase();
    let task = change.task.clone().unwrap_or_else(|| Task {
        task_id: change.task_id.clone(),
        bot_id: change.bot_id.clone(),
        session_id: change.session_id.clone(),
        status: change.status,
        output_bytes: change.output_bytes,
        ..Task::default()
    });
    let last_line = || change.output_preview.lines().last().unwrap_or_default().to_owned();
    let what = if event == TaskEvent::OutputGrew { last_line() } else { what(&task) };
    columns(&name, &task, &what, now)
}

/// What a task is for, or how it ended.
fn what(task: &Task) -> String {
    match &task.outcome {
        Some(ended) => outcome::words(ended),
        None => ps::purpose(task),
    }
}

fn columns(event: &str, task: &Task, what: &str, now: SystemTime) -> String {
    let owner = format!("{}/{}", task.bot_id, task.session_id);
    format!(
        "{}  {event:<12}  {:<36}  {:<9}  {:<20}  {:>8}  {}",
        humantime::format_rfc3339_seconds(now),
        text::one_line(&task.task_id, 36),
        text::status_name(task.status),
        text::one_line(&owner, 40),
        text::bytes_text(task.output_bytes),
        text::one_line(what, 80),
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use errand_proto::v1::{TaskSnapshot, TaskSnapshotEnd, TaskStatus};

    fn shown(event: Event) -> Option<String> {
        line(&WatchTasksResponse { event: Some(event), cursor: String::new() }, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn each_event_is_one_aligned_line() {
        let change = TaskChange {
            event: TaskEvent::OutputGrew.into(),
            task_id: "0190a7c4-0000-7000-8000-000000000000".to_owned(),
            bot_id: "b".to_owned(),
            session_id: "s".to_owned(),
            status: TaskStatus::Running.into(),
            output_bytes: 2048,
            output_preview: "one\ntwo".to_owned(),
            task: None,
        };
        let expected = format!(
            "1970-01-01T00:00:00Z  output_grew   0190a7c4-0000-7000-8000-000000000000  running    {:<20}     2 KiB  two",
            "b/s"
        );
        assert_eq!(shown(Event::Changed(change)).as_deref(), Some(expected.as_str()));
        assert_eq!(shown(Event::SnapshotStarted(TaskSnapshot { cursor_too_old: false })), None);
        assert_eq!(shown(Event::SnapshotComplete(TaskSnapshotEnd {})), None);
        assert!(shown(Event::SnapshotStarted(TaskSnapshot { cursor_too_old: true })).is_some());
        let task = Task { command: "make\ntest".to_owned(), ..Task::default() };
        assert!(shown(Event::Listed(task)).is_some_and(|line| line.ends_with("make test")));
    }
}
