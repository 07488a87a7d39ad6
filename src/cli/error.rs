//! The errors of commands, as text, as JSON and as exit codes.

use std::{error::Error, fmt::Write, io};

use serde_json::json;
use tonic::{Code, Status, transport};
use tonic_types::StatusExt;

use super::{exit_code, text};
use crate::config::ConfigErrors;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// The arguments are invalid.
    #[error("{0}")]
    Usage(String),
    /// The server's settings are wrong.
    #[error("{0}")]
    Settings(ConfigErrors),
    /// The server could not start, or failed.
    #[error("{0}")]
    Server(String),
    /// No server answers at the address.
    #[error("no server answers at {url} (is `errand serve` running?)")]
    Unreachable {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: transport::Error,
    },
    /// The server answered with an error, or the connection broke during the call.
    #[error("{}", rpc_message(.0))]
    Rpc(#[source] Status),
    /// The server's answer violates the protocol.
    #[error("{0}")]
    Unexpected(String),
    /// The server sent malformed output.
    #[error(transparent)]
    Malformed(#[from] errand_proto::Malformed),
    /// The output could not be printed.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// A file on this machine cannot be read or written.
    #[error("{path}")]
    Local {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The input to forward could not be read.
    #[error("cannot read the input")]
    Input(#[source] io::Error),
    /// The line that the command's terminal is collecting has no room for the input.
    #[error("the command's terminal takes at most 4095 bytes of a line: {left} bytes of the input were not written")]
    LineTooLong {
        /// How many bytes of the piece that was read were not written.
        left: usize,
    },
    /// The terminal does not support raw mode.
    #[error("the terminal cannot be put into raw mode")]
    Terminal(#[source] io::Error),
    /// The handlers of signals such as Ctrl-C cannot be installed.
    #[error("cannot listen for signals")]
    Signal(#[source] io::Error),
}

impl From<Status> for CliError {
    fn from(status: Status) -> Self {
        Self::Rpc(status)
    }
}

/// A status that this program made has a source; one that the server sent has none.
fn connection_broke(status: &Status) -> bool {
    status.source().is_some()
}

fn rpc_message(status: &Status) -> String {
    if connection_broke(status) {
        return "the connection to the server was lost".to_owned();
    }
    match text::one_line(status.message(), 4000) {
        message if message.is_empty() => code_name(status.code()),
        message => message,
    }
}

impl CliError {
    /// Whether the connection to the server was lost during a call.
    pub(super) fn is_connection_loss(&self) -> bool {
        matches!(self, Self::Rpc(status) if connection_broke(status) || status.code() == Code::Unavailable)
    }

    /// Whether the task that was followed keeps running.
    pub(super) fn leaves_the_task(&self) -> bool {
        self.is_connection_loss() || matches!(self, Self::LineTooLong { .. })
    }

    /// The exit code for this error.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Settings(_) => exit_code::USAGE,
            Self::Unreachable { .. } => exit_code::UNAVAILABLE,
            Self::Rpc(_) if self.is_connection_loss() => exit_code::UNAVAILABLE,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => exit_code::BROKEN_PIPE,
            Self::Rpc(_)
            | Self::Server(_)
            | Self::Malformed(_)
            | Self::Unexpected(_)
            | Self::Output(_)
            | Self::Local { .. }
            | Self::Input(_)
            | Self::LineTooLong { .. }
            | Self::Terminal(_)
            | Self::Signal(_) => exit_code::FAILURE,
        }
    }

    /// Whether the error is not printed: the program that closed the pipe knows already.
    fn is_silent(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The error for people: one line, then one for each invalid field. `None`: the exit code alone reports it.
    pub(super) fn to_text(&self) -> Option<String> {
        if self.is_silent() {
            return None;
        }
        let mut text = format!("errand: {self}").replace('\n', "\nerrand: ");
        if let Self::Output(source)
        | Self::Local { source, .. }
        | Self::Input(source)
        | Self::Terminal(source)
        | Self::Signal(source) = self
        {
            text.extend([": ", &source.to_string()]);
        }
        for (field, description) in self.fields() {
            let [field, description] = [field, description].map(|part| text::one_line(&part, 1000));
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  {field}: {description}");
        }
        Some(text)
    }

    /// The error for scripts, on one line. `None` as for [`Self::to_text`].
    pub(super) fn to_json(&self) -> Option<String> {
        if self.is_silent() {
            return None;
        }
        let fields: Vec<_> = self
            .fields()
            .into_iter()
            .map(|(field, description)| json!({"field": field, "description": description}))
            .collect();
        let message = match self {
            // The error's own text is only the path.
            Self::Local { path, source } => format!("{path}: {source}"),
            _ => self.to_string(),
        };
        let error = json!({"code": self.code(), "message": message, "fields": fields});
        Some(json!({ "error": error }).to_string())
    }

    /// The name of the gRPC code. Errors of this program use the nearest code.
    fn code(&self) -> String {
        let code = match self {
            Self::Rpc(_) if self.is_connection_loss() => Code::Unavailable,
            Self::Rpc(status) => status.code(),
            Self::Unreachable { .. } => Code::Unavailable,
            Self::Usage(_) | Self::Settings(_) => Code::InvalidArgument,
            Self::Server(_)
            | Self::Malformed(_)
            | Self::Unexpected(_)
            | Self::Output(_)
            | Self::Local { .. }
            | Self::Input(_)
            | Self::Terminal(_)
            | Self::Signal(_) => Code::Internal,
            Self::LineTooLong { .. } => Code::OutOfRange,
        };
        code_name(code)
    }

    fn fields(&self) -> Vec<(String, String)> {
        let Self::Rpc(status) = self else { return Vec::new() };
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        violations.into_iter().map(|violation| (violation.field, violation.description)).collect()
    }
}

/// A code as the protocol spells it: `NOT_FOUND`.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for character in format!("{code:?}").chars() {
        if character.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn refusal_names_the_wrong_fields() {
        let details = ErrorDetails::with_bad_request_violation("start.timeout", "must be at most 24h");
        let status = Status::with_error_details(Code::InvalidArgument, "the request is not valid", details);
        let error = CliError::from(status);
        let expected = "errand: the request is not valid\n  start.timeout: must be at most 24h";
        assert_eq!(error.to_text().unwrap(), expected);
        let json: serde_json::Value = serde_json::from_str(&error.to_json().unwrap()).unwrap();
        let fields = json!([{"field": "start.timeout", "description": "must be at most 24h"}]);
        let expected =
            json!({"error": {"code": "INVALID_ARGUMENT", "message": "the request is not valid", "fields": fields}});
        assert_eq!(json, expected);
        assert_eq!(error.exit_code(), exit_code::FAILURE);
    }

    #[test]
    fn every_error_has_its_exit_code() {
        assert_eq!(CliError::from(Status::not_found("no such task")).exit_code(), 1);
        assert_eq!(CliError::from(Status::unavailable("shutting down")).exit_code(), 69);
        assert_eq!(CliError::Usage(String::new()).exit_code(), 64);
        let broken = CliError::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((broken.exit_code(), broken.to_text(), broken.to_json()), (141, None, None));
        assert_eq!(CliError::Output(io::ErrorKind::StorageFull.into()).exit_code(), 1);
    }

    #[test]
    fn codes_are_spelled_as_in_the_protocol() {
        assert_eq!(code_name(Code::NotFound), "NOT_FOUND");
        assert_eq!(code_name(Code::FailedPrecondition), "FAILED_PRECONDITION");
        assert_eq!(code_name(Code::Ok), "OK");
    }
}
