//! The trace context of a call: the header `traceparent` of the W3C recommendation "Trace Context".

use std::{fmt, str::FromStr, sync::Arc};

/// The length of a `traceparent` of version 00.
const LENGTH: usize = 55;
/// The most bytes of a `traceparent` of a later version.
const LIMIT: usize = 256;

/// Why a text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TraceParentError {
    /// It is not made of a version, two ids and flags in lower-case hexadecimal digits.
    #[error("must be VERSION-TRACE_ID-PARENT_ID-FLAGS of 2, 32, 16 and 2 lower-case hexadecimal digits")]
    Malformed,
    /// The version `ff` is invalid.
    #[error("must not have the version ff")]
    InvalidVersion,
    /// An id of zeros is invalid.
    #[error("must not have a trace id or parent id of zeros")]
    ZeroId,
}

/// A valid `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TraceParent(Arc<str>);

impl TraceParent {
    /// Checks a text. A version later than 00 may continue with `-` after the flags, at most 256 bytes in all.
    ///
    /// # Errors
    /// [`TraceParentError`] says which rule the text breaks.
    pub fn new(text: &str) -> Result<Self, TraceParentError> {
        let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
        if !text.is_ascii() || !(LENGTH..=LIMIT).contains(&text.len()) {
            return Err(TraceParentError::Malformed);
        }
        let (known, rest) = text.split_at(LENGTH);
        let parts: Vec<&str> = known.split('-').collect();
        let [version, trace, parent, flags] = parts[..] else { return Err(TraceParentError::Malformed) };
        let lengths = [version.len(), trace.len(), parent.len(), flags.len()];
        if lengths != [2, 32, 16, 2] || !parts.iter().copied().all(is_hex) {
            return Err(TraceParentError::Malformed);
        }
        let ends = rest.is_empty() || (version != "00" && rest.starts_with('-'));
        if !ends || rest.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err(TraceParentError::Malformed);
        }
        if version == "ff" {
            return Err(TraceParentError::InvalidVersion);
        }
        if is_zero(trace) || is_zero(parent) {
            return Err(TraceParentError::ZeroId);
        }
        Ok(Self(text.into()))
    }

    /// The header's value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn w3c_format_is_required() {
        assert_eq!(TraceParent::new(VALID).map(|valid| valid.to_string()), Ok(VALID.to_owned()));
        let later = VALID.replacen("00", "01", 1);
        for valid in [later.clone(), format!("{later}-more"), later.replacen("01", "fe", 1)] {
            assert!(TraceParent::new(&valid).is_ok(), "{valid}");
        }
        let wrong = [
            String::new(),
            VALID[1..].to_owned(),
            VALID.to_uppercase(),
            format!("{VALID}-more"),
            format!("{later}more"),
            format!("{later}-{}", "x".repeat(LIMIT)),
            format!("{later}-a b"),
            VALID.replace('-', "_"),
            VALID.replace("00f0", "00g0"),
            VALID.replacen("4bf92f", "4bf9-f", 1),
            format!("{}é", &VALID[..53]),
        ];
        for wrong in wrong {
            assert_eq!(TraceParent::new(&wrong), Err(TraceParentError::Malformed), "{wrong}");
        }
        let invalid = VALID.replacen("00", "ff", 1);
        assert_eq!(TraceParent::new(&invalid), Err(TraceParentError::InvalidVersion));
        for id in ["4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"] {
            let zero = VALID.replace(id, &"0".repeat(id.len()));
            assert_eq!(TraceParent::new(&zero), Err(TraceParentError::ZeroId), "{zero}");
        }
    }
}
