//! The stored record of a sandbox, and the id of its incarnation. A new server finds its sandboxes through these files alone.

use std::{collections::BTreeMap, fs, io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};

use super::{error::refused, files::write_atomically, root::Root};
use errand_runtime::{CreateSandbox, Found, LABEL_BOT, LABEL_SANDBOX, LABEL_TENANT, RuntimeError};
use errand_task::{Incarnation, SandboxSpec};

/// The file of the record. A sandbox exists once its directory has this file.
const RECORD: &str = "sandbox.json";
/// The file with the id of the sandbox's current or last incarnation.
const INCARNATION: &str = "life";
/// The length of a sandbox's number, in hexadecimal digits.
const NUMBER_DIGITS: usize = 12;

/// A sandbox as it was created. Servers of later versions read it: names of stored fields and variants stay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// A random number that distinguishes this sandbox from an earlier one of the same name.
    number: String,
    pub(super) name: String,
    #[serde(with = "StoredSpec")]
    pub(super) spec: SandboxSpec,
    labels: BTreeMap<String, String>,
    /// The user and group id that own the sandbox on the host; none when the server's own user does.
    pub(super) owner: Option<u32>,
    /// The size of its disk image in bytes; none when its files are in a directory of the host's disk.
    pub(super) disk: Option<u64>,
    /// The user id and group id of its processes, as seen inside.
    pub(super) user: (u32, u32),
    pub(super) root: Root,
}

/// The stored form of [`SandboxSpec`]. It names every field, so that a change of the specification does not compile until this form says how
/// it is stored.
#[derive(Serialize, Deserialize)]
#[serde(remote = "SandboxSpec")]
struct StoredSpec {
    image: String,
    memory_bytes: u64,
    cpus: f64,
    pids_limit: u64,
    network_mode: String,
    writable_root: bool,
    user: Option<String>,
    env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    idle_stop_after: Option<Duration>,
}

impl Record {
    /// The record of a new sandbox.
    pub(super) fn new(
        request: &CreateSandbox,
        root: Root,
        user: (u32, u32),
        owner: Option<u32>,
        disk: Option<u64>,
    ) -> Self {
        let mut number = random_hex();
        number.truncate(NUMBER_DIGITS);
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

    /// The runtime's id of the sandbox. It is also the name of its cgroup, where the number keeps sandboxes of two servers apart.
    pub(super) fn runtime_id(&self) -> String {
        format!("{}@{}", self.number, self.name)
    }

    /// The bot that the sandbox belongs to.
    pub(super) fn bot(&self) -> &str {
        self.labels.get(LABEL_BOT).map(String::as_str).unwrap_or_default()
    }

    /// Writes the record into the sandbox's directory.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        write_atomically(&directory.join(RECORD), &serde_json::to_vec_pretty(self)?, 0o600)
    }

    /// Reads the record from the sandbox's directory; none when it has none.
    ///
    /// # Errors
    /// [`RuntimeError::Refused`] when the file cannot be read or decoded.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, RuntimeError> {
        let path = directory.join(RECORD);
        let refused = |error: &dyn std::fmt::Display| refused(&path.display().to_string(), error);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| refused(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(refused(&error)),
        }
    }

    /// The sandbox's description for the engine.
    pub(super) fn found(&self, running: bool, incarnation: Option<IncarnationId>) -> Found {
        let incarnation = incarnation.map(|id| id.0).unwrap_or_default();
        Found {
            runtime_id: self.runtime_id(),
            name: self.name.clone(),
            running,
            paused: false,
            out_of_memory: false,
            incarnation: Incarnation(format!("{}@{incarnation}", self.runtime_id())),
            spec: self.spec.clone(),
            labels: self.labels.clone(),
        }
    }
}

/// The random id of one incarnation of a sandbox. The launcher, bubblewrap and the init have it among their arguments, which is how a
/// server finds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IncarnationId(pub(super) String);

impl IncarnationId {
    /// Makes the id of a new incarnation, and writes it into the sandbox's directory.
    pub(super) fn begin(directory: &Path) -> io::Result<Self> {
        let id = random_hex();
        fs::write(directory.join(INCARNATION), &id)?;
        Ok(Self(id))
    }

    /// The id of the current or last incarnation; none when the sandbox was never started.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        fs::read_to_string(directory.join(INCARNATION)).ok().map(Self)
    }
}

fn random_hex() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// How a caller refers to a sandbox: by its name, or by the runtime's id, which is `NUMBER@NAME`.
pub(super) struct Reference<'a> {
    pub(super) name: &'a str,
    number: Option<&'a str>,
}

impl<'a> Reference<'a> {
    pub(super) fn parse(runtime_id: &'a str) -> Self {
        match runtime_id.split_once('@') {
            Some((number, name)) => Self { name, number: Some(number) },
            None => Self { name: runtime_id, number: None },
        }
    }

    /// Whether the reference means the sandbox of this record, which has its name.
    pub(super) fn matches(&self, record: &Record) -> bool {
        self.number.is_none_or(|number| number == record.number)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    /// The record that version 0.1.0 writes.
    const RELEASED: &str = r#"{
  "number": "0123456789ab",
  "name": "errand-bot",
  "spec": {
    "image": "debian",
    "memory_bytes": 1073741824,
    "cpus": 1.5,
    "pids_limit": 256,
    "network_mode": "none",
    "writable_root": true,
    "user": "1000",
    "env": {
      "LANG": "C"
    }
  },
  "labels": {
    "errand.bot": "bot"
  },
  "owner": 231072,
  "disk": null,
  "user": [
    1000,
    1000
  ],
  "root": {
    "Copy": "/var/lib/errand/images/debian"
  }
}"#;

    #[test]
    fn released_record_is_read_and_written_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(RECORD), RELEASED).unwrap();
        let record = Record::read(directory.path()).unwrap().unwrap();
        assert_eq!((record.spec.cpus, record.spec.user.as_deref()), (1.5, Some("1000")));
        record.write(directory.path()).unwrap();
        assert_eq!(fs::read_to_string(directory.path().join(RECORD)).unwrap(), RELEASED);
    }
}
