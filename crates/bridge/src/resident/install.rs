//! Getting the bridge into a sandbox.

use std::sync::Arc;

use super::wire::{Breaches, First, Wire};
use errand_runtime::{NotStarted, Runtime, RuntimeError};

/// A bridge that finds itself asked by one of a higher generation makes room for it. Raised with every release that changes the bridge.
const GENERATION: u32 = 1;

/// What came of an attempt to reach the bridge in a sandbox.
pub(super) enum Reached {
    /// It speaks. `installed`: its program is a file that commands of its user can replace.
    Bridge { wire: Wire, installed: bool },
    /// It cannot run there, and why.
    Impossible(String),
}

/// Connects to the bridge in a sandbox; puts it there and starts it where it is not.
pub(super) async fn reach(
    runtime: &dyn Runtime,
    sandbox: &str,
    root: &str,
    breaches: &Arc<Breaches>,
) -> Result<Reached, RuntimeError> {
    // Where that is missing, the sandbox was adopted, or made by another version.
    match start(runtime, sandbox, root, &runtime.guest_path(), breaches).await {
        Err(RuntimeError::NotStarted { .. }) | Ok(First::Words(_)) => {}
        Ok(First::Bridge(wire)) => return Ok(Reached::Bridge { wire, installed: false }),
        Err(error) => return Err(error),
    }
    let mut why = String::new();
    // The second is for a root on a file system from which nothing may be executed.
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
        // Not there yet.
        Err(RuntimeError::NotStarted { reason: NotStarted::NotFound, .. }) => {}
        other => return understood(other),
    }
    tracing::debug!(sandbox, path, bytes = runtime.guest().bytes().len(), "putting the bridge into a sandbox");
    match runtime.put_file(sandbox, path, runtime.guest().bytes(), 0o700).await {
        Ok(()) => understood(start(runtime, sandbox, root, path, breaches).await),
        other => understood(other.map(|()| First::Words(String::new()))),
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
    match Wire::open(runtime.exec(sandbox, &argv).await?, Arc::clone(breaches)).await? {
        First::Words(words) => match runtime.explain(&words) {
            Some(error) => Err(error),
            None if words.is_empty() => Err(RuntimeError::Unavailable { detail: "the bridge said nothing".to_owned() }),
            None => Ok(First::Words(words)),
        },
        bridge @ First::Bridge(_) => Ok(bridge),
    }
}

/// Which failures mean that the bridge cannot run there, however often it is tried.
fn understood(result: Result<First, RuntimeError>) -> Result<Reached, RuntimeError> {
    match result {
        Ok(First::Bridge(wire)) => Ok(Reached::Bridge { wire, installed: true }),
        Ok(First::Words(words)) => Ok(Reached::Impossible(words)),
        Err(error @ (RuntimeError::NotStarted { .. } | RuntimeError::NotWritten { .. })) => {
            Ok(Reached::Impossible(error.to_string()))
        }
        Err(error) => Err(error),
    }
}
