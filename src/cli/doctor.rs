//! `errand doctor`: shows what this machine offers to a server, what is missing, and how to fix each problem.

use serde_json::json;

use super::{console::Console, error::CliError, exit_code, serve, serve_args::ServeArgs};
use crate::app::diagnostics::{self, Check, Diagnostics};

/// Width of the state column.
const STATES: usize = 16;
/// Width of the name column.
const NAMES: usize = 17;

/// Runs the diagnostics and prints them. Exit code 0 if at least one runtime works, else 1.
pub(super) async fn doctor(args: ServeArgs, console: &mut Console) -> Result<u8, CliError> {
    let config = serve::settings(&args)?;
    let diagnostics = diagnostics::run(&config).await;
    for check in &diagnostics.checks {
        let text = if console.is_json() { json_line(check) } else { lines(check) };
        console.line(&text).await?;
    }
    let last = if console.is_json() { json_end(&diagnostics) } else { format!("\n{}", end(&diagnostics)) };
    console.line(&last).await?;
    Ok(if diagnostics.works { exit_code::SUCCESS } else { exit_code::FAILURE })
}

/// A check as a line, and a second line for the fix.
fn lines(check: &Check) -> String {
    let line = format!("{:STATES$}{:NAMES$}{}", check.state.name(), check.name, check.detail);
    match &check.remedy {
        Some(remedy) => format!("{line}\n{:1$}do: {remedy}", "", STATES + NAMES),
        None => line,
    }
}

fn json_line(check: &Check) -> String {
    json!({
        "name": check.name,
        "state": check.state.name().replace(' ', "_"),
        "detail": check.detail,
        "remedy": check.remedy,
    })
    .to_string()
}

/// The conclusion of all checks.
fn end(diagnostics: &Diagnostics) -> String {
    match (diagnostics.runtime, diagnostics.works) {
        (Some(runtime), _) => format!("errand serve makes its sandboxes with the runtime {runtime}"),
        (None, true) => "the configured runtime does not work; another one does".to_owned(),
        (None, false) => "no runtime works: fix docker or the first missing item as shown above".to_owned(),
    }
}

fn json_end(diagnostics: &Diagnostics) -> String {
    json!({ "runtime": diagnostics.runtime, "works": diagnostics.works }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::diagnostics::State;

    #[test]
    fn remedy_is_printed_below_a_missing_item() {
        let mut check = Check {
            name: "bubblewrap",
            state: State::Missing,
            detail: "bwrap is not installed".to_owned(),
            remedy: Some("apk add bubblewrap".to_owned()),
        };
        let expected = "missing         bubblewrap       bwrap is not installed\n                                 do: apk add bubblewrap";
        assert_eq!(lines(&check), expected);
        check.remedy = None;
        assert_eq!(lines(&check).lines().count(), 1);
        assert_eq!(
            json_line(&check),
            r#"{"detail":"bwrap is not installed","name":"bubblewrap","remedy":null,"state":"missing"}"#
        );
    }
}
