//! Secrets in what came with watches, policies, lines and retained output.

use errand_proto::v1::{output_watch::Kind, read_output_request::Selection, *};
use tonic::Code;

use super::secrets::with_secrets;
use crate::{
    on_both_images,
    support::{
        client::{Session, refused},
        docker::Image,
        server::Server,
        wait::{eventually, soon},
    },
};

on_both_images!(notices_and_lines_show_no_secret, pattern_with_a_secret_is_refused);

const SECRET: &str = "hunter2-and-more";

fn substring(text: &str) -> OutputWatch {
    OutputWatch { kind: Some(Kind::Substring(text.to_owned())), once: false }
}

async fn read(
    session: &Session,
    task: &Task,
    selection: Option<Selection>,
    format: OutputFormat,
) -> ReadOutputResponse {
    let (task_id, format) = (task.task_id.clone(), format.into());
    let request = ReadOutputRequest { task_id, selection, format, ..Default::default() };
    soon("output is read", session.tasks().read_output(request)).await.unwrap().into_inner()
}

fn grep(text: &str) -> Option<Selection> {
    let pattern = Some(line_search::Pattern::Substring(text.to_owned()));
    Some(Selection::Grep(LineSearch { pattern, ..Default::default() }))
}

async fn notices_and_lines_show_no_secret(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let command = "echo \"$KEY begins\"; echo \"it matches $KEY here\"; until [ -e /workspace/go ]; do sleep 0.1; done";
    let notify = Some(NotifyPolicy { head_bytes: 200, tail_bytes: Some(0), ..Default::default() });
    let request = StartTaskRequest { notify, watches: vec![substring("matches")], ..session.request(command) };
    let task = session.start_as(with_secrets(request, &[("KEY", SECRET)])).await;
    let matched = eventually("a match is told", async || {
        session.told().await.into_iter().find(|told| told.kind() == NotificationKind::WatchMatched)
    })
    .await;
    let lines = matched.watch.as_ref().unwrap().lines.clone();
    assert!(lines.starts_with("it matches ") && !format!("{matched:?}").contains("hunter2"), "{matched:?}");
    let stars = "*".repeat(SECRET.len());
    for finished in [false, true] {
        if finished {
            session.exec("touch /workspace/go").await;
            session.finished(&task).await;
            let delete = DeleteSandboxRequest { bot_id: session.bot.clone() };
            soon("the sandbox is deleted", session.sandboxes().delete_sandbox(delete)).await.unwrap();
        }
        let found = read(&session, &task, grep("matches"), OutputFormat::Unspecified).await;
        assert_eq!(found.lines.len(), 1, "{found:?}");
        assert_eq!(found.lines[0].text, format!("it matches {stars} here"));
        let guessed =
            read(&session, &task, grep(&format!("matches {}", &SECRET[..4])), OutputFormat::Unspecified).await;
        assert!(guessed.lines.is_empty(), "a search tells what a secret is: {guessed:?}");
        for format in [OutputFormat::Text, OutputFormat::Rendered, OutputFormat::Condensed] {
            let shown = format!("{:?}", read(&session, &task, None, format).await);
            assert!(shown.contains(&stars) && !shown.contains("hunter2"), "{shown}");
        }
    }
    let told = session.told().await;
    let ended = told.iter().find(|told| told.kind() == NotificationKind::Completed).unwrap();
    assert!(ended.output_head.contains(" begins") && !format!("{told:?}").contains("hunter2"), "{told:?}");
}

async fn pattern_with_a_secret_is_refused(image: Image) {
    let Some(server) = Server::on(image, &[]).await else { return };
    let session = server.session("bot", "session");
    let watches = vec![substring("fine"), substring(&format!("KEY={SECRET}"))];
    let request = StartTaskRequest { watches: watches.clone(), ..session.request("sleep 300") };
    let said = refused(session.try_start(with_secrets(request, &[("KEY", SECRET)])).await, Code::InvalidArgument);
    assert!(said.contains("pattern 1") && !said.contains("hunter2"), "{said}");
    let task = session.start_as(with_secrets(session.request("sleep 300"), &[("KEY", SECRET)])).await;
    let request = SetWatchesRequest { task_id: task.task_id.clone(), watches, ..Default::default() };
    let said = refused(soon("watches are refused", session.tasks().set_watches(request)).await, Code::InvalidArgument);
    assert!(!said.contains("hunter2"), "{said}");
    assert_eq!(session.get(&task).await.watches, []);
}
