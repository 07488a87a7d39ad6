//! A client's view of the server: one session of a bot.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use errand_proto::v1::{self, notification_service_client::NotificationServiceClient, outcome::Kind, *};
use errand_proto::v1::{sandbox_service_client::SandboxServiceClient, task_service_client::TaskServiceClient};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::{
    ground::Ground,
    wait::{eventually, soon},
};

/// The largest answer, in bytes, that a test accepts.
const LARGEST_ANSWER: usize = 64 << 20;

/// The current connection to a server. It changes when the server is restarted.
#[derive(Clone, Default)]
pub struct Link(Arc<RwLock<Option<Channel>>>);

impl Link {
    pub fn set(&self, channel: Channel) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(channel);
    }

    pub fn channel(&self) -> Channel {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone().expect("the server was started")
    }
}

/// Adds the token to each request, if there is one.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

pub type Service = InterceptedService<Channel, Bearer>;

/// A session of a bot.
#[derive(Clone)]
pub struct Session {
    pub ground: Ground,
    pub bot: String,
    pub session: String,
    link: Link,
    token: Option<String>,
}

/// Either a task's id or a task.
pub trait Id {
    fn id(&self) -> String;
}

impl Id for Task {
    fn id(&self) -> String {
        self.task_id.clone()
    }
}

impl Id for str {
    fn id(&self) -> String {
        self.to_owned()
    }
}

impl Id for String {
    fn id(&self) -> String {
        self.clone()
    }
}

impl Session {
    pub fn new(ground: Ground, link: Link, bot: String, session: String, token: Option<String>) -> Self {
        Self { ground, bot, session, link, token }
    }

