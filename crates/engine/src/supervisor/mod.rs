//! One unfinished task, from its acceptance or its recovery to its end.
//!
//! A supervisor alone changes its task's record. It goes from step to step: launch, look into the sandbox, follow, end. Every change goes
//! through the state machine and is committed, with its notification, before anybody hears of it.

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
    sandboxes::Place,
};
use errand_bridge::{Attachment, Finding, Piece, ReadError};
use errand_runtime::{Found, RuntimeError};
use errand_store::StoreError;
use errand_task::{Ending, Event, Gap, LossReason, NewNotification, NotificationKind, TAIL_LIMIT, Task, TaskState};
pub(super) use look::lost;
use stopping::Stopping;

/// How long to wait before the first repetition of something that failed; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often the rest of a log is asked for before it is left unread, and how long each attempt may take.
const READ_ATTEMPTS: u32 = 3;
const READ_LIMIT: Duration = Duration::from_secs(10);
/// How long a sandbox may take to answer a question about a task.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Why a supervisor ends before its task does.
#[derive(Debug)]
pub(super) enum Left {
    /// The server ends. The command runs on and the record stays as it is.
    Ending,
    /// The record was changed by another writer, which is a defect: only the supervisor writes it.
    Conflict,
}

/// What to do next.
pub(super) enum Step {
    /// Launch the command.
    Launch,
    /// Find out what became of it.
    Look,
    /// Decide by what was found in its sandbox at the start.
    Judge(Box<Found>, Box<Finding>),
    /// Follow a running command from the outside.
    Attach,
    /// Follow it through this attachment.
    Follow(Box<Attachment>),
    /// Commit how it ended, and when it was started if only that tells.
    End(Ending, Option<SystemTime>),
    /// Nothing: its end is committed.
    Over,
}

/// When to try again to store a record.
#[derive(Debug, Clone, Copy)]
struct Unsaved {
    retry_at: Instant,
    pause: Duration,
}

impl Unsaved {
    /// After the first failure.
    fn now() -> Self {
        Self { retry_at: Instant::now() + FIRST_PAUSE, pause: FIRST_PAUSE }
    }
}

/// Supervises one task.
pub(super) struct Supervisor {
    inner: Arc<Inner>,
    live: Arc<LiveTask>,
    task: Task,
    /// The runtime's id of the sandbox.
    sandbox: String,
    orders: watch::Receiver<Option<StopOrder>>,
    stopping: Option<Stopping>,
    /// Set while the store fails: the record may be ahead of what is stored.
    unsaved: Option<Unsaved>,
    /// Where to launch, while that was seen just now.
    place: Option<Place>,
    /// Held until a launched command has shown a sign of life.
    permit: Option<LaunchPermit>,
    /// When the launch was begun, if this server began it.
    launched_at: Option<Instant>,
    /// When the command was started, by this server's monotonic clock.
    began_at: Option<Instant>,
    /// Keeps the bot's callers waiting until this task is reconciled.
    hold: Option<Arc<Hold>>,
    /// For how long its sandbox has not answered although the task has to end.
    deaf_for: Duration,
    /// Bytes of all output, where more is known of it than what was read.
    log_bytes: u64,
    /// True once that is the size of the log at the command's end.
    whole_log: bool,
    /// How many processes the sandbox says were killed for want of memory.
    oom_kills_told: u32,
}

impl Supervisor {
    /// Makes a task known as unfinished. Its output is known from byte `output_start` on.
    pub(super) fn new(inner: &Arc<Inner>, task: Task, sandbox: String, output_start: u64) -> Self {
        let live = Arc::new(LiveTask::new(task.clone(), output_start));
        inner.enter(task.id, &live);
        Self::of(inner, live, task, sandbox)
    }

    /// The supervisor of a task that is about to be accepted, with the permit to launch it if there is one. Made before the task is
    /// committed: a caller that learns of the task finds it here.
    pub(super) fn of_new(inner: &Arc<Inner>, task: Task, place: Place, permit: Option<LaunchPermit>) -> Self {
        let mut supervisor = Self::new(inner, task, place.runtime_id.clone(), 0);
        supervisor.place = permit.is_some().then_some(place);
        supervisor.permit = permit;
        supervisor
    }

