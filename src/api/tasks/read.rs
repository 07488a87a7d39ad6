//! ReadOutput.

use tonic::Status;

use crate::api::{Parts, output, reading, rendered, status, validate::Read};
use errand_engine::TaskRef;
use errand_proto::v1::ReadOutputResponse;

/// Reads what was asked for.
pub(super) async fn read(parts: &Parts, task: &TaskRef, read: Read) -> Result<ReadOutputResponse, Status> {
    match read {
        Read::Pieces(selection, format) => {
            let slice = parts.engine.read_output(task, selection).await.map_err(status::engine)?;
            Ok(output::slice(slice, selection, format))
        }
        Read::Rendered(selection) => {
            let slice = parts.engine.read_output(task, selection).await.map_err(status::engine)?;
            apart(move || rendered::slice(slice, selection)).await
        }
        Read::Condensed(selection, most) => {
            let slice = parts.engine.read_output(task, selection).await.map_err(status::engine)?;
            apart(move || reading::condensed(slice, selection, most)).await
        }
        Read::Lines(scan) => {
            let scanned = parts.unless_ending(parts.engine.scan_output(task, &scan)).await?;
            Ok(reading::lines(scanned.map_err(status::engine)?))
        }
    }
}

/// Makes an answer on a blocking thread: the server has few worker threads, and rendering 1 MiB takes a while.
async fn apart(answer: impl FnOnce() -> ReadOutputResponse + Send + 'static) -> Result<ReadOutputResponse, Status> {
    let answering = tokio::task::spawn_blocking(answer);
    answering.await.map_err(|error| Status::internal(format!("rendering output ended: {error}")))
}
