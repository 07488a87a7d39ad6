//! What each token may see and do, when a tokens file is used.

use errand_proto::v1::*;
use sha2::{Digest as _, Sha256};
use tonic::Code;

use crate::support::{
    client::{Session, refused},
    docker::Image,
    server::Server,
};

/// An entry of a tokens file.
pub fn entry(tenant: &str, token: &str, more: &str) -> String {
    let hash = hex::encode(Sha256::digest(token.as_bytes()));
    format!("[[tokens]]\ntenant = \"{tenant}\"\nsha256 = \"{hash}\"\n{more}\n")
}

/// A server with a token for each of: all of tenant red; bots `a*` of tenant red; all of tenant blue.
pub async fn server() -> Option<Server> {
    server_with(|server| {
        let some = format!("bots = [\"{}*\"]", server.bot("a"));
        [entry("red", "red-all", ""), entry("red", "red-a", &some), entry("blue", "blue-all", "")].concat()
    })
    .await
}

/// A server with this tokens file, which is `tokens.toml` beside its database.
pub async fn server_with(tokens: impl FnOnce(&Server) -> String) -> Option<Server> {
    let mut server = Server::prepare(Image::Busybox).await?;
    let text = tokens(&server);
    let file = server.file("tokens.toml", &text);
    server.flags.extend(["--tokens-file".to_owned(), file]);
    server.launch().await;
    Some(server)
}

#[tokio::test]
async fn calls_without_a_known_token_are_refused() {
    let Some(server) = server().await else { return };
    for session in [server.session("a", "session"), server.session_with("wrong", "a", "session")] {
        let (mut tasks, mut notifications, mut sandboxes) =
            (session.tasks(), session.notifications(), session.sandboxes());
        refused(session.try_start(session.request("echo")).await, Code::Unauthenticated);
        refused(tasks.list_tasks(ListTasksRequest::default()).await, Code::Unauthenticated);
        // The caller does not even learn whether the request is valid.
        refused(tasks.get_task(GetTaskRequest::default()).await, Code::Unauthenticated);
        let drain = DrainNotificationsRequest { bot_id: session.bot.clone(), ..Default::default() };
        refused(notifications.drain_notifications(drain).await, Code::Unauthenticated);
        let subscribe = SubscribeRequest { bot_id: session.bot.clone(), ..Default::default() };
        refused(notifications.subscribe(subscribe).await.map(|_| ()), Code::Unauthenticated);
        refused(sandboxes.list_sandboxes(ListSandboxesRequest::default()).await, Code::Unauthenticated);
    }
}

#[tokio::test]
async fn files_belong_to_the_bots_of_a_tenant() {
    use write_file_request::Part;
    let Some(server) = server().await else { return };
    let owner = server.session_with("red-all", "a1", "session");
    owner.ensure(None).await.unwrap();
    owner.exec("echo mine >/workspace/file").await;
    let codes = async |session: &Session| {
        fn code<T>(result: Result<T, tonic::Status>) -> Code {
            result.err().map_or(Code::Ok, |status| status.code())
        }
        let (mut sandboxes, bot_id, path) = (session.sandboxes(), session.bot.clone(), "/workspace/file".to_owned());
        let read = ReadFileRequest { bot_id: bot_id.clone(), path: path.clone(), ..Default::default() };
        let stat = StatFileRequest { bot_id: bot_id.clone(), path: path.clone(), ..Default::default() };
        let directory = "/workspace".to_owned();
        let list = ListDirectoryRequest { bot_id: bot_id.clone(), path: directory, ..Default::default() };
        let head = WriteFileHead { bot_id: bot_id.clone(), path: path.clone(), ..Default::default() };
        let write = [Part::Head(head), Part::End(WriteFileEnd {})].map(|part| WriteFileRequest { part: Some(part) });
        let remove = RemoveFileRequest { bot_id, path, ..Default::default() };
        [
            code(sandboxes.read_file(read).await),
            code(sandboxes.stat_file(stat).await),
            code(sandboxes.list_directory(list).await),
            code(sandboxes.write_file(futures_util::stream::iter(write)).await),
            code(sandboxes.remove_file(remove).await),
        ]
    };
    // Another tenant gets "not found" for the sandbox, and this token may not use another bot's sandbox.
    assert_eq!(codes(&server.session_with("blue-all", "a1", "session")).await, [Code::NotFound; 5]);
    assert_eq!(codes(&server.session_with("red-a", "b1", "session")).await, [Code::PermissionDenied; 5]);
    assert_eq!(codes(&server.session_with("wrong", "a1", "session")).await, [Code::Unauthenticated; 5]);
    assert_eq!(owner.exec("cat /workspace/file").await, "mine\n");
    assert_eq!(codes(&server.session_with("red-a", "a1", "session")).await, [Code::Ok; 5]);
}

/// Every call that names a task, or a bot and a session, with the code it returns.
async fn codes(session: &Session, task: &Task) -> Vec<(&'static str, Code)> {
    fn code<T>(result: Result<T, tonic::Status>) -> Code {
        result.err().map_or(Code::Ok, |status| status.code())
    }
    let (mut tasks, task_id) = (session.tasks(), task.task_id.clone());
    let get = GetTaskRequest { task_id: task_id.clone(), ..Default::default() };
    let wait = WaitTaskRequest { task_id: task_id.clone(), ..Default::default() };
    let read = ReadOutputRequest { task_id: task_id.clone(), ..Default::default() };
    let stream = StreamOutputRequest { task_id: task_id.clone(), ..Default::default() };
    let stop = StopTaskRequest { task_id, ..Default::default() };
    vec![
        ("get", code(tasks.get_task(get).await)),
        ("wait", code(tasks.wait_task(wait).await)),
        ("read", code(tasks.read_output(read).await)),
        ("stream", code(tasks.stream_output(stream).await)),
        ("stop", code(tasks.stop_task(stop).await)),
    ]
}

