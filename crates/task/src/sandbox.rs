//! The record of a sandbox.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::{BotId, SandboxId, TenantId};

/// How to make a sandbox. The server's defaults are already filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxSpec {
    /// Container image.
    pub image: String,
    /// Memory limit in bytes.
    pub memory_bytes: u64,
    /// CPU limit in cores.
    pub cpus: f64,
    /// The most processes at the same time.
    pub pids_limit: u64,
    /// `bridge`, `none`, or a network of the engine.
    pub network_mode: String,
    /// Whether the root file system is writable. Otherwise only `/tmp` and `/workspace` are.
    pub writable_root: bool,
    /// User to run as: name, uid or uid:gid. Default: the image's.
    pub user: Option<String>,
    /// Environment of every command in the sandbox.
    pub env: BTreeMap<String, String>,
    /// How long it must not be used to be stopped. Zero: it is never stopped. Default: the server's.
    pub idle_stop_after: Option<Duration>,
}

/// A bot's sandbox. There is at most one for each (tenant, bot).
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxRecord {
    /// Its id.
    pub id: SandboxId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// The bot that it belongs to.
    pub bot: BotId,
    /// How it was made.
    pub spec: SandboxSpec,
    /// The runtime that it lives on, such as `docker`.
    pub runtime: String,
    /// The runtime's own id: the container's full id.
    pub runtime_id: String,
    /// The runtime's own name: the container's name.
    pub runtime_name: String,
    /// True if Errand adopted the container and did not make it.
    pub adopted: bool,
    /// When it was made or adopted.
    pub created_at: SystemTime,
}
