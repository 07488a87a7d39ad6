//! The parts of a text that are hidden.

use std::ops::Range;

/// Parts of a text, in any order until they are merged.
#[derive(Debug, Default)]
pub(crate) struct Spans(Vec<Range<usize>>);

impl Spans {
    /// Adds a part. Parts that follow each other closely are merged at once, so that there are few.
    pub(crate) fn add(&mut self, span: Range<usize>) {
        if span.is_empty() {
            return;
        }
        // A later part may reach back over several earlier ones.
        let mut span = span;
        while let Some(last) = self.0.last()
            && span.start <= last.end
            && last.start <= span.end
        {
            span = span.start.min(last.start)..span.end.max(last.end);
            self.0.pop();
        }
        self.0.push(span);
    }

    /// The parts in order, none of which touches another.
    pub(crate) fn merged(mut self) -> Self {
        self.0.sort_unstable_by_key(|span| span.start);
        let mut merged = Self(Vec::with_capacity(self.0.len()));
        for span in self.0 {
            merged.add(span);
        }
        merged
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Range<usize>> {
        self.0.iter()
    }
}
