//! No answer is larger than the limit of a default client, which is 4 MiB.

use errand_proto::v1::{
    notification_service_client::NotificationServiceClient, task_service_client::TaskServiceClient, *,
};
use futures_util::future::join_all;
use prost::Message;

use crate::support::{
    client::{Session, duration},
    docker::Image,
    server::Server,
    wait::soon,
};

/// The most bytes of an answer.
const LIMIT: usize = 3 * 1024 * 1024;

/// Every page of a list of tasks, by a client that requests no page size.
async fn listed(server: &Server, session: &Session, statuses: Vec<i32>) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListTasksRequest {
            bot_id: session.bot.clone(),
            page_size: 1000,
            statuses: statuses.clone(),
            page_token,
            ..Default::default()
        };
        let page = TaskServiceClient::new(server.channel()).list_tasks(request).await.unwrap().into_inner();
        assert!(page.encoded_len() <= LIMIT, "{} bytes", page.encoded_len());
        assert!(!page.tasks.is_empty() || tasks.is_empty());
        tasks.extend(page.tasks);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return tasks;
        }
    }
}

#[tokio::test]
async fn large_commands_are_listed_and_stopped_whole() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    session.run("true").await;
    let command = format!("sleep 300 #{}", "x".repeat((1 << 20) - 64));
    let request = StartTaskRequest { description: "\"".repeat(1000), ..session.request(&command) };
    let mut ids: Vec<String> = join_all((0..64).map(|_| session.start_as(request.clone())))
        .await
        .into_iter()
        .map(|task| task.task_id)
        .collect();

    let mut seen: Vec<String> =
        listed(&server, &session, Vec::new()).await.into_iter().map(|task| task.task_id).collect();
    assert_eq!(seen.len(), 65);
    seen.retain(|id| ids.contains(id));
    ids.sort();
    seen.sort();
    assert_eq!(seen, ids);

    let mut plain = TaskServiceClient::new(server.channel());
    let request = SummarizeTasksRequest { bot_id: session.bot.clone(), ..Default::default() };
    let summary = plain.summarize_tasks(request).await.unwrap().into_inner();
    assert!(summary.unfinished == 64 && summary.text.len() <= 64 * 1024, "{} bytes", summary.text.len());

    let request = StopTasksRequest { bot_id: session.bot.clone(), grace: duration(0.0), ..Default::default() };
    let stopped = soon("all are stopped", plain.stop_tasks(request.clone())).await.unwrap().into_inner();
    assert!(stopped.encoded_len() <= LIMIT, "{} bytes", stopped.encoded_len());
    assert_eq!((stopped.stopped_count, stopped.more), (64, true));
    assert!(!stopped.tasks.is_empty() && stopped.tasks.len() < 64);
    let unfinished = [TaskStatus::Queued, TaskStatus::Starting, TaskStatus::Running, TaskStatus::Stopping];
    assert_eq!(listed(&server, &session, unfinished.map(i32::from).to_vec()).await, []);
    let again = plain.stop_tasks(request).await.unwrap().into_inner();
    assert_eq!(again, StopTasksResponse::default());
}

#[tokio::test]
async fn oversized_stored_notification_blocks_no_delivery() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let (huge, next) = (session.run("exit 1").await, session.run("exit 2").await);
    server.kill();
    // A record that an older server may have stored.
    let database = rusqlite::Connection::open(server.database()).unwrap();
    let changed = database
        .execute(
            "UPDATE notifications SET record = json_set(record, '$.command', replace(hex(zeroblob(2500000)), '00', '\"')) \
             WHERE task = ?",
            [&huge.task_id],
        )
        .unwrap();
    assert_eq!(changed, 1);
    drop(database);
    server.launch().await;

    let mut plain = NotificationServiceClient::new(server.channel());
    let whose = SubscribeRequest { bot_id: session.bot.clone(), ..Default::default() };
    let mut live = plain.subscribe(whose).await.unwrap().into_inner();
    for expected in [&huge, &next] {
        let told = soon("a notice comes", live.message()).await.unwrap().unwrap().notification.unwrap();
        assert_eq!(told.task_id, expected.task_id);
        assert!(told.encoded_len() <= 64 * 1024, "{} bytes", told.encoded_len());
        assert_eq!(told.command_truncated, told.task_id == huge.task_id);
    }
    let request = DrainNotificationsRequest { bot_id: session.bot.clone(), ..Default::default() };
    let drained = plain.drain_notifications(request).await.unwrap().into_inner();
    assert_eq!(drained.notifications.len(), 2);
    let request =
        ListNotificationsRequest { bot_id: session.bot.clone(), include_acknowledged: true, ..Default::default() };
    assert_eq!(plain.list_notifications(request).await.unwrap().into_inner().notifications.len(), 2);
}

#[tokio::test]
async fn binary_output_is_read_in_bounded_answers() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.run("head -c 2097152 /dev/zero | tr '\\0' '\\377'").await;
    let mut plain = TaskServiceClient::new(server.channel());
    let (mut offset, size) = (0, 2_097_152);
    while offset < size {
        let selection = Some(read_output_request::Selection::Range(OutputRange { offset, limit: 1 << 20 }));
        let format = OutputFormat::Text.into();
        let request = ReadOutputRequest { task_id: task.task_id.clone(), selection, format, ..Default::default() };
        let answer = plain.read_output(request).await.unwrap().into_inner();
        assert!(answer.encoded_len() <= LIMIT, "{} bytes", answer.encoded_len());
        let last = answer.parts.last().unwrap();
        assert!(last.next_offset > offset);
        offset = last.next_offset;
    }
    assert_eq!(offset, size);
}
