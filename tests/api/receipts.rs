//! An answer that tells the end of a task ends the task's notification, and not before the answer is known to have arrived.

use errand_proto::v1::{read_output_request::Selection, run_task_response::Event, *};
use tonic::Request;

use crate::support::{
    client::{Id as _, Session},
    docker::Image,
    server::Server,
    wait::{eventually, soon},
};

/// The shortest lease duration that a server takes for these tests.
const SHORT: [&str; 2] = ["--lease-duration", "2s"];

fn wait_for(task: &Task, mode: AcknowledgeMode) -> WaitTaskRequest {
    WaitTaskRequest { task_id: task.id(), acknowledge_mode: mode.into(), ..Default::default() }
}

async fn wait(session: &Session, request: WaitTaskRequest) -> WaitTaskResponse {
    soon("a wait ends", session.tasks().wait_task(request)).await.unwrap().into_inner()
}

/// A look at the task that says which answers have arrived.
async fn look(session: &Session, task: &Task, receipt: &str) {
    let mut request = Request::new(GetTaskRequest { task_id: task.id(), ..Default::default() });
    request.metadata_mut().insert("errand-receipt", receipt.parse().unwrap());
    session.tasks().get_task(request).await.unwrap();
}

async fn acknowledged(session: &Session, task: &Task) -> bool {
    let told = session.told().await.into_iter().find(|told| told.task_id == task.task_id).unwrap();
    told.acknowledged_at.is_some()
}

async fn drained(session: &Session) -> Vec<String> {
    session.drain(Some(1.0)).await.notifications.into_iter().map(|told| told.task_id).collect()
}

#[tokio::test]
async fn answered_end_is_held_back_until_its_receipt() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let task = session.run("exit 1").await;
    let answer = wait(&session, wait_for(&task, AcknowledgeMode::OnReceipt)).await;
    assert_eq!((answer.result(), answer.lease_id.is_empty()), (WaitResult::Finished, false));
    assert!(drained(&session).await.is_empty() && !acknowledged(&session, &task).await);
    // Neither a look, nor the repetition of a call whose answer was lost, nor a restart ends or frees it.
    session.get(&task).await;
    let repeated = wait(&session, wait_for(&task, AcknowledgeMode::OnReceipt)).await;
    assert_eq!(repeated.lease_id, answer.lease_id);
    session.run("true").await;
    server.restart().await;
    assert!(!acknowledged(&session, &task).await && !drained(&session).await.contains(&task.task_id));
    look(&session, &task, "nonsense, 018bcfe5-6800-7000-8000-000000000001").await;
    assert!(!acknowledged(&session, &task).await);
    look(&session, &task, &answer.lease_id).await;
    assert!(acknowledged(&session, &task).await);
    let again = wait(&session, wait_for(&task, AcknowledgeMode::OnReceipt)).await;
    assert_eq!((again.result(), again.lease_id.as_str()), (WaitResult::Finished, ""), "there is nothing left to hold");
}

#[tokio::test]
async fn end_of_a_lost_answer_is_delivered_again() {
    let Some(server) = Server::on(Image::Busybox, &SHORT).await else { return };
    let session = server.session("bot", "session");
    let task = session.run("exit 1").await;
    let lease = wait(&session, wait_for(&task, AcknowledgeMode::OnReceipt)).await.lease_id;
    assert!(drained(&session).await.is_empty());
    let again = eventually("the notification returns", async || session.drain(None).await.notifications.pop()).await;
    assert_eq!((again.task_id.as_str(), again.deliveries), (task.task_id.as_str(), 2));
    // The drain has it now: the receipt of the first answer comes too late.
    look(&session, &task, &lease).await;
    assert!(!acknowledged(&session, &task).await);
    let busy = wait(&session, wait_for(&task, AcknowledgeMode::OnReceipt)).await;
    assert_eq!((busy.result(), busy.lease_id.as_str()), (WaitResult::Finished, ""));
}

#[tokio::test]
async fn held_notification_can_be_acknowledged_by_lease() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let (one, two) = (session.run("exit 1").await, session.run("exit 2").await);
    let request = WaitTasksRequest {
        task_ids: vec![one.id(), two.id()],
        mode: WaitMode::All.into(),
        acknowledge_mode: AcknowledgeMode::OnReceipt.into(),
        ..Default::default()
    };
    let waits = session.tasks().wait_tasks(request).await.unwrap().into_inner().waits;
    let leases: Vec<String> = waits.into_iter().map(|wait| wait.lease_id).collect();
    assert!(drained(&session).await.is_empty());
    let ack =
        AckNotificationsRequest { bot_id: session.bot.clone(), lease_id: leases[0].clone(), ..Default::default() };
    assert_eq!(session.notifications().ack_notifications(ack).await.unwrap().into_inner().acknowledged, 1);
    assert!(acknowledged(&session, &one).await && !acknowledged(&session, &two).await);
    look(&session, &one, &leases.join(",")).await;
    assert!(acknowledged(&session, &two).await);
}

