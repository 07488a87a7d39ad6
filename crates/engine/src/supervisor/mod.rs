//! Supervises one unfinished task, from its acceptance or its recovery to its end.
//!
//! Only a task's supervisor changes the task's record. It moves from step to step: launch, reconcile with the sandbox, follow, end. Every
//! change goes through the state machine and is committed, together with its notification, before any caller sees it.

mod follow;
mod launch;
mod look;
mod memory;
mod revival;
mod stall;
mod stopping;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    Inner,
    live::{LiveTask, StopOrder},
    output::WINDOW,
    permits::LaunchPermit,
    reconciling::Hold,
    sandbox::Sandbox,
    sandboxes::Place,
};
use errand_bridge::{Attachment, Finding, Piece, ReadError};
use errand_runtime::{Found, RuntimeError};
use errand_store::StoreError;
use errand_task::{Ending, Event, Gap, LossReason, NewNotification, NotificationKind, TAIL_LIMIT, Task, TaskState};
pub(super) use look::lost;
use stopping::Stopping;

/// How long to wait before the first retry of something that failed. Doubled with each retry.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often to try reading the rest of a log before leaving it unread, and how long each attempt may take.
const READ_ATTEMPTS: u32 = 3;
const READ_LIMIT: Duration = Duration::from_secs(10);
/// How long a sandbox may take to answer a question about a task.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Why a supervisor ends before its task does.
#[derive(Debug)]
pub(super) enum Left {
    /// The server is shutting down. The command keeps running and its record stays as it is.
    Ending,
    /// Another writer changed the record. This is a defect: only the supervisor may write it.
    Conflict,
}

/// The supervisor's next step.
pub(super) enum Step {
    /// Launch the command.
    Launch,
    /// Reconcile: find out what became of the command.
    Look,
    /// Decide by what recovery found in the task's sandbox.
    Judge(Box<Found>, Box<Finding>),
    /// Attach to a running command, then follow it.
    Attach,
    /// Follow the command through this attachment.
    Follow(Box<Attachment>),
    /// Commit how the command ended. The time is its start, if the record does not have it yet.
    End(Ending, Option<SystemTime>),
    /// Nothing: the end is committed.
    Over,
}

/// When to retry storing a record.
#[derive(Debug, Clone, Copy)]
struct Unsaved {
    retry_at: Instant,
    pause: Duration,
}

impl Unsaved {
    /// The first retry, after the first failure.
    fn now() -> Self {
        Self { retry_at: Instant::now() + FIRST_PAUSE, pause: FIRST_PAUSE }
    }
}

/// Supervises one task.
pub(super) struct Supervisor {
    inner: Arc<Inner>,
    live: Arc<LiveTask>,
    task: Task,
    sandbox: Sandbox,
    orders: watch::Receiver<Option<StopOrder>>,
    stopping: Option<Stopping>,
    /// Set while the store fails: the record may be newer than what is stored.
    unsaved: Option<Unsaved>,
    /// Where to launch, if the sandbox was seen running just now.
    place: Option<Place>,
    /// Held until the launched command has shown a sign of life.
    permit: Option<LaunchPermit>,
    /// When the launch was begun, if this server began it.
    launched_at: Option<Instant>,
    /// When the command was started, on this server's monotonic clock.
    began_at: Option<Instant>,
    /// Keeps calls about the bot waiting until this task is reconciled.
    hold: Option<Arc<Hold>>,
    /// How long the sandbox has not answered although the task has to end.
    deaf_for: Duration,
    /// Size of all output in bytes, where more is known to exist than was read.
    log_bytes: u64,
    /// True once `log_bytes` is the size of the log at the command's end.
    whole_log: bool,
    /// How many processes were killed for lack of memory, as the sandbox reports.
    oom_kills_told: u32,
}

impl Supervisor {
    /// Registers a task as unfinished. Its output is known from byte `output_start` on.
    pub(super) fn new(inner: &Arc<Inner>, task: Task, sandbox: Sandbox, output_start: u64) -> Self {
        let live = Arc::new(LiveTask::new(task.clone(), output_start));
        inner.enter(task.id, &live);
        Self::of(inner, live, task, sandbox)
    }

    /// Makes the supervisor of a task that is about to be accepted, with its launch permit if there is one. It must be made before the task
    /// is committed, so that a caller that learns of the task finds the supervisor.
    pub(super) fn of_new(inner: &Arc<Inner>, task: Task, place: Place, permit: Option<LaunchPermit>) -> Self {
        let mut supervisor = Self::new(inner, task, place.sandbox.clone(), 0);
        supervisor.place = permit.is_some().then_some(place);
        supervisor.permit = permit;
        supervisor
    }

    /// Unregisters a task that was not accepted.
    pub(super) fn withdraw(self) {
        self.inner.remove_live(self.task.id);
    }

    /// Keeps calls about the bot waiting until this task is reconciled.
    pub(super) fn holding(mut self, hold: &Arc<Hold>) -> Self {
        self.hold = Some(Arc::clone(hold));
        self
    }

