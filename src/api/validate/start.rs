//! Validates StartTask and RunTask requests.

use std::{mem::take, time::Duration};

use tonic::Status;

use super::{Acknowledge, Violations, fields::Span, notify, process, sandbox, secrets, watches::watches};
use crate::api::{auth::Caller, rendered::Streamed};
use errand_engine::{Settings, StartRequest};
use errand_proto::v1::{self, DisconnectAction, RunTaskRequest, StartTaskRequest};
use errand_task::{Owner, Program, TaskSpec, WhenFull};

/// The most bytes of a command, or of its arguments together.
const COMMAND_LIMIT: usize = 1024 * 1024;
/// The most bytes of a working directory's path.
const WORKDIR_LIMIT: usize = 4096;
/// The most characters of a description.
const DESCRIPTION_LIMIT: usize = 1000;
/// The most characters of a request id.
const REQUEST_ID_LIMIT: usize = 128;
/// The most bytes of a shell's name or path.
const SHELL_LIMIT: usize = 255;
/// How long RunTask streams a command before it moves to the background, when the request does not say.
const BACKGROUND_AFTER: Duration = Duration::from_secs(30);
/// The longest that RunTask streams a command before it moves to the background.
const BACKGROUND_AFTER_LIMIT: Duration = Duration::from_secs(600);
/// How long a task may wait in the queue, when the request does not say, and the shortest and the longest that a request may ask for.
const QUEUE_DEADLINE: Duration = Duration::from_hours(1);
const QUEUE_DEADLINE_SPAN: Span = Span { at_least: Duration::from_secs(1), at_most: Duration::from_hours(24) };
/// The shortest timeout, just above zero.
const SHORTEST: Duration = Duration::from_nanos(1);

/// A RunTask request.
pub(in crate::api) struct Run {
    /// What to start.
    pub(in crate::api) start: StartRequest,
    /// When to move the command to the background, counted from its acceptance.
    pub(in crate::api) background_after: Duration,
    /// Whether the task is stopped when the client disconnects.
    pub(in crate::api) stop_on_disconnect: bool,
    /// The format in which output is sent.
    pub(in crate::api) format: Streamed,
    /// How the message `finished` acknowledges the completion.
    pub(in crate::api) acknowledge: Acknowledge,
}

/// Reads a StartTask request.
pub(in crate::api) fn start(
    request: StartTaskRequest,
    caller: &Caller,
    settings: &Settings,
) -> Result<StartRequest, Status> {
    let mut violations = Violations::new();
    let read = read(request, caller, settings, &mut violations);
    violations.or(read)
}

/// Reads a RunTask request.
pub(in crate::api) fn run(request: RunTaskRequest, caller: &Caller, settings: &Settings) -> Result<Run, Status> {
    let mut violations = Violations::new();
    let start = match request.start {
        Some(start) => violations.within("start", |violations| read(start, caller, settings, violations)),
        None => {
            violations.add("start", "must be set");
            None
        }
    };
    let span = Span::up_to(BACKGROUND_AFTER_LIMIT);
    let background_after = violations.duration("background_after", request.background_after, span);
    let on_disconnect = violations.choice("on_disconnect", request.on_disconnect);
    let format = violations.streamed("format", request.format);
    let acknowledge = notify::acknowledge(request.acknowledge_mode, request.acknowledge, &mut violations);
    let read = (|| {
        Some(Run {
            start: start?,
            background_after: background_after?.unwrap_or(BACKGROUND_AFTER),
            stop_on_disconnect: match on_disconnect? {
                DisconnectAction::Stop => true,
                DisconnectAction::Continue | DisconnectAction::Unspecified => false,
            },
            format: format?,
            acknowledge: acknowledge?,
        })
    })();
    violations.or(read)
}

