//! `errand health`: checks whether the server is serving. Made for probes, so there are only two exit codes: 0 and 1.

use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use super::{args::Globals, connection::Connection, console::Console, error::CliError, exit_code};

/// Asks the server for its health.
pub(super) async fn health(globals: &Globals, console: &mut Console) -> Result<u8, CliError> {
    let status = match check(globals).await {
        Ok(status) => status,
        Err(error @ CliError::Usage(_)) => return Err(error),
        Err(error) => {
            console.error(&error).await;
            return Ok(exit_code::FAILURE);
        }
    };
    let name = status.as_str_name();
    let line = if console.is_json() { serde_json::json!({ "status": name }).to_string() } else { name.to_lowercase() };
    console.line(&line).await?;
    Ok(if status == ServingStatus::Serving { exit_code::SUCCESS } else { exit_code::FAILURE })
}

async fn check(globals: &Globals) -> Result<ServingStatus, CliError> {
    // The empty name stands for the server as a whole.
    let request = HealthCheckRequest { service: String::new() };
    let answer = Connection::open(globals).await?.health().check(request).await?.into_inner();
    Ok(answer.status())
}
