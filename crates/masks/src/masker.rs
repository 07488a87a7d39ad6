//! Hides secrets in output that arrives in pieces.

use std::{borrow::Cow, sync::Arc};

use crate::{Cut, Masks, STAR, automaton::ROOT, pattern_stage::PatternStage, values::Values};

/// Output in pieces, without its secrets and with all positions as they were.
///
/// The end of what was pushed is held back as long as it may be the beginning of a secret: at most one byte less than the longest value, and
/// with patterns the last line, up to 8 KiB of it. [`Masker::release`] ends the wait.
pub struct Masker {
    stage: Stage,
    patterns: Option<PatternStage>,
}

enum Stage {
    Everything,
    Nothing,
    Values(ValueStage),
}

/// Hides the values. Bytes that belong to a value are overwritten as soon as the value is complete.
struct ValueStage {
    values: Arc<Values>,
    state: u32,
    held: Vec<u8>,
    /// The next piece may begin within a value.
    cut: bool,
}

impl Masker {
    pub(crate) fn new(masks: &Masks, cut_start: bool) -> Self {
        let stage = match &masks.values {
            _ if masks.everything => Stage::Everything,
            Some(values) => {
                Stage::Values(ValueStage { values: Arc::clone(values), state: ROOT, held: Vec::new(), cut: cut_start })
            }
            None => Stage::Nothing,
        };
        Self { stage, patterns: masks.patterns.as_ref().map(PatternStage::new) }
    }

    /// Takes the next output, and returns what can be shown now. It follows what was returned before without a gap.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let shown = match &mut self.stage {
            Stage::Everything => {
                let mut bytes = bytes.to_vec();
                Masks::everything().bytes(&mut bytes, Cut::default());
                Cow::Owned(bytes)
            }
            Stage::Nothing => Cow::Borrowed(bytes),
            Stage::Values(values) => Cow::Owned(values.push(bytes)),
        };
        match &mut self.patterns {
            Some(patterns) => patterns.push(&shown),
            None => shown.into_owned(),
        }
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        let by_values = match &self.stage {
            Stage::Values(values) => values.held.len(),
            Stage::Everything | Stage::Nothing => 0,
        };
        by_values + self.patterns.as_ref().map_or(0, PatternStage::held)
    }

    /// Returns what is held back, because it has been held long enough or nothing more comes. The beginning of a value is hidden if it has 4
    /// bytes or more. If the rest of the value comes later after all, the rest is hidden too.
    pub fn release(&mut self) -> Vec<u8> {
        let shown = match &mut self.stage {
            Stage::Values(values) => values.release(),
            Stage::Everything | Stage::Nothing => Vec::new(),
        };
        match &mut self.patterns {
            Some(patterns) => patterns.release(&shown),
            None => shown,
        }
    }

    /// The same before a gap in the output: what follows may begin within a secret.
    pub fn release_before_gap(&mut self) -> Vec<u8> {
        let shown = self.release();
        if let Stage::Values(values) = &mut self.stage {
            (values.state, values.cut) = (ROOT, true);
        }
        if let Some(patterns) = &mut self.patterns {
            patterns.forget();
        }
        shown
    }
}

