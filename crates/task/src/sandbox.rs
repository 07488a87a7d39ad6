//! What a sandbox is, as Errand remembers it.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{BotId, SandboxId, TenantId};

/// How a sandbox is made. Complete: the server's defaults are filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Container image.
    pub image: String,
    /// Memory limit in bytes.
    pub memory_bytes: u64,
    /// CPU limit in cores.
    pub cpus: f64,
    /// The most processes at a time.
    pub pids_limit: u64,
    /// `bridge`, `none`, or a network of the engine.
    pub network_mode: String,
    /// Whether more than `/tmp` and `/workspace` can be written.
    pub writable_root: bool,
    /// Name, uid or uid:gid; none: the image's.
    pub user: Option<String>,
    /// Environment of every command in it.
    pub env: BTreeMap<String, String>,
}

/// A bot's sandbox. There is at most one for each (tenant, bot).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Its id.
    pub id: SandboxId,
    /// The owner's tenant.
    pub tenant: TenantId,
    /// The owner.
    pub bot: BotId,
    /// How it was made.
    pub spec: SandboxSpec,
    /// The runtime that keeps it, such as `docker`.
    pub runtime: String,
    /// The runtime's own id for it.
    pub runtime_id: String,
    /// The runtime's own name for it.
    pub runtime_name: String,
    /// True when Errand found it and did not make it.
    pub adopted: bool,
    /// When it was made or adopted.
    pub created_at: SystemTime,
}
