//! The changes that wait for the writer: one queue for each tenant, served in turns, so that a tenant with many changes delays no other.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use errand_task::TenantId;

/// The tenant of a line; none: the server itself.
type Whose = Option<TenantId>;

/// Waiting jobs.
pub(super) struct Queue<J> {
    lines: Mutex<Lines<J>>,
    changed: Condvar,
}

struct Lines<J> {
    /// The lines that are not empty.
    waiting: HashMap<Whose, VecDeque<J>>,
    /// The order in which they are served: each line once.
    turns: VecDeque<Whose>,
    count: usize,
    closed: bool,
}

impl<J> Queue<J> {
    pub(super) fn new() -> Self {
        let lines = Lines { waiting: HashMap::new(), turns: VecDeque::new(), count: 0, closed: false };
        Self { lines: Mutex::new(lines), changed: Condvar::new() }
    }

    fn lines(&self) -> MutexGuard<'_, Lines<J>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job at the end of its line. False when the queue is closed.
    pub(super) fn push(&self, whose: Whose, job: J) -> bool {
        let mut lines = self.lines();
        if lines.closed {
            return false;
        }
        lines.count += 1;
        let Lines { waiting, turns, .. } = &mut *lines;
        match waiting.get_mut(&whose) {
            Some(line) => line.push_back(job),
            None => {
                turns.push_back(whose.clone());
                waiting.insert(whose, VecDeque::from([job]));
            }
        }
        drop(lines);
        self.changed.notify_one();
        true
    }

    /// Fills a group with up to `limit` jobs, and waits for the first. False when the queue is closed and empty.
    pub(super) fn wait(&self, group: &mut Vec<J>, limit: usize) -> bool {
        let mut lines = self.lines();
        while lines.count == 0 && !lines.closed {
            lines = self.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
        }
        lines.fill(group, limit);
        !group.is_empty()
    }

    /// Fills a group up to `limit` without waiting.
    pub(super) fn fill(&self, group: &mut Vec<J>, limit: usize) {
        self.lines().fill(group, limit);
    }

    /// The number of waiting jobs.
    pub(super) fn len(&self) -> usize {
        self.lines().count
    }

    /// Accepts no more jobs.
    pub(super) fn close(&self) {
        self.lines().closed = true;
        self.changed.notify_all();
    }

    /// Accepts no more jobs, and drops those that wait.
    pub(super) fn clear(&self) {
        self.close();
        let mut dropped = Vec::new();
        self.lines().fill(&mut dropped, usize::MAX);
    }
}

impl<J> fmt::Debug for Queue<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<J> Lines<J> {
    fn fill(&mut self, group: &mut Vec<J>, limit: usize) {
        while group.len() < limit
            && let Some(whose) = self.turns.pop_front()
        {
            let Some(line) = self.waiting.get_mut(&whose) else { continue };
            if let Some(job) = line.pop_front() {
                group.push(job);
                self.count -= 1;
            }
            if line.is_empty() {
                self.waiting.remove(&whose);
            } else {
                self.turns.push_back(whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn quiet_tenant_joins_the_next_group() {
        let queue = Queue::new();
        let [greedy, quiet] = ["greedy", "quiet"].map(|name| Some(TenantId::new(name).unwrap()));
        for number in 0..10_000 {
            assert!(queue.push(greedy.clone(), number));
        }
        assert!(queue.push(quiet.clone(), 20_000));
        assert!(queue.push(None, 30_000));
        let mut group = Vec::new();
        assert!(queue.wait(&mut group, 4));
        assert_eq!(group, [0, 20_000, 30_000, 1]);
        assert_eq!(queue.len(), 9_998);
    }

    #[test]
    fn closed_queue_returns_its_remaining_items() {
        let queue = Queue::new();
        assert!(queue.push(None, 1));
        queue.close();
        assert!(!queue.push(None, 2));
        let mut group = Vec::new();
        assert!(queue.wait(&mut group, 9));
        assert_eq!(group, [1]);
        assert!(!queue.wait(&mut Vec::new(), 9));
    }
}
