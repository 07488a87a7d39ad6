//! The events of one tenant's tasks: for each task at most one of each kind. Takes no locks and never waits.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use errand_task::{BotId, SessionId, Task, TaskId};

/// How many finished tasks keep their events.
const ENDED_KEPT: usize = 4096;
/// How often growth of output is told.
const GROWTH_INTERVAL: Duration = Duration::from_secs(1);
/// The most entries that one look examines.
const EXAMINED: usize = 256;

/// What can happen to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskEvent {
    /// It was accepted.
    Accepted,
    /// Its command started.
    Started,
    /// It has more output.
    OutputGrew,
    /// It stalled.
    Stalled,
    /// It moved on after a stall.
    Resumed,
    /// It is finished.
    Ended,
    /// Its late outcome was found.
    LateOutcome,
}

const KINDS: usize = 7;

/// Which events a reader wants.
pub(super) trait Wanted {
    fn wants(&self, bot: &BotId, session: &SessionId) -> bool;
}

#[derive(Debug, Default)]
pub(super) struct Log {
    /// Position of the newest event.
    last: u64,
    events: BTreeMap<u64, (TaskId, TaskEvent)>,
    tasks: BTreeMap<TaskId, Entry>,
    /// The finished tasks, in the order of their ends.
    ended: VecDeque<TaskId>,
    /// Position of the newest event that was dropped.
    floor: u64,
    /// The tasks whose growth is still to be told.
    grown: Vec<(TaskId, Arc<AtomicBool>)>,
    told_growth_at: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    bot: BotId,
    session: SessionId,
    started: bool,
    stalled: bool,
    ended: bool,
    /// Position of the latest event of each kind.
    positions: [Option<u64>; KINDS],
}

/// What a reader gets next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Event {
        position: u64,
        task: TaskId,
        event: TaskEvent,
    },
    /// Nothing wanted up to this position; there may be more.
    Skipped {
        position: u64,
    },
    /// The reader has read every event up to this position. Output that has grown becomes an event at `growth_at`.
    CaughtUp {
        position: u64,
        growth_at: Option<Instant>,
    },
    /// Events after the reader's position were dropped.
    TooOld,
}

/// What a reader of the unfinished tasks gets next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Listed {
    Task(TaskId),
    /// Nothing wanted up to this task; there may be more.
    Skipped(TaskId),
    End,
}

impl Log {
    /// Position of the newest event.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Whether a reader can continue after this position.
    pub(super) fn continues(&self, position: u64) -> bool {
        (self.floor..=self.last).contains(&position)
    }

    pub(super) fn found(&mut self, task: &Task) {
        self.tasks.entry(task.id).or_insert_with(|| Entry::of(task));
    }

    pub(super) fn accepted(&mut self, task: &Task) {
        self.found(task);
        self.record(task.id, TaskEvent::Accepted);
        self.committed(task);
    }

    pub(super) fn committed(&mut self, task: &Task) {
        let Some(entry) = self.tasks.get_mut(&task.id).filter(|entry| !entry.ended) else { return };
        let started = task.state.started_at().is_some()
            && !std::mem::replace(&mut entry.started, task.state.started_at().is_some());
        let ended = task.status().is_terminal();
        let was_stalled = std::mem::replace(&mut entry.stalled, task.stall.is_some());
        let stall = match (was_stalled, task.stall.is_some()) {
            (false, true) => Some(TaskEvent::Stalled),
            (true, false) if !ended => Some(TaskEvent::Resumed),
            (true, false) | (true, true) | (false, false) => None,
        };
        if started {
            self.record(task.id, TaskEvent::Started);
        }
        if let Some(event) = stall {
            self.record(task.id, event);
        }
        if ended {
            self.end(task.id, TaskEvent::Ended);
        }
    }

    pub(super) fn late(&mut self, task: &Task) {
        self.found(task);
        self.end(task.id, TaskEvent::LateOutcome);
    }

    fn end(&mut self, id: TaskId, event: TaskEvent) {
        self.record(id, event);
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        for kind in [TaskEvent::OutputGrew, TaskEvent::Stalled, TaskEvent::Resumed] {
            forget(&mut self.events, entry, kind);
        }
        if std::mem::replace(&mut entry.ended, true) && self.ended.contains(&id) {
            return;
        }
        self.ended.push_back(id);
        if self.ended.len() > ENDED_KEPT
            && let Some(oldest) = self.ended.pop_front().and_then(|id| self.tasks.remove(&id))
        {
            for position in oldest.positions.into_iter().flatten() {
                self.events.remove(&position);
                self.floor = self.floor.max(position);
            }
        }
    }

    /// There is more output of a task. It is told at most once per [`GROWTH_INTERVAL`].
    pub(super) fn grew(&mut self, id: TaskId, pending: Arc<AtomicBool>) {
        self.grown.push((id, pending));
    }

