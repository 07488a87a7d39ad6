//! Converts a sandbox's specification into a container, and back.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HealthConfig, HostConfig};

use super::guest;
use crate::{Asked, CreateSandbox, Found, GuestProgram, LABEL_BOT, LABEL_SANDBOX, LABEL_TENANT, RuntimeError};
use errand_task::{Incarnation, SandboxSpec};

/// Directories that are writable even if the root is not. They are on disk: logs in memory would count against the memory limit, and would
/// not survive a restart of the container.
const WRITABLE: [&str; 2] = ["/tmp", "/workspace"];
/// The guest's command that keeps the container running and does nothing else.
const IDLE: &str = "idle";
/// Capabilities with which the bridge process starts commands as other users and signals them. Commands get none of them.
const BRIDGE_CAPABILITIES: [&str; 3] = ["KILL", "SETGID", "SETUID"];
/// Nano-CPUs in one core, the engine's unit.
const NANO: f64 = 1e9;
/// More than any machine has, and small enough for all arithmetic on it.
const MOST_NANO: f64 = 1e6 * NANO;

/// Exit code of a container whose first process was ended by SIGKILL.
const KILLED: i64 = 128 + 9;

/// The request to make a container.
///
/// # Errors
/// [`RuntimeError::Refused`] for a limit that the engine cannot represent: it would not be enforced.
pub(super) fn body(request: &CreateSandbox, program: &GuestProgram) -> Result<ContainerCreateBody, RuntimeError> {
    let spec = &request.spec;
    let too_large =
        |what: &str| RuntimeError::Refused { detail: format!("{what} is larger than the engine can enforce") };
    let memory = i64::try_from(spec.memory_bytes).map_err(|_| too_large("memory_bytes"))?;
    let pids = i64::try_from(spec.pids_limit).map_err(|_| too_large("pids_limit"))?;
    let nano_cpus = spec.cpus * NANO;
    // Outside this range, the engine's own arithmetic overflows: it counts microseconds in periods of 100 ms.
    if !(1.0..=MOST_NANO).contains(&nano_cpus) {
        return Err(too_large("cpus"));
    }
    Ok(ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: Some(vec![guest::path(program), IDLE.to_owned()]),
        cmd: Some(Vec::new()),
        user: spec.user.clone(),
        working_dir: Some("/workspace".to_owned()),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(HashMap::from([
            (LABEL_TENANT.to_owned(), request.tenant.to_string()),
            (LABEL_BOT.to_owned(), request.bot.to_string()),
            (LABEL_SANDBOX.to_owned(), request.id.to_string()),
        ])),
        volumes: Some(WRITABLE.map(str::to_owned).to_vec()),
        // The engine would run the image's health check before the network is fenced.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }),
        stop_timeout: Some(2),
        host_config: Some(HostConfig {
            memory: Some(memory),
            // The same as memory: no swap on top.
            memory_swap: Some(memory),
            nano_cpus: Some(nano_cpus as i64),
            pids_limit: Some(pids),
            mounts: Some(vec![guest::mount(program, true)]),
            network_mode: Some(spec.network_mode.clone()),
            readonly_rootfs: Some(!spec.writable_root),
            // Reaps the processes that commands leave behind.
            init: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            // Users other than root could not use them.
            cap_add: spec.user.is_none().then(|| BRIDGE_CAPABILITIES.map(str::to_owned).to_vec()),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    })
}

/// Refuses a container if the engine warns that it does not enforce a limit that the caller asked for.
pub(super) fn unkept(warnings: &[String], asked: Asked) -> Result<(), RuntimeError> {
    let limits =
        [("memory_bytes", "memory", asked.memory), ("cpus", "cpu", asked.cpus), ("pids_limit", "pids", asked.pids)];
    for warning in warnings {
        let lower = warning.to_lowercase();
        let is_lost = lower.contains("discarded") || lower.contains("does not support");
        // Memory is limited even without a limit of swap.
        let is_about = |word: &str| lower.contains(word) && !lower.contains("swap");
        if let Some((name, ..)) = limits.iter().find(|(_, word, asked)| *asked && is_lost && is_about(word)) {
            return Err(RuntimeError::Refused {
                detail: format!("the limit {name} that was asked for cannot be enforced: {}", warning.trim()),
            });
        }
    }
    Ok(())
}

/// Converts the engine's description of a container.
pub(super) fn found(inspected: ContainerInspectResponse) -> Found {
    let runtime_id = inspected.id.unwrap_or_default();
    let state = inspected.state.unwrap_or_default();
    let config = inspected.config.unwrap_or_default();
    let host = inspected.host_config.unwrap_or_default();
    let env = config.env.unwrap_or_default();
    Found {
        name: inspected.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        running: state.running.unwrap_or(false) && !state.paused.unwrap_or(false),
        paused: state.paused.unwrap_or(false),
        // The engine's flag may be about any process of the container. The container itself was killed only if it exited by SIGKILL.
        out_of_memory: !state.running.unwrap_or(false)
            && state.oom_killed.unwrap_or(false)
            && state.exit_code == Some(KILLED),
        incarnation: Incarnation(format!("{runtime_id}@{}", state.started_at.unwrap_or_default())),
        spec: SandboxSpec {
            image: config.image.unwrap_or_default(),
            memory_bytes: host.memory.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
            cpus: host.nano_cpus.unwrap_or(0) as f64 / NANO,
            pids_limit: host.pids_limit.and_then(|limit| u64::try_from(limit).ok()).unwrap_or(0),
            network_mode: host.network_mode.unwrap_or_default(),
            writable_root: !host.readonly_rootfs.unwrap_or(false),
            user: config.user.filter(|user| !user.is_empty()),
            env: env
                .iter()
                .filter_map(|entry| entry.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect::<BTreeMap<_, _>>(),
            idle_stop_after: None,
        },
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        runtime_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warning_about_a_requested_limit_is_an_error() {
        let asked = Asked { memory: true, ..Asked::default() };
        let lost = ["Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.".to_owned()];
        assert!(
            matches!(unkept(&lost, asked), Err(RuntimeError::Refused { detail }) if detail.contains("memory_bytes"))
        );
        assert!(unkept(&lost, Asked { cpus: true, ..Asked::default() }).is_ok());
        let swap = ["Your kernel does not support swap limit capabilities. Memory limited without swap.".to_owned()];
        assert!(unkept(&swap, asked).is_ok());
        let pids = [
            "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded."
                .to_owned(),
        ];
        assert!(unkept(&pids, Asked { pids: true, ..Asked::default() }).is_err());
    }
}
