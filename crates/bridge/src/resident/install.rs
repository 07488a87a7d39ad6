//! Installs and starts the guest in a sandbox.

use std::sync::Arc;

use super::channel::{Breaches, Channel, First};
use errand_runtime::{NotStarted, Runtime, RuntimeError};

/// A bridge process makes room for one of a higher generation that asks for its place. Raised with every release that changes the guest.
const GENERATION: u32 = 2;

/// The result of trying to reach the guest in a sandbox.
pub(super) enum Reached {
    /// A bridge process answers. `installed`: its program is a file that commands of its user can replace.
    Bridge { channel: Channel, installed: bool },
    /// The guest cannot run in this sandbox, for this reason.
    Impossible(String),
}

/// Connects to the bridge process in a sandbox. Installs the guest and starts the bridge process if necessary.
pub(super) async fn reach(
    runtime: &dyn Runtime,
    sandbox: &str,
    root: &str,
    breaches: &Arc<Breaches>,
) -> Result<Reached, RuntimeError> {
    // If the guest is missing here, the sandbox was adopted, or made by another version.
    match start(runtime, sandbox, root, &runtime.guest_path(), breaches).await {
        Err(RuntimeError::NotStarted { .. }) | Ok(First::Other(_)) => {}
        Ok(First::Bridge(channel)) => return Ok(Reached::Bridge { channel, installed: false }),
        Err(error) => return Err(error),
    }
    let mut why = String::new();
    // The second directory serves when the root is on a file system that forbids execution.
    for directory in [format!("{root}/.bridge"), "/var/tmp/errand-bridge".to_owned()] {
        match reach_at(runtime, sandbox, root, &format!("{directory}/{}", runtime.guest().name()), breaches).await? {
            bridge @ Reached::Bridge { .. } => return Ok(bridge),
            Reached::Impossible(reason) if why.is_empty() => why = reason,
            Reached::Impossible(_) => {}
        }
    }
    Ok(Reached::Impossible(why))
}

async fn reach_at(
    runtime: &dyn Runtime,
    sandbox: &str,
    root: &str,
    path: &str,
    breaches: &Arc<Breaches>,
) -> Result<Reached, RuntimeError> {
    match start(runtime, sandbox, root, path, breaches).await {
        // The guest is not installed yet.
        Err(RuntimeError::NotStarted { reason: NotStarted::NotFound, .. }) => {}
        other => return understood(other),
    }
    tracing::debug!(sandbox, path, bytes = runtime.guest().bytes().len(), "putting the bridge into a sandbox");
    match runtime.put_file(sandbox, path, runtime.guest().bytes(), 0o700).await {
        Ok(()) => understood(start(runtime, sandbox, root, path, breaches).await),
        other => understood(other.map(|()| First::Other(String::new()))),
    }
}

async fn start(
    runtime: &dyn Runtime,
    sandbox: &str,
    root: &str,
    path: &str,
    breaches: &Arc<Breaches>,
) -> Result<First, RuntimeError> {
    let argv = [path, "connect", root, &GENERATION.to_string()].map(str::to_owned);
    match Channel::open(runtime.exec(sandbox, &argv).await?, Arc::clone(breaches)).await? {
        First::Other(output) if output.is_empty() => {
            Err(RuntimeError::Unavailable { detail: "the bridge printed nothing".to_owned() })
        }
        first => Ok(first),
    }
}

/// Decides which failures mean that the guest cannot run in this sandbox, however often it is tried.
fn understood(result: Result<First, RuntimeError>) -> Result<Reached, RuntimeError> {
    match result {
        Ok(First::Bridge(channel)) => Ok(Reached::Bridge { channel, installed: true }),
        Ok(First::Other(output)) => Ok(Reached::Impossible(output)),
        Err(error @ (RuntimeError::NotStarted { .. } | RuntimeError::NotWritten { .. })) => {
            Ok(Reached::Impossible(error.to_string()))
        }
        Err(error) => Err(error),
    }
}
