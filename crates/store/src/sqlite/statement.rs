//! A statement assembled from parts, with the values that it binds.

use rusqlite::{CachedStatement, Connection, ToSql, types::Value};

use crate::StoreError;

/// SQL text and its values, in order.
pub(super) struct Statement {
    sql: String,
    values: Vec<Value>,
}

impl Statement {
    pub(super) fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), values: Vec::new() }
    }

    /// Appends SQL. Never text from outside: bind that.
    pub(super) fn push(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// Appends a placeholder and its value.
    pub(super) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.sql.push('?');
        self.values.push(value.into());
        self
    }

    /// Runs the statement and returns how many rows it changed.
    pub(super) fn execute(&self, connection: &Connection) -> Result<usize, StoreError> {
        Ok(self.prepare(connection)?.execute(&self.bound()[..])?)
    }

    /// Prepares the statement for a query with [`Statement::bound`].
    pub(super) fn prepare<'c>(&self, connection: &'c Connection) -> Result<CachedStatement<'c>, StoreError> {
        Ok(connection.prepare_cached(&self.sql)?)
    }

    /// The values.
    pub(super) fn bound(&self) -> Vec<&dyn ToSql> {
        self.values.iter().map(|value| value as &dyn ToSql).collect()
    }
}
