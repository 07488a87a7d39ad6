//! Sandboxes in which the resident bridge cannot run: which requests the direct bridge supports, and that it refuses the others.

use bollard::models::HostConfig;
use errand_proto::v1::{
    LineSearch, ListTasksRequest, OutOfMemory, OutputFormat, OutputPattern, ReadOutputRequest, ReadTreeRequest,
    ResourceLimits, SignalTarget, StartTaskRequest, Task, TerminalSize, WaitResult, WaitTaskRequest, WatchFilesRequest,
    output_pattern::Kind,
};
use tonic::Code;

use super::{conditions, reading, secrets, signals, watches};
use crate::{
    on_both_images,
    support::{
        client::{Session, bytes, duration, ended, refused},
        docker::{Container, Image, container, host_config},
        server::Server,
        wait::soon,
    },
};

on_both_images!(
    requests_beyond_the_direct_bridge_are_refused,
    the_direct_bridge_keeps_the_output_limit,
    the_direct_bridge_reads_and_searches_lines,
    the_direct_bridge_tells_memory_kills,
    the_direct_bridge_waits_and_signals,
    the_direct_bridge_watches_output,
    the_direct_bridge_shows_no_secret,
);

/// A bot with a container that executes nothing from writable places; none on a runtime without containers.
async fn direct(image: Image) -> Option<(Server, Session, Container)> {
    const MEMORY: i64 = 64 << 20;
    let server = Server::on(image, &[]).await?;
    let docker = server.ground.docker()?;
    let places = ["/tmp", "/var/tmp", "/workspace"].map(|place| (place.to_owned(), "rw,noexec".to_owned()));
    let container = container(&docker, image, |body| {
        body.host_config = Some(HostConfig {
            memory: Some(MEMORY),
            memory_swap: Some(MEMORY),
            readonly_rootfs: Some(true),
            tmpfs: Some(places.into()),
            ..host_config()
        });
    })
    .await;
    let session = server.session("bot", "session");
    let sandbox = session.adopt(&container.name).await.unwrap();
    assert_eq!(sandbox.bridge, "direct", "{}", sandbox.bridge_detail);
    Some((server, session, container))
}

async fn requests_beyond_the_direct_bridge_are_refused(image: Image) {
    let Some((_server, session, _container)) = direct(image).await else { return };
    let request = || session.request("cat");
    let table = [
        ("stdin", StartTaskRequest { stdin: true, ..request() }),
        ("terminal", StartTaskRequest { terminal: Some(TerminalSize { rows: 24, columns: 80 }), ..request() }),
        ("user", StartTaskRequest { user: "nobody".to_owned(), ..request() }),
        ("clean_env", StartTaskRequest { clean_env: true, ..request() }),
        (
            "limits",
            StartTaskRequest {
                limits: Some(ResourceLimits { open_files: Some(64), ..Default::default() }),
                ..request()
            },
        ),
        ("nice", StartTaskRequest { nice: 3, ..request() }),
        ("separate_stderr", StartTaskRequest { separate_stderr: true, ..request() }),
    ];
    for (field, request) in table {
        let said = refused(session.try_start(request).await, Code::FailedPrecondition);
        assert!(said.contains(field) && said.contains("direct"), "{field}: {said}");
    }
    assert_eq!(session.listed(ListTasksRequest::default()).await, []);
    let (bot_id, path) = (session.bot.clone(), "/tmp".to_owned());
    let read = ReadTreeRequest { bot_id: bot_id.clone(), path: path.clone(), ..Default::default() };
    let said = refused(soon("a tree is refused", session.sandboxes().read_tree(read)).await, Code::FailedPrecondition);
    assert!(said.contains("needs Errand's program in the sandbox"), "{said}");
    let watch = WatchFilesRequest { bot_id, path, ..Default::default() };
    refused(soon("a watch is refused", session.sandboxes().watch_files(watch)).await, Code::FailedPrecondition);
}

