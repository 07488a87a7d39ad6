//! `errand logs`: shows a task's output from its log. Also follows a log, for `run` as well.

use super::{
    args::LogsArgs, connection::Connection, connection::Tasks, console::Console, error::CliError, exit_code, outcome,
};
use errand_proto::v1::{
    AcknowledgeMode, OutputFormat, OutputRange, OutputTail, ReadOutputRequest, ReadOutputResponse, StreamOutputRequest,
    Task, read_output_request::Selection, stream_output_response::Event,
};

/// How many bytes are requested at a time.
const PIECE: i64 = 256 * 1024;

/// Shows the log, or the requested part of it.
pub(super) async fn logs(args: LogsArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let mut tasks = connection.tasks();
    let offset = match args.tail {
        // Condensed output is read in one call.
        Some(tail) if !args.reading.condensed => (size(&args.task, &mut tasks).await? - tail).max(0),
        _ => args.offset,
    };
    if args.reading.show(&args.task, (args.tail, offset, args.follow), &mut tasks, console).await? {
        return Ok(exit_code::SUCCESS);
    }
    let missing = if args.follow {
        let task = follow(&args.task, offset, &mut tasks, console).await?;
        task.output_gap.map_or(0, |gap| gap.end - gap.start.max(offset))
    } else {
        let mode = if args.acknowledge { AcknowledgeMode::OnReceipt } else { AcknowledgeMode::Unspecified };
        let (missing, lease) = read((&args.task, mode), offset, &mut tasks, console).await?;
        connection.received(&args.task, &lease.into_iter().collect::<Vec<_>>()).await;
        missing
    };
    outcome::not_kept(missing, console).await;
    Ok(exit_code::SUCCESS)
}

/// Scripts get text that they need not decode; people get the exact bytes.
pub(super) fn format(console: &Console) -> OutputFormat {
    if console.is_json() { OutputFormat::Text } else { OutputFormat::Lz4 }
}

/// Shows the log from an offset on until the task is finished, and returns the task.
pub(super) async fn follow(
    task_id: &str,
    offset: i64,
    tasks: &mut Tasks,
    console: &mut Console,
) -> Result<Task, CliError> {
    let request = StreamOutputRequest {
        task_id: task_id.to_owned(),
        offset,
        format: format(console).into(),
        ..StreamOutputRequest::default()
    };
    let mut stream = tasks.stream_output(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        if console.is_json() {
            console.message(&message).await?;
        }
        match message.event {
            Some(Event::Output(part)) if !console.is_json() => console.output(&part).await?,
            Some(Event::Finished(task)) => return Ok(task),
            // Output that was printed already, or an event that this program does not know.
            Some(Event::Output(_)) | None => {}
        }
    }
    Err(CliError::Unexpected("the server ended the stream before the task was finished".to_owned()))
}

/// Shows the log from an offset to its current end; this terminates even if the command never stops printing. Returns how many bytes in
/// between were not kept, and the lease that holds back the notification of the end if all of a finished task was shown.
async fn read(
    (task_id, mode): (&str, AcknowledgeMode),
    mut offset: i64,
    tasks: &mut Tasks,
    console: &mut Console,
) -> Result<(i64, Option<String>), CliError> {
    let mut end = None;
    let mut missing = 0;
    loop {
        let limit = end.map_or(PIECE, |end: i64| (end - offset).min(PIECE));
        let answer = select((task_id, mode), Selection::Range(OutputRange { offset, limit }), tasks, console).await?;
        let end = *end.get_or_insert(answer.total_bytes);
        let mut position = offset;
        for part in &answer.parts {
            missing += part.offset - position;
            position = part.next_offset;
        }
        if console.is_json() {
            console.message(&answer).await?;
        } else {
            for part in &answer.parts {
                console.output(part).await?;
            }
        }
        match answer.parts.last() {
            Some(part) if part.next_offset > offset && part.next_offset < end => offset = part.next_offset,
            _ => return Ok((missing, Some(answer.lease_id).filter(|lease| !lease.is_empty()))),
        }
    }
}

/// The size of the log in bytes.
async fn size(task_id: &str, tasks: &mut Tasks) -> Result<i64, CliError> {
    let selection = Some(Selection::Tail(OutputTail { limit: 1 }));
    let request = ReadOutputRequest { task_id: task_id.to_owned(), selection, ..ReadOutputRequest::default() };
    Ok(tasks.read_output(request).await?.into_inner().total_bytes)
}

async fn select(
    (task_id, mode): (&str, AcknowledgeMode),
    selection: Selection,
    tasks: &mut Tasks,
    console: &Console,
) -> Result<ReadOutputResponse, CliError> {
    let request = ReadOutputRequest {
        task_id: task_id.to_owned(),
        selection: Some(selection),
        format: format(console).into(),
        acknowledge_mode: mode.into(),
        ..ReadOutputRequest::default()
    };
    Ok(tasks.read_output(request).await?.into_inner())
}
