//! Waits for one task, or for several, until they meet a condition.

mod lookout;
mod search;

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Engine, EngineError, Inner, TaskRef, listening::Listening, live::LiveTask, supervision::Supervision};
use errand_task::Task;
pub use errand_watching::PatternError;
pub(super) use lookout::SearchPermits;
use lookout::{Lookout, Step};
pub use search::{OutputMatch, OutputPattern};

/// How much longer than requested a wait may take to search output that is there already.
const CATCH_UP: Duration = Duration::from_secs(1);
/// The longest delay before new output is seen: where a log can only be polled, it is polled once a second.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// How long to wait for a task, and for what besides its end.
#[derive(Debug, Clone, Default)]
pub struct WaitRequest {
    /// The longest wait.
    pub timeout: Duration,
    /// Also return when the task stalls.
    pub until_stalled: bool,
    /// Also return when the task has printed nothing for this long after its last output.
    pub until_idle: Option<Duration>,
    /// Also return when the output matches: the pattern, and the position of the first byte that a match may begin with.
    pub until_match: Option<(OutputPattern, u64)>,
    /// Also return when this TCP port of the sandbox listens.
    pub until_listening: Option<u16>,
}

/// Why a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitResult {
    /// The task is finished.
    Finished,
    /// The task is stalled.
    Stalled,
    /// The task printed something, and then nothing for the requested time.
    Idle,
    /// The timeout passed.
    Timeout,
    /// The output matches.
    Matched(OutputMatch),
    /// The port listens.
    Listening,
}

/// What came of a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waited {
    /// The task when the wait ended.
    pub task: Task,
    /// Why the wait ended.
    pub result: WaitResult,
    /// Where another search for the pattern continues; 0 without a pattern.
    pub searched_to: u64,
}

impl Engine {
    /// Waits for a task to finish, or for another event that `request` names.
    ///
    /// # Errors
    /// As for [`Engine::task`]; with a pattern, as for [`Engine::stream_output`].
    pub async fn wait(&self, reference: &TaskRef, request: &WaitRequest) -> Result<Waited, EngineError> {
        let end = Instant::now() + request.timeout;
        let mut waiting = Waiting::begin(&self.inner, self.task(reference).await?, request).await?;
        let result = waiting.run(end).await?;
        Ok(waiting.end(result))
    }

    /// Waits for the first of several tasks to meet its conditions, or for `all` of them, for at most `timeout`. Returns what came of each
    /// wait, in the order of the tasks.
    ///
    /// # Errors
    /// As for [`Engine::wait`]; an error about one task ends the wait for all.
    pub async fn wait_for_several(
        &self,
        tasks: &[(TaskRef, WaitRequest)],
        all: bool,
        timeout: Duration,
    ) -> Result<Vec<Waited>, EngineError> {
        let end = Instant::now() + timeout;
        let mut waits = Vec::with_capacity(tasks.len());
        for (reference, request) in tasks {
            let task = self.task(reference).await.map_err(|error| match error {
                EngineError::NoSuchTask => EngineError::NoneOfThese { task: reference.id },
                error => error,
            })?;
            waits.push(Waiting::begin(&self.inner, task, request).await?);
        }
        let mut results = vec![WaitResult::Timeout; waits.len()];
        let mut running: FuturesUnordered<_> = waits
            .iter_mut()
            .enumerate()
            .map(|(index, waiting)| async move { (index, waiting.run(end).await) })
            .collect();
        while let Some((index, result)) = running.next().await {
            results[index] = result?;
            if !all && results[index] != WaitResult::Timeout {
                // Others may have met their conditions at the same moment.
                while let Some(Some((index, result))) = running.next().now_or_never() {
                    results[index] = result?;
                }
                break;
            }
        }
        drop(running);
        Ok(waits.into_iter().zip(results).map(|(waiting, result)| waiting.end(result)).collect())
    }
}

/// A wait for one task.
struct Waiting {
    task: Task,
    /// None: the task is finished.
    live: Option<Arc<LiveTask>>,
    until_stalled: bool,
    until_idle: Option<Duration>,
    lookout: Option<Lookout>,
    listening: Option<(u16, Listening)>,
    /// How far the output was searched before the search ended.
    searched_to: u64,
}

impl Waiting {
    async fn begin(inner: &Arc<Inner>, task: Task, request: &WaitRequest) -> Result<Self, EngineError> {
        let (task, live) = match inner.supervision(task.clone()).await? {
            Supervision::Here(live) => (task, Some(live)),
            Supervision::Finished(task) => (*task, None),
            Supervision::Elsewhere => return Err(EngineError::SupervisedElsewhere),
        };
        let lookout = match &request.until_match {
            None => None,
            Some((pattern, offset)) => match Lookout::open(inner, &task, pattern, *offset).await {
                // The task is finished, which the wait can tell without its output.
                Err(EngineError::LogGone | EngineError::SandboxNotRunning) if live.is_none() => None,
                opened => Some(opened?),
            },
        };
        let listening = match request.until_listening.filter(|_| live.is_some()) {
            None => None,
            Some(port) => Some((port, inner.listeners.of(inner, &task).await?)),
        };
        let WaitRequest { until_stalled, until_idle, .. } = *request;
        Ok(Self { task, live, until_stalled, until_idle, lookout, listening, searched_to: 0 })
    }

