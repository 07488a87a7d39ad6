//! Validates requests about tasks.

use std::time::Duration;

use tonic::Status;

use super::{Violations, fields::Span};
use crate::api::{auth::Caller, convert, status};
use errand_engine::{EngineError, Settings, TaskRef};
use errand_proto::v1::{
    self, GetTaskRequest, ListTasksRequest, SignalTaskRequest, StopTaskRequest, StopTasksRequest,
    SummarizeTasksRequest, TaskStatus,
};
use errand_store::{BotFilter, Scope, TaskQuery};
use errand_task::{Signal, SignalTarget, StopCause, TaskId};

/// Entries of a page when the request does not say.
const PAGE_DEFAULT: u32 = 50;
/// The longest time between SIGTERM and SIGKILL.
const GRACE_LIMIT: Duration = Duration::from_secs(60);
/// The most characters of a reason.
const REASON_LIMIT: usize = 1000;

/// Reads the reference to a task. Outer none: it is malformed, which was recorded. Inner error: the caller may not know of such a task.
pub(super) fn reference(
    task_id: &str,
    bot_id: &str,
    session_id: &str,
    caller: &Caller,
    violations: &mut Violations,
) -> Option<Result<TaskRef, Status>> {
    let id = violations.id::<TaskId>("task_id", task_id);
    let bot = violations.optional_id("bot_id", bot_id);
    let session = violations.session(session_id);
    let (id, bot, session) = (id?, bot?, session?);
    let bots = match bot {
        None => caller.bots.clone(),
        Some(bot) if caller.bots.admits(&bot) => BotFilter::One(bot),
        // The task of a forbidden bot is treated like one that does not exist. Otherwise a caller could find out which ids exist.
        Some(_) => return Some(Err(status::engine(EngineError::NoSuchTask))),
    };
    Some(Ok(TaskRef { tenant: caller.tenant.clone(), bots, session, id }))
}

/// Reads a GetTask request.
pub(in crate::api) fn get(request: &GetTaskRequest, caller: &Caller) -> Result<TaskRef, Status> {
    let mut violations = Violations::new();
    let task = reference(&request.task_id, &request.bot_id, &request.session_id, caller, &mut violations);
    violations.or(task)?
}

/// Reads a SignalTask request.
pub(in crate::api) fn signal(
    request: &SignalTaskRequest,
    caller: &Caller,
) -> Result<(TaskRef, Signal, SignalTarget), Status> {
    let mut violations = Violations::new();
    let task = reference(&request.task_id, &request.bot_id, &request.session_id, caller, &mut violations);
    let signal = Signal::named(&request.signal);
    if signal.is_none() {
        violations
            .add("signal", format!("must be the name of a signal, such as INT or SIGUSR1, is {:?}", request.signal));
    }
    let target = violations.choice::<v1::SignalTarget>("target", request.target).map(|target| match target {
        v1::SignalTarget::Unspecified | v1::SignalTarget::Group => SignalTarget::Group,
        v1::SignalTarget::Leader => SignalTarget::Leader,
    });
    let read = (|| Some((task?, signal?, target?)))();
    let (task, signal, target) = violations.or(read)?;
    Ok((task?, signal, target))
}

/// Reads a StopTask request.
pub(in crate::api) fn stop(
    request: StopTaskRequest,
    caller: &Caller,
    settings: &Settings,
) -> Result<(TaskRef, StopCause, Duration), Status> {
    let mut violations = Violations::new();
    let task = reference(&request.task_id, &request.bot_id, &request.session_id, caller, &mut violations);
    let grace = violations.duration("grace", request.grace, Span::up_to(GRACE_LIMIT));
    violations.characters("reason", &request.reason, REASON_LIMIT);
    let (task, grace) = violations.or(task.zip(grace))?;
    let StopTaskRequest { reason, acknowledge, .. } = request;
    Ok((task?, StopCause::Request { reason, acknowledge }, grace.unwrap_or(settings.stop_grace)))
}

/// Reads a StopTasks request.
pub(in crate::api) fn stop_all(
    request: StopTasksRequest,
    caller: &Caller,
    settings: &Settings,
) -> Result<(Scope, StopCause, Duration), Status> {
    let mut violations = Violations::new();
    let scope = read_scope(&request.bot_id, &request.session_id, caller, &mut violations);
    let grace = violations.duration("grace", request.grace, Span::up_to(GRACE_LIMIT));
    violations.characters("reason", &request.reason, REASON_LIMIT);
    let (scope, grace) = violations.or(scope.zip(grace))?;
    let StopTasksRequest { reason, acknowledge, .. } = request;
    Ok((scope, StopCause::Request { reason, acknowledge }, grace.unwrap_or(settings.stop_grace)))
}

/// Reads a SummarizeTasks request.
pub(in crate::api) fn scope(request: &SummarizeTasksRequest, caller: &Caller) -> Result<Scope, Status> {
    let mut violations = Violations::new();
    let scope = read_scope(&request.bot_id, &request.session_id, caller, &mut violations);
    violations.or(scope)
}

/// Reads a scope: one session of a bot, or all of its sessions.
pub(super) fn read_scope(
    bot_id: &str,
    session_id: &str,
    caller: &Caller,
    violations: &mut Violations,
) -> Option<Scope> {
    let bot = violations.id("bot_id", bot_id);
    let session = violations.session(session_id);
    Some(Scope { tenant: caller.tenant.clone(), bot: bot?, session: session? })
}

/// Reads a ListTasks request.
pub(in crate::api) fn list(request: ListTasksRequest, caller: &Caller) -> Result<TaskQuery, Status> {
    let mut violations = Violations::new();
    let bots = violations.bots(&request.bot_id);
    let session = violations.session(&request.session_id);
    let mut statuses = Vec::new();
    for (index, number) in request.statuses.iter().enumerate() {
        let field = format!("statuses[{index}]");
        let Some(status) = violations.choice::<TaskStatus>(&field, *number) else { continue };
        match convert::wanted_status(status) {
            Some(status) => statuses.push(status),
            None => violations.add(&field, "must not be TASK_STATUS_UNSPECIFIED"),
        }
    }
    violations.labels(&request.labels);
    let limit = violations.page_size("page_size", request.page_size, PAGE_DEFAULT);
    let before = violations.page_token(&request.page_token);
    let read = (|| {
        Some(TaskQuery {
            tenant: caller.tenant.clone(),
            bots: bots?.unwrap_or_else(|| caller.bots.clone()),
            session: session?,
            statuses,
            labels: request.labels.into_iter().collect(),
            before: before?,
            limit: limit?,
        })
    })();
    violations.or(read)
}
