//! `TaskService`: reads requests, calls the engine, answers.

mod follow;
mod read;
mod run;
mod wait;
mod watch;

use std::{pin::Pin, sync::Arc, time::SystemTime};

use futures_util::Stream;
use tonic::{Request, Response, Status};

use super::{
    Parts,
    auth::{Caller, TenantUse},
    convert, page, status, trace, validate,
};
use errand_engine::InputResult;
use errand_proto::v1::{
    self, GetTaskRequest, GetTaskResponse, InputLimit, ListTasksRequest, ListTasksResponse, ReadOutputRequest,
    ReadOutputResponse, ResizeTerminalRequest, ResizeTerminalResponse, RunTaskRequest, RunTaskResponse,
    SetNotifyPolicyRequest, SetNotifyPolicyResponse, SetWatchesRequest, SetWatchesResponse, SignalTaskRequest,
    SignalTaskResponse, StartTaskRequest, StartTaskResponse, StopTaskRequest, StopTaskResponse, StopTasksRequest,
    StopTasksResponse, StreamOutputRequest, StreamOutputResponse, SummarizeTasksRequest, SummarizeTasksResponse,
    WaitTaskRequest, WaitTaskResponse, WaitTasksRequest, WaitTasksResponse, WatchTasksRequest, WatchTasksResponse,
    WriteInputRequest, WriteInputResponse, task_service_server::TaskService,
};
use errand_store::BotFilter;
use errand_task::{Task, summarize};

/// The service.
#[derive(Clone)]
pub(super) struct Tasks {
    parts: Arc<Parts>,
}

impl Tasks {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self { parts }
    }
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A page of at most this many tasks is converted faster than it could be handed to another thread.
const SMALL_PAGE: usize = 32;

/// Converts tasks for the caller. A large page is converted on a blocking thread: the server has few worker threads, and the calls of all
/// other tenants would wait.
async fn converted(tasks: Vec<Task>) -> Result<Vec<v1::Task>, Status> {
    if tasks.len() <= SMALL_PAGE {
        return Ok(tasks.into_iter().map(convert::task).collect());
    }
    let converting = tokio::task::spawn_blocking(|| tasks.into_iter().map(convert::task).collect());
    converting.await.map_err(|error| Status::internal(format!("converting a page of tasks ended: {error}")))
}

#[tonic::async_trait]
impl TaskService for Tasks {
    type RunTaskStream = Events<RunTaskResponse>;
    type StreamOutputStream = Events<StreamOutputResponse>;
    type WatchTasksStream = Events<WatchTasksResponse>;

    async fn start_task(&self, request: Request<StartTaskRequest>) -> Result<Response<StartTaskResponse>, Status> {
        let caller = Caller::of(&request)?;
        let inherited = trace::inherited(request.metadata());
        let mut start = validate::start(request.into_inner(), &caller, self.parts.engine.settings())?;
        caller.may_use(&start.owner.bot)?;
        start.spec.traceparent = start.spec.traceparent.or(inherited);
        let started = self.parts.engine.start(start).await.map_err(status::engine)?;
        Ok(Response::new(StartTaskResponse { task: Some(convert::task(started.task)), existed: started.existed }))
    }

    async fn run_task(&self, request: Request<RunTaskRequest>) -> Result<Response<Self::RunTaskStream>, Status> {
        let caller = Caller::of(&request)?;
        let inherited = trace::inherited(request.metadata());
        let mut run = validate::run(request.into_inner(), &caller, self.parts.engine.settings())?;
        caller.may_use(&run.start.owner.bot)?;
        run.start.spec.traceparent = run.start.spec.traceparent.or(inherited);
        Ok(Response::new(Box::pin(run::run(Arc::clone(&self.parts), run).await?)))
    }

    async fn get_task(&self, request: Request<GetTaskRequest>) -> Result<Response<GetTaskResponse>, Status> {
        let caller = Caller::of(&request)?;
        let task = validate::get(request.get_ref(), &caller)?;
        let task = self.parts.engine.task(&task).await.map_err(status::engine)?;
        Ok(Response::new(GetTaskResponse { task: Some(convert::task(task)) }))
    }

    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Result<Response<ListTasksResponse>, Status> {
        let caller = Caller::of(&request)?;
        let mut query = validate::list(request.into_inner(), &caller)?;
        if let BotFilter::One(bot) = &query.bots {
            caller.may_use(bot)?;
        }
        let limit = query.limit;
        // One more task than shown, to know whether there is another page.
        query.limit += 1;
        let found = self.parts.engine.task_page(query).await.map_err(status::engine)?;
        let mut tasks = converted(found.tasks).await?;
        let more = page::cut(&mut tasks, limit);
        let last = tasks.last().filter(|_| more);
        // The next page begins after the last entry shown. If the store searched far and found little, it begins where the search stopped.
        let next_page_token =
            last.map(|task| page::token(&task.task_id)).or(found.next.map(page::token)).unwrap_or_default();
        Ok(Response::new(ListTasksResponse { tasks, next_page_token }))
    }

