//! The file calls of `SandboxService`.
//!
//! A write runs entirely inside its call: cancelling the call cancels the write. Whole directories are in `trees`.

mod trees;
mod upload;

use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Parts, auth::Caller, convert, page, status, validate};
use errand_engine::FileContent;
use errand_proto::v1::{
    self, ListDirectoryRequest, ListDirectoryResponse, ReadFileRequest, ReadFileResponse, RemoveFileRequest,
    RemoveFileResponse, StatFileRequest, StatFileResponse, WriteFileRequest, WriteFileResponse, read_file_response,
};
pub(super) use trees::{Archive, Changes, make_directory, read_tree, rename, watch, write_tree};
use upload::{Reason, source};

/// The response stream of a file.
pub(super) type Content = Pin<Box<dyn Stream<Item = Result<ReadFileResponse, Status>> + Send>>;

pub(super) async fn stat(
    parts: &Parts,
    request: Request<StatFileRequest>,
) -> Result<Response<StatFileResponse>, Status> {
    let caller = Caller::of(&request)?;
    let follow = request.get_ref().follow;
    let file = validate::stat_file(request.into_inner(), &caller)?;
    caller.may_use(&file.bot)?;
    let entry = parts.engine.stat_file(&file, follow).await.map_err(status::engine)?;
    Ok(Response::new(StatFileResponse { entry: Some(convert::file(entry)) }))
}

pub(super) async fn list(
    parts: &Parts,
    request: Request<ListDirectoryRequest>,
) -> Result<Response<ListDirectoryResponse>, Status> {
    let caller = Caller::of(&request)?;
    let validate::Listing { directory, after, limit } = validate::list_directory(request.into_inner(), &caller)?;
    caller.may_use(&directory.bot)?;
    // One more entry than shown, to know whether there is another page.
    let listing = parts.engine.list_directory(&directory, after.as_deref(), limit + 1);
    let found = parts.unless_ending(listing).await?.map_err(status::engine)?;
    let names: Vec<Vec<u8>> = found.iter().map(|entry| entry.name.clone()).collect();
    let mut entries: Vec<v1::FileEntry> = found.into_iter().map(convert::file).collect();
    let more = page::cut(&mut entries, limit);
    // Uses the original name: the displayed name may stand for several files.
    let last = entries.len().checked_sub(1).filter(|_| more).and_then(|last| names.get(last));
    let next_page_token = last.map(|name| page::token_of(name)).unwrap_or_default();
    Ok(Response::new(ListDirectoryResponse { entries, next_page_token }))
}

pub(super) async fn remove(
    parts: &Parts,
    request: Request<RemoveFileRequest>,
) -> Result<Response<RemoveFileResponse>, Status> {
    let caller = Caller::of(&request)?;
    let recursive = request.get_ref().recursive;
    let file = validate::remove_file(request.into_inner(), &caller)?;
    caller.may_use(&file.bot)?;
    parts.unless_ending(parts.engine.remove_file(&file, recursive)).await?.map_err(status::engine)?;
    Ok(Response::new(RemoveFileResponse {}))
}

pub(super) async fn read(parts: &Parts, request: Request<ReadFileRequest>) -> Result<Response<Content>, Status> {
    let caller = Caller::of(&request)?;
    let validate::Reading { file, offset, limit } = validate::read_file(request.into_inner(), &caller)?;
    caller.may_use(&file.bot)?;
    let reader = parts.engine.read_file(&file, offset, limit).await.map_err(status::engine)?;
    let entry = message(read_file_response::Part::Entry(convert::file(reader.entry)));
    let content = pieces(reader.content, parts.shutdown.clone())
        .map(|piece| piece.map(|data| message(read_file_response::Part::Data(data))));
    Ok(Response::new(Box::pin(stream::iter([Ok(entry)]).chain(content))))
}

/// The content of a file or an archive. Only one piece is in transit at a time, so a slow client holds no more memory.
fn pieces(content: FileContent, shutdown: CancellationToken) -> impl Stream<Item = Result<Bytes, Status>> + Send {
    stream::unfold(Some((content, shutdown)), |state| async move {
        let (mut content, shutdown) = state?;
        let piece = tokio::select! {
            piece = content.next() => piece?.map_err(|error| status::engine(error.into())),
            () = shutdown.cancelled() => Err(status::shutting_down()),
        };
        match piece {
            Ok(bytes) => Some((Ok(bytes), Some((content, shutdown)))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

fn message(part: read_file_response::Part) -> ReadFileResponse {
    ReadFileResponse { part: Some(part) }
}

pub(super) async fn write(
    parts: &Parts,
    request: Request<Streaming<WriteFileRequest>>,
) -> Result<Response<WriteFileResponse>, Status> {
    let caller = Caller::of(&request)?;
    let mut messages = request.into_inner();
    let validate::Writing { file, options } = validate::write_file(messages.message().await?, &caller)?;
    caller.may_use(&file.bot)?;
    let reason = Reason::default();
    let writing = parts.engine.write_file(&file, options, source(messages, reason.clone()));
    let written = parts.unless_ending(writing).await?;
    // A problem in the content is more specific than the error that the content did not arrive.
    let entry = written.map_err(|error| reason.take().unwrap_or_else(|| status::engine(error)))?;
    Ok(Response::new(WriteFileResponse { entry: Some(convert::file(entry)) }))
}
