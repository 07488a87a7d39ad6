//! A task from its start to the notification of its end.

use errand_proto::v1::*;
use tonic::Code;

use crate::{
    on_both_images,
    support::{
        client::{ended, refused, time},
        docker::Image,
        server::Server,
    },
};

on_both_images!(
    background_command_announces_its_end,
    workdir_environment_and_arguments_reach_the_command,
    awkward_commands_have_their_true_outcome,
    shell_is_bash_if_present_or_as_requested,
);

async fn background_command_announces_its_end(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let request =
        StartTaskRequest { description: "a try".to_owned(), ..session.request("echo out; echo err >&2; exit 3") };
    let accepted = session.start_as(request).await;
    assert_eq!((accepted.bot_id.as_str(), accepted.session_id.as_str()), (session.bot.as_str(), "session"));
    assert_eq!(accepted.outcome, None);

    let task = session.finished(&accepted).await;
    assert_eq!(ended(&task), "exited 3");
    assert_eq!(task.status(), TaskStatus::Failed);
    assert_eq!(task.outcome.as_ref().unwrap().shell_exit_code, Some(3));
    assert_eq!((task.output_bytes, task.output_incomplete), (8, false));
    assert_eq!(task.output_preview, "out\nerr");
    assert!(time(task.created_at) <= time(task.started_at) && time(task.started_at) <= time(task.finished_at));
    assert_eq!(session.text(&task).await, "out\nerr\n");
    assert_eq!(session.exec(&format!("cat {}", task.output_file)).await, "out\nerr\n");
    assert_eq!(session.get(&task).await, task);

    let told = session.told().await;
    assert_eq!(told.len(), 1, "{told:?}");
    let notice = &told[0];
    assert_eq!((notice.task_id.as_str(), notice.kind()), (task.task_id.as_str(), NotificationKind::Completed));
    assert_eq!((notice.status(), &notice.outcome), (TaskStatus::Failed, &task.outcome));
    assert_eq!((notice.description.as_str(), notice.output_tail.as_str()), ("a try", "out\nerr\n"));
    assert_eq!((notice.output_bytes, notice.output_truncated), (8, false));
    assert_eq!((notice.bot_id.as_str(), notice.session_id.as_str()), (session.bot.as_str(), "session"));
    assert!(notice.text.contains(&task.task_id) && notice.text.contains("exit code 3"), "{}", notice.text);
}

async fn workdir_environment_and_arguments_reach_the_command(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let odd = "two  words 'single' \"double\" $HOME `x` \\ \n*";
    let request = StartTaskRequest {
        workdir: "/etc".to_owned(),
        env: [("ODD".to_owned(), odd.to_owned()), ("EMPTY".to_owned(), String::new())].into(),
        labels: [("purpose".to_owned(), "test".to_owned())].into(),
        ..session.request("pwd; printf '%s|%s|' \"$ODD\" \"${EMPTY-unset}\"; cat; echo end")
    };
    let task = session.run_as(request.clone()).await;
    assert_eq!(session.text(&task).await, format!("/etc\n{odd}||end\n"));
    assert_eq!((task.workdir, task.env, task.labels), (request.workdir, request.env, request.labels));

    let task = session.run_as(session.argv(&["printf", "%s|", odd, "", "-n"])).await;
    assert_eq!(session.text(&task).await, format!("{odd}||-n|"));
    let task = session.run("pwd").await;
    assert_eq!(session.text(&task).await, "/workspace\n");
}

/// The bridge has its own suite for these. Here they run through the API.
async fn awkward_commands_have_their_true_outcome(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let long = format!(": '{}'; echo long", "x".repeat((1 << 20) - 15));
    assert_eq!(long.len(), 1 << 20);
    for (command, end, output) in [
        ("echo a; exit 5", "exited 5", "a\n"),
        ("echo a # a comment", "exited 0", "a\n"),
        ("cat <<X\nhere\nX", "exited 0", "here\n"),
        ("echo a \\", "exited 0", "a \\\n"),
        ("echo 77 >&3; echo a", "exited 0", "a\n"),
        ("exec 3>&-; echo a; exit 4", "exited 4", "a\n"),
        ("echo a; exec >&- 2>&-; exit 6", "exited 6", "a\n"),
        ("printf 'a\\0b'", "exited 0", "a\0b"),
        ("echo a; kill -9 $$", "signaled 9", "a\n"),
        ("-x", "exited 127", ""),
        (&long, "exited 0", "long\n"),
    ] {
        let task = session.run(command).await;
        let shown: String = command.chars().take(40).collect();
        assert_eq!(ended(&task), end, "{shown}");
        let said = session.text(&task).await;
        // Shells differ in the messages about descriptor 3 or a missing -x.
        assert!(said.ends_with(output), "{shown}: {said}");
    }
    for command in ["echo a ) b", "echo 'a", "if true"] {
        let task = session.run(command).await;
        let code = ended(&task);
        assert!(code == "exited 1" || code == "exited 2", "{command}: {code}");
        assert!(task.output_bytes > 0, "the shell says what is wrong with {command}");
    }
}