    async fn wait_task(&self, request: Request<WaitTaskRequest>) -> Result<Response<WaitTaskResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = validate::wait(request.into_inner(), &caller)?;
        Ok(Response::new(wait::one(&self.parts, request).await?))
    }

    async fn wait_tasks(&self, request: Request<WaitTasksRequest>) -> Result<Response<WaitTasksResponse>, Status> {
        let caller = Caller::of(&request)?;
        let several = validate::wait_for_several(request.into_inner(), &caller)?;
        Ok(Response::new(wait::several(&self.parts, several).await?))
    }

    async fn read_output(&self, request: Request<ReadOutputRequest>) -> Result<Response<ReadOutputResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (task, read, acknowledge) = validate::read(request.get_ref(), &caller)?;
        Ok(Response::new(read::read(&self.parts, &task, read, acknowledge).await?))
    }

    async fn stream_output(
        &self,
        request: Request<StreamOutputRequest>,
    ) -> Result<Response<Self::StreamOutputStream>, Status> {
        let caller = Caller::of(&request)?;
        let stream = validate::stream(request.get_ref(), &caller)?;
        Ok(Response::new(Box::pin(follow::follow(&self.parts, stream).await?)))
    }

    async fn write_input(&self, request: Request<WriteInputRequest>) -> Result<Response<WriteInputResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (task, input) = validate::write_input(request.into_inner(), &caller)?;
        let written = self.parts.unless_ending(self.parts.engine.write_input(&task, input)).await?;
        let InputResult { taken, accepted, ended, line_full } = written.map_err(status::engine)?;
        let (taken_bytes, accepted_bytes) = (convert::count(taken), convert::count(accepted));
        let limited_by = if line_full { InputLimit::TerminalLine } else { InputLimit::Unspecified };
        Ok(Response::new(WriteInputResponse { taken_bytes, accepted_bytes, ended, limited_by: limited_by.into() }))
    }

    async fn resize_terminal(
        &self,
        request: Request<ResizeTerminalRequest>,
    ) -> Result<Response<ResizeTerminalResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (task, size) = validate::resize_terminal(request.get_ref(), &caller)?;
        let resized = self.parts.unless_ending(self.parts.engine.resize_terminal(&task, size)).await?;
        resized.map_err(status::engine)?;
        Ok(Response::new(ResizeTerminalResponse {}))
    }

    async fn signal_task(&self, request: Request<SignalTaskRequest>) -> Result<Response<SignalTaskResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (task, signal, target) = validate::signal(request.get_ref(), &caller)?;
        let sent = self.parts.unless_ending(self.parts.engine.signal(&task, signal, target)).await?;
        let (task, count) = sent.map_err(status::engine)?;
        let signaled_processes = i32::try_from(count).unwrap_or(i32::MAX);
        Ok(Response::new(SignalTaskResponse { task: Some(convert::task(task)), signaled_processes }))
    }

    async fn set_notify_policy(
        &self,
        request: Request<SetNotifyPolicyRequest>,
    ) -> Result<Response<SetNotifyPolicyResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (task, policy) = validate::set_notify_policy(request.get_ref(), &caller)?;
        let set = self.parts.unless_ending(self.parts.engine.set_notify_policy(&task, policy)).await?;
        Ok(Response::new(SetNotifyPolicyResponse { task: Some(convert::task(set.map_err(status::engine)?)) }))
    }

    async fn set_watches(&self, request: Request<SetWatchesRequest>) -> Result<Response<SetWatchesResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (task, watches, from) = validate::set_watches(request.into_inner(), &caller)?;
        let set = self.parts.unless_ending(self.parts.engine.set_watches(&task, watches, from)).await?;
        let task = set.map_err(status::engine)?;
        Ok(Response::new(SetWatchesResponse { watches: convert::watches(task.watches) }))
    }

    async fn stop_task(&self, request: Request<StopTaskRequest>) -> Result<Response<StopTaskResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (task, cause, grace) = validate::stop(request.into_inner(), &caller, self.parts.engine.settings())?;
        let stopped = self.parts.unless_ending(self.parts.engine.stop(&task, cause, grace)).await?;
        let task = stopped.map_err(status::engine)?;
        Ok(Response::new(StopTaskResponse { task: Some(convert::task(task)) }))
    }

    async fn stop_tasks(&self, request: Request<StopTasksRequest>) -> Result<Response<StopTasksResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (scope, cause, grace) = validate::stop_all(request.into_inner(), &caller, self.parts.engine.settings())?;
        caller.may_use(&scope.bot)?;
        let stopped = self.parts.unless_ending(self.parts.engine.stop_all(&scope, cause, grace)).await?;
        let stopped = stopped.map_err(status::engine)?;
        let stopped_count = stopped.len();
        let tasks = page::filled(stopped.into_iter().map(convert::task));
        let more = tasks.len() < stopped_count;
        let stopped_count = i32::try_from(stopped_count).unwrap_or(i32::MAX);
        Ok(Response::new(StopTasksResponse { tasks, stopped_count, more }))
    }

    async fn summarize_tasks(
        &self,
        request: Request<SummarizeTasksRequest>,
    ) -> Result<Response<SummarizeTasksResponse>, Status> {
        let caller = Caller::of(&request)?;
        let scope = validate::scope(request.get_ref(), &caller)?;
        caller.may_use(&scope.bot)?;
        let tasks = self.parts.engine.unfinished(&scope).await.map_err(status::engine)?;
        let unfinished = i32::try_from(tasks.len()).unwrap_or(i32::MAX);
        Ok(Response::new(SummarizeTasksResponse { text: summarize(&tasks, SystemTime::now()), unfinished }))
    }

    async fn watch_tasks(
        &self,
        request: Request<WatchTasksRequest>,
    ) -> Result<Response<Self::WatchTasksStream>, Status> {
        let caller = Caller::of(&request)?;
        let query = validate::watch(request.get_ref(), &caller)?;
        let limit = self.parts.subscriptions_per_bot;
        let usage = request.extensions().get::<Arc<TenantUse>>();
        let held = match &query.bots {
            BotFilter::One(bot) => {
                caller.may_use(bot)?;
                usage.map(|usage| usage.watch_bot(bot, limit))
            }
            BotFilter::All | BotFilter::Matching(_) => usage.map(|usage| usage.watch_all(limit)),
        };
        let watch = self.parts.engine.watch(query);
        Ok(Response::new(Box::pin(watch::stream(watch, held.transpose()?, self.parts.shutdown.clone()))))
    }
}
