//! Watches: patterns in the output of a task that its session is told of while the task runs.

use super::{Task, text};

/// The most watches of a task.
pub const WATCH_LIMIT: usize = 8;
/// The most lines of output that are shown of matches.
const LINES: usize = 20;
/// The most characters of output that are shown of matches.
const CHARACTERS: usize = 2000;

/// What to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchPattern {
    /// This text.
    Text(String),
    /// A match of this regular expression.
    Regex(String),
}

impl WatchPattern {
    /// The text or the expression.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Regex(pattern) => pattern,
        }
    }
}

/// A pattern that a task's output is watched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// What to look for.
    pub pattern: WatchPattern,
    /// Whether the first match ends the watch.
    pub once: bool,
}

/// A watch of a task, and what came of it so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchState {
    /// The watch.
    pub watch: Watch,
    /// Matches that were announced, or were found by the end of the task.
    pub matches: u64,
    /// How many of them were not announced when they were found.
    pub held_back: u64,
    /// Position of the first byte that the next match may begin with: what was announced is not announced again.
    pub next: u64,
    /// Bytes of output that were not searched because the log has not kept them.
    pub unsearched: u64,
    /// Whether it matched too often and is no longer searched for.
    pub disabled: bool,
}

impl WatchState {
    /// Whether the output is searched for it.
    pub fn is_active(&self) -> bool {
        let is_over = self.watch.once && self.matches > 0;
        !self.disabled && !is_over
    }
}

/// The watches of one task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watches {
    /// Number of the set: it grows each time that a caller replaces the watches.
    pub set: u32,
    /// The watches, in the order of the request. At most [`WATCH_LIMIT`].
    pub list: Vec<WatchState>,
}

/// A watch that the output is to be searched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArmedWatch {
    /// Its place in the set.
    pub index: u32,
    /// What to look for.
    pub pattern: WatchPattern,
    /// Whether to stop after the first match.
    pub once: bool,
    /// Position of the first byte that a match may begin with.
    pub from: u64,
}

/// Matches of one watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchMatches {
    /// The watch's place in the set.
    pub index: u32,
    /// How many.
    pub count: u64,
    /// Position of the first byte of the first match.
    pub offset: u64,
    /// Position of the first byte that a later match may begin with.
    pub next: u64,
    /// The lines of the first matches.
    pub lines: WatchLines,
}

/// The lines of matches, as plain text: at most 20 lines and 2000 characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchLines {
    /// The lines.
    pub text: String,
    /// Whether something of the first match's lines is missing.
    pub cut: bool,
}

/// What a notification says of matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchNotice {
    /// The place in the set of the watch that matched first.
    pub index: u32,
    /// That watch.
    pub watch: Watch,
    /// Position of the first byte of its first match.
    pub offset: u64,
    /// The lines of its first matches.
    pub lines: WatchLines,
    /// How many matches of this watch there were.
    pub matches: u64,
    /// The other watches that matched, each by its place in the set and with the number of its matches.
    pub others: Vec<WatchCount>,
}

impl WatchNotice {
    /// An upper bound of its encoded size without the lines.
    pub(crate) fn size(&self) -> usize {
        const NUMBERS: usize = 64;
        self.watch.pattern.as_str().len() + NUMBERS + self.others.len() * NUMBERS
    }
}

/// Counts matches of one watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchCount {
    /// The watch's place in the set.
    pub index: u32,
    /// How many.
    pub matches: u64,
}

