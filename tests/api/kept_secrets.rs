//! Secrets of commands that wait in the queue, and of output that outlives its sandbox.

use errand_proto::v1::*;
use sha2::{Digest as _, Sha256};

use super::secrets::{kept, with_secrets};
use crate::{
    on_both_images,
    support::{
        client::{Session, ended},
        docker::Image,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(retained_output_shows_no_secret);

const VALUE: &str = "hunter2-quixot";

fn token() -> String {
    format!("ghp_{}", "aB3".repeat(12))
}

/// Panics if a text holds a part of the value that masks have to hide. What only a pattern knows is not looked for: the preview of a command that
/// runs may end within it.
fn shows_nothing(text: &str, of: &str) {
    for part in ["hunt", "ixot"] {
        let at = text.find(part).map(|at| text[at.saturating_sub(80)..].chars().take(160).collect::<String>());
        assert_eq!(at, None, "{of} shows a secret");
    }
}

/// How many tasks have stored values, past the server.
fn stored_values(server: &Server) -> i64 {
    let database = rusqlite::Connection::open(server.database()).unwrap();
    database.query_row("SELECT count(*) FROM secrets WHERE \"values\" IS NOT NULL", [], |row| row.get(0)).unwrap()
}

async fn printed(session: &Session, command: &str) -> Task {
    session.run_as(with_secrets(session.request(command), &[("KEY", VALUE)])).await
}

async fn retained_output_shows_no_secret(image: Image) {
    for (policy, left) in [("off", 0), ("values", 2)] {
        let Some(server) = Server::on(image, &["--mask-reads", policy]).await else { return };
        let session = server.session("bot", "session");
        let token = token();
        let short = printed(&session, &format!("printf %s \"a $KEY {token} b\"")).await;
        // Longer than what is retained: both of its borders lie within a secret or beside one.
        let long = printed(&session, &format!("yes \"$KEY {token}\" | head -n 40000")).await;
        let size = long.output_bytes;
        assert_eq!(size, 40_000 * 56);
        let delete = DeleteSandboxRequest { bot_id: session.bot.clone() };
        soon("the sandbox is deleted", session.sandboxes().delete_sandbox(delete)).await.unwrap();
        let stars = |length| "*".repeat(length);
        assert_eq!(session.text(&short).await, format!("a {} {} b", stars(14), stars(40)), "{policy}");
        let retained = session.get(&long).await.output_retained.unwrap();
        assert_eq!((retained.bytes, retained.gaps.len()), (1 << 20, 1), "{policy}");
        let text = session.text(&long).await;
        let line = format!("{} {}\n", stars(14), stars(40));
        assert!(text.starts_with(&line) && text.ends_with(&line), "{policy}");
        assert!(text.chars().all(|shown| "* \n".contains(shown)), "{policy}");
        let stored = kept(&server);
        shows_nothing(&stored, policy);
        assert_eq!(stored_values(&server), left, "{policy}");
    }
}

/// A sandbox that is removed from outside: what memory held of a long output begins within a secret.
#[tokio::test]
async fn output_held_in_memory_is_masked() {
    let Some(server) = Server::on(Image::Busybox, &["--mask-reads", "off"]).await else { return };
    let session = server.session("bot", "session");
    let command = format!("yes \"$KEY {}\" | head -n 9000; echo end; sleep 7200", token());
    let task = session.start_as(with_secrets(session.request(&command), &[("KEY", VALUE)])).await;
    session.until_output(&task, "end").await;
    let container = session.sandbox().await.unwrap().container_id;
    server.ground.remove(&container).await;
    let task = session.finished(&task).await;
    assert_eq!(ended(&task), "lost SANDBOX_REMOVED");
    let retained = task.output_retained.clone().unwrap();
    assert!(retained.bytes > 100_000, "{retained:?}");
    let text = session.text(&task).await;
    assert!(text.ends_with("*\nend\n") && text.trim_end_matches("end\n").chars().all(|shown| "* \n".contains(shown)));
    shows_nothing(&kept(&server), "the server");
}

#[tokio::test]
async fn queued_task_keeps_its_secret_until_it_ends() {
    let flags = ["--max-running-per-bot", "1", "--mask-reads", "off"];
    let Some(mut server) = Server::on(Image::Busybox, &flags).await else { return };
    let session = server.session("bot", "session");
    let holder = session.running("until [ -e /workspace/go ]; do sleep 0.1; done").await;
    let command = format!("printf %s \"$KEY {VALUE}\" | sha256sum | head -c 64; echo \" $KEY\"");
    let request = StartTaskRequest { when_full: WhenFull::Queue.into(), ..session.request(&command) };
    let task = session.start_as(with_secrets(request, &[("KEY", VALUE)])).await;
    assert_eq!(task.status(), TaskStatus::Queued);
    assert!(task.command.contains("$KEY [masked]"), "{}", task.command);
    assert_eq!(stored_values(&server), 1);
    server.restart().await;
    let session = server.session("bot", "session");
    assert_eq!(session.get(&task).await.status(), TaskStatus::Queued);
    shows_nothing(&kept(&server), "a server with a queue");
    session.exec("touch /workspace/go").await;
    session.finished(&holder).await;
    let task = session.finished(&task).await;
    assert_eq!(ended(&task), "exited 0");
    let hash = hex::encode(Sha256::digest(format!("{VALUE} {VALUE}")));
    assert_eq!(session.text(&task).await, format!("{hash} {VALUE}\n"), "readers may see it");
    eventually("the values go with the end", async || (stored_values(&server) == 0).then_some(())).await;
    shows_nothing(&kept(&server), "a server after the end");
}
