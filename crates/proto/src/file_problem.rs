//! Names of file problems on the internal protocol.

use crate::bridge::FileProblem;

/// What the protocol's names of file problems begin with.
const PREFIX: &str = "FILE_PROBLEM_";

impl FileProblem {
    /// The problem with this name, such as `IS_A_DIRECTORY`; none if the protocol has no such problem.
    pub fn named(name: &str) -> Option<Self> {
        Self::from_str_name(&format!("{PREFIX}{name}"))
    }

    /// Its name, such as `IS_A_DIRECTORY`.
    pub fn name(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix(PREFIX).unwrap_or(name)
    }
}