    /// Forgets a task that was not accepted.
    pub(super) fn withdraw(self) {
        self.inner.remove_live(self.task.id);
    }

    /// Keeps the bot's callers waiting until it is known what became of this task.
    pub(super) fn holding(mut self, hold: &Arc<Hold>) -> Self {
        self.hold = Some(Arc::clone(hold));
        self
    }

    /// Supervises a task that is known as unfinished.
    fn of(inner: &Arc<Inner>, live: Arc<LiveTask>, task: Task, sandbox: String) -> Self {
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

    /// Goes on from `step`, to the end or until the server ends.
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
    /// What shall happen in the sandbox next, and the end, are tried until they are committed. What has happened there, and that a stop was
    /// asked for, is true whether it can be stored or not: where the store fails, it is known here alone until it can be.
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

    /// Commits a changed record and a notification about it. Tries until it is done: what is not committed has not happened.
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

    /// Commits a changed record and a notification about it, if that works now: else everything stays as it was. Not tried while the store
    /// is known to fail.
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

    /// Commits what is known here alone, if that works by now.
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

    /// Goes on from a record that could not be stored.
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

    /// Puts into a record what is known of the output.
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

    /// Stores a record and a notification about it, once. Returns what was in the way, if it may pass.
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

    /// Waits before trying something again, longer each time.
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

    /// Commits the end of the command, once all of its output was read and, if it was stopped, nothing of it is left.
    async fn end(&mut self, ending: Ending, started_at: Option<SystemTime>) -> Result<Step, Left> {
        let answers = !matches!(ending, Ending::Lost { reason: LossReason::SandboxUnresponsive, .. });
        if answers && self.task.state.started_at().or(started_at).is_some() && !self.all_read() {
            self.read_rest().await?;
        }
        let mut signalled = true;
        if answers && matches!(self.task.state, TaskState::Stopping { .. }) {
            // Ending what is left may take as long as the grace: the bot's callers do not wait for it.
            self.hold = None;
            signalled = self.clear_tree().await?;
        }
        if let Some(gap) = self.task.output.gap {
            // The end of the output may be what was not kept of it.
            self.live.output.skip_to(gap.past(self.live.output.end()));
        }
        self.note_memory_kills(&ending).await;
        self.commit(Event::Ended { ending, started_at, signalled, at: SystemTime::now() }).await?;
        tracing::info!(outcome = ?self.task.state.outcome(), output_bytes = self.task.output.bytes, "finished");
        Ok(Step::Over)
    }

    /// True when it is known how much was printed, and all of that was read which was kept.
    fn all_read(&self) -> bool {
        let end = self.live.output.end();
        self.whole_log && self.task.output.gap.map_or(end, |gap| gap.past(end)) >= self.log_bytes
    }

    /// What a bridge says of the output as a whole.
    fn output_is(&mut self, bytes: u64, incomplete: bool, gap: Option<Gap>) {
        self.log_bytes = self.log_bytes.max(bytes);
        self.task.output.incomplete |= incomplete;
        self.task.output.gap = gap.or(self.task.output.gap);
    }

    /// Reads the end of what the log holds and was not seen yet, as much as memory keeps of it.
    async fn read_rest(&mut self) -> Result<(), Left> {
        for _ in 0..READ_ATTEMPTS {
            let leave = self.inner.leave.clone();
            let read = tokio::select! {
                () = leave.cancelled() => return Err(Left::Ending),
                read = timeout(READ_LIMIT, self.read_unseen()) => read,
            };
            match read {
                // Without a log its size is still known.
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
        let (bridge, sandbox, id) = (Arc::clone(&self.inner.bridge), self.sandbox.clone(), self.task.id);
        let (seen, window) = (self.live.output.end(), WINDOW as u64);
        let mut reader = bridge.read(&sandbox, id, Piece::From { offset: seen, limit: window }).await?;
        if reader.size > seen.saturating_add(window) {
            reader = bridge.read(&sandbox, id, Piece::Tail { limit: window }).await?;
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