    /// Makes the supervisor of a task that is already registered.
    fn of(inner: &Arc<Inner>, live: Arc<LiveTask>, task: Task, sandbox: Sandbox) -> Self {
        let output_start = live.output.end();
        Self {
            inner: Arc::clone(inner),
            orders: live.orders(),
            live,
            task,
            sandbox,
            stopping: None,
            unsaved: None,
            place: None,
            permit: None,
            launched_at: None,
            began_at: None,
            hold: None,
            deaf_for: Duration::ZERO,
            log_bytes: output_start,
            whole_log: false,
            oom_kills_told: 0,
        }
    }

    /// Continues from `step` until the task has ended or the server shuts down.
    async fn drive(mut self, mut step: Step) -> Result<(), Left> {
        loop {
            step = match step {
                Step::Launch => {
                    self.hold = None;
                    self.launch().await?
                }
                Step::Look => self.look().await?,
                Step::Judge(found, finding) => self.first_judgement(&found, &finding).await?,
                Step::Attach => {
                    self.hold = None;
                    self.attach().await?
                }
                Step::Follow(attachment) => self.follow(*attachment).await?,
                Step::End(ending, started_at) => self.end(ending, started_at).await?,
                Step::Over => break,
            };
        }
        self.inner.remove_live(self.task.id);
        self.live.output.finish();
        Ok(())
    }

    /// Applies an event to the record and commits it. A terminal state is announced in the same transaction.
    ///
    /// An intent and the end of a task are retried until they are committed. An event that reports what has already happened in the
    /// sandbox, or that a stop was asked for, is true even if it cannot be stored: while the store fails, only this supervisor knows of it.
    async fn commit(&mut self, event: Event) -> Result<(), Left> {
        let mut task = self.task.clone();
        if !task.apply(event) {
            return Ok(());
        }
        match task.state {
            TaskState::Finished { .. } => self.commit_record(task, Some(NotificationKind::Completed)).await,
            TaskState::Queued | TaskState::Starting { .. } => self.commit_record(task, None).await,
            TaskState::Running { .. } | TaskState::Stopping { .. } => {
                if let Some(error) = self.store(&task, None).await? {
                    self.keep_unsaved(task, &error);
                }
                Ok(())
            }
        }
    }

