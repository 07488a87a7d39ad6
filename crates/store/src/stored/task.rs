//! A task, in two parts: what was accepted and never changes, and its progress. A store rewrites the progress alone, because the accepted
//! part can hold a command of 1 MiB.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use errand_task::{Nonce, SandboxId, Task, TaskId};
use serde::{Deserialize, Serialize};

use super::{
    Undecodable, Versioned, decode, encode,
    form::{Form as _, form, text},
    notify::NotifyPolicy,
    observed::{MemoryKills, OutputSummary, ResourceUsage, Stall},
    outcome::{Outcome, StopCause},
    spec::TaskSpec,
    state::TaskState,
    watch::Watches,
};
use crate::StoreError;

/// Version 1 was one text with both parts.
const VERSION: u32 = 2;

form! {
    struct Owner {
        #[serde(with = "text")]
        tenant: errand_task::TenantId,
        #[serde(with = "text")]
        bot: errand_task::BotId,
        #[serde(with = "text")]
        session: errand_task::SessionId,
    }
}

/// What never changes once the task is accepted.
#[derive(Debug, Serialize, Deserialize)]
struct Accepted {
    #[serde(default = "super::first_version")]
    version: u32,
    #[serde(with = "text")]
    id: TaskId,
    owner: Owner,
    #[serde(with = "text")]
    sandbox: SandboxId,
    spec: TaskSpec,
    #[serde(with = "text")]
    nonce: Nonce,
    output_file: String,
    created_at: SystemTime,
}

/// What changes.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    #[serde(default = "super::first_version")]
    version: u32,
    state: TaskState,
    late_outcome: Option<Outcome>,
    output: OutputSummary,
    stall: Option<Stall>,
    #[serde(default)]
    usage: Option<ResourceUsage>,
    #[serde(default)]
    stop_requested: Option<StopCause>,
    #[serde(default, skip_serializing_if = "MemoryKills::is_none")]
    memory_kills: MemoryKills,
    #[serde(default, skip_serializing_if = "NotifyPolicy::is_default")]
    notify: NotifyPolicy,
    #[serde(default, skip_serializing_if = "Duration::is_zero")]
    heartbeat_from: Duration,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle_since: Option<SystemTime>,
    #[serde(default, skip_serializing_if = "Watches::is_none")]
    watches: Watches,
}

impl Versioned for Accepted {
    const KNOWN: u32 = VERSION;
    fn version(&self) -> u32 {
        self.version
    }
}

impl Versioned for Progress {
    const KNOWN: u32 = VERSION;
    fn version(&self) -> u32 {
        self.version
    }
}

/// The text of what was accepted.
pub(crate) fn encode_accepted(task: &Task) -> Result<String, StoreError> {
    encode(&Accepted {
        version: VERSION,
        id: task.id,
        owner: Owner::of(&task.owner),
        sandbox: task.sandbox,
        spec: TaskSpec::of(&task.spec),
        nonce: task.nonce,
        output_file: task.output_file.clone(),
        created_at: task.created_at,
    })
}

/// The text of a task's progress.
pub(crate) fn encode_progress(task: &Task) -> Result<String, StoreError> {
    encode(&Progress {
        version: VERSION,
        state: TaskState::of(&task.state),
        late_outcome: Option::of(&task.late_outcome),
        output: OutputSummary::of(&task.output),
        stall: Option::of(&task.stall),
        usage: Option::of(&task.usage),
        stop_requested: Option::of(&task.stop_requested),
        memory_kills: MemoryKills::of(&task.memory_kills),
        notify: NotifyPolicy::of(&task.notify),
        heartbeat_from: task.heartbeat_from,
        idle_since: task.idle_since,
        watches: Watches::of(&task.watches),
    })
}

/// The task of an accepted part and its progress. Without a progress, the accepted part is of version 1 and holds it too. What is retained of
/// its output is stored beside both.
pub(crate) fn decode_task(accepted: &[u8], progress: Option<&[u8]>, revision: i64) -> Result<Task, Undecodable> {
    let progress: Progress = decode(progress.unwrap_or(accepted))?;
    let accepted: Accepted = decode(accepted)?;
    Ok(Task {
        id: accepted.id,
        owner: accepted.owner.into_domain(),
        sandbox: accepted.sandbox,
        spec: Arc::new(accepted.spec.into_domain()),
        nonce: accepted.nonce,
        state: progress.state.into_domain(),
        late_outcome: progress.late_outcome.into_domain(),
        output_file: accepted.output_file,
        output: progress.output.into_domain(),
        stall: progress.stall.into_domain(),
        usage: progress.usage.into_domain(),
        stop_requested: progress.stop_requested.into_domain(),
        memory_kills: progress.memory_kills.into_domain(),
        notify: progress.notify.into_domain(),
        heartbeat_from: progress.heartbeat_from,
        idle_since: progress.idle_since,
        watches: progress.watches.into_domain(),
        retained: None,
        created_at: accepted.created_at,
        revision,
    })
}
