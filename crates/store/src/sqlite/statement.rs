//! A statement that is put together from pieces, with its values.

use rusqlite::{CachedStatement, Connection, ToSql, types::Value};

use crate::StoreError;

/// SQL and what is bound in it, in order.
pub(super) struct Statement {
    sql: String,
    values: Vec<Value>,
}

impl Statement {
    pub(super) fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), values: Vec::new() }
    }

    /// Adds SQL: words of our own, never anything from outside.
    pub(super) fn push(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// Adds a value.
    pub(super) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.sql.push('?');
        self.values.push(value.into());
        self
    }

    /// Runs it and returns how many rows it changed.
    pub(super) fn execute(&self, connection: &Connection) -> Result<usize, StoreError> {
        Ok(self.prepare(connection)?.execute(&self.bound()[..])?)
    }

    /// It, ready to be asked for rows with [`Statement::bound`].
    pub(super) fn prepare<'c>(&self, connection: &'c Connection) -> Result<CachedStatement<'c>, StoreError> {
        Ok(connection.prepare_cached(&self.sql)?)
    }

    /// Its values.
    pub(super) fn bound(&self) -> Vec<&dyn ToSql> {
        self.values.iter().map(|value| value as &dyn ToSql).collect()
    }
}
