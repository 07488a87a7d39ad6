//! A client of one bot that receives every completion.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use errand_proto::v1::{
    AckNotificationsRequest, GetTaskRequest, ListTasksRequest, Notification, OutputFormat, OutputWatch, RunTaskRequest,
    StartTaskRequest, StreamOutputRequest, SubscribeRequest, TaskStatus,
    notification_service_client::NotificationServiceClient, run_task_response, stream_output_response,
    task_service_client::TaskServiceClient,
};
use tonic::transport::Channel;

use crate::completions::Completions;

/// The session that is used unless another one is given.
pub const SESSION: &str = "bench";
/// How long a task may take until it is running.
const RUNNING_LIMIT: Duration = Duration::from_mins(2);

/// Calls the server. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    bot: String,
    tasks: TaskServiceClient<Channel>,
    notifications: NotificationServiceClient<Channel>,
    completions: Arc<Completions>,
}

impl Client {
    /// Connects, and subscribes to the notifications of the bot's tasks.
    pub async fn new(channel: Channel, bot: &str) -> Result<Self> {
        let mut notifications = NotificationServiceClient::new(channel.clone());
        let request = SubscribeRequest { bot_id: bot.to_owned(), ..SubscribeRequest::default() };
        let stream = notifications.subscribe(request).await?.into_inner();
        let completions = Arc::new(Completions::default());
        tokio::spawn(Arc::clone(&completions).collect(stream));
        Ok(Self { bot: bot.to_owned(), tasks: TaskServiceClient::new(channel), notifications, completions })
    }

    /// The bot's name.
    pub fn bot(&self) -> &str {
        &self.bot
    }

    fn request(&self, session: &str, command: &str) -> StartTaskRequest {
        StartTaskRequest {
            bot_id: self.bot.clone(),
            session_id: session.to_owned(),
            command: command.to_owned(),
            // The same shell as on the other side.
            shell: "sh".to_owned(),
            // No output is dropped, not even a gigabyte.
            output_limit_bytes: 8 << 30,
            ..StartTaskRequest::default()
        }
    }

    /// Starts a command in the background. Returns the task's id.
    pub async fn start(&mut self, command: &str) -> Result<String> {
        self.start_in(SESSION, command).await
    }

    /// Starts a command of a session in the background. Returns the task's id.
    pub async fn start_in(&mut self, session: &str, command: &str) -> Result<String> {
        let started = self.tasks.start_task(self.request(session, command)).await?.into_inner();
        Ok(started.task.unwrap_or_default().task_id)
    }

    /// Starts a command of a session in the background, with watches of its output. Returns the task's id.
    pub async fn start_watched(&mut self, session: &str, command: &str, watches: &[OutputWatch]) -> Result<String> {
        let request = StartTaskRequest { watches: watches.to_vec(), ..self.request(session, command) };
        let started = self.tasks.start_task(request).await?.into_inner();
        Ok(started.task.unwrap_or_default().task_id)
    }

    /// Waits for the notification of a task's completion.
    pub async fn completion(&self, task: &str) -> Result<Notification> {
        self.completions.of(task).await
    }

    /// Starts a command and waits for the notification of its completion.
    pub async fn complete(&mut self, command: &str) -> Result<Notification> {
        let task = self.start(command).await?;
        let notification = self.completions.of(&task).await?;
        ensure!(notification.status == i32::from(TaskStatus::Succeeded), "the task ended badly: {notification:?}");
        Ok(notification)
    }

    /// Acknowledges a notification.
    pub async fn acknowledge(&mut self, notification: &Notification) -> Result<()> {
        let sequences = vec![notification.sequence];
        let request = AckNotificationsRequest { bot_id: self.bot.clone(), sequences, ..Default::default() };
        let acknowledged = self.notifications.ack_notifications(request).await?.into_inner().acknowledged;
        ensure!(acknowledged == 1, "the notification was acknowledged before");
        Ok(())
    }

    /// Runs a command to its end with a single call. Returns the time until its first output.
    pub async fn run_first_byte(&mut self, command: &str) -> Result<Duration> {
        let start = Some(self.request(SESSION, command));
        let request = RunTaskRequest { start, acknowledge: true, ..RunTaskRequest::default() };
        let begun = Instant::now();
        let mut taken = None;
        let mut stream = self.tasks.run_task(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            if let Some(run_task_response::Event::Output(_)) = message.event {
                taken.get_or_insert_with(|| begun.elapsed());
            }
        }
        taken.context("no output")
    }

    /// Starts a command, follows it to its end and acknowledges the completion. Returns the time until its first output.
    pub async fn first_byte(&mut self, command: &str) -> Result<Duration> {
        let begun = Instant::now();
        let task = self.start(command).await?;
        let mut taken = None;
        self.follow(&task, |_| taken = taken.or_else(|| Some(begun.elapsed()))).await?;
        let notification = self.completion(&task).await?;
        self.acknowledge(&notification).await?;
        taken.context("no output")
    }

    /// Follows a task's output to its end, and fails unless the task succeeded. Calls `seen` with the size of each piece.
    pub async fn follow(&mut self, task: &str, mut seen: impl FnMut(u64)) -> Result<()> {
        let format = OutputFormat::Lz4.into();
        let request = StreamOutputRequest { task_id: task.to_owned(), format, ..StreamOutputRequest::default() };
        let mut stream = self.tasks.stream_output(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            match message.event {
                Some(stream_output_response::Event::Output(part)) => {
                    seen(part.bytes()?.len() as u64);
                }
                Some(stream_output_response::Event::Finished(task)) => {
                    ensure!(task.status == i32::from(TaskStatus::Succeeded), "the task ended badly: {task:?}");
                }
                None => {}
            }
        }
        Ok(())
    }

    /// The round-trip time of the smallest call.
    pub async fn round_trip(&mut self) -> Result<Duration> {
        let request = ListTasksRequest { bot_id: "nobody".to_owned(), page_size: 1, ..ListTasksRequest::default() };
        let begun = Instant::now();
        self.tasks.list_tasks(request).await?;
        Ok(begun.elapsed())
    }

    /// How many of the bot's tasks are running.
    pub async fn count_running(&mut self) -> Result<usize> {
        let statuses = vec![i32::from(TaskStatus::Running)];
        let mut request =
            ListTasksRequest { bot_id: self.bot.clone(), statuses, page_size: 1000, ..ListTasksRequest::default() };
        let mut count = 0;
        loop {
            let page = self.tasks.list_tasks(request.clone()).await?.into_inner();
            count += page.tasks.len();
            if page.next_page_token.is_empty() {
                return Ok(count);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Waits until a task is running.
    pub async fn running(&mut self, task_id: &str) -> Result<()> {
        let deadline = Instant::now() + RUNNING_LIMIT;
        while Instant::now() < deadline {
            let request = GetTaskRequest { task_id: task_id.to_owned(), ..GetTaskRequest::default() };
            let task = self.tasks.get_task(request).await?.into_inner().task.unwrap_or_default();
            match task.status() {
                TaskStatus::Queued | TaskStatus::Starting => tokio::time::sleep(Duration::from_millis(50)).await,
                TaskStatus::Running => return Ok(()),
                _ => bail!("the task does not run: {task:?}"),
            }
        }
        bail!("the task does not start")
    }
}
