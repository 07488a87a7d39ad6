//! Converts a sandbox to the wire type.

use super::{count, duration, timestamp};
use errand_engine::{ActiveBot, BridgeState, SandboxState, SandboxView};
use errand_proto::v1;
use errand_task::SandboxSpec;

/// Converts a sandbox and its current state. `bridge` is the kind of bridge that it has, if known.
pub(in crate::api) fn sandbox(view: SandboxView, bridge: Option<BridgeState>) -> v1::Sandbox {
    let (bridge, bridge_detail) = bridge.map(|bridge| (bridge.name.to_owned(), bridge.detail)).unwrap_or_default();
    let SandboxView { mut record, state } = view;
    if record.adopted {
        // Records of earlier versions hold the container's own environment, which users of the container have no need to see.
        record.spec.env.clear();
    }
    v1::Sandbox {
        sandbox_id: record.id.to_string(),
        bot_id: record.bot.to_string(),
        spec: Some(spec(record.spec)),
        runtime: record.runtime,
        container_id: record.runtime_id,
        container_name: record.runtime_name,
        adopted: record.adopted,
        state: sandbox_state(state).into(),
        bridge,
        bridge_detail,
        created_at: Some(timestamp(record.created_at)),
    }
}

fn spec(spec: SandboxSpec) -> v1::SandboxSpec {
    v1::SandboxSpec {
        image: spec.image,
        memory_bytes: count(spec.memory_bytes),
        cpus: spec.cpus,
        pids_limit: count(spec.pids_limit),
        network_mode: spec.network_mode,
        writable_root: spec.writable_root,
        user: spec.user.unwrap_or_default(),
        env: spec.env.into_iter().collect(),
        idle_stop_after: spec.idle_stop_after.map(duration),
    }
}

/// Converts an active bot.
pub(in crate::api) fn active_bot(active: ActiveBot) -> v1::ActiveBot {
    let ActiveBot { bot, unfinished, oldest, calls } = active;
    v1::ActiveBot {
        bot_id: bot.to_string(),
        unfinished_tasks: i32::try_from(unfinished).unwrap_or(i32::MAX),
        oldest_task_at: oldest.map(timestamp),
        open_calls: i32::try_from(calls).unwrap_or(i32::MAX),
    }
}

fn sandbox_state(state: SandboxState) -> v1::SandboxState {
    match state {
        SandboxState::Running => v1::SandboxState::Running,
        SandboxState::Stopped => v1::SandboxState::Stopped,
        SandboxState::Gone => v1::SandboxState::Gone,
        SandboxState::Unknown => v1::SandboxState::Unknown,
    }
}
