//! What was asked for.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    form::{Form, form},
    notify::TraceParent,
};

form! {
    struct TaskSpec {
        program: Program,
        workdir: Option<String>,
        env: BTreeMap<String, String>,
        description: String,
        timeout: Duration,
        labels: BTreeMap<String, String>,
        request_id: Option<String>,
        #[serde(default)]
        stdin: Stdin,
        #[serde(default)]
        terminal: Option<TerminalSize>,
        #[serde(default)]
        user: Option<String>,
        #[serde(default)]
        clean_env: bool,
        #[serde(default)]
        limits: ResourceLimits,
        #[serde(default)]
        nice: u8,
        #[serde(default = "default_output_limit")]
        output_limit: u64,
        #[serde(default)]
        separate_stderr: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceparent: Option<TraceParent>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        secret_env: Vec<String>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        concealed: bool,
        #[serde(default, skip_serializing_if = "WhenFull::is_reject")]
        when_full: WhenFull,
    }
}

form! {
    #[derive(Default)]
    enum WhenFull {
        #[default]
        Reject,
        Queue {
            deadline: Duration,
        },
    }
}

impl WhenFull {
    fn is_reject(&self) -> bool {
        matches!(self, Self::Reject)
    }
}

/// The limit of records that do not name one. Stays as it is, whatever the domain's default becomes.
fn default_output_limit() -> u64 {
    100 * 1024 * 1024
}

/// The form of the domain's type of the same name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Program {
    Shell { text: String, shell: Option<String> },
    Argv(Vec<String>),
}

impl Form for Program {
    type Domain = errand_task::Program;

    fn of(domain: &Self::Domain) -> Self {
        match domain {
            errand_task::Program::Shell { text, shell } => Self::Shell { text: text.clone(), shell: shell.clone() },
            errand_task::Program::Argv(argv) => Self::Argv(argv.clone()),
        }
    }

    fn into_domain(self) -> Self::Domain {
        match self {
            Self::Shell { text, shell } => errand_task::Program::Shell { text, shell },
            Self::Argv(argv) => errand_task::Program::Argv(argv),
        }
    }
}

form! {
    #[derive(Default)]
    enum Stdin {
        #[default]
        Closed,
        Open,
    }
}

form! {
    struct TerminalSize {
        rows: u16,
        columns: u16,
    }
}

form! {
    #[derive(Default)]
    #[serde(default)]
    struct ResourceLimits {
        open_files: Option<u64>,
        processes: Option<u64>,
        file_bytes: Option<u64>,
        cpu_seconds: Option<u64>,
        address_space_bytes: Option<u64>,
        core_bytes: Option<u64>,
        stack_bytes: Option<u64>,
    }
}
