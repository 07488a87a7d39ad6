//! The engine's own settings.

use std::time::Duration;

use super::{Allowances, LaunchLimits};
use errand_store::Caps;
use errand_task::SandboxSpec;

/// What the engine needs to know of the configuration. The configuration says the defaults.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The sandbox that is made where a request does not say how.
    pub sandbox: SandboxSpec,
    /// What each tenant may have.
    pub allowances: Allowances,
    /// The most unfinished tasks.
    pub caps: Caps,
    /// How long a command may run where its request does not say.
    pub default_timeout: Duration,
    /// The longest timeout that a request may ask for.
    pub max_timeout: Duration,
    /// How long a command must be silent to be called stalled.
    pub stall_after: Duration,
    /// How often that is looked at.
    pub stall_check_interval: Duration,
    /// Between SIGTERM and SIGKILL where a request does not say.
    pub stop_grace: Duration,
    /// How long a finished task is kept, from its end.
    pub retention: Duration,
    /// How long a notification is kept that nobody acknowledges.
    pub notification_retention: Duration,
    /// How many commands are launched at the same time.
    pub launches: LaunchLimits,
}
