//! One unfinished task, from its acceptance or its recovery to its end.
//!
//! A supervisor alone changes its task's record. It goes from step to step: launch, look into the sandbox, follow, end. Every change goes
//! through the state machine and is committed, with its notification, before anybody hears of it.

mod follow;
mod launch;
mod look;
mod stall;
mod stopping;

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::Instant,
};
use tracing::Instrument as _;

use super::{
    Inner,
    live::{LiveTask, StopOrder},
    sandboxes::Place,
};
use crate::{
    bridge::{Attachment, Piece, ReadError},
    store::StoreError,
    task::{Ending, Event, Gap, NewNotification, NotificationKind, TAIL_LIMIT, Task, TaskState},
};
pub(super) use look::lost;
use stopping::Stopping;

/// How long to wait before the first repetition of something that failed; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often the rest of a log is asked for before it is left unread.
const READ_ATTEMPTS: u32 = 3;

/// The server ends: leave the command running and the record as it is.
#[derive(Debug)]
pub(super) struct Left;

/// What to do next.
pub(super) enum Step {
    /// Launch the command.
    Launch,
    /// Find out what became of it.
    Look,
    /// Follow a running command from the outside.
    Attach,
    /// Follow it through this attachment.
    Follow(Box<Attachment>),
    /// Commit how it ended, and when it was started if only that tells.
    End(Ending, Option<SystemTime>),
    /// Nothing: its end is committed.
    Over,
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
    /// Where to launch, while that was seen just now.
    place: Option<Place>,
    /// Held until a launched command has shown a sign of life.
    permit: Option<OwnedSemaphorePermit>,
    /// Bytes of all output, where more is known of it than what was read.
    log_bytes: u64,
    /// True once that is the size of the log at the command's end.
    whole_log: bool,
}

/// Takes over a task that was just accepted, with the permit to launch it if there is one.
pub(super) fn spawn_new(inner: &Arc<Inner>, task: Task, place: Place, permit: Option<OwnedSemaphorePermit>) {
    let mut supervisor = Supervisor::new(inner, task, place.runtime_id.clone(), 0);
    supervisor.place = permit.is_some().then_some(place);
    supervisor.permit = permit;
    supervisor.spawn(Step::Launch);
}

impl Supervisor {
    /// Makes a task known as unfinished. Its output is known from byte `output_start` on.
    pub(super) fn new(inner: &Arc<Inner>, task: Task, sandbox: String, output_start: u64) -> Self {
        let live = Arc::new(LiveTask::new(task.clone(), output_start));
        inner.live.lock().unwrap_or_else(PoisonError::into_inner).insert(task.id, Arc::clone(&live));
        Self {
            inner: Arc::clone(inner),
            orders: live.orders(),
            live,
            task,
            sandbox,
            stopping: None,
            place: None,
            permit: None,
            log_bytes: output_start,
            whole_log: false,
        }
    }

    /// Goes on from `step` in the background, to the end or until the server ends.
    pub(super) fn spawn(self, step: Step) {
        let span = tracing::info_span!("task", id = %self.task.id, bot = %self.task.owner.bot);
        let tracker = self.inner.tracker.clone();
        tracker.spawn(self.drive(step).instrument(span));
    }

    /// Goes on from `step`, to the end or until the server ends.
    pub(super) async fn drive(mut self, mut step: Step) {
        let drive = async {
            loop {
                step = match step {
                    Step::Launch => self.launch().await?,
                    Step::Look => self.look().await?,
                    Step::Attach => self.attach().await?,
                    Step::Follow(attachment) => self.follow(*attachment).await?,
                    Step::End(ending, started_at) => self.end(ending, started_at).await?,
                    Step::Over => return Ok::<(), Left>(()),
                };
            }
        };
        if drive.await.is_ok() {
            self.inner.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.task.id);
            self.live.output.finish();
        }
    }

    /// Applies an event to the record and commits it. A terminal state is announced in the same transaction.
    async fn commit(&mut self, event: Event) -> Result<(), Left> {
        let mut task = self.task.clone();
        if !task.apply(event) {
            return Ok(());
        }
        let kind = task.status().is_terminal().then_some(NotificationKind::Completed);
        self.commit_record(task, kind).await
    }

    /// Commits a changed record and a notification about it. Tries until it is done: what is not committed has not happened.
    async fn commit_record(&mut self, mut task: Task, kind: Option<NotificationKind>) -> Result<(), Left> {
        task.output = self.live.output.summary(task.output.incomplete, task.output.gap);
        task.output.bytes = task.output.bytes.max(self.log_bytes);
        let now = SystemTime::now();
        let notification = kind.map(|kind| NewNotification::new(kind, &task, &self.live.output.tail(TAIL_LIMIT), now));
        let mut pause = FIRST_PAUSE;
        loop {
            match self.inner.store.update_task(task.clone(), notification.clone()).await {
                Ok(task) => {
                    tracing::debug!(status = task.status().word(), "committed");
                    self.task = task.clone();
                    self.live.publish(task);
                    return Ok(());
                }
                Err(StoreError::Closed) => return Err(Left),
                Err(StoreError::Conflict) => {
                    // Nobody else writes this record: this is a defect, and trying again would not end.
                    tracing::error!(
                        revision = task.revision,
                        "a task's record was changed by somebody else; it is left alone"
                    );
                    return Err(Left);
                }
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a task's record could not be stored; trying again"
                    );
                    self.pause(&mut pause).await?;
                }
            }
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
            () = self.inner.leave.cancelled() => Err(Left),
            () = tokio::time::sleep_until(due) => Ok(()),
        }
    }

    /// Commits the end of the command, once all of its output was read and, if it was stopped, nothing of it is left.
    async fn end(&mut self, ending: Ending, started_at: Option<SystemTime>) -> Result<Step, Left> {
        if self.task.state.started_at().or(started_at).is_some() && !self.all_read() {
            self.read_rest().await?;
        }
        if matches!(self.task.state, TaskState::Stopping { .. }) {
            self.clear_tree().await?;
        }
        if let Some(gap) = self.task.output.gap {
            // The end of the output may be what was not kept of it.
            self.live.output.skip_to(gap.past(self.live.output.end()));
        }
        self.commit(Event::Ended { ending, started_at, at: SystemTime::now() }).await?;
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

    /// Reads what the log holds and was not seen yet.
    async fn read_rest(&mut self) -> Result<(), Left> {
        for _ in 0..READ_ATTEMPTS {
            match self.read_from(self.live.output.end()).await {
                Ok(()) => return Ok(()),
                // Nobody can read it any more; its size is still known.
                Err(ReadError::Gone) => return Ok(()),
                Err(ReadError::Runtime(error)) => {
                    tracing::debug!(error = %error, "the rest of the output could not be read");
                    if !matches!(error, crate::runtime::RuntimeError::Unavailable { .. }) {
                        return Ok(());
                    }
                    self.pause(&mut FIRST_PAUSE.clone()).await?;
                }
            }
        }
        Ok(())
    }

    async fn read_from(&mut self, offset: u64) -> Result<(), ReadError> {
        let piece = Piece::From { offset, limit: i64::MAX as u64 };
        let mut reader = self.inner.bridge.read(&self.sandbox, self.task.id, piece).await?;
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
