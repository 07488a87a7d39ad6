//! The ways in which a command ends by itself, or never starts. None is mistaken for another.

use errand_proto::v1::{SandboxSpec, StartFailure, StartTaskRequest, TaskStatus, outcome::Kind};
use futures_util::future::join_all;

use crate::{
    on_both_images,
    support::{client::ended, docker::Image, server::Server},
};

on_both_images!(
    exit_codes_and_signals_are_distinguished,
    failed_start_names_its_reason,
    program_without_a_shell_has_its_true_outcome,
    environment_follows_execve_rules,
);

async fn exit_codes_and_signals_are_distinguished(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let table = [
        ("exit 0", "exited 0", TaskStatus::Succeeded, 0),
        ("exit 1", "exited 1", TaskStatus::Failed, 1),
        ("exit 124", "exited 124", TaskStatus::Failed, 124),
        ("exit 137", "exited 137", TaskStatus::Failed, 137),
        ("exit 143", "exited 143", TaskStatus::Failed, 143),
        ("exit 255", "exited 255", TaskStatus::Failed, 255),
        ("kill -9 $$", "signaled 9", TaskStatus::Failed, 137),
        ("kill -TERM $$", "signaled 15", TaskStatus::Failed, 143),
        ("kill -HUP $$", "signaled 1", TaskStatus::Failed, 129),
        ("kill -SEGV $$", "signaled 11", TaskStatus::Failed, 139),
        // The shell turns its child's signal into a number, and exits with that number.
        ("sh -c 'kill -9 $$'; exit $?", "exited 137", TaskStatus::Failed, 137),
        ("no-such-command", "exited 127", TaskStatus::Failed, 127),
    ];
    let tasks = join_all(table.map(|(command, ..)| session.run(command))).await;
    for (task, (command, end, status, number)) in tasks.into_iter().zip(table) {
        assert_eq!((ended(&task).as_str(), task.status()), (end, status), "{command}");
        assert_eq!(task.outcome.as_ref().unwrap().shell_exit_code, Some(number), "{command}");
        assert_eq!(session.told_of(&task).await, ["completed"], "{command}");
        if let Some(Kind::Signaled(signaled)) = task.outcome.unwrap().kind {
            assert!(signaled.name.starts_with("SIG"), "{signaled:?}");
        }
    }
}

async fn failed_start_names_its_reason(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    // Without capabilities even root cannot bypass these modes.
    session.run("mkdir -m 0 /workspace/locked; echo text >/workspace/text; mkdir /workspace/directory").await;
    let shell = |shell: &str| StartTaskRequest { shell: shell.to_owned(), ..session.request("echo ran") };
    let workdir = |workdir: &str| StartTaskRequest { workdir: workdir.to_owned(), ..session.request("echo ran") };
    let table = [
        (shell("/no/such/shell"), "NOT_FOUND", 127, "/no/such/shell"),
        (shell("no-such-shell"), "NOT_FOUND", 127, "no-such-shell"),
        (shell("/workspace/text"), "NOT_EXECUTABLE", 126, "/workspace/text"),
        (session.argv(&["no-such-program", "x"]), "NOT_FOUND", 127, "no-such-program"),
        (session.argv(&["/workspace/text"]), "NOT_EXECUTABLE", 126, "/workspace/text"),
        (session.argv(&["/workspace/directory"]), "NOT_EXECUTABLE", 126, "/workspace/directory"),
        (workdir("/no/such"), "NO_SUCH_DIRECTORY", 126, "/no/such"),
        (workdir("/workspace/text"), "NO_SUCH_DIRECTORY", 126, "/workspace/text"),
        (workdir("/workspace/locked"), "NOT_PERMITTED", 126, "/workspace/locked"),
    ];
    let tasks = join_all(table.iter().map(|(request, ..)| session.run_as(request.clone()))).await;
    for (task, (_, failure, number, named)) in tasks.into_iter().zip(table) {
        assert_eq!(ended(&task), format!("failed_to_start {failure}"), "{named}");
        assert_eq!(task.status(), TaskStatus::FailedToStart);
        let outcome = task.outcome.as_ref().unwrap();
        assert_eq!(outcome.shell_exit_code, Some(number), "{named}");
        let Some(Kind::FailedToStart(failed)) = &outcome.kind else { unreachable!("it was described so") };
        assert!(failed.message.contains(named), "{}", failed.message);
        assert_eq!(task.output_bytes, 0);
        assert_eq!(session.text(&task).await, "");
        assert_eq!(session.told_of(&task).await, ["completed"]);
    }
}

async fn program_without_a_shell_has_its_true_outcome(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    for (argv, end) in [
        (["sh", "-c", "exit 137"], "exited 137"),
        (["sh", "-c", "kill -KILL $$"], "signaled 9"),
        (["sh", "-c", "exit 0"], "exited 0"),
    ] {
        let task = session.run_as(session.argv(&argv)).await;
        assert_eq!(ended(&task), end, "{argv:?}");
        assert_eq!((task.command.as_str(), task.argv.len()), ("", 3));
    }
}

async fn environment_follows_execve_rules(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let env = |name: &str| [(name.to_owned(), "x".to_owned())].into();
    let spec = SandboxSpec { env: env("of.the-sandbox"), ..Default::default() };
    let resident = session.ensure(Some(spec)).await.unwrap().bridge == "resident";
    let task = session.run_as(StartTaskRequest { env: env("of.the-task"), ..session.argv(&["env"]) }).await;
    let printed = session.text(&task).await;
    assert!(printed.contains("of.the-task=x\n"), "{printed}");
    assert!(!resident || printed.contains("of.the-sandbox=x\n"), "{printed}");

    let task = session.run_as(session.argv(&["true", &"x".repeat(200_000)])).await;
    let Some(Kind::FailedToStart(failed)) = task.outcome.clone().unwrap().kind else { panic!("{task:?}") };
    assert_eq!(failed.failure(), StartFailure::ArgumentsTooLarge);
    assert!(failed.message.contains("larger than the kernel takes") || !resident, "{}", failed.message);
}
