//! What lines are searched for.

use regex::{Regex, RegexBuilder};

/// The most bytes of a pattern.
pub const PATTERN_LIMIT: usize = 512;
/// The most bytes of a compiled pattern, and of the cache that a search of it may use.
const COMPILED_LIMIT: usize = 256 * 1024;

/// A text or a regular expression that lines are searched for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    is_regex: bool,
    ignore_case: bool,
    regex: Regex,
}

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
}

impl Pattern {
    /// The text itself.
    ///
    /// # Errors
    /// When it is empty or too long.
    pub fn text(text: &str, ignore_case: bool) -> Result<Self, PatternError> {
        let regex = compile(text, &regex::escape(text), ignore_case)?;
        Ok(Self { source: text.to_owned(), is_regex: false, ignore_case, regex })
    }

    /// A regular expression.
    ///
    /// # Errors
    /// When it is empty, too long, too large or malformed.
    pub fn regex(pattern: &str, ignore_case: bool) -> Result<Self, PatternError> {
        let regex = compile(pattern, pattern, ignore_case)?;
        Ok(Self { source: pattern.to_owned(), is_regex: true, ignore_case, regex })
    }

    /// The pattern as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the pattern is a regular expression, and not the text itself.
    pub fn is_regex(&self) -> bool {
        self.is_regex
    }

    /// Whether upper and lower case are the same.
    pub fn ignores_case(&self) -> bool {
        self.ignore_case
    }

    /// The first match that begins at `from` or later: its beginning and its end.
    pub(super) fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        self.regex.find_at(text, from).map(|found| (found.start(), found.end()))
    }
}

fn compile(given: &str, pattern: &str, ignore_case: bool) -> Result<Regex, PatternError> {
    match given.len() {
        0 => return Err(PatternError::Empty),
        length if length > PATTERN_LIMIT => return Err(PatternError::TooLong(length)),
        _ => {}
    }
    let mut builder = RegexBuilder::new(pattern);
    builder.case_insensitive(ignore_case).size_limit(COMPILED_LIMIT).dfa_size_limit(COMPILED_LIMIT);
    builder.build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => PatternError::TooLarge,
        // The last line says what is wrong, the ones before show where.
        error => PatternError::Malformed(error.to_string().lines().last().unwrap_or_default().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;

    #[test]
    fn unfit_patterns_are_refused() {
        let refused = |pattern: &str| Pattern::regex(pattern, false).unwrap_err();
        assert_eq!(refused(""), PatternError::Empty);
        assert_eq!(Pattern::text(&"x".repeat(513), false).unwrap_err(), PatternError::TooLong(513));
        assert_eq!(refused("(a{1000}){1000}"), PatternError::TooLarge);
        assert!(matches!(refused("(a"), PatternError::Malformed(why) if why.contains("unclosed group")));
        assert!(Pattern::regex(&"x".repeat(512), false).is_ok());
    }

    #[test]
    fn text_is_no_regular_expression() {
        let found = |pattern: Pattern, text: &str| pattern.find(text, 0).is_some();
        assert!(!found(Pattern::text("a.c", false).unwrap(), "abc"));
        assert!(found(Pattern::text("A.C", true).unwrap(), "a.c"));
        assert!(
            found(Pattern::regex("A.C", true).unwrap(), "abc") && !found(Pattern::regex("A.C", false).unwrap(), "abc")
        );
    }
}
