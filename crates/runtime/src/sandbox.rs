//! Names a sandbox among all runtimes.

use std::{fmt, sync::Arc};

use errand_task::{Incarnation, SandboxRecord};

/// Names a sandbox: its runtime, and that runtime's id of it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxRef {
    /// The runtime's name, such as `docker`.
    pub runtime: Arc<str>,
    /// The runtime's own id of the sandbox.
    pub id: Arc<str>,
    /// The incarnation in which the sandbox was last seen; none when the sandbox was not looked at.
    pub incarnation: Option<Incarnation>,
}

impl SandboxRef {
    /// Names a sandbox whose incarnation is not known.
    pub fn new(runtime: &str, id: &str) -> Self {
        Self { runtime: runtime.into(), id: id.into(), incarnation: None }
    }

    /// Names the sandbox of a stored record.
    pub fn of(record: &SandboxRecord) -> Self {
        Self::new(&record.runtime, &record.runtime_id)
    }

    /// The same sandbox, seen in this incarnation.
    #[must_use]
    pub fn seen_in(self, incarnation: Incarnation) -> Self {
        Self { incarnation: Some(incarnation), ..self }
    }
}

/// Shows the runtime's id, as logs and errors name the sandbox.
impl fmt::Display for SandboxRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}
