//! The server is killed while it watches output.

use errand_proto::v1::{NotificationKind, OutputWatch, StartTaskRequest, output_watch::Kind};

use crate::{
    on_both_images,
    support::{
        client::{Session, ended, kind},
        docker::Image,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(match_without_a_server_is_told_once);

fn gate(name: &str) -> String {
    format!("until [ -e /workspace/{name} ]; do sleep 0.1; done")
}

/// The positions that the session was told of.
async fn places(session: &Session) -> Vec<i64> {
    session.told().await.into_iter().filter_map(|told| told.watch).map(|found| found.offset).collect()
}

async fn match_without_a_server_is_told_once(image: Image) {
    let Some(mut server) = Server::on(image, &["--watch-interval", "100ms"]).await else { return };
    let session = server.session("bot", "session");
    let command =
        format!("echo hit 1; {}; echo hit 2; echo printed; {}; echo hit 3; {}", gate("1"), gate("2"), gate("3"));
    let watch = OutputWatch { kind: Some(Kind::Substring("hit".to_owned())), once: false };
    let request = StartTaskRequest { watches: vec![watch], ..session.request(&command) };
    let task = session.start_as(request).await;
    eventually("the first match is told", async || (places(&session).await == [0]).then_some(())).await;
    let container = session.sandbox().await.unwrap().container_id;
    server.kill();
    server.ground.exec(&container, "touch /workspace/1").await;
    let written = format!("until grep -q printed {}; do sleep 0.1; done", task.output_file);
    soon("the output goes on without a server", server.ground.exec(&container, &written)).await;
    server.launch().await;
    eventually("the second match is told", async || (places(&session).await == [0, 6]).then_some(())).await;
    // Another restart repeats nothing.
    server.restart().await;
    server.ground.exec(&container, "touch /workspace/2").await;
    eventually("the third match is told", async || (places(&session).await.len() == 3).then_some(())).await;
    assert_eq!(places(&session).await, [0, 6, 20]);
    server.ground.exec(&container, "touch /workspace/3").await;
    let task = session.finished(&task).await;
    assert_eq!((ended(&task).as_str(), task.watches[0].matches), ("exited 0", 3));
    let told = session.told().await;
    assert_eq!(told.last().map(|told| kind(told.kind())), Some("completed"));
    assert!(told[..3].iter().all(|told| told.kind() == NotificationKind::WatchMatched));
}