impl Watches {
    /// The set number `set`, whose matches begin at byte `from` or later.
    pub fn new(set: u32, watches: Vec<Watch>, from: u64) -> Self {
        let state = |watch| WatchState { watch, matches: 0, held_back: 0, next: from, unsearched: 0, disabled: false };
        Self { set, list: watches.into_iter().take(WATCH_LIMIT).map(state).collect() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The watches that the output is to be searched for.
    pub fn armed(&self) -> Vec<ArmedWatch> {
        let active = (0..).zip(&self.list).filter(|(_, state)| state.is_active());
        let armed = active.map(|(index, state)| ArmedWatch {
            index,
            pattern: state.watch.pattern.clone(),
            once: state.watch.once,
            from: state.next,
        });
        armed.collect()
    }

    /// Whether matches may have come from a search for this watch: it is active, and the matches are new.
    pub fn accepts(&self, matches: &WatchMatches) -> bool {
        let state = usize::try_from(matches.index).ok().and_then(|index| self.list.get(index));
        state.is_some_and(|state| {
            let ordered = state.next <= matches.offset && matches.offset < matches.next;
            // Each match takes one byte at least.
            let possible = (1..=matches.next - matches.offset.min(matches.next)).contains(&matches.count);
            state.is_active() && ordered && possible && (!state.watch.once || matches.count == 1)
        })
    }

    /// The watch at this place.
    pub fn at(&mut self, index: u32) -> Option<&mut WatchState> {
        usize::try_from(index).ok().and_then(|index| self.list.get_mut(index))
    }
}

impl WatchLines {
    /// Plain text of lines as they are in the output. `cut`: something of the first match's lines is missing already.
    pub fn of(output: &[u8], cut: bool) -> Self {
        Self { text: text::plain(output), cut }.bounded()
    }

    /// Leaves at most 20 lines and 2000 characters.
    pub(super) fn bounded(mut self) -> Self {
        let trimmed = self.text.trim_end().len();
        self.text.truncate(trimmed);
        if let Some((end, _)) = self.text.match_indices('\n').nth(LINES - 1) {
            self.text.truncate(end);
        }
        if let Some((end, _)) = self.text.char_indices().nth(CHARACTERS) {
            self.cut |= !self.text[..end].contains('\n');
            self.text.truncate(end);
        }
        self
    }

    /// Adds further lines, as far as there is room.
    pub fn add(&mut self, more: &Self) {
        if !more.text.is_empty() {
            let separator = if self.text.is_empty() { "" } else { "\n" };
            let cut = self.cut;
            *self = Self { text: format!("{}{separator}{}", self.text, more.text), cut }.bounded();
            self.cut = cut;
        }
    }
}

impl Task {
    /// Whether its output is searched for a watch.
    pub fn is_watched(&self) -> bool {
        self.watches.list.iter().any(WatchState::is_active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str, once: bool) -> Watch {
        Watch { pattern: WatchPattern::Text(text.to_owned()), once }
    }

    fn matches(index: u32, count: u64, offset: u64, next: u64) -> WatchMatches {
        WatchMatches { index, count, offset, next, lines: WatchLines::default() }
    }

    #[test]
    fn finished_and_disabled_watches_are_not_armed() {
        let mut watches = Watches::new(1, vec![text("a", false), text("b", true), text("c", false)], 7);
        assert_eq!(
            watches.armed().iter().map(|armed| (armed.index, armed.from)).collect::<Vec<_>>(),
            [(0, 7), (1, 7), (2, 7)]
        );
        watches.list[1].matches = 1;
        watches.list[2].disabled = true;
        assert_eq!(watches.armed().iter().map(|armed| armed.index).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn impossible_matches_are_not_accepted() {
        let mut watches = Watches::new(1, vec![text("a", false), text("b", true)], 10);
        assert!(watches.accepts(&matches(0, 3, 10, 20)) && watches.accepts(&matches(1, 1, 12, 13)));
        for (index, count, offset, next) in
            [(2, 1, 10, 11), (0, 1, 9, 11), (0, 1, 11, 11), (0, 0, 10, 11), (0, 3, 10, 12), (1, 2, 10, 20)]
        {
            assert!(!watches.accepts(&matches(index, count, offset, next)), "{index} {count} {offset} {next}");
        }
        watches.list[0].disabled = true;
        assert!(!watches.accepts(&matches(0, 1, 10, 11)));
    }

    #[test]
    fn lines_are_plain_and_bounded() {
        let lines = WatchLines::of(b"\x1b[31merror\x1b[0m: one\nerror: two\r\n", false);
        assert_eq!((lines.text.as_str(), lines.cut), ("error: one\nerror: two", false));
        let long = WatchLines::of("ü".repeat(3000).as_bytes(), false);
        assert_eq!((long.text.chars().count(), long.cut), (2000, true));
        let many = WatchLines::of("line\n".repeat(30).as_bytes(), false);
        assert_eq!((many.text.lines().count(), many.cut), (20, false));
        let mut sum = WatchLines::of(b"first", false);
        sum.add(&long);
        assert_eq!((sum.text.chars().count(), sum.text.lines().count(), sum.cut), (2000, 2, false));
    }
}
