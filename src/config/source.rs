//! The sources of settings other than the environment: flags from the command line, and the settings file. Reading the file is the only I/O
//! of this module.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::problem::Problem;
use crate::toml_lines::{Document, Entry, NotToml};

/// The flags that were given: each flag's name, without dashes, and its text. Nothing is parsed yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags(pub BTreeMap<&'static str, String>);

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line, by its name without dashes.
    Flag(&'static str),
    /// An environment variable.
    Env(String),
    /// A key of the settings file.
    File {
        /// The file.
        path: PathBuf,
        /// The key in it.
        key: String,
        /// The line of the key, from 1.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Env(name) => f.write_str(name),
            Self::File { path, key, line } => write!(f, "{key} in {}, line {line}", path.display()),
        }
    }
}

/// A settings file and what was read from it.
#[derive(Debug)]
pub struct SettingsFile {
    /// The file's path.
    pub path: PathBuf,
    /// The file's text, or the error of reading it, which is reported together with all other problems.
    pub text: io::Result<String>,
}

impl SettingsFile {
    /// Reads the file.
    pub fn read(path: &Path) -> Self {
        Self { path: path.to_owned(), text: fs::read_to_string(path) }
    }

    /// The keys and their values as text. Adds what cannot be read to `problems`.
    pub(super) fn values(self, problems: &mut Vec<Problem>) -> BTreeMap<String, (Origin, String)> {
        let Self { path, text } = self;
        let text = match text {
            Ok(text) => text,
            Err(source) => {
                problems.push(Problem::Unreadable { path, source });
                return BTreeMap::new();
            }
        };
        let document = match Document::parse(&text) {
            Ok(document) => document,
            Err(NotToml { line, message }) => {
                problems.push(Problem::NotToml { path, line, message });
                return BTreeMap::new();
            }
        };
        let mut values = BTreeMap::new();
        for Entry { key, line, node } in document.root().entries() {
            let origin = Origin::File { path: path.clone(), key: key.to_owned(), line };
            let Some(value) = node.value() else {
                let message = format!("{key}: the number is out of range");
                problems.push(Problem::NotToml { path: path.clone(), line, message });
                continue;
            };
            match scalar(&value) {
                Some(text) => {
                    values.insert(key.to_owned(), (origin, text));
                }
                None => problems.push(Problem::BadValue {
                    origin,
                    value: value.to_string(),
                    rule: "a text, a number, true or false".to_owned(),
                }),
            }
        }
        values
    }
}

/// A single value in the form that a flag would have. `cpus = 2` and `cpus = "2"` are the same.
fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}
