//! What the model of a sandbox answers.

use std::time::{Duration, Instant, SystemTime};

use super::{
    samples,
    sandbox::{PROCESS, Sandbox},
};
use errand_bridge::Finding;
use errand_runtime::{FileAtRest, Found, RuntimeError};
use errand_task::{
    Ending,
    sentinel::{self, Sentinel},
};

/// For how long after a command's end the sandbox may show neither the process that keeps it nor its exit file.
const TORN: Duration = Duration::from_millis(500);

impl Sandbox {
    pub(super) fn inspect(&self, now: Instant) -> Result<Found, RuntimeError> {
        if self.is_down(now) {
            return Err(RuntimeError::Unavailable { detail: "down".to_owned() });
        }
        if !self.exists {
            return Err(RuntimeError::NoSuchSandbox { id: "s".to_owned() });
        }
        Ok(Found {
            running: self.running,
            paused: self.running && now < self.paused_until,
            incarnation: self.incarnation(),
            ..samples::found()
        })
    }

    pub(super) fn probe(&mut self, fence: bool, now: Instant, wall: SystemTime) -> Result<Finding, RuntimeError> {
        if !self.answers(now) {
            return Err(RuntimeError::Unavailable { detail: "deaf".to_owned() });
        }
        self.fenced |= fence && !self.directory;
        let started = self.process.is_some();
        let age = self.age(now).unwrap_or_default();
        // The exit file and the processes are not read at one moment.
        let torn = self.written_at.is_some_and(|at| now.saturating_duration_since(at) < TORN);
        let sentinel = self.exit_file.clone().filter(|_| !torn).map_or(Sentinel::Absent, Sentinel::Complete);
        Ok(Finding {
            directory: (self.directory && !self.wiped) || self.fenced,
            started: started && !self.wiped,
            process: (started && !self.wiped).then(|| (PROCESS, wall.checked_sub(age).unwrap_or(wall))),
            alive: self.runs(),
            supervised: self.shim && !self.wiped,
            sentinel,
            output_bytes: self.output,
            ..samples::finding()
        })
    }

    pub(super) fn read_at_rest(&self, path: &str, now: Instant) -> Result<Option<FileAtRest>, RuntimeError> {
        self.inspect(now)?;
        if !path.ends_with(sentinel::NAME) {
            return Ok(Some(FileAtRest { size: self.output, content: Vec::new() }));
        }
        let Some(ending) = &self.exit_file else { return Ok(None) };
        let result = match ending {
            Ending::Exited(code) => format!("exited {code}"),
            Ending::Signaled(signal) => format!("signaled {}", signal.number()),
            Ending::TimedOut { after } => format!("timed_out {}", after.as_millis()),
            Ending::FailedToStart { .. } | Ending::Lost { .. } => String::new(),
        };
        let content = format!("{}{result}\n", sentinel::head(self.nonce)).into_bytes();
        Ok(Some(FileAtRest { size: content.len() as u64, content }))
    }

    /// Whether the exit file tells how the command really ended, and not by chance: a file that the running command wrote proves nothing, even if
    /// the command then ends as it says.
    pub(super) fn exit_file_is_true(&self) -> bool {
        self.written_at.is_some() && self.exit_file.is_some() && self.exit_file == self.ended
    }
}
