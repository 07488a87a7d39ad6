//! What leads a notification to the right place: the task's labels and the trace context of the call that started it.

use errand_proto::v1::*;
use tonic::{Code, Request};

use crate::support::{client::refused, docker::Image, server::Server, wait::soon};

const FIELD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const METADATA: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// A request with this trace context in its metadata.
fn within<T>(message: T, traceparent: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", traceparent.parse().unwrap());
    request
}

#[tokio::test]
async fn notifications_carry_labels_and_trace_context() {
    let Some(mut server) = Server::on(Image::Busybox, &[]).await else { return };
    let session = server.session("bot", "session");
    let labels = || [("chat", "7"), ("thread", "äöü")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let request = |traceparent: &str| StartTaskRequest {
        labels: labels().into(),
        traceparent: traceparent.to_owned(),
        ..session.request("exit 1")
    };
    for (field, metadata, kept) in
        [("", METADATA, METADATA), (FIELD, METADATA, FIELD), (FIELD, "nonsense", FIELD), ("", "00-0-0-0", "")]
    {
        let started = session.tasks().start_task(within(request(field), metadata)).await.unwrap().into_inner();
        let task = session.finished(&started.task.unwrap().task_id).await;
        assert_eq!(task.traceparent, kept, "{field:?} {metadata:?}");
        let told = session.told().await.pop().unwrap();
        assert_eq!((told.task_id, told.traceparent.as_str()), (task.task_id, kept));
        assert_eq!(told.labels, labels().into());
    }
    let run = RunTaskRequest { start: Some(request("")), ..Default::default() };
    let mut stream = session.tasks().run_task(within(run, METADATA)).await.unwrap().into_inner();
    while soon("the run goes on", stream.message()).await.unwrap().is_some() {}
    assert_eq!(session.told().await.pop().unwrap().traceparent, METADATA);
    server.restart().await;
    assert_eq!(session.told().await.pop().unwrap().traceparent, METADATA);
    for wrong in ["x", &FIELD.to_uppercase(), &FIELD.replace("00f067aa0ba902b7", "0000000000000000")] {
        let message = refused(session.try_start(request(wrong)).await, Code::InvalidArgument);
        assert!(message.starts_with("traceparent must "), "{message}");
    }
}
