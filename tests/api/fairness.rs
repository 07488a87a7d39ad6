//! One tenant's requests never block another tenant.

use errand_proto::v1::*;

use crate::support::{
    client::{Session, ended},
    docker::Image,
    server::Server,
};

/// The number of tasks of the greedy tenant.
const STORED: u32 = 100_000;

async fn server() -> Option<Server> {
    use sha2::{Digest as _, Sha256};
    let mut server = Server::prepare(Image::Busybox).await?;
    let entry = |name: &str| {
        let hash = hex::encode(Sha256::digest(name));
        format!("[[tokens]]\ntenant = \"{name}\"\nsha256 = \"{hash}\"\n")
    };
    let file = server.file("tokens.toml", &[entry("greedy"), entry("quiet")].concat());
    server.flags.extend(["--tokens-file".to_owned(), file]);
    server.launch().await;
    Some(server)
}

/// Stores copies of a task, each with a label of its own.
fn copy(server: &Server, task: &Task) {
    let database = rusqlite::Connection::open(server.database()).unwrap();
    let copy = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1), \
        made AS (SELECT i, printf('00000000-0000-7000-8000-%012x', i) AS new FROM n) \
        INSERT INTO tasks (id, tenant, bot, session, sandbox, status, created_at, finished_at, revision, progress, record) \
        SELECT new, tenant, bot, session, sandbox, status, created_at, finished_at, revision, progress, \
        replace(replace(record, id, new), '\"labels\":{}', '\"labels\":{\"n\":\"' || i || '\"}') FROM tasks, made WHERE id = ?2";
    assert_eq!(database.execute(copy, (STORED, &task.task_id)).unwrap(), STORED as usize);
}

/// All tasks with a label, over as many pages as needed.
async fn labelled(session: &Session, number: u32) -> usize {
    let labels = [("n".to_owned(), number.to_string())].into();
    let mut request = ListTasksRequest { labels, ..Default::default() };
    let mut found = 0;
    loop {
        let page = session.tasks().list_tasks(request.clone()).await.unwrap().into_inner();
        found += page.tasks.len();
        if page.next_page_token.is_empty() {
            return found;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn greedy_scans_delay_no_other_tenant() {
    let Some(mut server) = server().await else { return };
    let greedy = server.session_with("greedy", "bot", "session");
    let quiet = server.session_with("quiet", "bot", "session");
    let model = greedy.run("exit 0").await;
    let task = quiet.run("exit 3").await;
    server.kill();
    copy(&server, &model);
    server.launch().await;
    let mut scans = tokio::task::JoinSet::new();
    for number in 1..=24 {
        let greedy = greedy.clone();
        scans.spawn(async move { labelled(&greedy, number).await });
    }
    for _ in 0..50 {
        assert_eq!(ended(&quiet.get(&task).await), "exited 3");
    }
    let list = quiet.tasks().list_tasks(ListTasksRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.tasks.len(), 1);
    let over = std::iter::from_fn(|| scans.try_join_next()).count();
    assert_eq!(over, 0, "fifty looks and a list of another tenant take less than one scan of so many");
    scans.shutdown().await;
    assert_eq!(labelled(&greedy, STORED / 2).await, 1);
}
