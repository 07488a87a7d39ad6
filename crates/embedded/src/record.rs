//! What is remembered of a sandbox on the disk. A new server knows nothing else.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{home::write_whole, root::Root};
use errand_runtime::{CreateSandbox, Found, LABEL_BOT, LABEL_SANDBOX, LABEL_TENANT, RuntimeError};
use errand_task::{Incarnation, SandboxSpec};

/// The file of the record. The sandbox is made when it is there.
const RECORD: &str = "sandbox.json";
/// The file with the name of the sandbox's life.
const LIFE: &str = "life";
/// Digits of what tells one sandbox of a name from the next.
const NUMBER: usize = 12;

/// A sandbox, as it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// What tells this sandbox from an earlier one of the same name.
    number: String,
    pub(super) name: String,
    pub(super) spec: SandboxSpec,
    labels: BTreeMap<String, String>,
    /// The user and group that it belongs to outside, by number; none: those of whoever made it.
    pub(super) owner: Option<u32>,
    /// Whether its files are on a disk of its own, of that size in bytes.
    pub(super) disk: Option<u64>,
    /// The user and group inside, by number.
    pub(super) user: (u32, u32),
    pub(super) root: Root,
}

impl Record {
    /// A new sandbox.
    pub(super) fn new(
        request: &CreateSandbox,
        root: Root,
        user: (u32, u32),
        owner: Option<u32>,
        disk: Option<u64>,
    ) -> Self {
        let mut number = random();
        number.truncate(NUMBER);
        Self {
            number,
            name: request.name.clone(),
            spec: request.spec.clone(),
            labels: BTreeMap::from([
                (LABEL_TENANT.to_owned(), request.tenant.to_string()),
                (LABEL_BOT.to_owned(), request.bot.to_string()),
                (LABEL_SANDBOX.to_owned(), request.id.to_string()),
            ]),
            owner,
            disk,
            user,
            root,
        }
    }

    /// The runtime's id for it. It is also the name of its cgroup: two servers may have sandboxes of the same name.
    pub(super) fn runtime_id(&self) -> String {
        format!("{}@{}", self.number, self.name)
    }

    /// Whose it is.
    pub(super) fn bot(&self) -> &str {
        self.labels.get(LABEL_BOT).map(String::as_str).unwrap_or_default()
    }

    /// Writes it.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        write_whole(&directory.join(RECORD), &serde_json::to_vec_pretty(self)?, 0o600)
    }

    /// Reads it; none when there is none.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] for one that cannot be read.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, RuntimeError> {
        let path = directory.join(RECORD);
        let refused = |error: &dyn std::fmt::Display| super::home::refused(&path.display().to_string(), error);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| refused(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(refused(&error)),
        }
    }

    /// How the sandbox is now.
    pub(super) fn found(&self, running: bool, life: Option<Life>) -> Found {
        let life = life.map(|life| life.0).unwrap_or_default();
        Found {
            runtime_id: self.runtime_id(),
            name: self.name.clone(),
            running,
            paused: false,
            out_of_memory: false,
            incarnation: Incarnation(format!("{}@{life}", self.runtime_id())),
            spec: self.spec.clone(),
            labels: self.labels.clone(),
        }
    }
}

/// The name of one life of a sandbox. Its init and whatever makes it carry that among their arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Life(pub(super) String);

impl Life {
    /// Begins another life.
    pub(super) fn begin(directory: &Path) -> io::Result<Self> {
        let life = random();
        fs::write(directory.join(LIFE), &life)?;
        Ok(Self(life))
    }

    /// The life that a sandbox is in, or was in last; none when it never had one.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        fs::read_to_string(directory.join(LIFE)).ok().map(Self)
    }
}

fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// What a caller names a sandbox by: its name, or the runtime's id, which has a number as well.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    number: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    pub(super) fn parse(runtime_id: &'a str) -> Self {
        match runtime_id.split_once('@') {
            Some((number, name)) => Self { name, number: Some(number) },
            None => Self { name: runtime_id, number: None },
        }
    }

    /// Whether it is this one that is meant.
    pub(super) fn is(&self, record: &Record) -> bool {
        self.number.is_none_or(|number| number == record.number)
    }
}
