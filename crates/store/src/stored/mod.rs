//! The stored form of records: JSON with a version, apart from the domain's types.
//!
//! Owns what is written and the conversion from and to the domain. Every store uses it; it knows nothing of tables. The files in `golden/`
//! hold what each version wrote, and tests decode all of them.
//!
//! | record | version | since | form |
//! |---|---|---|---|
//! | task | 1 | 0.1.0 | one text; no field `version` |
//! | task | 2 | | two texts: what was accepted, and the progress; the revision is stored beside them |
//! | notification, sandbox | 1 | 0.1.0 | one text; a missing `version` means 1 |
//! | retained output | | | its summary and its runs as texts, the bytes as they are or as one LZ4 block |
//!
//! A field may be added without a new version if its absence has a meaning (`#[serde(default)]`). Everything else is a new version.

mod form;
mod notification;
mod notify;
mod observed;
mod outcome;
mod output;
mod sandbox;
mod spec;
mod state;
mod task;
mod watch;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::StoreError;

pub(crate) use notification::{decode_notification, encode_notification};
pub(crate) use output::{PackedOutput, decode_output, decode_retained};
pub(crate) use sandbox::{decode_sandbox, encode_sandbox};
pub(crate) use task::{decode_task, encode_accepted, encode_progress};

/// The version of records without a field `version`.
fn first_version() -> u32 {
    1
}

/// A record that says its version.
trait Versioned {
    /// The newest version that this server understands.
    const KNOWN: u32;

    /// The version of this record.
    fn version(&self) -> u32;
}

/// Why a text cannot be decoded: kind and place of the fault, and nothing of the text, because records hold secrets.
#[derive(Debug)]
pub(crate) struct Undecodable(pub(crate) String);

fn encode(record: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(StoreError::Unstorable)
}

fn decode<R: Versioned + DeserializeOwned>(text: &[u8]) -> Result<R, Undecodable> {
    let decoded = serde_json::from_slice::<R>(text);
    // A newer record may lack a field of this version: then only its version can be read.
    let version = match &decoded {
        Ok(record) => record.version(),
        Err(_) => serde_json::from_slice::<Head>(text).map_or(0, |head| head.version),
    };
    if version > R::KNOWN {
        return Err(Undecodable(format!("version {version} is newer than version {}, the newest known", R::KNOWN)));
    }
    // The error's own message would quote what it has found.
    decoded.map_err(|error| {
        Undecodable(format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column()))
    })
}

/// The version alone.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

#[cfg(test)]
mod tests;
