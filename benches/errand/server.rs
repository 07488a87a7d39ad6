//! A real server with one sandbox, and a client that is told of every completion.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bollard::{Docker, query_parameters::RemoveContainerOptionsBuilder};
use errand::proto::v1::{
    AckNotificationsRequest, EnsureSandboxRequest, Notification, NotificationKind, RunTaskRequest, StartTaskRequest,
    StreamOutputRequest, SubscribeRequest, TaskStatus, notification_service_client::NotificationServiceClient,
    run_task_response, sandbox_service_client::SandboxServiceClient, stream_output_response,
    task_service_client::TaskServiceClient,
};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tonic::{Streaming, transport::Channel};

const BOT: &str = "bench";
const SESSION: &str = "bench";
/// How long the server has to say that it serves.
const START: Duration = Duration::from_secs(20);

/// A running server. Ended, with its sandbox, when dropped.
pub struct Server {
    process: Process,
    sandbox: Sandbox,
    client: Client,
    _data: TempDir,
}

/// Calls the server. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    tasks: TaskServiceClient<Channel>,
    notifications: NotificationServiceClient<Channel>,
    completions: Arc<Completions>,
}

impl Server {
    /// Starts a server on an empty database, and makes the sandbox.
    pub async fn start(docker: &Docker) -> Result<Self> {
        let data = tempfile::tempdir()?;
        let log = data.path().join("server.log");
        let cores = thread::available_parallelism()?.get().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_errand"));
        // The limits of the defaults would be met by the load, not by the server.
        command.args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--max-running-per-bot",
            "10000",
            "--max-running-per-tenant",
        ]);
        command.args(["10000", "--pids-limit", "30000", "--memory-bytes", "8GiB", "--cpus", &cores]);
        command.arg("--data-dir").arg(data.path().join("data"));
        let mut process =
            Process(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?).spawn()?);

        let channel = process.ready().await.with_context(|| {
            format!("the server says:\n{}", std::fs::read_to_string(&log).unwrap_or_default().trim_end())
        })?;
        let request = EnsureSandboxRequest { bot_id: BOT.to_owned(), spec: None };
        let ensured = SandboxServiceClient::new(channel.clone()).ensure_sandbox(request).await;
        let container = ensured.context("make the sandbox")?.into_inner().sandbox.unwrap_or_default().container_id;
        let sandbox = Sandbox { docker: docker.clone(), container };

        let mut notifications = NotificationServiceClient::new(channel.clone());
        let request = SubscribeRequest { bot_id: BOT.to_owned(), ..SubscribeRequest::default() };
        let stream = notifications.subscribe(request).await?.into_inner();
        let completions = Arc::new(Completions::default());
        tokio::spawn(Arc::clone(&completions).collect(stream));
        let client = Client { tasks: TaskServiceClient::new(channel), notifications, completions };
        Ok(Self { process, sandbox, client, _data: data })
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// The sandbox's container.
    pub fn container(&self) -> &str {
        &self.sandbox.container
    }

    /// The client.
    pub fn client(&self) -> Client {
        self.client.clone()
    }
}

fn start_request(command: &str) -> StartTaskRequest {
    StartTaskRequest {
        bot_id: BOT.to_owned(),
        session_id: SESSION.to_owned(),
        command: command.to_owned(),
        // As the other side does.
        shell: "sh".to_owned(),
        ..StartTaskRequest::default()
    }
}

impl Client {
    /// Starts a command in the background. Returns the task's id.
    pub async fn start(&mut self, command: &str) -> Result<String> {
        let started = self.tasks.start_task(start_request(command)).await?.into_inner();
        Ok(started.task.unwrap_or_default().task_id)
    }

    /// Starts a command and waits for the notification of its completion.
    pub async fn complete(&mut self, command: &str) -> Result<Notification> {
        let task = self.start(command).await?;
        let notification = self.completions.of(task).await?;
        ensure!(notification.status == i32::from(TaskStatus::Succeeded), "the task ended badly: {notification:?}");
        Ok(notification)
    }

