//! What must hold after every crash.

use std::collections::BTreeMap;

use errand_proto::v1::{ListTasksRequest, NotificationKind, StartTaskRequest, Task};

use crate::support::client::{Session, described, ended};

/// Tasks that each leave a mark in their sandbox each time they run.
pub struct Tasks {
    session: Session,
    started: Vec<Started>,
}

/// How a launch that a crash interrupted may end. The later checks verify that *failed to start* is true and that nothing ran twice.
const CUT_SHORT: [&str; 2] = ["failed_to_start LAUNCH_INTERRUPTED", "lost LAUNCH_INTERRUPTED"];

struct Started {
    id: String,
    mark: String,
    /// How the task must end.
    end: String,
}

impl Tasks {
    pub fn of(session: &Session) -> Self {
        Self { session: session.clone(), started: Vec::new() }
    }

    /// The request for a command that leaves a mark first.
    pub fn request(session: &Session, mark: &str, command: &str) -> StartTaskRequest {
        let command = format!("echo {mark} >>/workspace/runs; {command}");
        StartTaskRequest { request_id: mark.to_owned(), ..session.request(&command) }
    }

    /// Starts a task that must end like `end`.
    pub async fn start(&mut self, command: &str, end: &str) -> Task {
        let mark = format!("mark-{}", self.started.len());
        let task = self.session.start_as(Self::request(&self.session, &mark, command)).await;
        self.note(&task, end);
        task
    }

    /// Adds a task that was started by other means.
    pub fn note(&mut self, task: &Task, end: &str) {
        let (id, mark) = (task.task_id.clone(), task.request_id.clone());
        self.started.push(Started { id, mark, end: end.to_owned() });
    }

    /// Waits for all tasks, and accepts those that report an interrupted launch: at most this many.
    pub async fn excuse_cut_launches(&mut self, at_most: usize) {
        let mut cut = 0;
        for (task, started) in self.finished().await.iter().zip(&mut self.started) {
            let end = ended(task);
            if CUT_SHORT.contains(&end.as_str()) {
                cut += 1;
                started.end = end;
            }
        }
        println!("{cut} of {} launches were cut short", self.started.len());
        assert!(cut <= at_most, "{cut} launches were cut short, and at most {at_most} were under way");
    }

    /// All tasks in their current state, in the order in which they were started.
    pub async fn now(&self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for started in &self.started {
            tasks.push(self.session.get(&started.id).await);
        }
        tasks
    }

    /// All tasks in their final state.
    pub async fn finished(&self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for started in &self.started {
            tasks.push(self.session.finished(&started.id).await);
        }
        tasks
    }

    /// Waits for all tasks, then checks that none was lost, run twice, or reported wrongly.
    pub async fn check(&self) {
        for (task, started) in self.finished().await.iter().zip(&self.started) {
            assert_eq!(ended(task), started.end, "{task:?}");
        }
        self.check_runs().await;
        self.check_notices().await;
        self.check_records().await;
    }

    async fn check_runs(&self) {
        let mut runs = BTreeMap::new();
        for mark in self.session.exec("cat /workspace/runs").await.lines() {
            *runs.entry(mark.to_owned()).or_insert(0) += 1;
        }
        for Started { mark, end, .. } in &self.started {
            let count = runs.remove(mark).unwrap_or(0);
            let right = match end.as_str() {
                "lost LAUNCH_INTERRUPTED" => 0..=1,
                end if end.starts_with("failed_to_start") => 0..=0,
                _ => 1..=1,
            };
            assert!(right.contains(&count), "{mark}, {end}: ran {count} times");
        }
        assert_eq!(runs, BTreeMap::new(), "nothing else ran");
    }

    async fn check_notices(&self) {
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for notice in self.session.told().await {
            if notice.kind() == NotificationKind::Completed {
                told.entry(notice.task_id).or_default().push(described(notice.outcome.as_ref().unwrap()));
            }
        }
        let expected = self.started.iter().map(|started| (started.id.clone(), vec![started.end.clone()])).collect();
        assert_eq!(told, expected, "each end was told exactly once");
    }

    async fn check_records(&self) {
        let request = ListTasksRequest { bot_id: self.session.bot.clone(), ..Default::default() };
        let mut listed: Vec<_> = self.session.listed(request).await.into_iter().map(|task| task.task_id).collect();
        let mut expected: Vec<_> = self.started.iter().map(|started| started.id.clone()).collect();
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected, "no task was lost, and none came from nowhere");
    }
}