    /// Commits a changed record and a notification about it. Retries until it succeeds: a change that is not committed has not happened.
    async fn commit_record(&mut self, task: Task, kind: Option<NotificationKind>) -> Result<(), Left> {
        let mut pause = FIRST_PAUSE;
        let notification = self.notification(&task, kind);
        while let Some(error) = self.store(&task, notification.clone()).await? {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a task's record could not be stored; trying again"
            );
            self.pause(&mut pause).await?;
        }
        Ok(())
    }

    /// Tries once to commit a changed record and a notification about it. On failure, everything stays as it was. Does not try while the
    /// store is known to fail.
    async fn try_commit_record(&mut self, task: Task, kind: NotificationKind) -> Result<(), Left> {
        if self.unsaved.is_some() {
            return Ok(());
        }
        let notification = self.notification(&task, Some(kind));
        if let Some(error) = self.store(&task, notification).await? {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                ?kind,
                "a notice could not be stored; it is tried again when it is due again"
            );
            self.unsaved = Some(Unsaved::now());
        }
        Ok(())
    }

    /// Tries to commit a record that is newer than what is stored.
    async fn commit_unsaved(&mut self) -> Result<(), Left> {
        let Some(unsaved) = self.unsaved else { return Ok(()) };
        let task = self.task.clone();
        if let Some(error) = self.store(&task, None).await? {
            tracing::debug!(%error, "a task's record still cannot be stored");
            let pause = (unsaved.pause * 2).min(LONGEST_PAUSE);
            self.unsaved = Some(Unsaved { retry_at: Instant::now() + pause, pause });
        }
        Ok(())
    }

    /// Continues with a record that could not be stored.
    fn keep_unsaved(&mut self, mut task: Task, error: &StoreError) {
        tracing::error!(
            error = error as &dyn std::error::Error,
            status = task.status().word(),
            "a task's record could not be stored; going on without, and trying again"
        );
        self.summarize(&mut task);
        self.task = task.clone();
        self.live.publish(task);
        self.unsaved.get_or_insert(Unsaved::now());
    }

    /// Fills in what is known of the output.
    fn summarize(&self, task: &mut Task) {
        task.output = self.live.output.summary(task.output.incomplete, task.output.gap);
        task.output.bytes = task.output.bytes.max(self.log_bytes);
    }

    fn notification(&self, task: &Task, kind: Option<NotificationKind>) -> Option<NewNotification> {
        let kind = kind?;
        let mut task = task.clone();
        self.summarize(&mut task);
        Some(NewNotification::new(kind, &task, &self.live.output.tail(TAIL_LIMIT), SystemTime::now()))
    }

    /// Tries once to store a record and a notification about it. Returns the error if it may be transient.
    async fn store(&mut self, task: &Task, notification: Option<NewNotification>) -> Result<Option<StoreError>, Left> {
        let mut task = task.clone();
        self.summarize(&mut task);
        match self.inner.store.update_task(task, notification).await {
            Ok(task) => {
                tracing::debug!(status = task.status().word(), "committed");
                self.unsaved = None;
                self.task = task.clone();
                self.live.publish(task);
                Ok(None)
            }
            Err(StoreError::Closed) => Err(Left::Ending),
            Err(StoreError::Conflict) => Err(Left::Conflict),
            Err(error) => Ok(Some(error)),
        }
    }

    /// Waits before a retry, longer each time.
    async fn pause(&mut self, pause: &mut Duration) -> Result<(), Left> {
        let now = *pause;
        *pause = (now * 2).min(LONGEST_PAUSE);
        self.sleep_until(Instant::now() + now).await
    }

    async fn sleep_until(&mut self, due: Instant) -> Result<(), Left> {
        tokio::select! {
            () = self.inner.leave.cancelled() => Err(Left::Ending),
            () = tokio::time::sleep_until(due) => Ok(()),
        }
    }

    /// Commits the end of the command, once all of its output was read and, if it was stopped, none of its processes is left.
    async fn end(&mut self, ending: Ending, started_at: Option<SystemTime>) -> Result<Step, Left> {
        let answers = !matches!(ending, Ending::Lost { reason: LossReason::SandboxUnresponsive, .. });
        if answers && self.task.state.started_at().or(started_at).is_some() && !self.all_read() {
            self.read_rest().await?;
        }
        let mut signalled = true;
        if answers && matches!(self.task.state, TaskState::Stopping { .. }) {
            // Stopping the remaining processes can take as long as the grace; calls about the bot do not wait for it.
            self.hold = None;
            signalled = self.clear_tree().await?;
        }
        if let Some(gap) = self.task.output.gap {
            // The end of the output may lie in a gap.
            self.live.output.skip_to(gap.past(self.live.output.end()));
        }
        self.note_memory_kills(&ending).await;
        self.commit(Event::Ended { ending, started_at, signalled, at: SystemTime::now() }).await?;
        tracing::info!(outcome = ?self.task.state.outcome(), output_bytes = self.task.output.bytes, "finished");
        Ok(Step::Over)
    }

    /// True when the size of the output is known, and everything that was kept of it was read.
    fn all_read(&self) -> bool {
        let end = self.live.output.end();
        self.whole_log && self.task.output.gap.map_or(end, |gap| gap.past(end)) >= self.log_bytes
    }

    /// Takes over what the bridge reports of the output as a whole.
    fn output_is(&mut self, bytes: u64, incomplete: bool, gap: Option<Gap>) {
        self.log_bytes = self.log_bytes.max(bytes);
        self.task.output.incomplete |= incomplete;
        self.task.output.gap = gap.or(self.task.output.gap);
    }

    /// Reads the unread end of the log, as much of it as memory can hold.
    async fn read_rest(&mut self) -> Result<(), Left> {
        for _ in 0..READ_ATTEMPTS {
            let leave = self.inner.leave.clone();
            let read = tokio::select! {
                () = leave.cancelled() => return Err(Left::Ending),
                read = timeout(READ_LIMIT, self.read_unseen()) => read,
            };
            match read {
                // Even without a log, its size is known.
                Ok(Ok(()) | Err(ReadError::Gone)) => return Ok(()),
                Ok(Err(ReadError::Runtime(RuntimeError::Unavailable { detail }))) => {
                    tracing::debug!(detail, "the rest of the output could not be read; trying again");
                    self.pause(&mut FIRST_PAUSE.clone()).await?;
                }
                Ok(Err(ReadError::Runtime(error))) => {
                    tracing::debug!(%error, "the rest of the output could not be read");
                    return Ok(());
                }
                Err(_) => {
                    tracing::warn!(limit = ?READ_LIMIT, "the rest of the output did not come in time and is left unread");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn read_unseen(&mut self) -> Result<(), ReadError> {
        let (bridge, id) = (Arc::clone(&self.sandbox.bridge), self.task.id);
        let (seen, window) = (self.live.output.end(), WINDOW as u64);
        let mut reader = bridge.read(id, Piece::From { offset: seen, limit: window }).await?;
        if reader.size > seen.saturating_add(window) {
            reader = bridge.read(id, Piece::Tail { limit: window }).await?;
            self.live.output.leave_out(reader.start);
        }
        let size = reader.size;
        self.output_is(size, false, reader.gap);
        while self.live.output.end() < size
            && let Some(piece) = reader.next().await
        {
            match piece?.up_to(size) {
                Some(piece) => self.live.output.push_at_once(piece),
                None => return Ok(()),
            }
        }
        Ok(())
    }
}
