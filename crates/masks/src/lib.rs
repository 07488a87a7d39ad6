//! Hides secrets in texts and in output.
//!
//! [`Masks`] says what is hidden: [`Values`], which are known, and [`Patterns`], which describe what secrets look like. In a text, each
//! secret is replaced by [`MASK`]. In output, each byte of a secret is replaced by `*`, so that positions stay what they were; [`Masker`]
//! does so for output that arrives in pieces. All of it takes linear time.
//!
//! Pure: no I/O, no clock. It knows nothing of tasks.

mod automaton;
mod forms;
mod masker;
mod pattern_stage;
mod patterns;
mod spans;
mod values;

use std::{borrow::Cow, sync::Arc};

pub use masker::Masker;
pub use patterns::{PATTERN_CONTEXT, PatternError, Patterns};
use spans::Spans;
pub use values::{SHORTEST, Values};

/// What a text shows instead of a secret.
pub const MASK: &str = "[masked]";
/// What output shows instead of each byte of a secret.
pub const STAR: u8 = b'*';

/// Which ends of a text may lie within a secret, because the text is a part of a longer one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// The text may begin within a secret.
    pub start: bool,
    /// The text may end within a secret.
    pub end: bool,
}

impl Cut {
    /// Both ends.
    pub const BOTH: Self = Self { start: true, end: true };
}

/// What is hidden. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Masks {
    values: Option<Arc<Values>>,
    patterns: Option<Arc<Patterns>>,
    /// The values are not known: everything is hidden.
    everything: bool,
}

impl Masks {
    /// Hides nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Hides everything, because it is not known what must be hidden.
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Also hides these values.
    #[must_use]
    pub fn and_values(mut self, values: &Arc<Values>) -> Self {
        self.values = (!values.is_empty()).then(|| Arc::clone(values));
        self
    }

    /// Also hides what looks like this.
    #[must_use]
    pub fn and_patterns(mut self, patterns: &Arc<Patterns>) -> Self {
        self.patterns = (!patterns.is_empty()).then(|| Arc::clone(patterns));
        self
    }

