//! How values of the domain stand in SQL.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Row, Rows};
use serde::de::DeserializeOwned;

use crate::store::StoreError;

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

/// The records of a result: the first column of its rows.
pub(super) fn decode_all<T: DeserializeOwned>(mut rows: Rows<'_>) -> Result<Vec<T>, StoreError> {
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.push(decode(row, 0)?);
    }
    Ok(records)
}

/// The record of a result, if there is one.
pub(super) fn decode_one<T: DeserializeOwned>(mut rows: Rows<'_>) -> Result<Option<T>, StoreError> {
    rows.next()?.map(|row| decode(row, 0)).transpose()
}

/// The record in a column.
pub(super) fn decode<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T, StoreError> {
    let record = row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?;
    Ok(serde_json::from_str(record)?)
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
