//! The server's own log lines: to standard error, as text or as JSON. Standard output belongs to the command line.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::config::LogFormat;

/// Writes log lines from here on. Only the first call of a process has an effect.
///
/// # Errors
/// When `filter` is no filter.
pub fn init(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    let builder = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(EnvFilter::try_new(filter)?);
    let begun = match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    // Whoever was first goes on writing.
    drop(begun);
    Ok(())
}
