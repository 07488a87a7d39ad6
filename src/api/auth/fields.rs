//! Reads one table of the tokens file field by field and collects everything that is wrong with it, each problem with its line.

use std::fmt::Display;

use toml::Value;

use crate::toml_lines::{Node, Table};

/// The problems of a file, one line of text for each.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<String>);

impl Problems {
    /// Adds a problem at a line of the file.
    pub(super) fn add(&mut self, line: usize, problem: impl Display) {
        self.0.push(format!("line {line}: {problem}"));
    }
}

/// A table whose fields are being read.
pub(super) struct Fields<'a> {
    /// The table's name in problems, such as `token 1`.
    name: String,
    line: usize,
    table: Table<'a>,
    /// The keys that were read, present or not.
    known: Vec<&'static str>,
    problems: &'a mut Problems,
}

impl<'a> Fields<'a> {
    /// The fields of a table. `None`: the value is not a table, and this problem was added.
    pub(super) fn of(node: Node<'a>, name: String, problems: &'a mut Problems) -> Option<Self> {
        let Some(table) = node.table() else {
            problems.add(node.line(), format_args!("{name}: must be a table"));
            return None;
        };
        Some(Self { name, line: node.line(), table, known: Vec::new(), problems })
    }

    /// The field's value, or `default` if the field is absent. `None`: `read` rejected the value, and this problem was added.
    pub(super) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        self.known.push(key);
        let Some(node) = self.table.get(key) else { return Some(default) };
        let read = node.value().ok_or_else(|| "the number is out of range".to_owned()).and_then(|value| read(&value));
        read.map_err(|problem| self.add(node.line(), key, &problem)).ok()
    }

    /// The field's value, or `Some(None)` if the field is absent. `None`: `read` rejected the value, and this problem was added.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<Option<T>> {
        self.or(key, None, |value| read(value).map(Some))
    }

    /// The field's value. `None`: the field is absent or `read` rejected the value, and this problem was added.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<T> {
        if self.table.get(key).is_none() {
            self.add(self.line, key, "is missing");
        }
        self.optional(key, read)?
    }

    /// Adds a problem for every key that was not read.
    pub(super) fn finish(mut self) {
        let rule = format!("unknown key; the keys are {}", self.known.join(", "));
        for entry in self.table.entries() {
            if !self.known.contains(&entry.key) {
                self.add(entry.line, entry.key, &rule);
            }
        }
    }

    fn add(&mut self, line: usize, key: &str, problem: &str) {
        self.problems.add(line, format_args!("{}: {key}: {problem}", self.name));
    }
}

/// The value, or the rule that it breaks.
pub(super) fn must_be<T>(rule: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("must be {rule}"))
}
