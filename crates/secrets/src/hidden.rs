//! What a task's record does not show, and its encoded form.

use std::{collections::BTreeMap, fmt};

use errand_task::{Program, Secret, TaskSpec};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What a task's record does not show. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden {
    /// The command as the caller sent it.
    pub program: Program,
    /// The working directory as the caller sent it.
    pub workdir: Option<String>,
    /// The environment as the caller sent it.
    pub env: BTreeMap<String, String>,
    /// The variables that are secret.
    pub secret_env: BTreeMap<String, Secret>,
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hidden").field("secret_env", &self.secret_env.keys()).finish_non_exhaustive()
    }
}

impl Hidden {
    /// The specification that the bridge launches: the task's own, with everything that it does not show.
    pub fn reveal(self, spec: &TaskSpec) -> TaskSpec {
        let Self { program, workdir, mut env, secret_env } = self;
        env.extend(secret_env.into_iter().map(|(name, value)| (name, value.expose().to_owned())));
        TaskSpec { program, workdir, env, ..spec.clone() }
    }

    /// What a launch needs, encoded.
    pub(crate) fn encode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let (shell, argv) = match &self.program {
            Program::Shell { text, shell } => (Some((text.as_str(), shell.as_deref())), None),
            Program::Argv(argv) => (None, Some(&argv[..])),
        };
        let secret_env = self.secret_env.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        let form = Written { shell, argv, workdir: self.workdir.as_deref(), env: &self.env, secret_env };
        encode(&form)
    }

    /// What was encoded.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let read: Read = serde_json::from_slice(bytes).ok()?;
        let program = match (read.shell, read.argv) {
            (Some((text, shell)), None) => Program::Shell { text, shell },
            (None, Some(argv)) => Program::Argv(argv),
            _ => return None,
        };
        let secret_env = read.secret_env.into_iter().map(|(name, value)| (name, Secret::new(value))).collect();
        Some(Self { program, workdir: read.workdir, env: read.env, secret_env })
    }
}

/// Encodes the values alone, for the masks.
pub(crate) fn encode_values<'a>(values: impl Iterator<Item = &'a Secret>) -> Option<Zeroizing<Vec<u8>>> {
    encode(&values.map(Secret::expose).collect::<Vec<_>>())
}

pub(crate) fn decode_values(bytes: &[u8]) -> Option<Vec<Secret>> {
    let values: Vec<String> = serde_json::from_slice(bytes).ok()?;
    Some(values.into_iter().map(Secret::new).collect())
}

fn encode(form: &impl Serialize) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    serde_json::to_writer(&mut *bytes, form).ok()?;
    Some(bytes)
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    shell: Option<(&'a str, Option<&'a str>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    argv: Option<&'a [String]>,
    workdir: Option<&'a str>,
    env: &'a BTreeMap<String, String>,
    secret_env: BTreeMap<&'a str, &'a str>,
}

#[derive(Deserialize)]
struct Read {
    #[serde(default)]
    shell: Option<(String, Option<String>)>,
    #[serde(default)]
    argv: Option<Vec<String>>,
    workdir: Option<String>,
    env: BTreeMap<String, String>,
    secret_env: BTreeMap<String, String>,
}
