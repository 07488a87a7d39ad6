//! Secrets whose values are known.

use std::{fmt, sync::OnceLock};

use crate::{
    Cut,
    automaton::{Automaton, ROOT},
    forms::{self, Form},
    spans::Spans,
};

/// Values with fewer bytes are not masked: they occur in too many texts that have nothing to do with them.
pub const SHORTEST: usize = 6;
/// At an end that is cut, this many bytes of a value count as the value. Fewer are too few to tell them from any other text.
pub(crate) const EDGE: usize = 4;

/// A set of values, with the forms in which they appear in texts. Its memory is overwritten when it is dropped.
pub struct Values {
    forms: Vec<Form>,
    forward: Automaton,
    /// For the beginnings of texts that are cut. Made when it is first needed.
    backward: OnceLock<Automaton>,
    longest: usize,
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").field("forms", &self.forms.len()).finish_non_exhaustive()
    }
}

impl Values {
    /// The set of these values. Those shorter than [`SHORTEST`] are left out.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let forms = forms::of_all(values);
        let forward = Automaton::new(forms.iter().map(|form| &form[..]).collect());
        let longest = forms.iter().map(|form| form.len()).max().unwrap_or(0);
        Self { forms, forward, backward: OnceLock::new(), longest }
    }

    /// True when there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    /// Bytes of the longest form.
    pub fn longest(&self) -> usize {
        self.longest
    }

    pub(crate) fn automaton(&self) -> &Automaton {
        &self.forward
    }

    /// Adds every part of a text that belongs to a value.
    pub(crate) fn find(&self, bytes: &[u8], cut: Cut, spans: &mut Spans) {
        if cut == Cut::BOTH && bytes.len() >= EDGE && bytes.len() < self.longest && self.is_within_one(bytes) {
            return spans.add(0..bytes.len());
        }
        if cut.start {
            spans.add(0..self.start_edge(bytes));
        }
        let (mut state, mut at) = (ROOT, 0);
        while at < bytes.len() {
            if state == ROOT {
                at += self.forward.skip(&bytes[at..]);
                if at == bytes.len() {
                    break;
                }
            }
            state = self.forward.next(state, bytes[at]);
            at += 1;
            spans.add(at.saturating_sub(self.forward.longest(state))..at);
        }
        if cut.end {
            spans.add(bytes.len() - self.end_edge(state)..bytes.len());
        }
    }

    /// How many of the first bytes are the end of a value; 0 when they are too few to tell.
    pub(crate) fn start_edge(&self, bytes: &[u8]) -> usize {
        let backward = self.backward.get_or_init(|| {
            let reversed: Vec<Form> =
                self.forms.iter().map(|form| Form::new(form.iter().rev().copied().collect())).collect();
            Automaton::new(reversed.iter().map(|form| &form[..]).collect())
        });
        let first = &bytes[..bytes.len().min(self.longest.saturating_sub(1))];
        let state = first.iter().rev().fold(ROOT, |state, byte| backward.next(state, *byte));
        edge(backward.depth(state))
    }

    /// How many of the last bytes, after which the automaton is in this state, are the beginning of a value; 0 when they are too few.
    pub(crate) fn end_edge(&self, state: u32) -> usize {
        edge(self.forward.depth(state))
    }

    fn is_within_one(&self, bytes: &[u8]) -> bool {
        let is_within = |form: &Form| form.windows(bytes.len()).any(|window| window == bytes);
        self.forms.iter().any(is_within)
    }
}

fn edge(depth: usize) -> usize {
    if depth >= EDGE { depth } else { 0 }
}