    /// Acknowledges a notification.
    pub async fn acknowledge(&mut self, notification: &Notification) -> Result<()> {
        let sequences = vec![notification.sequence];
        let request = AckNotificationsRequest { bot_id: BOT.to_owned(), sequences, ..Default::default() };
        let acknowledged = self.notifications.ack_notifications(request).await?.into_inner().acknowledged;
        ensure!(acknowledged == 1, "the notification was acknowledged before");
        Ok(())
    }

    /// Runs a command to its end. Returns how long its first output took.
    pub async fn first_byte(&mut self, command: &str) -> Result<Duration> {
        let request =
            RunTaskRequest { start: Some(start_request(command)), acknowledge: true, ..RunTaskRequest::default() };
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

    /// Starts a command and follows its output to the end. Returns how many bytes it printed.
    pub async fn output(&mut self, command: &str) -> Result<u64> {
        let task_id = self.start(command).await?;
        let request = StreamOutputRequest { task_id, ..StreamOutputRequest::default() };
        let mut stream = self.tasks.stream_output(request).await?.into_inner();
        let mut bytes = 0;
        while let Some(message) = stream.message().await? {
            match message.event {
                Some(stream_output_response::Event::Output(part)) => bytes += (part.next_offset - part.offset) as u64,
                Some(stream_output_response::Event::Finished(task)) => {
                    ensure!(task.status == i32::from(TaskStatus::Succeeded), "the task ended badly: {task:?}");
                }
                None => {}
            }
        }
        Ok(bytes)
    }

    /// Waits until a task is running.
    pub async fn running(&mut self, task_id: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while Instant::now() < deadline {
            let request = errand::proto::v1::GetTaskRequest { task_id: task_id.to_owned(), ..Default::default() };
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

/// Completions that were announced, and those who wait for one.
#[derive(Default)]
struct Completions {
    slots: Mutex<HashMap<String, Slot>>,
}

enum Slot {
    Arrived(Box<Notification>),
    Awaited(oneshot::Sender<Notification>),
}

impl Completions {
    async fn collect(self: Arc<Self>, mut stream: Streaming<errand::proto::v1::SubscribeResponse>) {
        while let Ok(Some(message)) = stream.message().await {
            let Some(notification) = message.notification else { continue };
            if notification.kind != i32::from(NotificationKind::Completed) {
                continue;
            }
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            match slots.remove(&notification.task_id) {
                Some(Slot::Awaited(waiting)) => drop(waiting.send(notification)),
                Some(Slot::Arrived(_)) | None => {
                    slots.insert(notification.task_id.clone(), Slot::Arrived(Box::new(notification)));
                }
            }
        }
    }

    async fn of(&self, task: String) -> Result<Notification> {
        let arrives = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(Slot::Arrived(notification)) = slots.remove(&task) {
                return Ok(*notification);
            }
            let (announce, arrives) = oneshot::channel();
            slots.insert(task, Slot::Awaited(announce));
            arrives
        };
        let waited = tokio::time::timeout(Duration::from_secs(120), arrives).await;
        waited.context("no notification within two minutes")?.context("the subscription ended")
    }
}

/// A process of this machine, killed when dropped.
struct Process(Child);

impl Process {
    /// Waits until the server serves. Its first line says where.
    async fn ready(&mut self) -> Result<Channel> {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().context("its output")?).read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        let endpoint = Channel::from_shared(format!("http://{address}"))?;
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            ensure!(self.0.try_wait()?.is_none(), "the server ended");
            if let Ok(channel) = endpoint.connect().await {
                let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
                let answer = health.check(tonic_health::pb::HealthCheckRequest::default()).await;
                if answer.is_ok_and(|answer| answer.into_inner().status == 1) {
                    return Ok(channel);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("the server did not begin to serve within {START:?}")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A container, removed when dropped.
struct Sandbox {
    docker: Docker,
    container: String,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let (docker, container) = (self.docker.clone(), self.container.clone());
        // A destructor cannot wait for the runtime that it runs on.
        let removal = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            anyhow::Ok(runtime.block_on(docker.remove_container(&container, Some(options)))?)
        });
        if !matches!(removal.join(), Ok(Ok(()))) {
            eprintln!("the container {} is left", self.container);
        }
    }
}
