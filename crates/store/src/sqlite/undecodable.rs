//! Stored records that cannot be decoded: damaged records, or those of a newer Errand. Lists leave such a record out, and the row stays as
//! it is. This module logs each record once and counts them.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crate::StoreError;

/// How many records are remembered as logged. After that many, a record may be logged again.
const REMEMBERED: usize = 10_000;

/// The undecodable records that were found.
#[derive(Debug, Default)]
pub(super) struct Undecodable {
    known: Mutex<HashSet<(&'static str, String)>>,
}

impl Undecodable {
    /// None instead of a record that cannot be decoded. Other errors stay.
    pub(super) fn skip<T>(&self, decoded: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        let (what, id, detail) = match decoded {
            Err(StoreError::Record { what, id, detail }) => (what, id, detail),
            other => return other.map(Some),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        if known.insert((what, id.clone())) {
            let count = known.len();
            tracing::error!(what, %id, %detail, count, "a stored record cannot be decoded; lists leave it out");
        }
        Ok(None)
    }

    /// How many different records were found.
    pub(super) fn count(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
