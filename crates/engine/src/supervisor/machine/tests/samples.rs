//! Records and answers that tests start from.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use errand_bridge::Finding;
use errand_runtime::Found;
use errand_task::{
    BotId, Incarnation, Nonce, Owner, Program, SandboxId, SandboxSpec, SessionId, Task, TaskId, TaskSpec, TaskState,
    TenantId, sentinel::Sentinel,
};

/// The wall time at which every schedule starts.
pub(crate) fn wall() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
}

static TASK: LazyLock<Task> = LazyLock::new(|| Task {
    id: TaskId::new(),
    owner: Owner {
        tenant: TenantId::new("t").expect("valid"),
        bot: BotId::new("b").expect("valid"),
        session: SessionId::new("s").expect("valid"),
    },
    sandbox: SandboxId::new(),
    spec: Arc::new(TaskSpec::new(Program::Argv(Vec::new()), Duration::ZERO)),
    nonce: Nonce::new(),
    state: TaskState::Queued,
    late_outcome: None,
    output_file: "/tmp/errand/x/output.log".to_owned(),
    output: Default::default(),
    stall: None,
    usage: None,
    stop_requested: None,
    memory_kills: Default::default(),
    notify: Default::default(),
    heartbeat_from: Duration::ZERO,
    idle_since: None,
    watches: Default::default(),
    retained: None,
    created_at: wall(),
    revision: 0,
});

/// A queued task.
pub(crate) fn task() -> Task {
    TASK.clone()
}

/// A running sandbox.
pub(crate) fn found() -> Found {
    Found {
        runtime_id: "s".to_owned(),
        name: String::new(),
        running: true,
        paused: false,
        incarnation: Incarnation("1".to_owned()),
        spec: SandboxSpec {
            image: String::new(),
            memory_bytes: 0,
            cpus: 1.0,
            pids_limit: 0,
            network_mode: String::new(),
            writable_root: false,
            user: None,
            env: BTreeMap::new(),
            idle_stop_after: None,
        },
        out_of_memory: false,
        labels: BTreeMap::new(),
    }
}

/// A task without a trace in its sandbox.
pub(crate) fn finding() -> Finding {
    Finding {
        directory: false,
        started: false,
        process: None,
        alive: false,
        supervised: false,
        sentinel: Sentinel::Absent,
        output_bytes: 0,
        incomplete: false,
        gap: None,
        usage: None,
        oom_kills: 0,
    }
}
