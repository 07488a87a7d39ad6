//! Carries the machine's actions out, waits for what happens next, and tells the machine.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{
    Left, Supervisor,
    machine::{Action, Admission, Entry, Input, Moment, Placed, Reported},
    operations::Answer,
};
use crate::{EngineError, permits::LaunchPermit, queue::Verdict, retention::outputs, sandboxes::Place, scanning::Scan};
use errand_bridge::{Attachment, BridgeState, Report};
use errand_runtime::RuntimeError;
use errand_store::StoreError;
use errand_task::{Task, WatchMatches};

/// How long a sandbox with the resident bridge may take to say that it searches for watches. An older guest never says so.
const SAYS_WITHIN: Duration = Duration::from_secs(2);

/// What happened next.
enum Happened {
    /// The next deadline has passed.
    Due,
    /// A stop was asked for.
    Ordered,
    /// Another policy was asked for.
    PolicyWanted,
    /// Other watches were asked for.
    WatchOrdered,
    /// The search on this server found matches.
    Found(Vec<WatchMatches>, u64),
    Signalled(Result<u32, RuntimeError>),
    Answered(Answer),
    Reported(Result<Report, RuntimeError>),
}

impl Supervisor {
    /// Supervises the task from `entry` on, until it has ended or the server shuts down.
    pub(super) async fn drive(mut self, entry: Entry) -> Result<(), Left> {
        self.machine.enter(entry, moment());
        loop {
            self.carry_out().await;
            if self.machine.is_over() {
                break;
            }
            let now = moment();
            // Checked before anything else is waited for: reports may never pause, and a timer that is not needed would be the most
            // expensive part of the wait.
            if self.machine.due().is_some_and(|due| due <= now.at) {
                self.machine.tick(now);
                continue;
            }
            if self.scan_at.take_if(|at| *at <= Instant::now()).is_some() {
                let (task, watches) = (self.machine.task().clone(), self.machine.watches_to_search());
                self.scan = Some(Scan::begin(&self.inner, task, watches));
            }
            let input = match self.happened().await? {
                Happened::Due => continue,
                Happened::Ordered => self.orders.borrow_and_update().clone().map(Input::Ordered),
                Happened::PolicyWanted => self.policies.borrow_and_update().map(Input::PolicyWanted),
                Happened::WatchOrdered => self.watch_orders.borrow_and_update().clone().map(Input::Watch),
                Happened::Found(matches, unsearched) => {
                    Some(Input::Reported(Reported::Matched { matches, unsearched }))
                }
                Happened::Signalled(answer) => {
                    self.signal = None;
                    Some(Input::Signalled(answer))
                }
                Happened::Answered(answer) => {
                    self.operation = None;
                    self.machine.guest_enforces_timeout(self.guest_enforces_timeout());
                    Some(self.answered(answer)?)
                }
                Happened::Reported(Ok(Report::Watching)) => {
                    (self.scan_at, self.scan) = (None, None);
                    None
                }
                Happened::Reported(report) => Some(Input::Reported(self.reported(report).await)),
            };
            if let Some(mut input) = input {
                self.live.masks.input(&mut input);
                self.machine.handle(input, moment());
            }
        }
        self.inner.remove_live(self.machine.task().id);
        self.live.output.finish();
        Ok(())
    }

