//! `errand run`: starts a command and, unless told to detach, stays until its end.

use std::{future, time::Duration};

use tokio::sync::watch;

use super::{
    args::RunArgs,
    connection::{Connection, Tasks},
    console::Console,
    error::CliError,
    exit_code,
    interaction::{Interaction, Leave},
    keyboard::Order,
    logs, outcome, secret_env, text,
};
use errand_proto::v1::{
    AcknowledgeMode, DisconnectAction, RunTaskRequest, SandboxSpec, StartTaskRequest, StopTaskRequest, Task,
    TaskStatus, WaitTaskRequest, WhenFull, run_task_response::Event,
};

/// The longest that one stream follows a command.
const LONGEST_FOREGROUND: Duration = Duration::from_mins(10);

/// Starts the command and returns the exit code for its end.
pub(super) async fn run(args: Box<RunArgs>, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let mut tasks = connection.tasks();
    if args.detach {
        let task = tasks.start_task(start_request(*args)?).await?.into_inner().task.unwrap_or_default();
        console.each(&[task], |task| task.task_id.clone()).await?;
        return Ok(exit_code::SUCCESS);
    }
    let stay = args.background_after.is_none();
    let keeps_running = !args.stop_on_disconnect;
    let interaction = Interaction::begin(args.process.interactive, args.process.tty, Order::Alone)?;
    if interaction.can_detach() {
        console.note("Ctrl-P Ctrl-Q detaches\r").await;
    }
    let request = run_request(*args, console)?;

    let (accepted, accepted_id) = watch::channel(None);
    let ended = tokio::select! {
        result = follow(request, stay, tasks.clone(), console, &accepted) => result,
        result = interrupted(tasks.clone(), accepted_id.clone(), ctrl_c), if !interaction.can_detach() => return result,
        leave = interaction.run(tasks, accepted_id.clone()) => leave.map(End::Left),
    };
    drop(interaction);
    let task_id = accepted_id.borrow().clone();
    match ended {
        Ok(End::Finished(task)) => Ok(outcome::report(&task, console).await),
        Ok(End::Backgrounded(task)) => {
            console.note(&format!("task {} goes on in the background", task.task_id)).await;
            Ok(exit_code::SUCCESS)
        }
        Ok(End::Left(Leave::Detached)) => {
            if let Some(id) = task_id.filter(|_| keeps_running) {
                console.detached(&id).await;
            }
            Ok(exit_code::SUCCESS)
        }
        Ok(End::Left(Leave::Signal(code))) => Ok(code),
        Err(error) => {
            if let Some(id) = task_id.filter(|_| keeps_running && error.leaves_the_task()) {
                let again = format!("`errand logs -f {id}` shows it again");
                console.note(&format!("task {id} runs on without this program; {again}")).await;
            }
            Err(error)
        }
    }
}

/// Why following the command ended.
enum End {
    /// The command has ended.
    Finished(Box<Task>),
    /// The command keeps running in the background, as requested.
    Backgrounded(Box<Task>),
    /// The user detached, or a signal ended this program.
    Left(Leave),
}

/// Shows the output from the command's start to its end, using as many streams as necessary.
async fn follow(
    request: RunTaskRequest,
    stay: bool,
    mut tasks: Tasks,
    console: &mut Console,
    accepted: &watch::Sender<Option<String>>,
) -> Result<End, CliError> {
    let mut stream = tasks.run_task(request).await?.into_inner();
    let mut next_offset = 0;
    while let Some(message) = stream.message().await? {
        if console.is_json() {
            console.message(&message).await?;
        }
        match message.event {
            Some(Event::Accepted(task)) => {
                if task.queue_deadline.is_some() && task.status() == TaskStatus::Queued && !console.is_json() {
                    console.note(&format!("task {} waits in the queue", task.task_id)).await;
                }
                accepted.send_replace(Some(task.task_id));
            }
            Some(Event::Output(part)) => {
                next_offset = part.next_offset;
                if !console.is_json() {
                    console.output(&part).await?;
                }
            }
            Some(Event::Finished(task)) => return Ok(End::Finished(Box::new(task))),
            Some(Event::Backgrounded(task)) if stay => {
                let task = stay_to_the_end(&task, next_offset, tasks, console).await?;
                return Ok(End::Finished(Box::new(task)));
            }
            Some(Event::Backgrounded(task)) => return Ok(End::Backgrounded(Box::new(task))),
            // An event that this program does not know.
            None => {}
        }
    }
    Err(CliError::Unexpected("the server ended the stream before the command had ended".to_owned()))
}