    /// Makes events of the growth of output, if it is time.
    pub(super) fn tell_growth(&mut self, now: Instant) {
        if self.grown.is_empty() || self.growth_at().is_some_and(|at| now < at) {
            return;
        }
        self.told_growth_at = Some(now);
        for (id, pending) in std::mem::take(&mut self.grown) {
            pending.store(false, Ordering::Release);
            if self.tasks.get(&id).is_some_and(|entry| !entry.ended) {
                self.record(id, TaskEvent::OutputGrew);
            }
        }
    }

    fn growth_at(&self) -> Option<Instant> {
        self.told_growth_at.map(|at| at + GROWTH_INTERVAL)
    }

    fn record(&mut self, id: TaskId, event: TaskEvent) {
        let Some(entry) = self.tasks.get_mut(&id) else { return };
        let superseded = match event {
            TaskEvent::Stalled => Some(TaskEvent::Resumed),
            TaskEvent::Resumed => Some(TaskEvent::Stalled),
            TaskEvent::Accepted
            | TaskEvent::Started
            | TaskEvent::OutputGrew
            | TaskEvent::Ended
            | TaskEvent::LateOutcome => None,
        };
        for kind in [Some(event), superseded].into_iter().flatten() {
            forget(&mut self.events, entry, kind);
        }
        self.last += 1;
        entry.positions[event as usize] = Some(self.last);
        self.events.insert(self.last, (id, event));
    }

    /// The next event after a position.
    pub(super) fn next(&self, after: u64, wanted: &impl Wanted) -> Next {
        if after < self.floor {
            return Next::TooOld;
        }
        let mut position = after;
        for (examined, (at, (task, event))) in self.events.range((Bound::Excluded(after), Bound::Unbounded)).enumerate()
        {
            if examined == EXAMINED {
                return Next::Skipped { position };
            }
            position = *at;
            if self.tasks.get(task).is_some_and(|entry| wanted.wants(&entry.bot, &entry.session)) {
                return Next::Event { position, task: *task, event: *event };
            }
        }
        let growth_at = (!self.grown.is_empty()).then(|| self.growth_at()).flatten();
        Next::CaughtUp { position: self.last, growth_at }
    }

    /// The next unfinished task after another one, in the order of their acceptance.
    pub(super) fn unfinished(&self, after: Option<TaskId>, wanted: &impl Wanted) -> Listed {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (examined, (id, entry)) in self.tasks.range((after, Bound::Unbounded)).enumerate() {
            if !entry.ended && wanted.wants(&entry.bot, &entry.session) {
                return Listed::Task(*id);
            }
            if examined == EXAMINED {
                return Listed::Skipped(*id);
            }
        }
        Listed::End
    }
}

impl Entry {
    fn of(task: &Task) -> Self {
        Self {
            bot: task.owner.bot.clone(),
            session: task.owner.session.clone(),
            started: task.state.started_at().is_some(),
            stalled: task.stall.is_some(),
            ended: task.status().is_terminal(),
            positions: [None; KINDS],
        }
    }
}