    /// Waits for the next thing to happen.
    async fn happened(&mut self) -> Result<Happened, Left> {
        let due = [self.machine.due(), self.scan_at.map(Instant::into_std)].into_iter().flatten().min();
        // A commit is always waited for, so that its result is known to callers.
        let may_leave = self.operation.as_ref().is_none_or(|operation| !operation.is_commit);
        // Reports wait while an operation runs: what they mean depends on its answer.
        let listens = self.operation.is_none();
        tokio::select! {
            // Reports may never pause, so everything else takes priority.
            biased;
            () = self.inner.leave.cancelled(), if may_leave => Err(Left::Ending),
            answer = async {
                match &mut self.operation {
                    Some(operation) => operation.answer.as_mut().await,
                    None => std::future::pending().await,
                }
            } => Ok(Happened::Answered(answer)),
            Ok(()) = self.orders.changed() => Ok(Happened::Ordered),
            Ok(()) = self.policies.changed() => Ok(Happened::PolicyWanted),
            Ok(()) = self.watch_orders.changed() => Ok(Happened::WatchOrdered),
            answer = async {
                match &mut self.signal {
                    Some(signal) => signal.as_mut().await,
                    None => std::future::pending().await,
                }
            } => Ok(Happened::Signalled(answer)),
            report = async {
                match &mut self.attachment {
                    Some(attachment) => attachment.next().await,
                    None => std::future::pending().await,
                }
            }, if listens => Ok(Happened::Reported(report)),
            (matches, unsearched) = async {
                match &mut self.scan {
                    Some(scan) => scan.next().await,
                    None => std::future::pending().await,
                }
            }, if listens => Ok(Happened::Found(matches, unsearched)),
            () = until(due) => Ok(Happened::Due),
        }
    }

