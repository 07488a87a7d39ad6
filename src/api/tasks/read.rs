//! ReadOutput.

use tonic::Status;

use crate::api::{
    Parts, output, reading, rendered, status,
    validate::{Acknowledge, Read},
};
use errand_engine::TaskRef;
use errand_proto::v1::ReadOutputResponse;

/// Reads what was asked for. An answer that reaches the end of all output of a finished task acknowledges its completion, if it shall.
pub(super) async fn read(
    parts: &Parts,
    task: &TaskRef,
    read: Read,
    acknowledge: Acknowledge,
) -> Result<ReadOutputResponse, Status> {
    let selection = match &read {
        Read::Pieces(selection, _) | Read::Rendered(selection) | Read::Condensed(selection, _) => *selection,
        Read::Lines(scan) => {
            let scanned = parts.unless_ending(parts.engine.scan_output(task, scan)).await?;
            return Ok(reading::lines(scanned.map_err(status::engine)?));
        }
    };
    let slice = parts.engine.read_output(task, selection).await.map_err(status::engine)?;
    let finished = slice.finished;
    let mut answer = match read {
        Read::Pieces(_, format) => output::slice(slice, selection, format),
        Read::Rendered(_) => apart(move || rendered::slice(slice, selection)).await?,
        Read::Condensed(_, most) => apart(move || reading::condensed(slice, selection, most)).await?,
        Read::Lines(_) => ReadOutputResponse::default(),
    };
    if finished && output::reaches_end(&answer, selection) {
        answer.lease_id = parts.acknowledge(&task.tenant, task.id, acknowledge).await?;
    }
    Ok(answer)
}

/// Makes an answer on a blocking thread: the server has few worker threads, and rendering 1 MiB takes a while.
async fn apart(answer: impl FnOnce() -> ReadOutputResponse + Send + 'static) -> Result<ReadOutputResponse, Status> {
    let answering = tokio::task::spawn_blocking(answer);
    answering.await.map_err(|error| Status::internal(format!("rendering output ended: {error}")))
}