fn read(
    mut request: StartTaskRequest,
    caller: &Caller,
    settings: &Settings,
    violations: &mut Violations,
) -> Option<StartRequest> {
    let bot = violations.id("bot_id", &request.bot_id);
    let session = violations.id("session_id", &request.session_id);
    violations.bytes("shell", request.shell.len(), SHELL_LIMIT);
    violations.no_nul("shell", &request.shell);
    let (command, argv, shell) = (take(&mut request.command), take(&mut request.argv), take(&mut request.shell));
    let program = program(command, argv, shell, violations);
    workdir(&request.workdir, violations);
    violations.env("env", &request.env);
    let secret_env = secrets::secret_env(take(&mut request.secret_env), &request.env, violations);
    violations.characters("description", &request.description, DESCRIPTION_LIMIT);
    let span = Span { at_least: SHORTEST, at_most: settings.max_timeout };
    let timeout = violations.duration("timeout", request.timeout, span);
    violations.labels(&request.labels);
    violations.characters("request_id", &request.request_id, REQUEST_ID_LIMIT);
    let notify = notify::policy(request.notify, violations);
    let traceparent = notify::traceparent(&request.traceparent, violations);
    let when_full = when_full(&request, violations);
    // A base; the request's fields, including the program, replace its values.
    let spec = TaskSpec::new(Program::Argv(Vec::new()), settings.default_timeout);
    let spec = process::process(&request, spec, violations);
    let watches = watches(take(&mut request.watches), violations);
    let sandbox = match request.sandbox {
        Some(spec) => {
            violations.within("sandbox", |violations| sandbox::spec(spec, caller, settings, violations).map(Some))
        }
        None => Some(None),
    };
    Some(StartRequest {
        owner: Owner { tenant: caller.tenant.clone(), bot: bot?, session: session? },
        spec: TaskSpec {
            program: program?,
            workdir: given(request.workdir),
            env: request.env.into_iter().collect(),
            description: request.description,
            timeout: timeout?.unwrap_or(settings.default_timeout),
            labels: request.labels.into_iter().collect(),
            request_id: given(request.request_id),
            traceparent: traceparent?,
            when_full: when_full?,
            ..spec?
        },
        watches: watches?,
        sandbox: sandbox?,
        secret_env,
        notify: notify?,
    })
}

/// Reads what to do when the bot or the tenant is full.
fn when_full(request: &StartTaskRequest, violations: &mut Violations) -> Option<WhenFull> {
    let choice = violations.choice::<v1::WhenFull>("when_full", request.when_full);
    let deadline = violations.duration("queue_deadline", request.queue_deadline, QUEUE_DEADLINE_SPAN);
    match choice? {
        v1::WhenFull::Queue => Some(WhenFull::Queue { deadline: deadline?.unwrap_or(QUEUE_DEADLINE) }),
        v1::WhenFull::Unspecified | v1::WhenFull::Reject => {
            if request.queue_deadline.is_some() {
                violations.add("queue_deadline", "must be set only with when_full WHEN_FULL_QUEUE");
            }
            Some(WhenFull::Reject)
        }
    }
}

/// Reads either a command or a program with its arguments.
fn program(command: String, argv: Vec<String>, shell: String, violations: &mut Violations) -> Option<Program> {
    let (field, program) = match (command.is_empty(), argv.is_empty()) {
        (true, true) => {
            violations.add("command", "must be set, or argv");
            return None;
        }
        (false, false) => {
            violations.add("command", "must not be set together with argv");
            return None;
        }
        (false, true) => {
            violations.no_nul("command", &command);
            ("command", Program::Shell { text: command, shell: given(shell) })
        }
        (true, false) => {
            for (index, argument) in argv.iter().enumerate() {
                violations.no_nul(&format!("argv[{index}]"), argument);
            }
            if argv.first().is_some_and(|first| first.contains('=')) {
                // The program is started through env(1), which would take this for a variable.
                violations.add("argv[0]", "must not hold `=`");
            }
            ("argv", Program::Argv(argv))
        }
    };
    if program.is_empty() {
        violations.add(if field == "argv" { "argv[0]" } else { field }, "must not be empty");
    }
    violations.bytes(field, program.len(), COMMAND_LIMIT);
    Some(program)
}

fn workdir(path: &str, violations: &mut Violations) {
    if !path.is_empty() && !path.starts_with('/') {
        violations.add("workdir", "must be an absolute path");
    }
    violations.bytes("workdir", path.len(), WORKDIR_LIMIT);
    violations.no_nul("workdir", path);
}

/// The text; none when it is empty.
fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