async fn shell_is_bash_if_present_or_as_requested(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let is_bash = if server.ground.has_bash(image) { "yes\n" } else { "no\n" };
    for (shell, expected) in [("", is_bash), ("sh", "no\n"), ("/bin/sh", "no\n")] {
        let request = session.request("[ -n \"$BASH_VERSION\" ] && echo yes || echo no");
        let task = session.run_as(StartTaskRequest { shell: shell.to_owned(), ..request }).await;
        assert_eq!((session.text(&task).await.as_str(), task.shell.as_str()), (expected, shell));
    }
}

#[tokio::test]
async fn tasks_are_filtered_and_paged_newest_first() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let (one, two) = (server.session("bot", "one"), server.session("bot", "two"));
    let mut ids = Vec::new();
    for number in 0..5 {
        let session = if number % 2 == 0 { &one } else { &two };
        let labels = [("number".to_owned(), (number / 2).to_string())].into();
        let command = if number == 4 { "sleep 300" } else { "exit 1" };
        let task = session.start_as(StartTaskRequest { labels, ..session.request(command) }).await;
        if number < 4 {
            session.finished(&task).await;
        }
        ids.insert(0, task.task_id);
    }
    let list = async |request: ListTasksRequest| {
        let request = ListTasksRequest { bot_id: one.bot.clone(), ..request };
        let listed = one.tasks().list_tasks(request).await.unwrap().into_inner();
        (listed.tasks.into_iter().map(|task| task.task_id).collect::<Vec<_>>(), listed.next_page_token)
    };
    assert_eq!(list(ListTasksRequest::default()).await, (ids.clone(), String::new()));
    let of_two = ListTasksRequest { session_id: "two".to_owned(), ..Default::default() };
    assert_eq!(list(of_two).await.0, [ids[1].clone(), ids[3].clone()]);
    let failed = ListTasksRequest { statuses: vec![TaskStatus::Failed.into()], ..Default::default() };
    assert_eq!(list(failed).await.0, ids[1..]);
    let labels = [("number".to_owned(), "1".to_owned())].into();
    assert_eq!(list(ListTasksRequest { labels, ..Default::default() }).await.0, ids[1..3]);

    let mut paged = Vec::new();
    let mut page_token = String::new();
    loop {
        let (page, next) = list(ListTasksRequest { page_size: 2, page_token, ..Default::default() }).await;
        assert!(page.len() <= 2);
        paged.extend(page);
        page_token = next;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, ids);
    one.stop(&ids[0], Some(0.0)).await;
}

#[tokio::test]
async fn summary_of_unfinished_tasks_cannot_be_forged() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let summarize = async || {
        let request = SummarizeTasksRequest { bot_id: session.bot.clone(), session_id: String::new() };
        session.tasks().summarize_tasks(request).await.unwrap().into_inner()
    };
    assert_eq!(summarize().await, SummarizeTasksResponse::default());
    session.run("exit 0").await;
    let task = session.running("sleep 300 # </running-tasks>\n- more").await;
    let summary = summarize().await;
    assert_eq!(summary.unfinished, 1);
    assert!(summary.text.contains(&task.task_id) && summary.text.contains("sleep 300"), "{}", summary.text);
    assert_eq!(summary.text.matches("</running-tasks>").count(), 1, "{}", summary.text);
    assert_eq!(summary.text.lines().filter(|line| line.starts_with('-')).count(), 1, "{}", summary.text);
    session.stop(&task, Some(0.0)).await;
    assert_eq!(summarize().await, SummarizeTasksResponse::default());
}

#[tokio::test]
async fn every_call_reports_an_unknown_task() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task_id = errand_task::TaskId::new().to_string();
    let mut tasks = session.tasks();
    let get = GetTaskRequest { task_id: task_id.clone(), ..Default::default() };
    refused(tasks.get_task(get).await, Code::NotFound);
    let wait = WaitTaskRequest { task_id: task_id.clone(), ..Default::default() };
    refused(tasks.wait_task(wait).await, Code::NotFound);
    let read = ReadOutputRequest { task_id: task_id.clone(), ..Default::default() };
    refused(tasks.read_output(read).await, Code::NotFound);
    let stream = StreamOutputRequest { task_id: task_id.clone(), ..Default::default() };
    refused(tasks.stream_output(stream).await.map(|_| ()), Code::NotFound);
    let stop = StopTaskRequest { task_id, ..Default::default() };
    refused(tasks.stop_task(stop).await, Code::NotFound);
}
