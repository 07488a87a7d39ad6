//! The engine's own settings.

use std::time::Duration;

use super::{Allowances, IdlePolicy, LaunchLimits, MaskPolicies};
use errand_secrets::Vault;
use errand_store::Caps;
use errand_task::SandboxSpec;

/// The engine's part of the configuration. The configuration defines the defaults.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The specification of a sandbox when the request gives none.
    pub sandbox: SandboxSpec,
    /// What each tenant may have.
    pub allowances: Allowances,
    /// The most unfinished tasks.
    pub caps: Caps,
    /// How long a command may run when its request does not say.
    pub default_timeout: Duration,
    /// The longest timeout that a request may ask for.
    pub max_timeout: Duration,
    /// How long a command must be silent before it can count as stalled.
    pub stall_after: Duration,
    /// How often the server checks for a stall.
    pub stall_check_interval: Duration,
    /// Time between SIGTERM and SIGKILL when the request does not say.
    pub stop_grace: Duration,
    /// How long a finished task is kept, counted from its end and its acknowledgement.
    pub retention: Duration,
    /// How long a finished task is kept, counted from its end, if no subscriber acknowledges it.
    pub notification_retention: Duration,
    /// When unused sandboxes are stopped.
    pub idle: IdlePolicy,
    /// The most bytes of a finished task's output that outlive its sandbox; 0: none.
    pub retained_output: usize,
    /// How many commands may be launched at the same time.
    pub launches: LaunchLimits,
    /// What is masked for each tenant.
    pub masks: MaskPolicies,
    /// Encrypts what must be kept of secrets.
    pub vault: Vault,
    /// How often sessions are told of matches.
    pub watches: WatchSettings,
}

/// How often sessions are told of matches of watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchSettings {
    /// The shortest time between two notifications about matches of one task.
    pub interval: Duration,
    /// The most notifications about watches that a session gets within `budget_period`.
    pub budget: u32,
    /// The time in which they are counted.
    pub budget_period: Duration,
    /// How long a session gets no further ones after that.
    pub pause: Duration,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(15),
            budget: 15,
            budget_period: Duration::from_secs(10),
            pause: Duration::from_secs(30),
        }
    }
}