    /// Waits, at most until `end`.
    async fn run(&mut self, end: Instant) -> Result<WaitResult, EngineError> {
        let live = self.live.clone();
        let mut changes = live.as_ref().map(|live| live.changes());
        loop {
            let finished = changes.as_mut().is_none_or(|changes| changes.borrow_and_update().status().is_terminal());
            if finished && self.lookout.is_none() {
                return Ok(WaitResult::Finished);
            }
            if self.lookout.as_ref().is_none_or(Lookout::is_caught_up)
                && let Some(live) = &live
                && !finished
                && let Some(met) = self.met(live)?
            {
                return Ok(met);
            }
            let idle_at = live.as_ref().and_then(|live| self.idle_at(live));
            let give_up = self.give_up(end);
            let due = idle_at.filter(|at| *at > Instant::now()).unwrap_or(give_up).min(give_up);
            let wants_growth = self.until_idle.is_some() && !finished;
            tokio::select! {
                biased;
                step = next_step(&mut self.lookout) => match step {
                    Ok(Step::Matched(found)) => return Ok(WaitResult::Matched(found)),
                    Ok(Step::GoOn) => {}
                    Ok(Step::End) => self.stop_searching(),
                    Err(EngineError::LogGone | EngineError::SandboxNotRunning) if finished => self.stop_searching(),
                    Err(error) => return Err(error),
                },
                () = changed(&mut changes), if !finished => {}
                () = changed_ports(&mut self.listening), if !finished => {}
                () = grown(live.as_deref()), if wants_growth => {}
                () = sleep_until(due) => {}
            }
            if Instant::now() >= self.give_up(end) && !self.has_finished() {
                return Ok(WaitResult::Timeout);
            }
        }
    }

    /// When the wait ends without a result.
    fn give_up(&self, end: Instant) -> Instant {
        if self.lookout.as_ref().is_none_or(Lookout::is_caught_up) { end } else { end + CATCH_UP }
    }

    fn stop_searching(&mut self) {
        self.searched_to = self.lookout.take().map_or(0, |lookout| lookout.position());
    }

    /// True when nothing is left to wait for.
    fn has_finished(&self) -> bool {
        let finished = self.live.as_ref().is_none_or(|live| live.snapshot().status().is_terminal());
        finished && self.lookout.is_none()
    }

    /// The condition that the unfinished task meets now.
    fn met(&self, live: &LiveTask) -> Result<Option<WaitResult>, EngineError> {
        if self.until_stalled && live.is_stalled() {
            return Ok(Some(WaitResult::Stalled));
        }
        if let Some((port, listening)) = &self.listening
            && listening.contains(*port)?
        {
            return Ok(Some(WaitResult::Listening));
        }
        let idle = self.idle_at(live).is_some_and(|at| at <= Instant::now());
        Ok(idle.then_some(WaitResult::Idle))
    }

    /// When the task has been silent for long enough, if nothing more comes.
    fn idle_at(&self, live: &LiveTask) -> Option<Instant> {
        let idle = self.until_idle?;
        live.output.last_growth()?.checked_add(idle.checked_add(SEEN_WITHIN)?)
    }

    fn end(self, result: WaitResult) -> Waited {
        let searched_to = match (&result, &self.lookout) {
            (WaitResult::Matched(found), _) => found.end,
            (_, Some(lookout)) => lookout.position(),
            (_, None) => self.searched_to,
        };
        let task = self.live.map_or(self.task, |live| live.snapshot());
        Waited { task, result, searched_to }
    }
}

async fn next_step(lookout: &mut Option<Lookout>) -> Result<Step, EngineError> {
    match lookout {
        Some(lookout) => lookout.step().await,
        None => std::future::pending().await,
    }
}

async fn changed(changes: &mut Option<watch::Receiver<Task>>) {
    match changes {
        // The sender lives in the task's handle, which the wait holds.
        Some(changes) => drop(changes.changed().await),
        None => std::future::pending().await,
    }
}

async fn changed_ports(listening: &mut Option<(u16, Listening)>) {
    match listening {
        Some((_, listening)) => listening.changed().await,
        None => std::future::pending().await,
    }
}

async fn grown(live: Option<&LiveTask>) {
    match live {
        Some(live) => live.output.grown().await,
        None => std::future::pending().await,
    }
}