#[tokio::test]
async fn older_acknowledge_ends_it_at_once() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let (one, two) = (session.run("exit 1").await, session.run("exit 2").await);
    let older = WaitTaskRequest { acknowledge: true, ..wait_for(&one, AcknowledgeMode::Unspecified) };
    assert_eq!(wait(&session, older).await.lease_id, "");
    assert!(acknowledged(&session, &one).await);
    assert_eq!(wait(&session, wait_for(&two, AcknowledgeMode::AtOnce)).await.lease_id, "");
    assert!(acknowledged(&session, &two).await);
}

#[tokio::test]
async fn only_reading_to_the_end_acknowledges() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let read = async |task: &Task, offset, limit, mode: AcknowledgeMode| {
        let selection = Some(Selection::Range(OutputRange { offset, limit }));
        let acknowledge_mode = mode.into();
        let request = ReadOutputRequest { task_id: task.id(), selection, acknowledge_mode, ..Default::default() };
        session.try_read(request).await.unwrap().lease_id
    };
    let running = session.running("echo abc; sleep 300").await;
    session.until_output(&running, "abc").await;
    assert_eq!(read(&running, 0, 99, AcknowledgeMode::OnReceipt).await, "");
    session.stop(&running, Some(0.0)).await;
    let task = session.run("printf abcdef").await;
    assert_eq!(read(&task, 0, 5, AcknowledgeMode::OnReceipt).await, "");
    assert_eq!(read(&task, 0, 99, AcknowledgeMode::Unspecified).await, "");
    assert_eq!(drained(&session).await.len(), 2, "a look holds nothing back");
    eventually("the drain's lease ends", async || {
        (!read(&task, 5, 1, AcknowledgeMode::OnReceipt).await.is_empty()).then_some(())
    })
    .await;
    look(&session, &task, &read(&task, 5, 1, AcknowledgeMode::OnReceipt).await).await;
    assert!(acknowledged(&session, &task).await);
    let silent = session.run("true").await;
    assert_eq!(read(&silent, 0, 99, AcknowledgeMode::AtOnce).await, "");
    assert!(acknowledged(&session, &silent).await, "the end of no output is its beginning");
}

#[tokio::test]
async fn finished_run_is_held_back_until_its_receipt() {
    let Some(server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let start = Some(session.request("exit 1"));
    let request = RunTaskRequest { start, acknowledge_mode: AcknowledgeMode::OnReceipt.into(), ..Default::default() };
    let mut stream = session.tasks().run_task(request).await.unwrap().into_inner();
    let (task, lease) = loop {
        let message = soon("the run goes on", stream.message()).await.unwrap().unwrap();
        if let Some(Event::Finished(task)) = message.event {
            break (task, message.lease_id.unwrap_or_default());
        }
    };
    assert!(!lease.is_empty() && drained(&session).await.is_empty());
    look(&session, &task, &lease).await;
    assert!(acknowledged(&session, &task).await);
}

#[tokio::test]
async fn receipt_of_another_tenant_ends_nothing() {
    let Some(mut server) = Server::prepare(Image::Busybox).await else { return };
    // sha256 of `one` and `two`.
    let tokens = server.file(
        "tokens.toml",
        "[[tokens]]\ntenant = \"a\"\nsha256 = \"7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed\"\n\
         [[tokens]]\ntenant = \"b\"\nsha256 = \"3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3\"\n",
    );
    server.set("--tokens-file", &tokens);
    server.launch().await;
    let (ours, theirs) = (server.session_with("one", "bot", "session"), server.session_with("two", "bot", "session"));
    let task = ours.run("exit 1").await;
    let lease = wait(&ours, wait_for(&task, AcknowledgeMode::OnReceipt)).await.lease_id;
    let mut request = Request::new(ListTasksRequest::default());
    request.metadata_mut().insert("errand-receipt", lease.parse().unwrap());
    theirs.tasks().list_tasks(request).await.unwrap();
    assert!(!acknowledged(&ours, &task).await);
    look(&ours, &task, &lease).await;
    assert!(acknowledged(&ours, &task).await);
}
