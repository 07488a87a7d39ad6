//! What secrets look like.

use std::{fmt, sync::Arc};

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use crate::spans::Spans;

/// How far before and after a part of the output a pattern is looked for. A match that is longer may be recognised only in part.
pub const PATTERN_CONTEXT: usize = 8 * 1024;
/// The most bytes of one pattern.
const PATTERN_LIMIT: usize = 1024;
/// The most patterns.
const PATTERNS: usize = 128;
/// The most bytes of a compiled pattern.
const COMPILED_LIMIT: usize = 1024 * 1024;

/// Tokens whose shape is well known, and values that follow the words for them.
const KNOWN: &[&str] = &[
    // Amazon
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r#"(?i)\baws_?(?:secret_?access_?key|session_?token)["']?\s*[=:]\s*["']?([A-Za-z0-9/+=]{16,})"#,
    // GitHub, GitLab
    r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b",
    r"\bgithub_pat_[A-Za-z0-9_]{22,255}\b",
    r"\bglpat-[A-Za-z0-9_-]{20,}",
    // Slack
    r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    r"\bhttps://hooks\.slack\.com/services/[A-Za-z0-9/]{20,}",
    // Google, Stripe, OpenAI and Anthropic, npm, PyPI
    r"\bAIza[0-9A-Za-z_-]{35}",
    r"\b[rs]k_live_[A-Za-z0-9]{16,}",
    r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}",
    r"\bnpm_[A-Za-z0-9]{36}\b",
    r"\bpypi-[A-Za-z0-9_-]{50,}",
    // JSON web tokens
    r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
    // Headers
    r#"(?i)\bauthorization["']?\s*[:=]\s*["']?(?:bearer|basic|token)\s+([A-Za-z0-9._~+/=-]{8,})"#,
    // Passwords in addresses
    r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{0,100}:([^\s/@]{3,200})@",
    // Private keys, also while they are being printed
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----(?:(?:\s|\\[rn])*[A-Za-z0-9+/=]{40,})*(?:(?:\s|\\[rn])*[A-Za-z0-9+/=]+)?(?:(?:\s|\\[rn])*-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----)?",
];

/// What is wrong with a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// There are too many.
    #[error("there are {0} patterns, more than 128")]
    TooMany(usize),
    /// It is longer than allowed.
    #[error("the pattern {0} has more than 1024 bytes")]
    TooLong(usize),
    /// It is no regular expression, or matches an empty text.
    #[error("the pattern {number} {why}")]
    Malformed {
        /// Its number, from 1.
        number: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// A set of regular expressions. Of a pattern with groups, the first group is hidden, otherwise all of the match. They match bytes: classes
/// such as `\w` and `\b` mean ASCII, because the Unicode ones would make a search of other texts many times slower.
#[derive(Clone, Default)]
pub struct Patterns {
    sets: Vec<Arc<PatternSet>>,
}

/// Patterns that were compiled together; at least one.
struct PatternSet {
    patterns: Vec<Regex>,
    /// Says quickly which of them match anywhere.
    any: RegexSet,
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count: usize = self.sets.iter().map(|set| set.patterns.len()).sum();
        f.debug_struct("Patterns").field("patterns", &count).finish_non_exhaustive()
    }
}

impl Patterns {
    /// The texts of the patterns that are known without being configured.
    pub fn known() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().copied()
    }

    /// Compiles patterns.
    ///
    /// # Errors
    /// What is wrong with the first one that is wrong.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, PatternError> {
        let texts: Vec<&str> = texts.into_iter().collect();
        if texts.len() > PATTERNS {
            return Err(PatternError::TooMany(texts.len()));
        }
        let patterns = texts.iter().enumerate().map(|(index, text)| compile(index + 1, text));
        let patterns = patterns.collect::<Result<Vec<_>, _>>()?;
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let any = RegexSetBuilder::new(&texts).unicode(false).size_limit(COMPILED_LIMIT * texts.len()).build();
        let any = any.map_err(|error| PatternError::Malformed { number: texts.len(), why: reason(&error) })?;
        Ok(Self { sets: vec![Arc::new(PatternSet { patterns, any })] })
    }

    /// These patterns, and the others.
    #[must_use]
    pub fn and(&self, others: &Self) -> Self {
        Self { sets: self.sets.iter().chain(&others.sets).map(Arc::clone).collect() }
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// Adds every part of a text that matches.
    pub(crate) fn find(&self, bytes: &[u8], spans: &mut Spans) {
        let matching =
            self.sets.iter().flat_map(|set| set.any.matches(bytes).into_iter().map(|index| &set.patterns[index]));
        for regex in matching {
            if regex.captures_len() > 1 {
                let groups = regex.captures_iter(bytes).filter_map(|found| found.get(1).or_else(|| found.get(0)));
                groups.for_each(|group| spans.add(group.range()));
            } else {
                regex.find_iter(bytes).for_each(|found| spans.add(found.range()));
            }
        }
    }
}

