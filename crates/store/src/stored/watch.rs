//! The watches of a task, and what its session is told of them.

use serde::{Deserialize, Serialize};

use super::form::{Form, form};

form! {
    #[derive(Default, PartialEq)]
    struct Watches {
        set: u32,
        list: Vec<WatchState>,
    }
}

impl Watches {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

form! {
    #[derive(PartialEq)]
    struct WatchState {
        watch: Watch,
        matches: u64,
        held_back: u64,
        next: u64,
        unsearched: u64,
        disabled: bool,
    }
}

form! {
    #[derive(PartialEq)]
    struct Watch {
        pattern: WatchPattern,
        once: bool,
    }
}

/// The form of the domain's type of the same name.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WatchPattern {
    Text(String),
    Regex(String),
}

impl Form for WatchPattern {
    type Domain = errand_task::WatchPattern;

    fn of(domain: &Self::Domain) -> Self {
        match domain {
            errand_task::WatchPattern::Text(text) => Self::Text(text.clone()),
            errand_task::WatchPattern::Regex(pattern) => Self::Regex(pattern.clone()),
        }
    }

    fn into_domain(self) -> Self::Domain {
        match self {
            Self::Text(text) => errand_task::WatchPattern::Text(text),
            Self::Regex(pattern) => errand_task::WatchPattern::Regex(pattern),
        }
    }
}

form! {
    struct WatchNotice {
        index: u32,
        watch: Watch,
        offset: u64,
        lines: WatchLines,
        matches: u64,
        others: Vec<WatchCount>,
    }
}

form! {
    struct WatchLines {
        text: String,
        cut: bool,
    }
}

form! {
    struct WatchCount {
        index: u32,
        matches: u64,
    }
}
