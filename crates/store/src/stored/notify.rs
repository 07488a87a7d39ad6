//! What a session is told about a task.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::form::{Form, form};

form! {
    #[derive(PartialEq)]
    struct NotifyPolicy {
        completion: CompletionNotice,
        head_bytes: usize,
        tail_bytes: usize,
        heartbeat_every: Option<Duration>,
        idle_after: Option<Duration>,
    }
}

/// The policy of records that do not hold one. Stays as it is, whatever the domain's default becomes.
impl Default for NotifyPolicy {
    fn default() -> Self {
        let completion = CompletionNotice::Always;
        Self { completion, head_bytes: 0, tail_bytes: 4096, heartbeat_every: None, idle_after: None }
    }
}

impl NotifyPolicy {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

form! {
    #[derive(PartialEq)]
    enum CompletionNotice {
        Always,
        UnlessSucceeded,
        Never,
    }
}

form! {
    struct Liveness {
        silent_for: Duration,
        last_line: String,
    }
}

/// A trace context as its header's value. One that is not valid is refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct TraceParent(errand_task::TraceParent);

impl From<TraceParent> for String {
    fn from(traceparent: TraceParent) -> Self {
        traceparent.0.to_string()
    }
}

impl TryFrom<String> for TraceParent {
    type Error = errand_task::TraceParentError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        errand_task::TraceParent::new(&text).map(Self)
    }
}

impl Form for TraceParent {
    type Domain = errand_task::TraceParent;

    fn of(domain: &Self::Domain) -> Self {
        Self(domain.clone())
    }

    fn into_domain(self) -> Self::Domain {
        self.0
    }
}

/// Whether a flag has the value that its absence means.
pub(super) fn is_false(flag: &bool) -> bool {
    !flag
}
