//! `errand serve`: loads the settings and runs the server.

use super::{error::CliError, exit_code, serve_args::ServeArgs};
use crate::{
    app,
    config::{Config, SettingsFile},
};

/// The server's settings with these arguments.
pub(super) fn settings(args: &ServeArgs) -> Result<Config, CliError> {
    let file = args.config.as_deref().map(SettingsFile::read);
    Config::load(&args.flags, std::env::vars_os(), file).map_err(CliError::Settings)
}

/// Runs the server until it ends.
pub(super) async fn serve(args: ServeArgs) -> Result<u8, CliError> {
    app::serve(settings(&args)?).await.map_err(|error| match error.is_configuration() {
        true => CliError::Usage(error.with_sources()),
        false => CliError::Server(error.with_sources()),
    })?;
    Ok(exit_code::SUCCESS)
}