    /// True when nothing is hidden.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.values.is_none() && self.patterns.is_none()
    }

    /// How many bytes before and after a part of the output decide what of the part is hidden.
    pub fn margin(&self) -> usize {
        let values = self.values.as_ref().map_or(0, |values| values.longest().saturating_sub(1));
        let patterns = if self.patterns.is_some() { PATTERN_CONTEXT } else { 0 };
        if self.everything { 0 } else { values.max(patterns) }
    }

    /// A whole text without its secrets.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.cut_text(text, Cut::default())
    }

    /// A text without its secrets. At an end that is cut, 4 or more bytes of a value count as the value.
    pub fn cut_text<'a>(&self, text: &'a str, cut: Cut) -> Cow<'a, str> {
        if text.is_empty() || self.is_empty() {
            return Cow::Borrowed(text);
        }
        if self.everything {
            return Cow::Borrowed(MASK);
        }
        let spans = self.spans(text.as_bytes(), cut);
        let mut masked = String::new();
        let mut shown = 0;
        for span in spans.iter() {
            // A part of a value may begin or end within a character.
            let start = (0..=span.start).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let end = (span.end..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
            masked.push_str(text.get(shown..start).unwrap_or_default());
            masked.push_str(MASK);
            shown = end;
        }
        if shown == 0 {
            return Cow::Borrowed(text);
        }
        masked.push_str(text.get(shown..).unwrap_or_default());
        Cow::Owned(masked)
    }

    /// Replaces secrets in output byte by byte.
    pub fn bytes(&self, bytes: &mut [u8], cut: Cut) {
        if self.everything {
            bytes.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = STAR);
        } else if !self.is_empty() {
            for span in self.spans(bytes, cut).iter() {
                bytes[span.clone()].fill(STAR);
            }
        }
    }

    /// Hides secrets in output that arrives in pieces. Its first piece may begin within a secret if `cut_start` is set.
    pub fn masker(&self, cut_start: bool) -> Masker {
        Masker::new(self, cut_start)
    }

    fn spans(&self, bytes: &[u8], cut: Cut) -> Spans {
        let mut spans = Spans::default();
        if let Some(values) = &self.values {
            values.find(bytes, cut, &mut spans);
        }
        if let Some(patterns) = &self.patterns {
            patterns.find(bytes, &mut spans);
        }
        spans.merged()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use proptest::prelude::*;

    use super::*;

    fn values(values: &[&str]) -> Masks {
        Masks::none().and_values(&Arc::new(Values::new(values.iter().copied())))
    }

    #[test]
    fn values_are_replaced_in_texts() {
        let masks = values(&["hunter2", "naïve-€-key"]);
        assert_eq!(masks.text("login hunter2, hunter2hunter2 naïve-€-key!"), "login [masked], [masked] [masked]!");
        assert!(matches!(masks.text("hunter"), Cow::Borrowed("hunter")));
        assert_eq!(Masks::everything().text("x"), MASK);
        assert_eq!(Masks::everything().text(""), "");
    }

    #[test]
    fn short_values_are_not_masked() {
        assert!(values(&["1", "true", "12345"]).is_empty());
        assert_eq!(values(&["123456"]).text("0123456"), "0[masked]");
    }

    #[test]
    fn parts_of_values_are_hidden_at_cut_ends() {
        let masks = values(&["correct horse"]);
        assert_eq!(masks.cut_text("orse, said a corre", Cut::BOTH), "[masked], said a [masked]");
        assert_eq!(masks.text("orse, said a corre"), "orse, said a corre");
        // Three bytes are too few to tell them from any other text.
        assert_eq!(masks.cut_text("rse, said a cor", Cut::BOTH), "rse, said a cor");
        assert_eq!(masks.cut_text("rect ho", Cut::BOTH), MASK);
        let mut bytes = *b"horse corr";
        masks.bytes(&mut bytes, Cut::BOTH);
        assert_eq!(&bytes, b"***** ****");
    }

    #[test]
    fn overlapping_values_are_hidden_whole() {
        let masks = values(&["abcdefgh", "efghijkl", "cdefgh"]);
        let mut bytes = *b"-abcdefghijkl-";
        masks.bytes(&mut bytes, Cut::default());
        assert_eq!(&bytes, b"-************-");
        assert_eq!(masks.text("-abcdefghijkl-"), "-[masked]-");
    }

    #[test]
    fn encoded_values_are_masked() {
        let masks = values(&["s3cr/t \"pass\"\nphrase"]);
        for shown in [
            // base64 of `user:VALUE` and of VALUE alone, with and without its alphabet's special characters.
            "Authorization: Basic dXNlcjpzM2NyL3QgInBhc3MiCnBocmFzZQ==",
            "czNjci90ICJwYXNzIgpwaHJhc2U=",
            "https://x/?p=s3cr%2Ft%20%22pass%22%0Aphrase&q=1",
            r#"{"p":"s3cr/t \"pass\"\nphrase"}"#,
            "line s3cr/t \"pass\"\r\nphrase",
        ] {
            let masked = masks.text(shown);
            assert!(masked.contains(MASK) && !masked.contains("cr/t") && !masked.contains("czNj"), "{masked}");
        }
    }

    #[test]
    fn many_equal_values_take_linear_time() {
        let nested: Vec<String> = (6..256).map(|size| "a".repeat(size)).collect();
        let masks = values(&nested.iter().map(String::as_str).collect::<Vec<_>>());
        let mut bytes = vec![b'a'; 4 << 20];
        let begun = std::time::Instant::now();
        masks.bytes(&mut bytes, Cut::BOTH);
        assert!(bytes.iter().all(|byte| *byte == STAR));
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    /// What a search for each value at each position hides.
    fn simply(values: &[String], bytes: &[u8]) -> Vec<u8> {
        let mut masked = bytes.to_vec();
        for value in values.iter().filter(|value| value.len() >= SHORTEST) {
            for at in 0..bytes.len() {
                if bytes[at..].starts_with(value.as_bytes()) {
                    masked[at..at + value.len()].fill(STAR);
                }
            }
        }
        masked
    }

    proptest! {
        #[test]
        fn automaton_agrees_with_a_simple_search(chosen in prop::collection::vec("[ab]{6,12}", 1..5), text in "[ab]{0,80}") {
            let masks = values(&chosen.iter().map(String::as_str).collect::<Vec<_>>());
            let mut bytes = text.clone().into_bytes();
            masks.bytes(&mut bytes, Cut::default());
            prop_assert_eq!(bytes, simply(&chosen, text.as_bytes()));
        }

        #[test]
        fn masked_texts_stay_valid_and_hold_no_value(value in "[a-zä€]{6,9}", text in "[a-zä€ ]{0,40}", at in 0usize..40) {
            let at = (at.min(text.len())..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap();
            let text = format!("{}{value}{}", &text[..at], &text[at..]);
            let masked = values(&[&value]).cut_text(&text, Cut::BOTH).into_owned();
            prop_assert!(!masked.contains(&value), "{}", masked);
            prop_assert!(masked.contains(MASK));
        }
    }
}
