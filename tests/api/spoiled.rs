//! Stored records that cannot be decoded: the server starts, logs which records they are, and everything else works.

use errand_proto::v1::*;
use tonic::Code;

use crate::support::{
    client::{ended, refused},
    docker::Image,
    server::Server,
};

#[tokio::test]
async fn undecodable_record_affects_only_itself() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let (session, other) = (server.session("bot", "session"), server.session("other", "session"));
    let sound = session.run("exit 3").await;
    let finished = session.run("exit 4").await;
    let unfinished = session.running("sleep 300").await;
    let running = session.running("sleep 300").await;
    let neighbour = other.running("sleep 300").await;
    let third = server.session("third", "session");
    let unseen = third.running("sleep 300").await;
    server.kill();
    let database = rusqlite::Connection::open(server.database()).unwrap();
    for (task, record) in [(&finished, "half a rec"), (&unfinished, r#"{"id": "hunter2"}"#)] {
        let changed = database.execute("UPDATE tasks SET record = ? WHERE id = ?", [record, &task.task_id]).unwrap();
        assert_eq!(changed, 1);
    }
    database.execute("UPDATE notifications SET record = 'hunter2' WHERE task = ?", [&sound.task_id]).unwrap();
    let cut = "UPDATE sandboxes SET record = json_remove(record, '$.spec') WHERE bot = ?";
    assert_eq!(database.execute(cut, [&third.bot]).unwrap(), 1);
    drop(database);
    server.launch().await;
    refused(third.try_start(third.request("echo")).await, Code::DataLoss);
    assert_eq!(third.get(&unseen).await.status(), TaskStatus::Running, "it may run: nothing is made up about it");
    for spoiled in [&finished, &unfinished] {
        let get = GetTaskRequest { task_id: spoiled.task_id.clone(), ..Default::default() };
        let words = refused(session.tasks().get_task(get).await, Code::DataLoss);
        assert!(words.contains(&spoiled.task_id) && !words.contains("hunter2"), "{words}");
        assert!(server.log().contains(&spoiled.task_id));
    }
    let list = ListTasksRequest { bot_id: session.bot.clone(), page_size: 2, ..Default::default() };
    let listed = session.tasks().list_tasks(list).await.unwrap().into_inner();
    let ids: Vec<_> = listed.tasks.iter().map(|task| &task.task_id).collect();
    assert_eq!(ids, [&running.task_id, &sound.task_id]);
    assert_eq!(session.get(&sound).await, sound);
    for (session, task) in [(&session, &running), (&other, &neighbour)] {
        assert_eq!(ended(&session.stop(task, Some(0.0)).await), "stopped request 9");
    }
    let drained = session.drain(None).await.notifications;
    let about: Vec<_> = drained.iter().map(|notification| &notification.task_id).collect();
    assert_eq!(about, [&finished.task_id, &running.task_id], "a spoiled notice holds up no other");
    assert!(!server.log().contains("hunter2"), "no log line quotes a record");
}
