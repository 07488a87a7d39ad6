//! A silent command that seems to wait for input, and commands that only look like it.

use errand_proto::v1::{InputSource, NotificationKind, StartTaskRequest, TaskStatus, TerminalSize, WriteInputRequest};

use crate::{
    on_both_images,
    support::{
        client::{Id as _, Session, ended, kind},
        docker::Image,
        server::Server,
        wait::eventually,
    },
};

const FLAGS: [&str; 4] = ["--stall-after", "2s", "--stall-check-interval", "1s"];

on_both_images!(stall_notice_never_replaces_the_completion);

async fn kinds(session: &Session) -> Vec<&'static str> {
    session.told().await.iter().map(|notification| kind(notification.kind())).collect()
}

/// A command that waits for [`pass`] without polling: polling would count as work.
fn gate(name: &str) -> String {
    format!("[ -e /workspace/{name} ] || mkfifo /workspace/{name}; read -r passed </workspace/{name}")
}

/// Lets a command pass a gate.
async fn pass(session: &Session, name: &str) {
    session.exec(&format!("echo go >/workspace/{name}")).await;
}

async fn stall_notice_never_replaces_the_completion(image: Image) {
    let Some(server) = Server::on(image, &FLAGS).await else { return };
    let session = server.session("bot", "session");
    let mut live = session.subscribe(Default::default()).await;
    let command =
        &format!("echo working; printf 'Enter your name: '; {}; echo thanks; {}; exit 4", gate("go"), gate("end"));
    let task = session.start(command).await;

    let stalled = live.next().await;
    assert_eq!((stalled.kind(), stalled.status()), (NotificationKind::Stalled, TaskStatus::Running));
    let stall = stalled.stall.clone().unwrap();
    assert_eq!(stall.last_line, "Enter your name:");
    assert!(stall.silent_for.unwrap().seconds >= 2);
    assert_eq!(stalled.outcome, None);
    assert!(stalled.text.contains("Enter your name:") && stalled.text.contains("kind=\"stalled\""), "{}", stalled.text);
    assert_eq!(session.get(&task).await.stall, Some(stall));

    pass(&session, "go").await;
    let resumed = live.next().await;
    assert_eq!((resumed.kind(), resumed.stall), (NotificationKind::Resumed, None));
    pass(&session, "end").await;
    let completed = live.next().await;
    assert_eq!((completed.kind(), completed.status()), (NotificationKind::Completed, TaskStatus::Failed));
    let task = session.finished(&task).await;
    assert_eq!((ended(&task).as_str(), task.stall), ("exited 4", None));
    assert_eq!(kinds(&session).await, ["stalled", "resumed", "completed"]);
}

#[tokio::test]
async fn stopped_stalled_command_is_announced_as_stopped() {
    let Some(server) = Server::on(Image::Busybox, &FLAGS).await else { return };
    let session = server.session("bot", "session");
    let task = session.start("printf 'Continue? '; sleep 300").await;
    eventually("a stall is told", async || (kinds(&session).await == ["stalled"]).then_some(())).await;
    let task = session.stop(&task, Some(0.0)).await;
    assert_eq!(ended(&task), "stopped request 9");
    assert_eq!(kinds(&session).await, ["stalled", "completed"]);
}

#[tokio::test]
async fn command_stalls_again_at_its_next_prompt() {
    let Some(server) = Server::on(Image::Busybox, &FLAGS).await else { return };
    let session = server.session("bot", "session");
    let command = format!("printf 'user> '; {}; printf 'Password: '; {}", gate("1"), gate("2"));
    let task = session.start(&command).await;
    let stalls = async |count| {
        eventually("a stall is told", async || {
            (kinds(&session).await.iter().filter(|kind| **kind == "stalled").count() == count).then_some(())
        })
        .await;
    };
    stalls(1).await;
    pass(&session, "1").await;
    stalls(2).await;
    pass(&session, "2").await;
    session.finished(&task).await;
    assert_eq!(kinds(&session).await, ["stalled", "resumed", "stalled", "completed"]);
}

#[tokio::test]
async fn silence_and_answered_prompts_are_no_stalls() {
    let Some(server) = Server::on(Image::Busybox, &FLAGS).await else { return };
    let session = server.session("bot", "session");
    let mut tasks = Vec::new();
    for command in [
        "echo working; sleep 5",
        "printf 'Password: '; sleep 0.3; echo; echo working; sleep 5",
        "printf 'no newline'; sleep 5",
        "sleep 5",
        "i=0; while [ $i -lt 25 ]; do printf 'more> '; sleep 0.2; i=$((i+1)); done",
    ] {
        tasks.push((session.start(command).await, command));
    }
    for (task, command) in tasks {
        let task = session.finished(&task).await;
        assert_eq!(ended(&task), "exited 0");
        assert_eq!(session.told_of(&task).await, ["completed"], "{command}");
    }
}

#[tokio::test]
async fn terminal_event_loop_is_a_stall() {
    let Some(server) = Server::on(Image::Debian, &FLAGS).await else { return };
    let session = server.session("bot", "session");
    if session.ensure(None).await.unwrap().bridge != "resident" {
        return;
    }
    let asks = "python3 -c 'import select, sys; sys.stdout.write(\"Ok to proceed? (y) \"); sys.stdout.flush(); \
                e = select.epoll(); e.register(0, 1); e.poll(); print(sys.stdin.readline())'";
    let terminal = Some(TerminalSize { rows: 24, columns: 80 });
    let mut live = session.subscribe(Default::default()).await;
    let task = session.start_as(StartTaskRequest { terminal, ..session.request(asks) }).await;
    let stalled = live.next().await;
    assert_eq!(stalled.kind(), NotificationKind::Stalled);
    let stall = stalled.stall.unwrap();
    let waiting = stall.waiting.expect("the process is known");
    assert_eq!((waiting.command.as_str(), waiting.reads()), ("python3", InputSource::Terminal));
    assert_eq!(stall.last_line, "Ok to proceed? (y)");
    let answer = WriteInputRequest { task_id: task.id(), data: "y\n".into(), ..Default::default() };
    session.tasks().write_input(answer).await.unwrap();
    assert_eq!(ended(&session.finished(&task).await), "exited 0");
    assert_eq!(session.told_of(&task).await, ["stalled", "resumed", "completed"]);
}

#[tokio::test]
async fn prompts_without_input_are_stalls() {
    let Some(server) = Server::on(Image::Busybox, &FLAGS).await else { return };
    let session = server.session("bot", "session");
    let prompts = [
        "Overwrite? (y/N) ",
        "Is this ok [y/N]: ",
        "Ok to proceed? (y) ",
        "password for bob: ",
        "[sudo] password for x: ",
        "Username for \u{2018}https://host.example\u{2019}: ",
        "Choose [1-3]: ",
        "(END)",
        "--More--(12%)",
    ];
    let mut tasks = Vec::new();
    for prompt in prompts {
        tasks.push((session.start(&format!("printf '%s' '{prompt}'; sleep 100")).await, prompt));
    }
    for (task, prompt) in &tasks {
        let stall = eventually("a stall is told", async || session.get(task).await.stall).await;
        assert_eq!(stall.last_line, prompt.trim());
    }
    let log = session.start("printf '<project>\n  </project>'; sleep 6").await;
    session.finished(&log).await;
    assert_eq!(session.told_of(&log).await, ["completed"]);
    for (task, _) in &tasks {
        session.stop(task, Some(0.0)).await;
        assert_eq!(session.told_of(task).await, ["stalled", "completed"]);
    }
}
