//! How values of the domain stand in SQL.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Row, Rows, types::ValueRef};
use serde::de::DeserializeOwned;

use super::spoiled::Spoiled;
use crate::StoreError;

/// Microseconds since 1970, rounded down towards it.
pub(super) fn micros(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    }
}

/// The time behind [`micros`].
pub(super) fn time(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// The records of a result without those that cannot be understood. Each row is an id and a record.
pub(super) fn decode_all<T: DeserializeOwned>(
    mut rows: Rows<'_>,
    what: &'static str,
    spoiled: &Spoiled,
) -> Result<Vec<T>, StoreError> {
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.extend(spoiled.skip(decode(row, what))?);
    }
    Ok(records)
}

/// The record of a result of an id and a record, if there is one.
pub(super) fn decode_one<T: DeserializeOwned>(mut rows: Rows<'_>, what: &'static str) -> Result<Option<T>, StoreError> {
    rows.next()?.map(|row| decode(row, what)).transpose()
}

/// The record of a row that begins with an id and a record.
pub(super) fn decode<T: DeserializeOwned>(row: &Row<'_>, what: &'static str) -> Result<T, StoreError> {
    let text = match row.get_ref(1)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => &[],
    };
    serde_json::from_slice(text).map_err(|error| StoreError::Record {
        what,
        id: id(row.get_ref(0)),
        // Not the error's own words: they quote what they have found, and that may be a secret.
        detail: format!("{:?} error at line {} column {}", error.classify(), error.line(), error.column()),
    })
}

fn id(value: Result<ValueRef<'_>, rusqlite::Error>) -> String {
    match value {
        Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Ok(ValueRef::Integer(number)) => number.to_string(),
        Ok(ValueRef::Null | ValueRef::Real(_)) | Err(_) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_back_to_the_microsecond() {
        for moment in [0, 1, -1, 1_700_000_000_123_456, -5_000_000_001] {
            assert_eq!(micros(time(moment)), moment);
        }
    }
}
