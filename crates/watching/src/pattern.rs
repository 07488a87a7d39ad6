//! Which patterns are accepted.

use regex::bytes::{Regex, RegexBuilder};

use errand_task::WatchPattern;

/// The most bytes of a pattern.
pub const PATTERN_LIMIT: usize = 512;
/// The most bytes of a compiled pattern, and of the cache that a search of it may use.
pub const COMPILED_LIMIT: usize = 256 * 1024;

/// Why a pattern is refused. The text follows the field's name in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// There is nothing to look for.
    #[error("must not be empty")]
    Empty,
    /// The pattern is too long.
    #[error("must be at most {PATTERN_LIMIT} bytes, has {0}")]
    TooLong(usize),
    /// The compiled pattern is too large.
    #[error("must be at most {COMPILED_LIMIT} bytes when compiled; use fewer or smaller repetitions")]
    TooLarge,
    /// It is not a regular expression.
    #[error("must be a regular expression: {0}")]
    Malformed(String),
    /// It matches everywhere.
    #[error("must not match an empty text")]
    MatchesNothing,
}

/// Checks the pattern of a watch.
///
/// # Errors
/// When it is empty, too long, too large or malformed, or matches an empty text.
pub fn check(pattern: &WatchPattern) -> Result<(), PatternError> {
    let compiled = compile(pattern)?;
    match pattern {
        WatchPattern::Regex(_) if compiled.is_match(b"") => Err(PatternError::MatchesNothing),
        WatchPattern::Regex(_) | WatchPattern::Text(_) => Ok(()),
    }
}

/// Compiles a pattern. `^` and `$` match at lines.
///
/// # Errors
/// When it is empty, too long, too large or malformed.
pub fn compile(pattern: &WatchPattern) -> Result<Regex, PatternError> {
    match pattern.as_str().len() {
        0 => return Err(PatternError::Empty),
        length if length > PATTERN_LIMIT => return Err(PatternError::TooLong(length)),
        _ => {}
    }
    limited(&source(pattern), COMPILED_LIMIT).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => PatternError::TooLarge,
        // The last line says what is wrong, the ones before show where.
        error => PatternError::Malformed(error.to_string().lines().last().unwrap_or_default().to_owned()),
    })
}

/// The pattern as a regular expression.
pub(crate) fn source(pattern: &WatchPattern) -> String {
    match pattern {
        WatchPattern::Text(text) => regex::escape(text),
        WatchPattern::Regex(pattern) => pattern.clone(),
    }
}

/// Compiles a regular expression to at most `limit` bytes.
pub(crate) fn limited(pattern: &str, limit: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).multi_line(true).size_limit(limit).dfa_size_limit(limit).build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn unfit_patterns_are_refused() {
        let text = |text: &str| check(&WatchPattern::Text(text.to_owned()));
        let regex = |pattern: &str| check(&WatchPattern::Regex(pattern.to_owned()));
        assert_eq!((text("("), text("")), (Ok(()), Err(PatternError::Empty)));
        assert_eq!(text(&"x".repeat(513)), Err(PatternError::TooLong(513)));
        assert_eq!(regex("(a{1000}){1000}"), Err(PatternError::TooLarge));
        assert!(matches!(regex("(a"), Err(PatternError::Malformed(why)) if why.contains("unclosed group")));
        for everywhere in ["a*", "^", "$", "(?:)", "a|"] {
            assert_eq!(regex(everywhere), Err(PatternError::MatchesNothing), "{everywhere}");
        }
        for fit in [r"\bhttps?://\S+:\d{2,5}\b", "^panic", "error.*\n.*at"] {
            assert_eq!(regex(fit), Ok(()), "{fit}");
        }
    }
}
