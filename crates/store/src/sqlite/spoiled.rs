//! Stored records that cannot be understood: damaged ones, or those of a newer Errand. Each spoils itself alone: it is logged with its id,
//! counted, and left out of lists. The row stays as it is.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use crate::StoreError;

/// How many are remembered as logged. Beyond that, one may be logged again.
const REMEMBERED: usize = 10_000;

/// The spoiled records that were met.
#[derive(Debug, Default)]
pub(super) struct Spoiled {
    known: Mutex<HashSet<(&'static str, String)>>,
}

impl Spoiled {
    /// None instead of a record that cannot be understood, which is logged when it is met for the first time.
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
            let spoiled = known.len();
            tracing::error!(what, %id, %detail, spoiled, "a stored record cannot be understood; it is left alone and left out");
        }
        Ok(None)
    }

    /// How many different ones were met.
    pub(super) fn count(&self) -> usize {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