impl ValueStage {
    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let automaton = self.values.automaton();
        let mut shown = std::mem::take(&mut self.held);
        let base = shown.len();
        shown.extend_from_slice(bytes);
        if self.cut && !bytes.is_empty() {
            self.cut = false;
            let edge = self.values.start_edge(bytes);
            shown[base..base + edge].fill(STAR);
        }
        // The part before this position, back to `hidden`, is overwritten already.
        let (mut hidden, mut hidden_to) = (usize::MAX, 0);
        let mut at = 0;
        while at < bytes.len() {
            if self.state == ROOT {
                at += automaton.skip(&bytes[at..]);
                if at == bytes.len() {
                    break;
                }
            }
            self.state = automaton.next(self.state, bytes[at]);
            at += 1;
            let longest = automaton.longest(self.state);
            if longest > 0 {
                let end = base + at;
                // A part of the value may have been released before.
                let start = end.saturating_sub(longest);
                if hidden <= start && start <= hidden_to {
                    shown[hidden_to..end].fill(STAR);
                } else {
                    shown[start..end].fill(STAR);
                    hidden = start;
                }
                hidden_to = end;
            }
        }
        let mut ready = shown.len() - automaton.depth(self.state).min(shown.len());
        if hidden <= ready {
            // What is overwritten need not be held back.
            ready = ready.max(hidden_to);
        }
        self.held = shown.split_off(ready);
        shown
    }

    fn release(&mut self) -> Vec<u8> {
        let mut shown = std::mem::take(&mut self.held);
        let edge = self.values.end_edge(self.state).min(shown.len());
        let start = shown.len() - edge;
        shown[start..].fill(STAR);
        shown
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
    use proptest::prelude::*;

    use super::*;
    use crate::Patterns;

    fn values(values: &[&str]) -> Masks {
        Masks::none().and_values(&Arc::new(Values::new(values.iter().copied())))
    }

    fn patterns(texts: &[&str]) -> Masks {
        Masks::none().and_patterns(&Arc::new(Patterns::new(texts.iter().copied()).unwrap()))
    }

    /// Pushes pieces and releases the rest. What each push returned is checked against the whole.
    fn pushed(masks: &Masks, pieces: &[&[u8]]) -> Vec<u8> {
        let mut masker = masks.masker(false);
        let mut shown = Vec::new();
        let mut given = 0;
        for piece in pieces {
            given += piece.len();
            shown.extend(masker.push(piece));
            assert_eq!(shown.len() + masker.held(), given);
        }
        shown.extend(masker.release());
        assert_eq!((shown.len(), masker.held()), (given, 0));
        shown
    }

    #[test]
    fn value_is_hidden_across_pieces() {
        let masks = values(&["hunter2"]);
        let whole = b"the hunter2 said hunt, then hunter2hunter2.";
        for size in 1..whole.len() {
            let pieces: Vec<&[u8]> = whole.chunks(size).collect();
            assert_eq!(pushed(&masks, &pieces), b"the ******* said hunt, then **************.", "{size}");
        }
    }

    #[test]
    fn beginning_of_a_value_is_held_back() {
        let masks = values(&["hunter2"]);
        let mut masker = masks.masker(false);
        assert_eq!(masker.push(b"so hunte"), b"so ");
        assert_eq!((masker.held(), masker.release()), (5, b"*****".to_vec()));
        // The rest of the value is hidden too, although its beginning was released.
        assert_eq!(masker.push(b"r2 ok"), b"** ok");
        assert_eq!(masker.push(b"hu"), b"");
        assert_eq!(masker.release(), b"hu");
        assert_eq!(masker.push(b"nter2"), b"*****");
    }

    #[test]
    fn rest_of_a_value_after_a_gap_is_hidden() {
        let masks = values(&["correct horse"]);
        let mut masker = masks.masker(false);
        assert_eq!(masker.push(b"a corr"), b"a ");
        assert_eq!(masker.release_before_gap(), b"****");
        assert_eq!(masker.push(b"horse b"), b"***** b");
        assert_eq!(masks.masker(true).push(b"t horse b"), b"******* b");
    }

    #[test]
    fn unknown_values_hide_everything() {
        let mut masker = Masks::everything().masker(false);
        assert_eq!((masker.push(b"ab\nc"), masker.held()), (b"**\n*".to_vec(), 0));
    }

    #[test]
    fn patterns_are_hidden_across_pieces() {
        let masks = patterns(&[r"tok_[a-z0-9]{4,}", r"pw=(\S+)"]);
        let whole = b"a tok_abc12 b\nlogin pw=xyz!\ntok_abc\nend tok_abcd";
        let expected = b"a ********* b\nlogin pw=****\ntok_abc\nend ********";
        for size in 1..whole.len() {
            let pieces: Vec<&[u8]> = whole.chunks(size).collect();
            assert_eq!(String::from_utf8_lossy(&pushed(&masks, &pieces)), String::from_utf8_lossy(expected), "{size}");
        }
    }

    #[test]
    fn private_key_is_hidden_line_by_line() {
        let masks = Masks::none().and_patterns(&Arc::new(Patterns::new(Patterns::known()).unwrap()));
        let line = "Qm9vZGxl".repeat(8);
        let body = format!("{line}\n").repeat(40);
        let text = format!("x\n-----BEGIN PRIVATE KEY-----\n{body}abcd\n-----END PRIVATE KEY-----\ny\n");
        let mut masker = masks.masker(false);
        let mut shown = Vec::new();
        for line in text.split_inclusive('\n') {
            shown.extend(masker.push(line.as_bytes()));
        }
        shown.extend(masker.release());
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.starts_with("x\n*") && shown.ends_with("*\ny\n"), "{shown}");
        assert!(!shown.contains("Qm9v") && !shown.contains("abcd") && !shown.contains("PRIVATE"), "{shown}");
    }

    #[test]
    fn held_output_is_bounded() {
        let masks = patterns(&["x{5}y"]).and_values(&Arc::new(Values::new(["secret-value"])));
        let mut masker = masks.masker(false);
        for _ in 0..100 {
            masker.push(&[b'x'; 4096]);
            assert!(masker.held() <= 2 * crate::PATTERN_CONTEXT, "{}", masker.held());
        }
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(
            chosen in prop::collection::vec("[ab]{6,10}", 1..4),
            text in "[ab]{0,120}",
            cuts in prop::collection::vec(0usize..120, 0..12),
        ) {
            let masks = values(&chosen.iter().map(String::as_str).collect::<Vec<_>>());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            let mut whole = text.clone().into_bytes();
            masks.bytes(&mut whole, Cut { start: false, end: true });
            prop_assert_eq!(pushed(&masks, &pieces), whole);
        }

        /// No matter where output is cut and when it is released, at most 3 bytes of a value are shown in a row.
        #[test]
        fn no_piece_shows_a_part_of_a_secret(
            before in "[a-z ]{0,20}",
            after in "[a-z ]{0,20}",
            cuts in prop::collection::vec((0usize..60, any::<bool>()), 0..10),
        ) {
            const VALUE: &str = "0123456789ABCDEF";
            let masks = values(&[VALUE]);
            let text = format!("{before}{VALUE}{after}");
            let mut cuts: Vec<(usize, bool)> =
                cuts.into_iter().map(|(cut, release)| (cut.min(text.len()), release)).chain([(0, false), (text.len(), true)]).collect();
            cuts.sort_unstable();
            let mut masker = masks.masker(false);
            let mut shown = Vec::new();
            for pair in cuts.windows(2) {
                shown.extend(masker.push(&text.as_bytes()[pair[0].0..pair[1].0]));
                if pair[1].1 {
                    shown.extend(masker.release());
                }
            }
            let shown = String::from_utf8(shown).unwrap();
            prop_assert_eq!(shown.len(), text.len());
            let digits = shown.chars().filter(|c| VALUE.contains(*c)).count();
            prop_assert!(digits <= 3, "{}", shown);
            prop_assert!(shown.starts_with(&before) && shown.ends_with(&after));
        }
    }
}