async fn the_direct_bridge_keeps_the_output_limit(image: Image) {
    let Some((_server, session, _container)) = direct(image).await else { return };
    let whole: Vec<u8> = (1..=100_000).flat_map(|number| format!("{number}\n").into_bytes()).collect();
    let size = i64::try_from(whole.len()).unwrap();
    // A fast command, and one that lasts longer than the first second, after which the server follows a command.
    for command in ["seq 1 100000 && exit 7", "seq 1 100000 && sleep 1.5 && exit 7"] {
        for (limit, kept) in [(65_536, 65_536), (0, size)] {
            let request = StartTaskRequest { output_limit_bytes: limit, ..session.request(command) };
            let task = session.run_as(request).await;
            assert_eq!((ended(&task).as_str(), task.output_bytes), ("exited 7", size), "{command} {limit}");
            let missing = task.output_gap.map_or(0, |gap| gap.end - gap.start);
            assert_eq!((size - missing, task.output_incomplete), (kept, false), "{command} {limit}");
            let tail = ReadOutputRequest { task_id: task.task_id.clone(), ..Default::default() };
            let tail = session.try_read(tail).await.unwrap();
            assert_eq!(bytes(&tail.parts[0]), whole[whole.len() - 4096..], "{command} {limit}");
            let told = session.told().await;
            let told = told.iter().find(|notice| notice.task_id == task.task_id).unwrap();
            assert!(told.output_tail.ends_with("\n99999\n100000\n"), "{}", told.output_tail);
            let used = session.exec(&format!("du -sk /tmp/errand/{} | cut -f1", task.task_id)).await;
            let used: i64 = used.trim().parse().unwrap();
            assert!(used <= kept / 1024 + 128, "{used} kB on the disk, {kept} bytes are kept");
        }
    }
}

async fn the_direct_bridge_reads_and_searches_lines(image: Image) {
    use reading::{grep, lines, regex, shown};
    let Some((_server, session, _container)) = direct(image).await else { return };
    let command =
        "seq 1 40000; printf '\\033[31mError\\033[0m: x\\n'; echo end; until [ -e /workspace/go ]; do sleep 0.1; done";
    let task = session.start(command).await;
    let until_match = Some(OutputPattern { offset: 0, kind: Some(Kind::Substring("end\n".to_owned())) });
    let request = WaitTaskRequest { until_match, task_id: task.task_id.clone(), ..Default::default() };
    let waited = soon("a wait ends", session.tasks().wait_task(request)).await.unwrap().into_inner();
    assert_eq!(waited.result(), WaitResult::Matched);
    for finished in [false, true] {
        if finished {
            session.exec("touch /workspace/go").await;
            session.finished(&task).await;
        }
        let found = grep(&session, &task, LineSearch { before: 1, ..regex("^Error: x$") }).await;
        assert_eq!(shown(&found), ["40000-40000", "40001:Error: x"]);
        assert_eq!((found.total_lines, found.matching_lines), (40_002, 1));
        assert_eq!(found.scanned_bytes, found.total_bytes);
        assert_eq!(shown(&lines(&session, &task, -2, 1).await), ["40001-Error: x"]);
        assert_eq!(shown(&lines(&session, &task, 19_999, 1).await), ["20000-20000"]);
    }
    let request = StartTaskRequest { output_limit_bytes: 65_536, ..session.request("seq 1 100000") };
    let task = session.run_as(request).await;
    let found = grep(&session, &task, regex("^(17|50000|99999)$")).await;
    assert_eq!(found.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["17", "99999"]);
    assert_eq!((found.output_gap, found.total_bytes), (task.output_gap, task.output_bytes));
    let condensed = ReadOutputRequest {
        task_id: task.task_id.clone(),
        format: OutputFormat::Condensed.into(),
        ..Default::default()
    };
    let condensed = session.try_read(condensed).await.unwrap();
    let gap = task.output_gap.unwrap();
    assert!(condensed.omitted_bytes >= gap.end - gap.start && condensed.omitted_characters > 0, "{condensed:?}");
}

