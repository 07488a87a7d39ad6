//! `errand notify`: changes what a session is told about an unfinished task.

use super::{connection::Connection, console::Console, error::CliError, exit_code, notify_args::NotifyTaskArgs, text};
use errand_proto::v1::{CompletionPolicy, GetTaskRequest, NotifyPolicy, SetNotifyPolicyRequest, Task};

/// Changes what the arguments name, and shows the whole policy.
pub(super) async fn notify(
    args: NotifyTaskArgs,
    connection: &Connection,
    console: &mut Console,
) -> Result<u8, CliError> {
    let mut tasks = connection.tasks();
    let request = GetTaskRequest { task_id: args.task.clone(), ..GetTaskRequest::default() };
    let current = tasks.get_task(request).await?.into_inner().task.unwrap_or_default();
    let notify = Some(args.policy.applied_to(current.notify.unwrap_or_default()));
    let request = SetNotifyPolicyRequest { task_id: args.task, notify, ..SetNotifyPolicyRequest::default() };
    let task = tasks.set_notify_policy(request).await?.into_inner().task.unwrap_or_default();
    console.each(&[task], line).await?;
    Ok(exit_code::SUCCESS)
}

fn line(task: &Task) -> String {
    format!("{}  {}", task.task_id, words(&task.notify.unwrap_or_default()))
}

/// A policy in the words of the arguments.
fn words(policy: &NotifyPolicy) -> String {
    let completion = match policy.completion() {
        CompletionPolicy::Unspecified | CompletionPolicy::Always => "always",
        CompletionPolicy::UnlessSucceeded => "failure",
        CompletionPolicy::Never => "never",
    };
    let interval = |given: Option<prost_types::Duration>| match given {
        None => "off".to_owned(),
        given => text::wire_duration_text(given),
    };
    format!(
        "notify={completion} heartbeat={} idle-after={} tail-bytes={} head-bytes={}",
        interval(policy.heartbeat_every),
        interval(policy.idle_after),
        policy.tail_bytes(),
        policy.head_bytes
    )
}