#[tokio::test]
async fn other_tenants_and_bots_cannot_touch_a_task() {
    let Some(server) = server().await else { return };
    let red_a = server.session_with("red-a", "a1", "session");
    let red_b = server.session_with("red-all", "b1", "session");
    // Bot and session have the same names; only the tenant differs.
    let blue_a = server.session_with("blue-all", "a1", "session");
    let (task_a, task_b) = (red_a.running("exec sleep 600").await, red_b.running("exec sleep 600").await);
    for (stranger, task) in [(&blue_a, &task_a), (&red_a, &task_b)] {
        // Called first: if this tenant could see the task, the other calls would wait for the command's end.
        let get = GetTaskRequest { task_id: task.task_id.clone(), ..Default::default() };
        refused(stranger.tasks().get_task(get).await, Code::NotFound);
        for (call, code) in codes(stranger, task).await {
            assert_eq!(code, Code::NotFound, "{call}");
        }
    }
    for (session, task) in [(&red_a, &task_a), (&red_b, &task_b)] {
        assert!(session.get(task).await.outcome.is_none());
    }
}

#[tokio::test]
async fn tenants_and_bots_are_isolated() {
    let Some(server) = server().await else { return };
    let red_a = server.session_with("red-a", "a1", "session");
    let red_all = server.session_with("red-all", "b1", "session");
    // Bots of the same name belong to different tenants.
    let blue_a = server.session_with("blue-all", "a1", "session");
    let (task_a, task_b, task_blue) =
        (red_a.run("echo red a").await, red_all.run("echo red b").await, blue_a.run("echo blue").await);

    for (session, task) in [(&red_a, &task_a), (&red_all, &task_a), (&red_all, &task_b), (&blue_a, &task_blue)] {
        assert!(
            codes(session, task).await.iter().all(|(_, code)| *code == Code::Ok),
            "{:?}",
            codes(session, task).await
        );
    }
    for (session, task) in [(&red_a, &task_b), (&red_a, &task_blue), (&red_all, &task_blue), (&blue_a, &task_a)] {
        for (call, code) in codes(session, task).await {
            assert_eq!(code, Code::NotFound, "{call}");
        }
    }
    // A task is not found under another bot or session either.
    let get = |bot_id: &str, session_id: &str| GetTaskRequest {
        task_id: task_a.task_id.clone(),
        bot_id: bot_id.to_owned(),
        session_id: session_id.to_owned(),
    };
    refused(red_all.tasks().get_task(get(&red_all.bot, "")).await, Code::NotFound);
    refused(red_all.tasks().get_task(get("", "other")).await, Code::NotFound);
    refused(red_a.tasks().get_task(get(&red_all.bot, "")).await, Code::NotFound);
    red_all.tasks().get_task(get(&red_a.bot, "session")).await.unwrap();

    // A bot that the token may not use.
    let forbidden = server.session_with("red-a", "b1", "session");
    refused(forbidden.try_start(forbidden.request("echo")).await, Code::PermissionDenied);
    refused(forbidden.ensure(None).await, Code::PermissionDenied);
    refused(forbidden.sandbox().await, Code::PermissionDenied);
    let drain = DrainNotificationsRequest { bot_id: forbidden.bot.clone(), ..Default::default() };
    refused(forbidden.notifications().drain_notifications(drain).await, Code::PermissionDenied);
    let run = RunTaskRequest { start: Some(forbidden.request("echo")), ..Default::default() };
    refused(forbidden.tasks().run_task(run).await.map(|_| ()), Code::PermissionDenied);

    // Lists contain only what the caller may see.
    let listed = async |session: &Session| {
        let tasks = session.listed(ListTasksRequest::default()).await;
        tasks.into_iter().map(|task| task.task_id).collect::<Vec<_>>()
    };
    assert_eq!(listed(&red_a).await, [task_a.task_id.as_str()]);
    assert_eq!(listed(&red_all).await, [task_b.task_id.clone(), task_a.task_id.clone()]);
    assert_eq!(listed(&blue_a).await, [task_blue.task_id.as_str()]);
    let sandboxes = async |session: &Session| {
        let answer = session.sandboxes().list_sandboxes(ListSandboxesRequest::default()).await.unwrap().into_inner();
        answer.sandboxes.into_iter().map(|sandbox| sandbox.bot_id).collect::<Vec<_>>()
    };
    assert_eq!(sandboxes(&red_a).await, [red_a.bot.as_str()]);
    assert_eq!(sandboxes(&red_all).await, [red_a.bot.clone(), red_all.bot.clone()]);
    assert_eq!(sandboxes(&blue_a).await, [blue_a.bot.as_str()]);
    assert_ne!(
        red_a.sandbox().await.unwrap().container_id,
        blue_a.sandbox().await.unwrap().container_id,
        "a sandbox belongs to one tenant"
    );
    // The same holds for notifications.
    assert_eq!(red_a.told().await.len(), 1);
    assert_eq!(blue_a.told().await[0].task_id, task_blue.task_id);
    assert_eq!(blue_a.ack(&[red_a.told().await[0].sequence]).await, 0);

    // Another tenant's sandbox cannot be adopted.
    let container = red_a.sandbox().await.unwrap().container_id;
    let thief = server.session_with("blue-all", "thief", "session");
    refused(thief.adopt(&container).await, Code::NotFound);
}

#[tokio::test]
async fn health_and_reflection_need_no_token() {
    let Some(server) = server().await else { return };
    assert_eq!(server.health("").await, Some(tonic_health::pb::health_check_response::ServingStatus::Serving));
}
