//! A data directory that an earlier version has left.

use std::fs;

use errand_proto::v1::ListTasksRequest;

use crate::support::{client::ended, docker::Image, server::Server};

/// The database of version 0.1.0, which was killed with `kill -9` in the middle of one task, after two had ended. The sandbox of all three
/// has been removed since.
const DATABASE: &[u8] = include_bytes!("../fixtures/errand-0.1.0.db");
/// Makes the finished tasks and the notifications new, so that retention keeps them in whatever year the test runs.
const REJUVENATE: &str = "UPDATE tasks SET finished_at = unixepoch() * 1000000 WHERE finished_at IS NOT NULL;
    UPDATE notifications SET created_at = unixepoch() * 1000000;";

#[tokio::test]
async fn data_of_earlier_version_is_recovered() {
    let Some(mut server) = Server::prepare(Image::Busybox).await else { return };
    if server.ground.docker().is_none() {
        // The tasks are of Docker sandboxes, and another runtime knows nothing of those.
        return;
    }
    fs::create_dir_all(server.database().parent().unwrap()).unwrap();
    fs::write(server.database(), DATABASE).unwrap();
    rusqlite::Connection::open(server.database()).unwrap().execute_batch(REJUVENATE).unwrap();
    server.launch().await;

    let mut session = server.session("fixture", "s");
    session.bot = "fixture".to_owned();
    let request = ListTasksRequest { bot_id: session.bot.clone(), ..Default::default() };
    let mut tasks = session.listed(request).await;
    tasks.reverse();
    let mut found = Vec::new();
    for task in &tasks {
        found.push((task.command.as_str(), ended(&session.finished(task).await), session.told_of(task).await));
    }
    let completed = vec!["completed"];
    assert_eq!(
        found,
        [
            ("sh -c 'echo said; exit 3'", "exited 3".to_owned(), completed.clone()),
            ("true", "exited 0".to_owned(), completed.clone()),
            ("sleep 100000", "lost SANDBOX_REMOVED".to_owned(), completed),
        ]
    );
    assert_eq!(tasks[0].labels.get("kind").map(String::as_str), Some("exit"));
    assert_eq!(tasks[0].output_bytes, 5);
}
