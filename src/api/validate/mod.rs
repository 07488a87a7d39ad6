//! Turns requests into queries of the engine and the store, or into the list of everything that is wrong with them.
//!
//! Owns every rule that the protocol's comments state. Reports all violations of one request at once, each with its field, the limit and
//! the given value. It consults nothing outside the request, so it does not check whether a bot or a task exists.

mod fields;
mod files;
mod input;
mod lines;
mod notifications;
mod notify;
mod process;
mod sandbox;
mod secrets;
mod selection;
mod start;
mod tasks;
#[cfg(test)]
mod tests;
mod wait;
mod watch;
mod watches;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

pub(super) use files::{
    Listing, Misplaced, Reading, Writing, list as list_directory, make_directory, misplaced, read as read_file,
    read_tree, remove as remove_file, rename, stat as stat_file, watch_files, write as write_file, write_tree,
};
pub(super) use input::{resize_terminal, write_input};
pub(super) use notifications::{chosen, drain, list as list_notifications, subscribe};
pub(super) use notify::{Acknowledge, set_notify_policy};
pub(super) use sandbox::{ActiveBots, active_bots, adopt, bot, ensure, list as list_sandboxes};
pub(super) use selection::{Read, Stream, read, stream};
pub(super) use start::{Run, run, start};
pub(super) use tasks::{get, list, scope, signal, stop, stop_all};
pub(super) use wait::{One, Several, several as wait_for_several, wait};
pub(super) use watch::watch;
pub(super) use watches::set as set_watches;

/// The most violations that are described: they are sent in a header, and clients limit the size of headers.
const DESCRIBED_LIMIT: usize = 20;
/// The most characters of a field's path, which may contain a key that the caller chose.
const FIELD_LIMIT: usize = 100;
/// The most characters of a violation's description.
const DESCRIPTION_LIMIT: usize = 200;

/// What is wrong with one request, as far as it was checked.
#[derive(Debug, Default)]
struct Violations {
    /// Path of the message that is being checked, with a dot at its end; empty for the request itself.
    prefix: String,
    described: Vec<FieldViolation>,
    found: usize,
}

impl Violations {
    fn new() -> Self {
        Self::default()
    }

    /// Records that a field breaks its rule. `description` follows the field's name in a sentence: `must …`.
    fn add(&mut self, field: &str, description: impl AsRef<str>) {
        self.found += 1;
        if self.described.len() < DESCRIBED_LIMIT {
            let field = format!("{}{field}", self.prefix).chars().take(FIELD_LIMIT).collect::<String>();
            let description = description.as_ref().chars().take(DESCRIPTION_LIMIT).collect::<String>();
            self.described.push(FieldViolation::new(field, description));
        }
    }

    /// Checks a message inside the request.
    fn within<T>(&mut self, field: &str, look: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.prefix.len();
        self.prefix.push_str(field);
        self.prefix.push('.');
        let result = look(self);
        self.prefix.truncate(outer);
        result
    }

    /// The value that was read, or the status if something is wrong.
    fn or<T>(self, read: Option<T>) -> Result<T, Status> {
        match read {
            Some(read) if self.found == 0 => Ok(read),
            _ => Err(self.into_status()),
        }
    }

    fn into_status(self) -> Status {
        let message = match self.described.first() {
            None => "the request breaks a rule".to_owned(),
            Some(first) if self.found == 1 => format!("{} {}", first.field, first.description),
            Some(first) => format!("{} {} (and {} more)", first.field, first.description, self.found - 1),
        };
        Status::with_error_details(Code::InvalidArgument, message, ErrorDetails::with_bad_request(self.described))
    }
}
