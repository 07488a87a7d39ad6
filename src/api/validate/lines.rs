//! Validates which lines of a log to read.

use super::Violations;
use errand_proto::v1::{LineSearch, LineSelection, OutputStream, line_search};
use errand_reading::{CONTEXT_LIMIT, Grep, LINES_LIMIT, MATCHES_LIMIT, Pattern, Query, Scan};
use errand_task::Stream;

/// Lines when the request does not say.
const LINES_DEFAULT: u64 = 200;
/// Matching lines when the request does not say.
const MATCHES_DEFAULT: u64 = 100;

/// Reads a selection of lines by number.
pub(super) fn selection(given: &LineSelection, violations: &mut Violations) -> Option<Scan> {
    let farthest = LINES_LIMIT as u64;
    if given.offset < 0 && given.offset.unsigned_abs() > farthest {
        violations.add("offset", format!("must be at least -{farthest}, is {}", given.offset));
    }
    let default = if given.offset < 0 { farthest } else { LINES_DEFAULT };
    let limit = violations.number("limit", given.limit.into(), default, farthest);
    let stream = stream(given.stream, violations);
    let query = Query::Lines { offset: given.offset, limit: usize::try_from(limit?).ok()? };
    Some(Scan { query, stream: stream? })
}

/// Reads a search of lines.
pub(super) fn search(given: &LineSearch, violations: &mut Violations) -> Option<Scan> {
    let ignore_case = given.ignore_case;
    let (field, pattern) = match &given.pattern {
        None => {
            violations.add("substring", "must be set, unless `regex` is");
            return None;
        }
        Some(line_search::Pattern::Substring(text)) => ("substring", Pattern::text(text, ignore_case)),
        Some(line_search::Pattern::Regex(pattern)) => ("regex", Pattern::regex(pattern, ignore_case)),
    };
    let pattern = pattern.map_err(|error| violations.add(field, error.to_string())).ok();
    let mut number = |field, given: i32, default, limit: usize| {
        let number = violations.number(field, given.into(), default, limit as u64)?;
        usize::try_from(number).ok()
    };
    let before = number("before", given.before, 0, CONTEXT_LIMIT);
    let after = number("after", given.after, 0, CONTEXT_LIMIT);
    let most = number("max_matches", given.max_matches, MATCHES_DEFAULT, MATCHES_LIMIT);
    let stream = stream(given.stream, violations);
    let grep = Grep { pattern: pattern?, before: before?, after: after?, most: most? };
    Some(Scan { query: Query::Grep(grep), stream: stream? })
}

/// The stream that a request names; inner none: all output.
fn stream(given: i32, violations: &mut Violations) -> Option<Option<Stream>> {
    Some(match violations.choice::<OutputStream>("stream", given)? {
        OutputStream::Unspecified => None,
        OutputStream::Stdout => Some(Stream::Stdout),
        OutputStream::Stderr => Some(Stream::Stderr),
    })
}