    fn service(&self) -> Service {
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}").parse().unwrap());
        InterceptedService::new(self.link.channel(), Bearer(bearer))
    }

    pub fn tasks(&self) -> TaskServiceClient<Service> {
        TaskServiceClient::new(self.service()).max_decoding_message_size(LARGEST_ANSWER)
    }

    pub fn notifications(&self) -> NotificationServiceClient<Service> {
        NotificationServiceClient::new(self.service()).max_decoding_message_size(LARGEST_ANSWER)
    }

    pub fn sandboxes(&self) -> SandboxServiceClient<Service> {
        SandboxServiceClient::new(self.service()).max_decoding_message_size(LARGEST_ANSWER)
    }

    /// A request to start this command.
    pub fn request(&self, command: &str) -> StartTaskRequest {
        StartTaskRequest {
            bot_id: self.bot.clone(),
            session_id: self.session.clone(),
            command: command.to_owned(),
            ..Default::default()
        }
    }

    /// A request to start this program without a shell.
    pub fn argv(&self, argv: &[&str]) -> StartTaskRequest {
        StartTaskRequest { argv: argv.iter().map(|part| (*part).to_owned()).collect(), ..self.request("") }
    }

    // Calls of tasks are on the heap: in a debug build their futures are so large that a dozen of them, joined, exceed a test's stack.
    pub async fn try_start(&self, request: StartTaskRequest) -> Result<StartTaskResponse, Status> {
        Ok(soon("a task is accepted", Box::pin(self.tasks().start_task(request))).await?.into_inner())
    }

    pub async fn start_as(&self, request: StartTaskRequest) -> Task {
        self.try_start(request).await.unwrap().task.unwrap()
    }

    /// Starts a command.
    pub async fn start(&self, command: &str) -> Task {
        self.start_as(self.request(command)).await
    }

    /// Runs a command to its end.
    pub async fn run(&self, command: &str) -> Task {
        let task = self.start(command).await;
        self.finished(&task).await
    }

    /// Runs a request to its end.
    pub async fn run_as(&self, request: StartTaskRequest) -> Task {
        let task = self.start_as(request).await;
        self.finished(&task).await
    }

    pub async fn get(&self, task: &(impl Id + ?Sized)) -> Task {
        let request = GetTaskRequest { task_id: task.id(), ..Default::default() };
        self.tasks().get_task(request).await.unwrap().into_inner().task.unwrap()
    }

    /// All tasks that match, newest first. A page can be short on a busy machine, so this reads pages until there is no other.
    pub async fn listed(&self, mut request: ListTasksRequest) -> Vec<Task> {
        let mut tasks = Vec::new();
        loop {
            let page = self.tasks().list_tasks(request.clone()).await.unwrap().into_inner();
            tasks.extend(page.tasks);
            if page.next_page_token.is_empty() {
                return tasks;
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Waits until a task has ended.
    pub async fn finished(&self, task: &(impl Id + ?Sized)) -> Task {
        let request = WaitTaskRequest { task_id: task.id(), timeout: duration(50.0), ..Default::default() };
        let waited = soon("a task ends", Box::pin(self.tasks().wait_task(request))).await.unwrap().into_inner();
        let ended = waited.task.unwrap();
        assert_eq!(waited.result, i32::from(WaitResult::Finished), "still {:?}: {ended:?}", ended.status());
        ended
    }

    /// Waits until a task has this status.
    pub async fn until(&self, task: &(impl Id + ?Sized), status: TaskStatus) -> Task {
        let id = task.id();
        eventually(&format!("the task is {}", status.as_str_name()), async || {
            let task = self.get(&id).await;
            if task.status() != status {
                assert!(!is_terminal(task.status()), "ended instead: {task:?}");
                return None;
            }
            Some(task)
        })
        .await
    }

    /// Starts a command and waits until it runs.
    pub async fn running(&self, command: &str) -> Task {
        let task = self.start(command).await;
        self.until(&task, TaskStatus::Running).await
    }

    /// Waits until a task's output contains `wanted`.
    pub async fn until_output(&self, task: &(impl Id + ?Sized), wanted: &str) {
        let id = task.id();
        eventually(&format!("the output holds {wanted:?}"), async || {
            self.text(&id).await.contains(wanted).then_some(())
        })
        .await;
    }

    pub async fn try_read(&self, request: ReadOutputRequest) -> Result<ReadOutputResponse, Status> {
        Ok(soon("output is read", self.tasks().read_output(request)).await?.into_inner())
    }

    /// The first MiB of a task's output.
    pub async fn output(&self, task: &(impl Id + ?Sized)) -> Vec<u8> {
        let range = OutputRange { offset: 0, limit: 1 << 20 };
        let selection = Some(read_output_request::Selection::Range(range));
        let request = ReadOutputRequest { task_id: task.id(), selection, ..Default::default() };
        let read = self.try_read(request).await.unwrap();
        read.parts.into_iter().flat_map(|part| bytes(&part)).collect()
    }

    /// The first MiB of a task's output, as text.
    pub async fn text(&self, task: &(impl Id + ?Sized)) -> String {
        String::from_utf8_lossy(&self.output(task).await).into_owned()
    }

    pub async fn stop(&self, task: &(impl Id + ?Sized), grace: Option<f64>) -> Task {
        let grace = grace.and_then(duration);
        let request = StopTaskRequest { task_id: task.id(), grace, ..Default::default() };
        let stopped = soon("a task is stopped", self.tasks().stop_task(request)).await.unwrap();
        stopped.into_inner().task.unwrap()
    }

    /// Every notification of the session, oldest first. Waits for those still to come.
    pub async fn told(&self) -> Vec<Notification> {
        let request = ListNotificationsRequest {
            bot_id: self.bot.clone(),
            session_id: self.session.clone(),
            include_acknowledged: true,
            page_size: 1000,
            ..Default::default()
        };
        self.notifications().list_notifications(request).await.unwrap().into_inner().notifications
    }

    /// The kinds of the session's notifications about one task.
    pub async fn told_of(&self, task: &(impl Id + ?Sized)) -> Vec<&'static str> {
        let id = task.id();
        let told = self.told().await;
        told.iter().filter(|notification| notification.task_id == id).map(|told| kind(told.kind())).collect()
    }

    pub async fn subscribe(&self, request: SubscribeRequest) -> Subscription {
        let request = SubscribeRequest {
            bot_id: self.bot.clone(),
            session_id: if request.session_id == "*" { String::new() } else { self.session.clone() },
            ..request
        };
        Subscription(self.notifications().subscribe(request).await.unwrap().into_inner())
    }

    pub async fn drain(&self, lease: Option<f64>) -> DrainNotificationsResponse {
        let request = DrainNotificationsRequest {
            bot_id: self.bot.clone(),
            session_id: self.session.clone(),
            lease_duration: lease.and_then(duration),
            ..Default::default()
        };
        self.notifications().drain_notifications(request).await.unwrap().into_inner()
    }

    pub async fn ack(&self, sequences: &[i64]) -> i32 {
        let request = AckNotificationsRequest {
            bot_id: self.bot.clone(),
            session_id: self.session.clone(),
            sequences: sequences.to_vec(),
            ..Default::default()
        };
        self.notifications().ack_notifications(request).await.unwrap().into_inner().acknowledged
    }

    /// Creates the bot's sandbox, or finds the existing one.
    pub async fn ensure(&self, spec: Option<SandboxSpec>) -> Result<Sandbox, Status> {
        let request = EnsureSandboxRequest { bot_id: self.bot.clone(), spec };
        Ok(soon("a sandbox is made", self.sandboxes().ensure_sandbox(request)).await?.into_inner().sandbox.unwrap())
    }

    pub async fn adopt(&self, container: &str) -> Result<Sandbox, Status> {
        let request = AdoptSandboxRequest { bot_id: self.bot.clone(), container: container.to_owned() };
        Ok(self.sandboxes().adopt_sandbox(request).await?.into_inner().sandbox.unwrap())
    }

    pub async fn sandbox(&self) -> Result<Sandbox, Status> {
        let request = GetSandboxRequest { bot_id: self.bot.clone() };
        Ok(self.sandboxes().get_sandbox(request).await?.into_inner().sandbox.unwrap())
    }

    /// Runs a script in the bot's sandbox without going through the server.
    pub async fn exec(&self, script: &str) -> String {
        let sandbox = self.sandbox().await.unwrap();
        self.ground.exec(&sandbox.container_id, script).await
    }

    /// How many live processes of the sandbox have these words in their arguments, joined by spaces.
    pub async fn processes(&self, words: &str) -> usize {
        // A zombie has no arguments, so it is not counted.
        let script = "for p in /proc/[0-9]*; do { tr '\\0' ' ' <$p/cmdline; echo; } 2>/dev/null; done";
        self.exec(script).await.lines().filter(|line| line.contains(words)).count()
    }
}

/// A stream of notifications.
pub struct Subscription(tonic::Streaming<SubscribeResponse>);

impl Subscription {
    /// The next notification.
    pub async fn next(&mut self) -> Notification {
        let next = soon("a notification comes", self.0.message()).await;
        next.unwrap().expect("the subscription goes on").notification.unwrap()
    }

    /// The next notification, or none if none arrives within this time.
    pub async fn within(&mut self, limit: Duration) -> Option<Notification> {
        let next = tokio::time::timeout(limit, self.0.message()).await.ok()?;
        next.unwrap().expect("the subscription goes on").notification
    }
}

pub fn is_terminal(status: TaskStatus) -> bool {
    status as i32 >= TaskStatus::Succeeded as i32
}

/// Converts seconds to a protobuf duration.
pub fn duration(seconds: f64) -> Option<prost_types::Duration> {
    Some(Duration::from_secs_f64(seconds).try_into().unwrap())
}

/// Converts a protobuf timestamp.
pub fn time(timestamp: Option<prost_types::Timestamp>) -> SystemTime {
    timestamp.expect("the time is set").try_into().unwrap()
}

/// Describes in a few words how a task ended: the kind of outcome, then its details.
pub fn ended(task: &Task) -> String {
    match task.outcome.as_ref() {
        Some(outcome) => described(outcome),
        None => format!("not ended: {}", task.status().as_str_name()),
    }
}

/// Describes an outcome in a few words.
pub fn described(outcome: &Outcome) -> String {
    match outcome.kind.as_ref().expect("an outcome has a kind") {
        Kind::Exited(exited) => format!("exited {}", exited.code),
        Kind::Signaled(signaled) => format!("signaled {}", signaled.signal),
        Kind::TimedOut(_) => "timed_out".to_owned(),
        Kind::Stopped(stopped) => format!("stopped {} {}", stopped.by, stopped.signal),
        Kind::FailedToStart(failed) => {
            format!("failed_to_start {}", &failed.failure().as_str_name()["START_FAILURE_".len()..])
        }
        Kind::Lost(lost) => format!("lost {}", &lost.reason().as_str_name()["LOSS_REASON_".len()..]),
    }
}

/// The word for a kind of notification.
pub fn kind(kind: NotificationKind) -> &'static str {
    match kind {
        NotificationKind::Completed => "completed",
        NotificationKind::Stalled => "stalled",
        NotificationKind::Resumed => "resumed",
        NotificationKind::LateOutcome => "late_outcome",
        NotificationKind::Heartbeat => "heartbeat",
        NotificationKind::Idle => "idle",
        NotificationKind::WatchMatched => "watch_matched",
        NotificationKind::WatchDisabled => "watch_disabled",
        NotificationKind::WatchesSuspended => "watches_suspended",
        NotificationKind::WatchesRestored => "watches_restored",
        NotificationKind::Unspecified => "unspecified",
    }
}

/// The bytes of an output part that was requested as bytes.
pub fn bytes(part: &OutputPart) -> Vec<u8> {
    match part.content.as_ref().expect("a part has content") {
        v1::output_part::Content::Data(data) => data.to_vec(),
        other => panic!("bytes were asked for: {other:?}"),
    }
}

/// The text of an output part that was requested as text.
pub fn text(part: &OutputPart) -> String {
    match part.content.as_ref().expect("a part has content") {
        v1::output_part::Content::Text(text) => text.clone(),
        other => panic!("text was asked for: {other:?}"),
    }
}

/// Asserts that a call failed with this code, and returns the message.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) -> String {
    let status = result.expect_err("the call is refused");
    assert_eq!(status.code(), code, "{status:?}");
    status.message().to_owned()
}