/// Continues where the first stream ended.
async fn stay_to_the_end(task: &Task, offset: i64, mut tasks: Tasks, console: &mut Console) -> Result<Task, CliError> {
    let task = logs::follow(&task.task_id, offset, &mut tasks, console).await?;
    // This stream acknowledges nothing, although the user has seen the end. If this call fails, the session is notified once more than
    // necessary, which the protocol allows.
    let acknowledge = WaitTaskRequest {
        task_id: task.task_id.clone(),
        timeout: Some(text::wire_duration(Duration::from_secs(1))),
        acknowledge: true,
        ..WaitTaskRequest::default()
    };
    let _ = tasks.wait_task(acknowledge).await;
    Ok(task)
}

/// Ctrl-C stops the task, whose end is then reported like any other; a second Ctrl-C exits at once. Returns only after the second Ctrl-C,
/// or if the task cannot be stopped.
pub(super) async fn interrupted(
    mut tasks: Tasks,
    mut accepted: watch::Receiver<Option<String>>,
    mut ctrl_c: impl AsyncFnMut() -> Result<(), CliError>,
) -> Result<u8, CliError> {
    ctrl_c().await?;
    let stop = async {
        // Ctrl-C may come before the server has told the task's id.
        let task_id = match accepted.wait_for(Option::is_some).await {
            Ok(task_id) => task_id.clone().unwrap_or_default(),
            Err(_) => return future::pending().await,
        };
        let reason = "interrupted from the keyboard".to_owned();
        tasks.stop_task(StopTaskRequest { task_id, reason, ..StopTaskRequest::default() }).await?;
        future::pending::<Result<u8, CliError>>().await
    };
    tokio::select! {
        result = stop => result,
        second = ctrl_c() => second.map(|()| exit_code::INTERRUPTED),
    }
}

async fn ctrl_c() -> Result<(), CliError> {
    tokio::signal::ctrl_c().await.map_err(CliError::Signal)
}

fn run_request(args: RunArgs, console: &Console) -> Result<RunTaskRequest, CliError> {
    let on_disconnect = if args.stop_on_disconnect { DisconnectAction::Stop } else { DisconnectAction::Continue };
    let background_after = args.background_after.unwrap_or(LONGEST_FOREGROUND);
    Ok(RunTaskRequest {
        background_after: Some(text::wire_duration(background_after)),
        on_disconnect: on_disconnect.into(),
        format: logs::format(console).into(),
        acknowledge: true,
        acknowledge_mode: AcknowledgeMode::Unspecified.into(),
        start: Some(start_request(args)?),
    })
}

fn start_request(args: RunArgs) -> Result<StartTaskRequest, CliError> {
    let (command, argv) =
        if args.no_shell { (String::new(), args.command) } else { (shell_text(&args.command)?, Vec::new()) };
    let pairs = |flag, pairs| {
        text::unique_pairs(pairs).map_err(|name| CliError::Usage(format!("{flag}: {name} is given more than once")))
    };
    args.process.put_into(StartTaskRequest {
        bot_id: args.owner.bot,
        session_id: args.owner.session,
        command,
        argv,
        shell: args.shell,
        workdir: args.workdir,
        env: pairs("--env", args.env)?,
        secret_env: secret_env::read(args.secret_env)?,
        description: args.description,
        timeout: args.timeout.map(text::wire_duration),
        labels: pairs("--label", args.label)?,
        request_id: args.request_id,
        watches: args.watch.into_iter().map(Into::into).collect(),
        when_full: if args.queue { WhenFull::Queue } else { WhenFull::Unspecified }.into(),
        queue_deadline: args.queue_deadline.map(text::wire_duration),
        sandbox: args.image.map(|image| SandboxSpec { image, ..SandboxSpec::default() }),
        notify: args.policy.into_policy(),
        traceparent: args.traceparent,
        ..StartTaskRequest::default()
    })
}

