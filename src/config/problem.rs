//! The errors in the settings, each reported on one line.

use std::{error::Error, fmt, io, path::PathBuf};

use super::source::Origin;

/// One error in the settings.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The text breaks the setting's rule.
    #[error("{origin}: {value:?} is not {rule}")]
    BadValue {
        /// Where the text came from.
        origin: Origin,
        /// The text.
        value: String,
        /// The rule that the text breaks.
        rule: String,
    },
    /// An environment variable's bytes are not text.
    #[error("{origin}: the value is not UTF-8")]
    NotText {
        /// The variable.
        origin: Origin,
    },
    /// The file has a key that is not a setting.
    #[error("{origin}: unknown setting")]
    UnknownKey {
        /// The key.
        origin: Origin,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{}, line {line}: {message}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// The line that is wrong, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// Two settings contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

/// Everything that is wrong with the settings; never empty. Displayed as one line for each problem.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<Problem>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
            // Each line stands alone, so it includes its cause.
            if let Some(source) = problem.source() {
                write!(f, ": {source}")?;
            }
        }
        Ok(())
    }
}

impl Error for ConfigErrors {}
