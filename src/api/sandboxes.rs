//! `SandboxService`: reads requests, calls the engine, answers. Its file calls are in `files`.

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming};

use super::{Parts, auth::Caller, convert, files, page, status, validate};
use errand_engine::SandboxView;
use errand_proto::v1::{
    self, AdoptSandboxRequest, AdoptSandboxResponse, DeleteSandboxRequest, DeleteSandboxResponse, EnsureSandboxRequest,
    EnsureSandboxResponse, GetSandboxRequest, GetSandboxResponse, ListActiveBotsRequest, ListActiveBotsResponse,
    ListDirectoryRequest, ListDirectoryResponse, ListSandboxesRequest, ListSandboxesResponse, MakeDirectoryRequest,
    MakeDirectoryResponse, ReadFileRequest, ReadTreeRequest, RemoveFileRequest, RemoveFileResponse, RenameFileRequest,
    RenameFileResponse, StatFileRequest, StatFileResponse, StopSandboxRequest, StopSandboxResponse, WatchFilesRequest,
    WriteFileRequest, WriteFileResponse, WriteTreeRequest, WriteTreeResponse, sandbox_service_server::SandboxService,
};
use errand_task::SandboxId;

/// How many sandboxes are read at a time. Each has an environment of up to 64 KiB.
const CHUNK: u32 = 48;

/// The service.
#[derive(Clone)]
pub(super) struct Sandboxes {
    parts: Arc<Parts>,
}

impl Sandboxes {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self { parts }
    }

    fn convert(&self, view: SandboxView) -> v1::Sandbox {
        let bridge = self.parts.engine.bridge_state(&view.record);
        convert::sandbox(view, bridge)
    }

    /// Up to `wanted` of the sandboxes that the caller may see, starting after the id `after`, or as many as fill an answer.
    async fn visible(
        &self,
        caller: &Caller,
        mut after: Option<SandboxId>,
        wanted: u32,
    ) -> Result<Vec<v1::Sandbox>, Status> {
        let count = usize::try_from(wanted).unwrap_or(usize::MAX);
        let chunk = wanted.min(CHUNK);
        let (mut visible, mut size) = (Vec::new(), 0);
        loop {
            let read = self.parts.engine.sandboxes(&caller.tenant, after, chunk).await.map_err(status::engine)?;
            let complete = u32::try_from(read.len()).unwrap_or(u32::MAX) < chunk;
            after = read.last().map(|view| view.record.id).or(after);
            for view in read.into_iter().filter(|view| caller.bots.admits(&view.record.bot)) {
                let sandbox = self.convert(view);
                size += page::entry_len(&sandbox);
                visible.push(sandbox);
            }
            if complete || visible.len() >= count || size > page::ANSWER_LIMIT {
                visible.truncate(count);
                return Ok(visible);
            }
        }
    }
}

#[tonic::async_trait]
impl SandboxService for Sandboxes {
    type ReadFileStream = files::Content;
    type ReadTreeStream = files::Archive;
    type WatchFilesStream = files::Changes;