    async fn carry_out(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        self.machine.take_actions(&mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Do(operation) => self.operation = Some(self.begin(operation)),
                Action::Signal { process, signal } => self.signal = Some(self.send(process, signal)),
                Action::FollowOutput => {
                    if let Some(attachment) = &mut self.attachment
                        && let Err(error) = attachment.follow().await
                    {
                        tracing::debug!(%error, "the attachment could not be asked for further output");
                    }
                }
                Action::Detach => (self.attachment, self.scan_at, self.scan) = (None, None, None),
                Action::LeaveQueue => self.spot = None,
                Action::ReleasePermit => self.permit = None,
                Action::ReleaseHold => self.hold = None,
                Action::HoldBecause(reason) => {
                    if let Some(hold) = &self.hold {
                        hold.because(&reason);
                    }
                }
                Action::Publish { mut task, log_bytes } => {
                    self.summarize(&mut task, log_bytes);
                    self.live.publish(*task);
                }
                Action::SkipTo(end) => self.live.output.skip_to(end),
                Action::PolicyStored(number) => {
                    self.live.output.keep_head(self.machine.task().notify.head_bytes);
                    self.live.policy_stored(number);
                }
            }
        }
        self.actions = actions;
    }

    /// Keeps what belongs to the carrier, and returns what the machine is told.
    fn answered(&mut self, answer: Answer) -> Result<Input, Left> {
        Ok(match answer {
            Answer::Plain(input) => input,
            Answer::Stored(result) => Input::Stored(self.stored(result)?),
            Answer::Admitted(result) => Input::Admission(self.admitted(result)?),
            Answer::Placed(permit, place) => Input::Placed(self.placed(permit, place)?),
            Answer::Launched(attachment) => Input::Launched(attachment.map(|attachment| self.follow(attachment))),
            Answer::Attached(attachment) => Input::Attached(attachment.map(|attachment| self.follow(attachment))),
        })
    }

    /// Follows an attachment. Where the sandbox cannot search for watches, this server does.
    fn follow(&mut self, attachment: Attachment) {
        self.attachment = Some(attachment);
        let resident = self.sandbox.bridge.state().as_ref().is_some_and(BridgeState::is_resident);
        let patience = if resident { SAYS_WITHIN } else { Duration::ZERO };
        self.scan = None;
        self.scan_at = self.machine.task().is_watched().then(|| Instant::now() + patience);
    }

    /// Publishes an admitted task, and tells the queue.
    fn admitted(&mut self, result: Result<Box<Task>, StoreError>) -> Result<Admission, Left> {
        let (verdict, admission) = match self.stored(result)? {
            Ok(task) => (Some(Verdict::Admitted), Admission::Admitted(task)),
            Err(StoreError::TooManyForBot { .. }) => (Some(Verdict::BotFull), Admission::NoRoom),
            Err(StoreError::TooManyForTenant { .. }) => (Some(Verdict::TenantFull), Admission::NoRoom),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a task could not be admitted; trying again");
                (None, Admission::Failed)
            }
        };
        if let (Some(spot), Some(verdict)) = (&self.spot, verdict) {
            spot.settled(verdict);
        }
        if verdict == Some(Verdict::Admitted) {
            self.spot = None;
        }
        Ok(admission)
    }

    /// Publishes a stored record. An error is returned to the machine only if it may be transient.
    fn stored(&mut self, result: Result<Box<Task>, StoreError>) -> Result<Result<Box<Task>, StoreError>, Left> {
        match result {
            Ok(task) => {
                tracing::debug!(status = task.status().word(), "committed");
                self.live.publish(Task::clone(&task));
                self.inner.feed.committed(&task);
                if task.status().is_terminal() {
                    self.inner.queue.freed(&task.owner);
                    outputs::request(&self.inner, &task);
                }
                Ok(Ok(task))
            }
            Err(StoreError::Closed) => Err(Left::Ending),
            Err(StoreError::Conflict) => Err(Left::Conflict),
            Err(error) => {
                // A queued task that found no room has not ended.
                let is_full = matches!(error, StoreError::TooManyForBot { .. } | StoreError::TooManyForTenant { .. });
                self.without_output |= !is_full;
                Ok(Err(error))
            }
        }
    }

    fn placed(
        &mut self,
        permit: Option<LaunchPermit>,
        place: Result<Option<Place>, EngineError>,
    ) -> Result<Placed, Left> {
        match (permit, place) {
            (Some(permit), Ok(Some(place))) => {
                self.permit = Some(permit);
                self.sandbox = place.sandbox;
                Ok(Placed::Ready(place.incarnation))
            }
            (_, Ok(None)) => Ok(Placed::Never("the sandbox was deleted before the launch".to_owned())),
            (None, Ok(Some(_))) => Ok(Placed::NotYet),
            (_, Err(EngineError::Runtime(RuntimeError::Unavailable { detail }))) => {
                tracing::warn!(%detail, "the sandbox cannot be reached; the launch waits");
                Ok(Placed::NotYet)
            }
            (_, Err(EngineError::Store(StoreError::Closed))) => Err(Left::Ending),
            (_, Err(EngineError::Store(error))) if !matches!(error, StoreError::Record { .. }) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the store fails; the launch waits");
                Ok(Placed::NotYet)
            }
            (_, Err(error)) => Ok(Placed::Never(error.to_string())),
        }
    }

    /// Keeps the bytes of the output; the machine is told how far they go.
    async fn reported(&mut self, report: Result<Report, RuntimeError>) -> Reported {
        match report {
            Ok(Report::Claimed) => Reported::Claimed,
            Ok(Report::Started { process, age }) => Reported::Started { process, age },
            Ok(Report::Output(piece)) => {
                self.live.output.push(piece).await;
                self.live.growth.happened();
                Reported::Output { end: self.live.output.end() }
            }
            Ok(Report::Skipped { to }) => {
                self.live.output.leave_out(to);
                self.live.growth.happened();
                Reported::Skipped { end: self.live.output.end() }
            }
            Ok(Report::Activity(activity)) => Reported::Activity(activity),
            Ok(Report::Matched { matches, unsearched }) => Reported::Matched { matches, unsearched },
            Ok(Report::Watching) => Reported::Matched { matches: Vec::new(), unsearched: 0 },
            Ok(Report::Ended { ending, usage, oom_kills }) => Reported::Ended { ending, usage, oom_kills },
            Ok(Report::Over { bytes, incomplete, gap }) => Reported::Over { bytes, incomplete, gap },
            Ok(Report::Broken) => Reported::Broken,
            Err(error) => Reported::Failed(error),
        }
    }

    /// Fills in what is known of the output, and masks what the record says.
    pub(super) fn summarize(&self, task: &mut Task, log_bytes: u64) {
        task.output = self.live.output.summary(task.output.incomplete, task.output.gap);
        task.output.bytes = task.output.bytes.max(log_bytes);
        self.live.masks.progress(task);
    }
}

fn moment() -> Moment {
    Moment { at: Instant::now().into_std(), wall: SystemTime::now() }
}

/// Waits until `due`; for ever when there is none.
async fn until(due: Option<std::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
