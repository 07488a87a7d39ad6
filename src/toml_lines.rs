//! Reads TOML in which every key and value knows its line, so that an error in the settings file or the tokens file can name it.

use serde::Deserialize as _;
use toml::{
    Spanned, Value,
    de::{DeTable, DeValue, ValueDeserializer},
};

/// A TOML document.
pub(crate) struct Document<'a> {
    text: &'a str,
    root: DeTable<'a>,
}

/// The error in a text that is not TOML.
#[derive(Debug)]
pub(crate) struct NotToml {
    /// The line of the error, from 1.
    pub(crate) line: usize,
    /// The error on one line, without values of the document.
    pub(crate) message: String,
}

/// A table of a document.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    text: &'a str,
    table: &'a DeTable<'a>,
}

/// A key of a table, and its value.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// The key.
    pub(crate) key: &'a str,
    /// The line of the key, from 1.
    pub(crate) line: usize,
    /// The value.
    pub(crate) node: Node<'a>,
}

/// A value of a document: a scalar, an array or a table.
#[derive(Clone, Copy)]
pub(crate) struct Node<'a> {
    text: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Document<'a> {
    /// Parses a text.
    ///
    /// # Errors
    /// The first error in the text.
    pub(crate) fn parse(text: &'a str) -> Result<Self, NotToml> {
        match DeTable::parse(text) {
            Ok(root) => Ok(Self { text, root: root.into_inner() }),
            Err(error) => Err(NotToml {
                line: line(text, error.span().map_or(0, |span| span.start)),
                message: error.message().replace('\n', " "),
            }),
        }
    }

    /// The document's top-level table.
    pub(crate) fn root(&self) -> Table<'_> {
        Table { text: self.text, table: &self.root }
    }
}

impl<'a> Table<'a> {
    /// The entries, sorted by key.
    pub(crate) fn entries(self) -> impl Iterator<Item = Entry<'a>> {
        self.table.iter().map(move |(key, value)| Entry {
            key: key.get_ref(),
            line: line(self.text, key.span().start),
            node: Node { text: self.text, value },
        })
    }

    /// The value of a key.
    pub(crate) fn get(self, key: &str) -> Option<Node<'a>> {
        self.table.get(key).map(|value| Node { text: self.text, value })
    }
}

impl<'a> Node<'a> {
    /// The line on which the value begins, from 1. For a table it is the line of its header.
    pub(crate) fn line(self) -> usize {
        line(self.text, self.value.span().start)
    }

    /// The table; `None` for any other value.
    pub(crate) fn table(self) -> Option<Table<'a>> {
        self.value.get_ref().as_table().map(|table| Table { text: self.text, table })
    }

    /// The elements of an array; `None` for any other value.
    pub(crate) fn elements(self) -> Option<Vec<Self>> {
        let array = self.value.get_ref().as_array()?;
        Some(array.iter().map(|value| Self { text: self.text, value }).collect())
    }

    /// The value without its lines; `None` for a number that is out of range.
    pub(crate) fn value(self) -> Option<Value> {
        Value::deserialize(ValueDeserializer::from(self.value.clone())).ok()
    }
}

/// The line of a byte, from 1.
fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn keys_and_values_know_their_lines() {
        let document = Document::parse("a = 1\n\n[[b]]\nc = [\n  2,\n  3]\n\n[[b]]\n").unwrap();
        let keys: Vec<_> = document.root().entries().map(|entry| (entry.key, entry.line)).collect();
        assert_eq!(keys, [("a", 1), ("b", 3)]);
        let tables = document.root().get("b").unwrap().elements().unwrap();
        assert_eq!(tables.iter().map(|table| table.line()).collect::<Vec<_>>(), [3, 8]);
        let numbers = tables[0].table().unwrap().get("c").unwrap().elements().unwrap();
        assert_eq!(numbers.iter().map(|number| number.line()).collect::<Vec<_>>(), [5, 6]);
        assert_eq!(numbers[1].value(), Some(Value::Integer(3)));
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        let error = Document::parse("a = 1\nb = = 2\n").err().unwrap();
        assert_eq!(error.line, 2, "{}", error.message);
    }
}
