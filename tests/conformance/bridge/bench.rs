//! A bridge and a sandbox, with the operations that the tests need.

use std::{any::Any, sync::Arc, time::Duration};

use errand_bridge::{Attachment, SandboxBridge, Finding, LaunchSettings, Piece, Report};
use errand_runtime::Runtime;
use errand_task::{Ending, Nonce, ProcessIdentity, Program, TaskId, TaskSpec};
use tokio::time::{Instant, timeout};

/// No operation here takes longer on a machine that works.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A bridge and a running sandbox.
pub struct Bench {
    pub bridge: Arc<dyn SandboxBridge>,
    pub runtime: Arc<dyn Runtime>,
    pub sandbox: String,
    pub root: &'static str,
    pub _keep: Box<dyn Any + Send + Sync>,
}

/// The result of a command.
#[derive(Debug, Default)]
pub struct Ran {
    pub id: Option<TaskId>,
    pub process: Option<ProcessIdentity>,
    pub output: Vec<u8>,
    pub skipped: bool,
    pub ending: Option<Ending>,
    pub over: Option<(u64, bool)>,
}

impl Ran {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

pub fn spec(program: Program) -> TaskSpec {
    TaskSpec {
        env: [("GREETING".to_owned(), "hello \"world\"\n$HOME".to_owned())].into(),
        ..TaskSpec::new(program, Duration::from_secs(60))
    }
}

/// The settings of every launch in these tests.
pub const SETTINGS: LaunchSettings = LaunchSettings {
    grace: Duration::from_secs(5),
    quiet_after: Duration::from_secs(1),
    look_every: Duration::from_secs(1),
};

/// Whether a report is the end of an attachment.
pub fn is_end(report: &Report) -> bool {
    matches!(report, Report::Ended { .. })
}

/// The ending in a report.
pub fn ending_of(report: Report) -> Option<Ending> {
    match report {
        Report::Ended { ending, .. } => Some(ending),
        _ => None,
    }
}

/// The bytes of an output report, and their position.
pub fn bytes_of(report: Report) -> (u64, Vec<u8>) {
    match report {
        Report::Output(piece) => (piece.offset, piece.bytes.to_vec()),
        other => panic!("no output: {other:?}"),
    }
}

pub fn text(command: &str) -> TaskSpec {
    spec(Program::Shell { text: command.to_owned(), shell: None })
}

impl Bench {
    /// A script that signals every process that supervises a task: the recorded one, and those whose arguments name the task's directory.
    pub fn to_supervisors(&self, id: TaskId, signal: &str) -> String {
        let root = self.root;
        format!(
            "{{ head -n 1 {root}/{id}/processes | cut -d' ' -f1; grep -l /{id} /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3; }} | \
             while read -r p; do kill -{signal} $p; done"
        )
    }

    pub async fn launch(&self, spec: &TaskSpec) -> (TaskId, Nonce, Attachment) {
        let (id, nonce) = (TaskId::new(), Nonce::new());
        let attachment = self.bridge.launch(id, nonce, spec, SETTINGS, &[]).await.unwrap();
        (id, nonce, attachment)
    }

    /// Runs a command to its end.
    pub async fn run(&self, spec: &TaskSpec) -> Ran {
        let (id, _, attachment) = self.launch(spec).await;
        let mut ran = timeout(DEADLINE, read(attachment)).await.expect("the command ends in time");
        if ran.skipped {
            ran.output = self.log(id).await;
        }
        Ran { id: Some(id), ..ran }
    }

    pub async fn probe(&self, id: TaskId, nonce: Nonce) -> Finding {
        self.bridge.probe(&[(id, nonce)], false).await.unwrap().remove(0)
    }

    pub async fn probe_until(&self, id: TaskId, nonce: Nonce, what: &str, done: impl Fn(&Finding) -> bool) -> Finding {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let finding = self.probe(id, nonce).await;
            if done(&finding) {
                return finding;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}: {finding:?}");
        }
    }

    /// Runs a script in the sandbox without going through the bridge, and returns what the script prints.
    pub async fn sh(&self, script: &str) -> String {
        let argv = ["sh", "-c", script].map(str::to_owned);
        let said = self.runtime.exec(&self.sandbox, &argv).await.unwrap().collect(1 << 20).await.unwrap();
        String::from_utf8_lossy(&said.stdout).into_owned()
    }

    pub async fn log(&self, id: TaskId) -> Vec<u8> {
        let piece = Piece::From { offset: 0, limit: 1 << 30 };
        self.bridge.read(id, piece).await.unwrap().bytes().await.unwrap()
    }
}

/// Reads an attachment to its end.
pub async fn read(mut attachment: Attachment) -> Ran {
    let mut ran = Ran::default();
    loop {
        match attachment.next().await.unwrap() {
            Report::Started { process, .. } => ran.process = Some(process),
            Report::Output(piece) => ran.output.extend_from_slice(&piece.bytes),
            Report::Skipped { .. } => ran.skipped = true,
            Report::Activity(_) | Report::Watching | Report::Matched { .. } => {}
            Report::Ended { ending, .. } => ran.ending = Some(ending),
            Report::Over { bytes, incomplete, .. } => ran.over = Some((bytes, incomplete)),
            Report::Claimed | Report::Broken => return ran,
        }
    }
}

/// Reads reports until one satisfies `wanted`.
pub async fn until(attachment: &mut Attachment, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let report = tokio::time::timeout_at(deadline, attachment.next()).await;
        let report = report.unwrap_or_else(|_| panic!("waited in vain for {what}")).unwrap();
        if wanted(&report) {
            return report;
        }
        assert_ne!(report, Report::Broken, "the attachment broke off before {what}");
    }
}
