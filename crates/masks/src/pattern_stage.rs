//! Hides what patterns match in output that arrives in pieces.
//!
//! A pattern is looked for in whole lines, with the output before them: what a line shows depends on at most [`PATTERN_CONTEXT`] bytes before
//! it. An unfinished line is held back, up to [`LINE`] bytes of it.

use std::sync::Arc;

use crate::{Cut, Masks, PATTERN_CONTEXT, Patterns};

/// The most bytes of an unfinished line that are held back.
const LINE: usize = 8 * 1024;
/// How many bytes of a longer line are held back: more than a token has.
const END_OF_LINE: usize = 2 * 1024;

pub(crate) struct PatternStage {
    masks: Masks,
    /// Output that was shown, and then output that was not.
    buffer: Vec<u8>,
    /// Where the output begins that was not shown.
    shown: usize,
}

impl PatternStage {
    pub(crate) fn new(patterns: &Arc<Patterns>) -> Self {
        Self { masks: Masks::none().and_patterns(patterns), buffer: Vec::new(), shown: 0 }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.buffer.extend_from_slice(bytes);
        let open = &self.buffer[self.shown..];
        let whole = open.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let ready = if open.len() - whole > LINE { open.len() - END_OF_LINE } else { whole };
        self.show(ready)
    }

    pub(crate) fn held(&self) -> usize {
        self.buffer.len() - self.shown
    }

    /// Takes the last output, and returns everything.
    pub(crate) fn release(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.buffer.extend_from_slice(bytes);
        self.show(self.held())
    }

    /// Forgets the output before.
    pub(crate) fn forget(&mut self) {
        self.buffer.clear();
        self.shown = 0;
    }

    /// Returns the first bytes that were not shown.
    fn show(&mut self, count: usize) -> Vec<u8> {
        if count == 0 {
            return Vec::new();
        }
        let end = self.shown + count;
        let mut masked = self.buffer.clone();
        self.masks.bytes(&mut masked, Cut::default());
        let shown = masked[self.shown..end].to_vec();
        let forgotten = end.saturating_sub(PATTERN_CONTEXT);
        self.buffer.drain(..forgotten);
        self.shown = end - forgotten;
        shown
    }
}
