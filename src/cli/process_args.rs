//! The arguments of `run` that configure the command's process.

use clap::Args;

use super::{error::CliError, terminal, text};
use errand_proto::v1::{ResourceLimits, StartTaskRequest};

/// Settings of the command's process.
#[derive(Debug, Args)]
pub struct ProcessArgs {
    /// Forward standard input to the command. With -d: keep it open for `errand attach`.
    #[arg(short, long)]
    pub interactive: bool,
    /// Give the command a terminal; with -i, connect it to this one.
    #[arg(short, long, conflicts_with = "separate_stderr")]
    pub tty: bool,
    /// User to run as in the sandbox: name or uid, and a group after a colon [default: the sandbox's].
    #[arg(long, value_name = "USER", default_value = "", hide_default_value = true)]
    pub user: String,
    /// Give the command only the variables of --env and none of the sandbox's environment.
    #[arg(long)]
    pub clean_env: bool,
    /// Limit of each process: open-files, processes, file-bytes, cpu-seconds, address-space-bytes, core-bytes or stack-bytes; repeatable.
    #[arg(long, value_name = "NAME=NUMBER", value_parser = parse_limit)]
    pub limit: Vec<(String, i64)>,
    /// Niceness of the command: 0 to 19; a higher value yields to other processes.
    #[arg(long, value_name = "N", default_value = "0", hide_default_value = true)]
    pub nice: i32,
    /// The most output that is kept, such as 1GiB [default: 100MiB].
    #[arg(long, value_name = "SIZE", value_parser = text::parse_size)]
    pub output_limit: Option<i64>,
    /// Keep standard error separate from standard output.
    #[arg(long)]
    pub separate_stderr: bool,
}

/// Reads `open-files=64` or `file-bytes=1MiB`.
fn parse_limit(text: &str) -> Result<(String, i64), String> {
    let (name, number) =
        text::parse_pair(text).map_err(|_| "expected NAME=NUMBER, such as open-files=64".to_owned())?;
    let mut limits = ResourceLimits::default();
    field(&mut limits, &name).ok_or_else(|| format!("there is no limit called {name}"))?;
    Ok((name, text::parse_size(&number)?))
}

/// The limit of this name.
fn field<'a>(limits: &'a mut ResourceLimits, name: &str) -> Option<&'a mut Option<i64>> {
    Some(match name {
        "open-files" => &mut limits.open_files,
        "processes" => &mut limits.processes,
        "file-bytes" => &mut limits.file_bytes,
        "cpu-seconds" => &mut limits.cpu_seconds,
        "address-space-bytes" => &mut limits.address_space_bytes,
        "core-bytes" => &mut limits.core_bytes,
        "stack-bytes" => &mut limits.stack_bytes,
        _ => return None,
    })
}

impl ProcessArgs {
    /// Applies these arguments to a request.
    pub(super) fn put_into(self, request: StartTaskRequest) -> Result<StartTaskRequest, CliError> {
        let mut limits = ResourceLimits::default();
        for (name, number) in &self.limit {
            if let Some(limit) = field(&mut limits, name)
                && limit.replace(*number).is_some()
            {
                return Err(CliError::Usage(format!("--limit: {name} is given more than once")));
            }
        }
        Ok(StartTaskRequest {
            stdin: self.interactive && !self.tty,
            terminal: self.tty.then(terminal::size),
            user: self.user,
            clean_env: self.clean_env,
            limits: (!self.limit.is_empty()).then_some(limits),
            nice: self.nice,
            output_limit_bytes: self.output_limit.unwrap_or_default(),
            separate_stderr: self.separate_stderr,
            ..request
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn limits_have_names_and_numbers() {
        assert_eq!(parse_limit("open-files=64").unwrap(), ("open-files".to_owned(), 64));
        assert_eq!(parse_limit("file-bytes=1MiB").unwrap().1, 1 << 20);
        for wrong in ["open-files", "files=1", "open-files=many", "=1"] {
            assert!(parse_limit(wrong).is_err(), "{wrong}");
        }
    }
}