/// A single argument is already shell text. Several arguments are words, and are quoted so that the shell splits them into the same words.
fn shell_text(words: &[String]) -> Result<String, CliError> {
    match words {
        [text] => Ok(text.clone()),
        words => shlex::try_join(words.iter().map(String::as_str))
            .map_err(|_| CliError::Usage("the command must not contain a NUL character".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};
    use errand_proto::v1::{CompletionPolicy, NotifyPolicy, OutputWatch, ResourceLimits, output_watch};

    fn request(words: &[&str]) -> Result<StartTaskRequest, CliError> {
        let cli = Cli::try_parse_from([&["errand", "run"], words].concat()).unwrap();
        let Command::Run(args) = cli.command else { unreachable!("the words say run") };
        start_request(*args)
    }

    fn command(words: &[&str]) -> String {
        request(words).unwrap().command
    }

    #[test]
    fn single_argument_is_unchanged_shell_text() {
        assert_eq!(command(&["--", "echo $HOME | wc -c"]), "echo $HOME | wc -c");
    }

    #[test]
    fn several_arguments_are_quoted_for_the_shell() {
        assert_eq!(command(&["--", "sh", "-c", "exit 3"]), "sh -c 'exit 3'");
        assert_eq!(command(&["--", "exit", "3"]), "exit 3");
        let words = ["printf", "%s", "it's", "$HOME", "", "a\nb", "ü"];
        assert_eq!(shlex::split(&command(&[&["--"], &words[..]].concat())).unwrap(), words);
    }

    #[test]
    fn flags_after_the_program_belong_to_it() {
        assert_eq!(command(&["ls", "-la", "--json"]), "ls -la --json");
    }

    #[test]
    fn no_shell_sends_arguments_unchanged() {
        let request = request(&["--no-shell", "--", "printf", "a b"]).unwrap();
        assert_eq!(request.argv, ["printf", "a b"]);
        assert_eq!(request.command, "");
    }

    #[test]
    fn every_argument_reaches_the_request() {
        let line = "--bot b --session s --timeout 1m30s --workdir /w --env A=1 --env B= --secret-env PATH --description d --shell bash \
                    --label k=v --request-id r --image alpine --watch once:regex:a+ -i --user joe --clean-env --limit open-files=64 \
                    --limit file-bytes=1MiB --nice 5 --output-limit 1GiB --separate-stderr --queue --queue-deadline 10m --notify never --heartbeat 5m --idle-after 20s \
                    --tail-bytes 1KiB --head-bytes 9 --traceparent t -- true";
        let request = request(&line.split_whitespace().collect::<Vec<_>>()).unwrap();
        let expected = StartTaskRequest {
            bot_id: "b".to_owned(),
            session_id: "s".to_owned(),
            command: "true".to_owned(),
            argv: Vec::new(),
            shell: "bash".to_owned(),
            workdir: "/w".to_owned(),
            env: [("A".to_owned(), "1".to_owned()), ("B".to_owned(), String::new())].into(),
            secret_env: [("PATH".to_owned(), std::env::var("PATH").unwrap())].into(),
            description: "d".to_owned(),
            timeout: Some(prost_types::Duration { seconds: 90, nanos: 0 }),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            request_id: "r".to_owned(),
            sandbox: Some(SandboxSpec { image: "alpine".to_owned(), ..SandboxSpec::default() }),
            stdin: true,
            terminal: None,
            user: "joe".to_owned(),
            clean_env: true,
            limits: Some(ResourceLimits {
                open_files: Some(64),
                file_bytes: Some(1 << 20),
                ..ResourceLimits::default()
            }),
            nice: 5,
            output_limit_bytes: 1 << 30,
            separate_stderr: true,
            notify: Some(NotifyPolicy {
                completion: CompletionPolicy::Never.into(),
                tail_bytes: Some(1024),
                head_bytes: 9,
                heartbeat_every: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
                idle_after: Some(prost_types::Duration { seconds: 20, nanos: 0 }),
            }),
            traceparent: "t".to_owned(),
            watches: vec![OutputWatch { kind: Some(output_watch::Kind::Regex("a+".to_owned())), once: true }],
            when_full: WhenFull::Queue.into(),
            queue_deadline: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn terminal_implies_input_and_has_a_size() {
        let request = request(&["-it", "--", "sh"]).unwrap();
        assert!(!request.stdin);
        assert!(request.terminal.is_some_and(|size| size.rows > 0 && size.columns > 0));
        assert!(Cli::try_parse_from(["errand", "run", "-t", "--separate-stderr", "sh"]).is_err());
    }

    #[test]
    fn name_given_twice_is_a_usage_error() {
        let error = request(&["--limit", "processes=1", "--limit", "processes=2", "true"]).unwrap_err();
        assert_eq!(error.to_string(), "--limit: processes is given more than once");
        let error = request(&["--env", "A=1", "--env", "A=2", "true"]).unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().as_str()), (64, "--env: A is given more than once"));
    }
}