async fn the_direct_bridge_shows_no_secret(image: Image) {
    let Some((mut server, session, _container)) = direct(image).await else { return };
    server.set("--log-level", "trace");
    server.restart().await;
    secrets::secret_is_left_nowhere(&session).await;
    secrets::secret_is_shown_nowhere(&server, &session).await;
}

async fn the_direct_bridge_waits_and_signals(image: Image) {
    let Some((_server, session, _container)) = direct(image).await else { return };
    let about =
        |task: &Task| WaitTaskRequest { task_id: task.task_id.clone(), timeout: duration(40.0), ..Default::default() };
    let wait = async |request| soon("a wait ends", session.tasks().wait_task(request)).await.unwrap().into_inner();
    let task =
        session.start(&format!("echo starting; sleep 1.5; echo ready; sleep 1; {}", conditions::listen(7171))).await;
    let until_match = Some(OutputPattern { offset: 0, kind: Some(Kind::Substring("ready".to_owned())) });
    let answer = wait(WaitTaskRequest { until_match, ..about(&task) }).await;
    assert_eq!((answer.result(), answer.output_match.unwrap().offset), (WaitResult::Matched, 9));
    let request = WaitTaskRequest { until_listening: 7171, ..about(&task) };
    assert_eq!(wait(request.clone()).await.result(), WaitResult::Listening);
    assert_eq!(wait(request).await.result(), WaitResult::Listening);
    signals::signal(&session, &task, "INT", SignalTarget::Group).await.unwrap();
    assert_eq!(ended(&session.finished(&task).await), "signaled 2");

    let command = "trap 'echo leader' USR1; (trap 'echo child' USR1; echo up; while :; do sleep 0.1; done) & \
                   while :; do sleep 0.1; done";
    let task = session.start(command).await;
    session.until_output(&task, "up\n").await;
    let sent = signals::signal(&session, &task, "usr1", SignalTarget::Leader).await.unwrap();
    assert_eq!(sent.signaled_processes, 1);
    session.until_output(&task, "leader\n").await;
    assert!(!session.text(&task).await.contains("child"));
    signals::signal(&session, &task, "USR1", SignalTarget::Group).await.unwrap();
    session.until_output(&task, "child\n").await;
    session.stop(&task, Some(0.0)).await;
}

async fn the_direct_bridge_watches_output(image: Image) {
    let Some((_server, session, _container)) = direct(image).await else { return };
    let mut live = session.subscribe(Default::default()).await;
    let (first, second) = (watches::gate("1"), watches::gate("2"));
    let command =
        format!("echo starting; printf 'server re'; sleep 1.5; echo ady; {first}; seq 1 100000; echo needle; {second}");
    let request = StartTaskRequest {
        watches: vec![watches::text("ready"), watches::regex("^needle$")],
        ..session.request(&command)
    };
    let task = session.start_as(request).await;
    let told = live.next().await;
    let found = told.watch.unwrap();
    assert_eq!((found.index, found.offset, found.lines.as_str()), (0, 16, "server ready"));
    session.exec("touch /workspace/1").await;
    // It waits for the end of the first one's window.
    let told = live.next().await;
    let found = told.watch.unwrap();
    assert_eq!((found.index, found.lines.as_str(), told.held_back), (1, "needle", 1));
    session.exec("touch /workspace/2").await;
    let task = session.finished(&task).await;
    assert_eq!(task.watches.iter().map(|state| state.matches).collect::<Vec<_>>(), [1, 1]);
}

async fn the_direct_bridge_tells_memory_kills(image: Image) {
    let Some((_server, session, _container)) = direct(image).await else { return };
    for (command, end, kills) in [
        ("exec tail /dev/zero", "signaled 9", Some(1)),
        ("sh -c 'exec tail /dev/zero'; exit $?", "exited 137", Some(1)),
        ("kill -9 $$", "signaled 9", None),
    ] {
        let task = session.run(command).await;
        let shortage = kills.map(|killed_processes| OutOfMemory { killed_processes, limit_bytes: 64 << 20 });
        assert_eq!((ended(&task).as_str(), task.outcome.unwrap().out_of_memory), (end, shortage), "{command}");
    }
}