    async fn ensure_sandbox(
        &self,
        request: Request<EnsureSandboxRequest>,
    ) -> Result<Response<EnsureSandboxResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (bot, spec) = validate::ensure(request.into_inner(), &caller, self.parts.engine.settings())?;
        caller.may_use(&bot)?;
        let view = self.parts.engine.ensure_sandbox(caller.tenant, bot, spec).await.map_err(status::engine)?;
        Ok(Response::new(EnsureSandboxResponse { sandbox: Some(self.convert(view)) }))
    }

    async fn adopt_sandbox(
        &self,
        request: Request<AdoptSandboxRequest>,
    ) -> Result<Response<AdoptSandboxResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (bot, container) = validate::adopt(request.into_inner())?;
        caller.may_use(&bot)?;
        let any = caller.may_adopt_any;
        let adopted = self.parts.engine.adopt_sandbox(caller.tenant, bot, container, any).await;
        let view = adopted.map_err(status::engine)?;
        Ok(Response::new(AdoptSandboxResponse { sandbox: Some(self.convert(view)) }))
    }

    async fn get_sandbox(&self, request: Request<GetSandboxRequest>) -> Result<Response<GetSandboxResponse>, Status> {
        let caller = Caller::of(&request)?;
        let bot = validate::bot(&request.get_ref().bot_id)?;
        caller.may_use(&bot)?;
        let view = self.parts.engine.sandbox(&caller.tenant, &bot).await.map_err(status::engine)?;
        Ok(Response::new(GetSandboxResponse { sandbox: Some(self.convert(view)) }))
    }

    async fn list_sandboxes(
        &self,
        request: Request<ListSandboxesRequest>,
    ) -> Result<Response<ListSandboxesResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (after, limit) = validate::list_sandboxes(request.get_ref())?;
        // One more sandbox than shown, to know whether there is another page.
        let mut sandboxes = self.visible(&caller, after, limit + 1).await?;
        let more = page::cut(&mut sandboxes, limit);
        let last = sandboxes.last().filter(|_| more);
        let next_page_token = last.map(|sandbox| page::token(&sandbox.sandbox_id)).unwrap_or_default();
        Ok(Response::new(ListSandboxesResponse { sandboxes, next_page_token }))
    }

    async fn list_active_bots(
        &self,
        request: Request<ListActiveBotsRequest>,
    ) -> Result<Response<ListActiveBotsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let validate::ActiveBots { max_age, after, limit } = validate::active_bots(request.get_ref())?;
        // One more than shown, to know whether there is another page.
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
        let found = self.parts.engine.active_bots(&caller.tenant, &caller.bots, max_age, after.as_ref(), wanted);
        let mut bots: Vec<v1::ActiveBot> =
            found.await.map_err(status::engine)?.into_iter().map(convert::active_bot).collect();
        let more = page::cut(&mut bots, limit);
        let last = bots.last().filter(|_| more);
        let next_page_token = last.map(|last| page::token(&last.bot_id)).unwrap_or_default();
        Ok(Response::new(ListActiveBotsResponse { bots, next_page_token }))
    }

    async fn stop_sandbox(
        &self,
        request: Request<StopSandboxRequest>,
    ) -> Result<Response<StopSandboxResponse>, Status> {
        let caller = Caller::of(&request)?;
        let bot = validate::bot(&request.get_ref().bot_id)?;
        caller.may_use(&bot)?;
        let view = self.parts.engine.stop_sandbox(caller.tenant, bot).await.map_err(status::engine)?;
        Ok(Response::new(StopSandboxResponse { sandbox: Some(self.convert(view)) }))
    }

    async fn delete_sandbox(
        &self,
        request: Request<DeleteSandboxRequest>,
    ) -> Result<Response<DeleteSandboxResponse>, Status> {
        let caller = Caller::of(&request)?;
        let bot = validate::bot(&request.get_ref().bot_id)?;
        caller.may_use(&bot)?;
        self.parts.engine.delete_sandbox(caller.tenant, bot).await.map_err(status::engine)?;
        Ok(Response::new(DeleteSandboxResponse {}))
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Result<Response<Self::ReadFileStream>, Status> {
        files::read(&self.parts, request).await
    }

    async fn write_file(
        &self,
        request: Request<Streaming<WriteFileRequest>>,
    ) -> Result<Response<WriteFileResponse>, Status> {
        files::write(&self.parts, request).await
    }

    async fn list_directory(
        &self,
        request: Request<ListDirectoryRequest>,
    ) -> Result<Response<ListDirectoryResponse>, Status> {
        files::list(&self.parts, request).await
    }

    async fn stat_file(&self, request: Request<StatFileRequest>) -> Result<Response<StatFileResponse>, Status> {
        files::stat(&self.parts, request).await
    }

    async fn remove_file(&self, request: Request<RemoveFileRequest>) -> Result<Response<RemoveFileResponse>, Status> {
        files::remove(&self.parts, request).await
    }

    async fn make_directory(
        &self,
        request: Request<MakeDirectoryRequest>,
    ) -> Result<Response<MakeDirectoryResponse>, Status> {
        files::make_directory(&self.parts, request).await
    }

    async fn rename_file(&self, request: Request<RenameFileRequest>) -> Result<Response<RenameFileResponse>, Status> {
        files::rename(&self.parts, request).await
    }

    async fn read_tree(&self, request: Request<ReadTreeRequest>) -> Result<Response<Self::ReadTreeStream>, Status> {
        files::read_tree(&self.parts, request).await
    }

    async fn write_tree(
        &self,
        request: Request<Streaming<WriteTreeRequest>>,
    ) -> Result<Response<WriteTreeResponse>, Status> {
        files::write_tree(&self.parts, request).await
    }

    async fn watch_files(
        &self,
        request: Request<WatchFilesRequest>,
    ) -> Result<Response<Self::WatchFilesStream>, Status> {
        files::watch(&self.parts, request).await
    }
}