/// Drops the event of one kind.
fn forget(events: &mut BTreeMap<u64, (TaskId, TaskEvent)>, entry: &mut Entry, kind: TaskEvent) {
    if let Some(position) = entry.positions[kind as usize].take() {
        events.remove(&position);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;
    use crate::supervisor::machine::tests::samples;
    use errand_task::{Ending, Event, Incarnation, ProcessIdentity, Stall};
    use std::time::SystemTime;

    /// Everything, or one session.
    struct Only(Option<&'static str>);

    impl Wanted for Only {
        fn wants(&self, _: &BotId, session: &SessionId) -> bool {
            self.0.is_none_or(|wanted| wanted == session.as_str())
        }
    }

    const ALL: Only = Only(None);

    fn new_task(session: &str) -> Task {
        let mut task = samples::task();
        task.id = TaskId::new();
        task.owner.session = session.parse().unwrap();
        task
    }

    fn start(task: &mut Task) {
        let process = ProcessIdentity { pid: 1, start_ticks: 1 };
        task.apply(Event::LaunchBegan { incarnation: Incarnation("i".to_owned()) });
        task.apply(Event::Started { process, at: SystemTime::now() });
    }

    fn end(task: &mut Task) {
        let ending = Ending::Exited(0);
        task.apply(Event::Ended { ending, started_at: None, signalled: false, at: SystemTime::now() });
    }

    fn stall(task: &mut Task, stalled: bool) {
        let (since, silent_for) = (SystemTime::now(), Duration::ZERO);
        task.stall = stalled.then(|| Stall { since, silent_for, last_line: String::new(), waiting: None });
    }

    /// The events after a position, and the position after them.
    fn read(log: &Log, mut after: u64, wanted: &Only) -> (Vec<(TaskId, TaskEvent)>, u64) {
        let mut events = Vec::new();
        loop {
            match log.next(after, wanted) {
                Next::Event { position, task, event } => {
                    after = position;
                    events.push((task, event));
                }
                Next::Skipped { position } => after = position,
                Next::CaughtUp { position, .. } => return (events, position),
                Next::TooOld => panic!("too old"),
            }
        }
    }

    #[test]
    fn events_of_a_task_come_in_order() {
        let (mut log, mut task) = (Log::default(), new_task("s"));
        log.accepted(&task);
        start(&mut task);
        log.committed(&task);
        log.committed(&task);
        stall(&mut task, true);
        log.committed(&task);
        let (events, position) = read(&log, 0, &ALL);
        let kinds: Vec<_> = events.iter().map(|(_, event)| *event).collect();
        assert_eq!(kinds, [TaskEvent::Accepted, TaskEvent::Started, TaskEvent::Stalled]);
        for stalled in [false, true, false] {
            stall(&mut task, stalled);
            log.committed(&task);
            // Of stalls and their ends, only the latest is kept.
            let latest = if stalled { TaskEvent::Stalled } else { TaskEvent::Resumed };
            let kinds: Vec<_> = read(&log, 0, &ALL).0.into_iter().map(|(_, event)| event).collect();
            assert_eq!(kinds, [TaskEvent::Accepted, TaskEvent::Started, latest]);
        }
        end(&mut task);
        log.committed(&task);
        log.committed(&task);
        // A reader that is behind learns of the end, and not of a stall that is over.
        let kinds = |after| read(&log, after, &ALL).0.into_iter().map(|(_, event)| event).collect::<Vec<_>>();
        assert_eq!(kinds(position), [TaskEvent::Ended]);
        assert_eq!(kinds(0), [TaskEvent::Accepted, TaskEvent::Started, TaskEvent::Ended]);
    }

    #[test]
    fn growth_is_told_once_per_interval() {
        let (mut log, task, now) = (Log::default(), new_task("s"), Instant::now());
        log.accepted(&task);
        let grown =
            |log: &Log| read(log, 0, &ALL).0.iter().filter(|(_, event)| *event == TaskEvent::OutputGrew).count();
        let pending = Arc::new(AtomicBool::new(true));
        log.grew(task.id, Arc::clone(&pending));
        log.tell_growth(now);
        assert_eq!((grown(&log), pending.load(Ordering::Relaxed)), (1, false));
        let position = log.last();
        log.grew(task.id, Arc::clone(&pending));
        log.tell_growth(now + GROWTH_INTERVAL / 2);
        let growth_at = Some(now + GROWTH_INTERVAL);
        assert_eq!(log.next(position, &ALL), Next::CaughtUp { position, growth_at });
        log.tell_growth(now + GROWTH_INTERVAL);
        // The later one takes the place of the earlier one.
        assert_eq!(grown(&log), 1);
        assert!(matches!(log.next(position, &ALL), Next::Event { event: TaskEvent::OutputGrew, .. }));
    }

    #[test]
    fn memory_is_bounded_and_old_cursors_are_refused() {
        let mut log = Log::default();
        let mut positions = Vec::new();
        for _ in 0..ENDED_KEPT + 100 {
            let mut task = new_task("s");
            log.accepted(&task);
            for _ in 0..10 {
                stall(&mut task, true);
                log.committed(&task);
                stall(&mut task, false);
                log.committed(&task);
            }
            end(&mut task);
            log.committed(&task);
            positions.push(log.last());
        }
        assert_eq!((log.tasks.len(), log.ended.len()), (ENDED_KEPT, ENDED_KEPT));
        assert!(log.events.len() <= 2 * ENDED_KEPT, "{}", log.events.len());
        assert_eq!(log.next(positions[98], &ALL), Next::TooOld);
        assert!(!log.continues(positions[98]) && log.continues(positions[99]) && !log.continues(log.last() + 1));
        assert_eq!(read(&log, positions[99], &ALL).0.len(), 2 * ENDED_KEPT);
    }

    #[test]
    fn other_sessions_are_skipped_in_bounded_looks() {
        let mut log = Log::default();
        for _ in 0..2 * EXAMINED {
            log.accepted(&new_task("theirs"));
        }
        let ours = new_task("ours");
        log.accepted(&ours);
        let wanted = Only(Some("ours"));
        assert!(matches!(log.next(0, &wanted), Next::Skipped { position } if position == EXAMINED as u64));
        assert_eq!(read(&log, 0, &wanted).0, [(ours.id, TaskEvent::Accepted)]);
        let mut after = None;
        let listed = loop {
            match log.unfinished(after, &wanted) {
                Listed::Skipped(id) => after = Some(id),
                other => break other,
            }
        };
        assert_eq!(listed, Listed::Task(ours.id));
        assert_eq!(log.unfinished(Some(ours.id), &wanted), Listed::End);
    }
}