fn compile(number: usize, text: &str) -> Result<Regex, PatternError> {
    if text.len() > PATTERN_LIMIT {
        return Err(PatternError::TooLong(number));
    }
    let compiled = RegexBuilder::new(text).unicode(false).size_limit(COMPILED_LIMIT).build();
    let regex = compiled.map_err(|error| PatternError::Malformed { number, why: reason(&error) })?;
    if regex.is_match(b"") {
        return Err(PatternError::Malformed { number, why: "matches an empty text".to_owned() });
    }
    Ok(regex)
}

/// What is wrong, without the pattern itself.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "is too large".to_owned(),
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("is no regular expression: {}", last.strip_prefix("error: ").unwrap_or(last))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use super::*;
    use crate::Masks;

    fn known() -> Masks {
        Masks::none().and_patterns(&Arc::new(Patterns::new(Patterns::known()).unwrap()))
    }

    #[test]
    fn well_known_tokens_are_masked() {
        let token = |prefix: &str, size| format!("{prefix}{}", "aB3".repeat(100).split_at(size).0);
        let pem = format!(
            "-----BEGIN RSA PRIVATE KEY-----\n{0}\n{0}\nabc=\n-----END RSA PRIVATE KEY-----",
            "Qm9vZGxl".repeat(8)
        );
        for (text, shown) in [
            ("id AKIAIOSFODNN7EXAMPLE.".to_owned(), "id [masked]."),
            (
                "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY x".to_owned(),
                "AWS_SECRET_ACCESS_KEY=[masked] x",
            ),
            (token("push ghp_", 36), "push [masked]"),
            (token("github_pat_", 40), "[masked]"),
            ("xoxb-1234567890-abcdef".to_owned(), "[masked]"),
            ("curl -H 'Authorization: Bearer abc.def-123'".to_owned(), "curl -H 'Authorization: Bearer [masked]'"),
            ("postgres://app:hunter2@db/x".to_owned(), "postgres://app:[masked]@db/x"),
            (token("sk-ant-", 60), "[masked]"),
            ("t=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4f".to_owned(), "t=[masked]"),
            (format!("a\n{pem}\nb"), "a\n[masked]\nb"),
            (format!("{{\"k\":\"{}\"}}", pem.replace('\n', "\\n")), "{\"k\":\"[masked]\"}"),
            (pem[..70].to_owned(), "[masked]"),
        ] {
            assert_eq!(known().text(&text), shown, "{text}");
        }
    }

    #[test]
    fn ordinary_texts_are_left_alone() {
        for text in [
            "https://example.com:8080/path?x=1 user@host git@github.com:a/b.git",
            "authorization: none",
            "task-scheduler-with-a-very-long-name-and-more-of-it",
            "AKIA is a prefix; eyJ too; ghp_short",
            "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "see `-----BEGIN PRIVATE KEY-----` (a header)",
        ] {
            let masked = known().text(text).into_owned();
            let expected = text.replace("`-----BEGIN PRIVATE KEY-----`", "`[masked]`");
            assert_eq!(masked, expected);
        }
    }

    #[test]
    fn unfit_patterns_are_refused_without_being_quoted() {
        let refused = |text: &str| Patterns::new(["x", text]).unwrap_err();
        assert_eq!(refused(&"x".repeat(1025)), PatternError::TooLong(2));
        assert!(matches!(refused("hunter2("), PatternError::Malformed { number: 2, why } if !why.contains("hunter")));
        assert_eq!(refused("x*").to_string(), "the pattern 2 matches an empty text");
        assert!(Patterns::new(std::iter::repeat_n("x", 129)).is_err());
        assert!(Patterns::new([]).unwrap().is_empty());
    }
}
