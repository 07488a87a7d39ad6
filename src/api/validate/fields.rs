//! The rules that several messages share: for names, ids, texts, durations, numbers and pages.
//!
//! Each function reads one field and records what is wrong with it. It returns none if something was recorded.

use std::{collections::HashMap, str::FromStr, time::Duration};

use super::Violations;
use crate::api::page;
use errand_store::BotFilter;
use errand_task::{IdError, SessionId};

/// The most entries of a page, or of a list that takes the place of a page.
pub(super) const PAGE_LIMIT: u32 = 1000;
/// The longest duration of the wire format: 10 000 years.
const DURATION_LIMIT: i64 = 315_576_000_000;
/// The most entries of an environment.
const ENV_ENTRIES: usize = 256;
/// The most bytes of an environment, counting names and values.
const ENV_BYTES: usize = 64 * 1024;
/// The variable that marks the processes of a task.
const MARK: &str = "ERRAND_TASK_ID";
/// The most labels.
const LABEL_ENTRIES: usize = 64;
/// The most characters of a label's key.
const LABEL_KEY: usize = 63;
/// The most characters of a label's value.
const LABEL_VALUE: usize = 255;

/// Which durations are valid.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// The shortest.
    pub(super) at_least: Duration,
    /// The longest.
    pub(super) at_most: Duration,
}

impl Span {
    /// Every duration up to `at_most`.
    pub(super) const fn up_to(at_most: Duration) -> Self {
        Self { at_least: Duration::ZERO, at_most }
    }
}

impl Violations {
    /// A required name or id.
    pub(super) fn id<T: FromStr<Err = IdError>>(&mut self, field: &str, text: &str) -> Option<T> {
        if text.is_empty() {
            self.add(field, IdError::Empty.to_string());
            return None;
        }
        text.parse().map_err(|error: IdError| self.add(field, error.to_string())).ok()
    }

    /// A name or id that may be left empty.
    pub(super) fn optional_id<T: FromStr<Err = IdError>>(&mut self, field: &str, text: &str) -> Option<Option<T>> {
        if text.is_empty() { Some(None) } else { self.id(field, text).map(Some) }
    }

    /// The bot that a request may name; inner none: all bots that the caller may use.
    pub(super) fn bots(&mut self, text: &str) -> Option<Option<BotFilter>> {
        Some(self.optional_id("bot_id", text)?.map(BotFilter::One))
    }

    /// The session that a request may name.
    pub(super) fn session(&mut self, text: &str) -> Option<Option<SessionId>> {
        self.optional_id("session_id", text)
    }

    /// Checks that a text has at most `limit` characters.
    pub(super) fn characters(&mut self, field: &str, text: &str, limit: usize) {
        let count = text.chars().count();
        if count > limit {
            self.add(field, format!("must be at most {limit} characters, has {count}"));
        }
    }

    /// Checks that a text has at most `limit` bytes.
    pub(super) fn bytes(&mut self, field: &str, size: usize, limit: usize) {
        if size > limit {
            self.add(field, format!("must be at most {limit} bytes, has {size}"));
        }
    }

    /// Checks that a text contains no NUL, because it is passed to a process, where NUL would end it.
    pub(super) fn no_nul(&mut self, field: &str, text: &str) {
        if let Some(position) = text.find('\0') {
            self.add(field, format!("must not hold NUL, has one at byte {position}"));
        }
    }

    /// A duration; inner none: not given.
    pub(super) fn duration(
        &mut self,
        field: &str,
        given: Option<prost_types::Duration>,
        span: Span,
    ) -> Option<Option<Duration>> {
        let Some(given) = given else { return Some(None) };
        let Some(duration) = whole(given) else {
            let prost_types::Duration { seconds, nanos } = given;
            self.add(
                field,
                format!("must not be negative or malformed, has {seconds} seconds and {nanos} nanoseconds"),
            );
            return None;
        };
        let text = humantime::format_duration;
        if duration < span.at_least {
            self.add(field, format!("must be at least {}, is {}", text(span.at_least), text(duration)));
            return None;
        }
        if duration > span.at_most {
            self.add(field, format!("must be at most {}, is {}", text(span.at_most), text(duration)));
            return None;
        }
        Some(Some(duration))
    }

    /// A count, an offset or a size; 0 stands for `default`.
    pub(super) fn number(&mut self, field: &str, given: i64, default: u64, at_most: u64) -> Option<u64> {
        let Ok(number) = u64::try_from(given) else {
            self.add(field, format!("must not be negative, is {given}"));
            return None;
        };
        if number > at_most {
            self.add(field, format!("must be at most {at_most}, is {number}"));
            return None;
        }
        Some(if number == 0 { default } else { number })
    }

    /// The size of a page.
    pub(super) fn page_size(&mut self, field: &str, given: i32, default: u32) -> Option<u32> {
        let size = self.number(field, i64::from(given), u64::from(default), u64::from(PAGE_LIMIT))?;
        u32::try_from(size).ok()
    }

    /// The position after which a page begins; inner none: the first page.
    pub(super) fn page_token<T: FromStr>(&mut self, token: &str) -> Option<Option<T>> {
        if token.is_empty() {
            return Some(None);
        }
        let place = page::place(token);
        if place.is_none() {
            self.add("page_token", "must be the next_page_token of the page before");
        }
        place.map(Some)
    }

    /// A value of an enumeration. `T` refuses unknown numbers.
    pub(super) fn choice<T: TryFrom<i32>>(&mut self, field: &str, number: i32) -> Option<T> {
        let choice = T::try_from(number).ok();
        if choice.is_none() {
            self.add(field, format!("must be a value of its enumeration, is {number}"));
        }
        choice
    }

    /// Checks the environment of a process.
    pub(super) fn env(&mut self, field: &str, env: &HashMap<String, String>) {
        if env.len() > ENV_ENTRIES {
            self.add(field, format!("must have at most {ENV_ENTRIES} entries, has {}", env.len()));
        }
        self.bytes(field, env.iter().map(|(name, value)| name.len() + value.len()).sum(), ENV_BYTES);
        for (name, value) in sorted(env) {
            let path = format!("{field}[{name:?}]");
            // Checks only what execve(2) requires: programs and shells decide for themselves which names they accept.
            if name.is_empty() || name.contains(['=', '\0']) {
                self.add(&path, "must have a name that is not empty and holds neither `=` nor NUL");
            }
            if name == MARK {
                self.add(&path, "is set by Errand, to know a task's processes by");
            }
            self.no_nul(&path, value);
        }
    }

    /// Checks the labels of a task.
    pub(super) fn labels(&mut self, labels: &HashMap<String, String>) {
        if labels.len() > LABEL_ENTRIES {
            self.add("labels", format!("must have at most {LABEL_ENTRIES} entries, has {}", labels.len()));
        }
        for (key, value) in sorted(labels) {
            let path = format!("labels[{key:?}]");
            let count = key.chars().count();
            if !(1..=LABEL_KEY).contains(&count) {
                self.add(&path, format!("must have a key of 1 to {LABEL_KEY} characters, has {count}"));
            }
            self.characters(&path, value, LABEL_VALUE);
        }
    }
}

/// Entries in a fixed order, so that equal requests get equal answers.
fn sorted(map: &HashMap<String, String>) -> Vec<(&String, &String)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_unstable();
    entries
}

/// A duration that is not negative and within the wire format's bounds.
fn whole(given: prost_types::Duration) -> Option<Duration> {
    if !(0..=DURATION_LIMIT).contains(&given.seconds) {
        return None;
    }
    let nanos = u32::try_from(given.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(given.seconds.unsigned_abs(), nanos))
}
