//! A bot's sandbox.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::{
    Undecodable, decode, encode,
    form::{Form as _, form, text},
};
use crate::StoreError;

form! {
    version 1 struct SandboxRecord {
        #[serde(with = "text")]
        id: errand_task::SandboxId,
        #[serde(with = "text")]
        tenant: errand_task::TenantId,
        #[serde(with = "text")]
        bot: errand_task::BotId,
        spec: SandboxSpec,
        runtime: String,
        runtime_id: String,
        runtime_name: String,
        adopted: bool,
        created_at: SystemTime,
    }
}

form! {
    struct SandboxSpec {
        image: String,
        memory_bytes: u64,
        cpus: f64,
        pids_limit: u64,
        network_mode: String,
        writable_root: bool,
        user: Option<String>,
        env: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        idle_stop_after: Option<Duration>,
    }
}

/// The text of a sandbox.
pub(crate) fn encode_sandbox(sandbox: &errand_task::SandboxRecord) -> Result<String, StoreError> {
    encode(&SandboxRecord::of(sandbox))
}

/// The sandbox back.
pub(crate) fn decode_sandbox(text: &[u8]) -> Result<errand_task::SandboxRecord, Undecodable> {
    Ok(decode::<SandboxRecord>(text)?.into_domain())
}
