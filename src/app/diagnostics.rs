//! Diagnostics: what this machine offers to a server with these settings, what is missing, and how to fix each problem.

use std::{io, os::unix::net::UnixStream, path::Path};

use rustix::fs::{Access, access};

use crate::config::{Config, RuntimeKind};
use errand_embedded::{Availability, HostCapabilities};
use errand_runtime::{DockerRuntime, Runtime as _};
use errand_task::error_chain;

/// The container engine's default socket.
const SOCKET: &str = "/var/run/docker.sock";

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Name of the check, such as `bubblewrap`.
    pub name: &'static str,
    /// The state of the thing that was checked.
    pub state: State,
    /// What was found.
    pub detail: String,
    /// How to fix it; none when there is nothing to fix.
    pub remedy: Option<String>,
}

/// The state of the thing that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Ok,
    /// It works, but something that it should provide is missing.
    Degraded,
    /// It does not work.
    Missing,
    /// The settings do not ask for it.
    NotConfigured,
}

impl State {
    /// The state's name, such as `not configured`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Missing => "missing",
            Self::NotConfigured => "not configured",
        }
    }
}

/// The results of all checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    /// The checks, in the order of display.
    pub checks: Vec<Check>,
    /// The runtime that a server with an empty store would use; none when the server would not start, or would wait for the container
    /// engine.
    pub runtime: Option<&'static str>,
    /// Whether any runtime works.
    pub works: bool,
}

/// Runs all checks on this machine.
pub async fn run(config: &Config) -> Diagnostics {
    let docker = engine(config).await;
    let host = tokio::task::spawn_blocking(HostCapabilities::detect).await;
    let (capabilities, embedded) = match &host {
        Ok(host) => (host.all(), host.first_missing().is_none()),
        Err(_) => (&[][..], false),
    };
    let has_docker = docker.state == State::Ok;
    let mut checks = vec![docker];
    checks.extend(capabilities.iter().map(|capability| check(capability.name, &capability.availability)));
    checks.push(check("data-directory", &data_directory(&config.data_dir)));
    for (name, what) in [("postgresql", "tasks are kept in SQLite"), ("kubernetes", "sandboxes run on this machine")] {
        checks.push(Check { name, state: State::NotConfigured, detail: what.to_owned(), remedy: None });
    }
    let runtime = match config.runtime {
        RuntimeKind::Auto | RuntimeKind::Docker if has_docker => Some("docker"),
        RuntimeKind::Auto | RuntimeKind::Embedded if embedded => Some("embedded"),
        RuntimeKind::Auto | RuntimeKind::Docker | RuntimeKind::Embedded => None,
    };
    Diagnostics { checks, runtime, works: has_docker || embedded }
}

fn check(name: &'static str, availability: &Availability) -> Check {
    let (state, detail, remedy) = match availability {
        Availability::Ok { detail } => (State::Ok, detail, None),
        Availability::Degraded { why, remedy } => (State::Degraded, why, Some(remedy)),
        Availability::Missing { why, remedy } => (State::Missing, why, Some(remedy)),
    };
    Check { name, state, detail: detail.clone(), remedy: remedy.cloned() }
}

async fn engine(config: &Config) -> Check {
    let host = config.docker_host.as_deref();
    let availability = match DockerRuntime::new(host, crate::guest::program()).ping().await {
        Ok(()) => Availability::Ok { detail: format!("answers at {}", host.unwrap_or(SOCKET)) },
        Err(error) => Availability::Missing { why: error_chain(&error), remedy: engine_remedy(host) },
    };
    check("docker", &availability)
}

/// How to fix a container engine that does not answer.
pub(super) fn engine_remedy(host: Option<&str>) -> String {
    let path = match host {
        None => SOCKET,
        Some(host) => host.strip_prefix("unix://").unwrap_or_default(),
    };
    if path.is_empty() {
        return "start the engine at that address, or set another with --docker-host".to_owned();
    }
    match UnixStream::connect(path).map_err(|error| error.kind()) {
        Err(io::ErrorKind::PermissionDenied) => "sudo usermod -aG docker \"$USER\", then log in again".to_owned(),
        Err(io::ErrorKind::NotFound) => {
            "install and start a Docker engine: https://docs.docker.com/engine/install".to_owned()
        }
        Ok(_) | Err(_) => "sudo systemctl restart docker".to_owned(),
    }
}

/// Checks whether the server can keep its files in this directory.
fn data_directory(directory: &Path) -> Availability {
    // The server creates the directory at start. Until then, its nearest existing parent must be writable.
    let absolute = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let there = absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let remedy = || "choose another directory with --data-dir".to_owned();
    if !there.is_dir() {
        return Availability::Missing { why: format!("{} is not a directory", there.display()), remedy: remedy() };
    }
    match access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if there == absolute => Availability::Ok { detail: format!("{} is writable", there.display()) },
        Ok(()) => Availability::Ok { detail: format!("{} can be created", absolute.display()) },
        Err(error) => {
            Availability::Missing { why: format!("{} is not writable: {error}", there.display()), remedy: remedy() }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;

    #[test]
    fn data_directory_is_present_creatable_or_missing() {
        let directory = tempfile::tempdir().unwrap();
        let detail = |path: &Path| match data_directory(path) {
            Availability::Ok { detail } => detail,
            other => panic!("{other:?}"),
        };
        assert!(detail(directory.path()).ends_with("is writable"));
        assert!(detail(&directory.path().join("a/b")).ends_with("can be created"));
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(
            matches!(data_directory(&file.join("a")), Availability::Missing { why, .. } if why.ends_with("is not a directory"))
        );
    }

    #[test]
    fn engine_remedy_depends_on_the_cause() {
        assert!(engine_remedy(Some("tcp://127.0.0.1:1")).contains("--docker-host"));
        assert!(engine_remedy(Some("unix:///no/such/socket")).contains("install"));
    }

    #[tokio::test]
    async fn report_is_consistent() {
        let config = Config { docker_host: Some("unix:///no/such/socket".to_owned()), ..Config::default() };
        let diagnostics = run(&config).await;
        assert_eq!(diagnostics.checks[0].state, State::Missing);
        assert_eq!(diagnostics.runtime.is_some(), diagnostics.works);
        for check in &diagnostics.checks {
            let to_do = matches!(check.state, State::Degraded | State::Missing);
            assert_eq!(check.remedy.is_some(), to_do, "{check:?}");
        }
    }
}
