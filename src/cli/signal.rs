//! `errand signal`: sends a signal to a running task.

use super::{args::SignalArgs, connection::Connection, console::Console, error::CliError, exit_code};
use errand_proto::v1::{SignalTarget, SignalTaskRequest};

/// Sends the signal once.
pub(super) async fn signal(args: SignalArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let target = if args.leader { SignalTarget::Leader } else { SignalTarget::Group };
    let request = SignalTaskRequest {
        task_id: args.task.clone(),
        signal: args.signal,
        target: target.into(),
        ..SignalTaskRequest::default()
    };
    let answer = connection.tasks().signal_task(request).await?.into_inner();
    let line = |count: i32| match count {
        1 => format!("{}  signaled 1 process", args.task),
        count => format!("{}  signaled {count} processes", args.task),
    };
    console.each(&[answer], |answer| line(answer.signaled_processes)).await?;
    Ok(exit_code::SUCCESS)
}
