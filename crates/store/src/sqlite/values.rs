//! Values of the domain in SQL: times, texts and records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Row, Rows, types::ValueRef};

use super::undecodable::Undecodable;
use crate::{StoreError, stored};

/// Microseconds since 1970, rounded towards it.
pub(super) fn micros(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
    }
}

/// The inverse of [`micros`].
pub(super) fn time(micros: i64) -> SystemTime {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

/// The bytes of a text column; empty for anything else.
pub(super) fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r [u8], StoreError> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => &[],
    })
}

/// Decoded rows, without those that cannot be decoded.
pub(super) fn decode_all<T>(
    mut rows: Rows<'_>,
    decode: impl Fn(&Row<'_>) -> Result<T, StoreError>,
    undecodable: &Undecodable,
) -> Result<Vec<T>, StoreError> {
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        records.extend(undecodable.skip(decode(row))?);
    }
    Ok(records)
}

/// The first row, decoded.
pub(super) fn decode_one<T>(
    mut rows: Rows<'_>,
    decode: impl Fn(&Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    rows.next()?.map(decode).transpose()
}

/// The error for a row whose first column is its id.
pub(super) fn undecodable(row: &Row<'_>, what: &'static str, fault: stored::Undecodable) -> StoreError {
    let id = match row.get_ref(0) {
        Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
        Ok(ValueRef::Integer(number)) => number.to_string(),
        Ok(ValueRef::Null | ValueRef::Real(_)) | Err(_) => "?".to_owned(),
    };
    StoreError::Record { what, id, detail: fault.0 }
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
