//! Calls about directories: making, renaming, copying whole ones, watching.

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Request, Response, Status, Streaming};

use super::{Parts, Reason, source};
use crate::api::{
    auth::{Caller, TenantUse},
    convert, status, validate,
};
use errand_proto::v1::{
    MakeDirectoryRequest, MakeDirectoryResponse, ReadTreeRequest, ReadTreeResponse, RenameFileRequest,
    RenameFileResponse, WatchFilesRequest, WatchFilesResponse, WriteTreeRequest, WriteTreeResponse, read_tree_response,
};

/// The response stream of a tree.
pub(in crate::api) type Archive = Pin<Box<dyn Stream<Item = Result<ReadTreeResponse, Status>> + Send>>;
/// The response stream of a watched directory.
pub(in crate::api) type Changes = Pin<Box<dyn Stream<Item = Result<WatchFilesResponse, Status>> + Send>>;

pub(in crate::api) async fn make_directory(
    parts: &Parts,
    request: Request<MakeDirectoryRequest>,
) -> Result<Response<MakeDirectoryResponse>, Status> {
    let caller = Caller::of(&request)?;
    let make_parents = request.get_ref().make_parents;
    let (directory, mode) = validate::make_directory(request.into_inner(), &caller)?;
    caller.may_use(&directory.bot)?;
    let made = parts.engine.make_directory(&directory, mode, make_parents);
    let entry = parts.unless_ending(made).await?.map_err(status::engine)?;
    Ok(Response::new(MakeDirectoryResponse { entry: Some(convert::file(entry)) }))
}

pub(in crate::api) async fn rename(
    parts: &Parts,
    request: Request<RenameFileRequest>,
) -> Result<Response<RenameFileResponse>, Status> {
    let caller = Caller::of(&request)?;
    let must_not_exist = request.get_ref().must_not_exist;
    let (file, new_path) = validate::rename(request.into_inner(), &caller)?;
    caller.may_use(&file.bot)?;
    let renamed = parts.engine.rename_file(&file, &new_path, must_not_exist);
    let entry = parts.unless_ending(renamed).await?.map_err(status::engine)?;
    Ok(Response::new(RenameFileResponse { entry: Some(convert::file(entry)) }))
}

pub(in crate::api) async fn read_tree(
    parts: &Parts,
    request: Request<ReadTreeRequest>,
) -> Result<Response<Archive>, Status> {
    use read_tree_response::Part;
    let caller = Caller::of(&request)?;
    let directory = validate::read_tree(request.into_inner(), &caller)?;
    caller.may_use(&directory.bot)?;
    let reader = parts.engine.read_tree(&directory).await.map_err(status::engine)?;
    let message = |part| ReadTreeResponse { part: Some(part) };
    let first = message(Part::Entry(convert::file(reader.entry)));
    let archive = super::pieces(reader.content, parts.shutdown.clone());
    let archive = archive.map(move |piece| piece.map(|data| message(Part::Data(data))));
    Ok(Response::new(Box::pin(stream::iter([Ok(first)]).chain(archive))))
}

pub(in crate::api) async fn write_tree(
    parts: &Parts,
    request: Request<Streaming<WriteTreeRequest>>,
) -> Result<Response<WriteTreeResponse>, Status> {
    let caller = Caller::of(&request)?;
    let mut messages = request.into_inner();
    let (directory, options) = validate::write_tree(messages.message().await?, &caller)?;
    caller.may_use(&directory.bot)?;
    let reason = Reason::default();
    let writing = parts.engine.write_tree(&directory, options, source(messages, reason.clone()));
    let written = parts.unless_ending(writing).await?;
    // A problem in the upload is more specific than the error that the archive did not arrive.
    let written = written.map_err(|error| reason.take().unwrap_or_else(|| status::engine(error)))?;
    Ok(Response::new(convert::tree(written)))
}

pub(in crate::api) async fn watch(
    parts: &Parts,
    request: Request<WatchFilesRequest>,
) -> Result<Response<Changes>, Status> {
    let caller = Caller::of(&request)?;
    let recursive = request.get_ref().recursive;
    let usage = request.extensions().get::<Arc<TenantUse>>().cloned();
    let directory = validate::watch_files(request.into_inner(), &caller)?;
    caller.may_use(&directory.bot)?;
    let held = usage.map(|usage| usage.watch_bot(&directory.bot, parts.subscriptions_per_bot)).transpose()?;
    let changes = parts.engine.watch_files(&directory, recursive).await.map_err(status::engine)?;
    let state = Some((changes, held, parts.shutdown.clone()));
    let told = stream::unfold(state, |state| async move {
        let (mut changes, held, shutdown) = state?;
        let next = tokio::select! {
            biased;
            () = shutdown.cancelled() => Err(status::shutting_down()),
            next = changes.next() => next?.map_err(|error| status::engine(error.into())),
        };
        Some(match next {
            Ok(change) => {
                let message = WatchFilesResponse { change: Some(convert::file_change(change)) };
                (Ok(message), Some((changes, held, shutdown)))
            }
            Err(status) => (Err(status), None),
        })
    });
    // From here on nothing is missed.
    let first = stream::iter([Ok(WatchFilesResponse { change: None })]);
    Ok(Response::new(Box::pin(first.chain(told))))
}
