//! What was found for one watch since it was last reported: how many matches, and the lines of the first ones.

/// The most bytes of lines that are kept of a watch, and of all watches of one report.
pub const TEXT_LIMIT: usize = 8 * 1024;
/// The most lines that are kept.
const LINES: usize = 20;
/// How many bytes before a match are shown at most.
pub(crate) const CONTEXT: usize = 500;

/// Matches of one watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The watch's place in its set.
    pub index: u32,
    /// How many matches.
    pub count: u64,
    /// Position of the first byte of the first match.
    pub offset: u64,
    /// Position of the first byte that a later match may begin with.
    pub next: u64,
    /// The lines of the first matches as they are in the output, at most [`TEXT_LIMIT`] bytes.
    pub lines: Vec<u8>,
    /// Whether something of the first match's lines is missing.
    pub cut: bool,
}

/// A count in progress.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) offset: u64,
    pub(crate) lines: Vec<u8>,
    kept: usize,
    pub(crate) cut: bool,
    /// Position after what is shown.
    shown_to: u64,
    /// Whether the last line shown may go on in output that has not arrived.
    pub(crate) open: bool,
}

/// A match, and the output around it.
pub(crate) struct Match<'a> {
    pub(crate) hay: &'a [u8],
    /// Position of the first byte of `hay`.
    pub(crate) base: u64,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Match<'_> {
    fn at(&self, index: usize) -> u64 {
        self.base + index as u64
    }
}

/// A carriage return ends the text that it overwrites, which is what is shown of a progress bar.
fn is_break(byte: &u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

impl Tally {
    pub(crate) fn begin(found: &Match<'_>) -> Self {
        let mut tally = Self {
            count: 0,
            offset: found.at(found.start),
            lines: Vec::new(),
            kept: 0,
            cut: false,
            shown_to: 0,
            open: false,
        };
        tally.add(found);
        tally
    }

    pub(crate) fn add(&mut self, found: &Match<'_>) {
        self.count += 1;
        if self.kept == LINES || self.lines.len() >= TEXT_LIMIT || found.at(found.start) < self.shown_to {
            return;
        }
        let earliest = found.start.saturating_sub(CONTEXT);
        let begin = found.hay[earliest..found.start].iter().rposition(is_break).map(|at| earliest + at + 1);
        let until = found.hay[found.end..].iter().position(is_break).map(|at| found.end + at);
        // A match may end with the line break.
        let ended = until.is_some() || found.hay[..found.end].last().is_some_and(is_break);
        let (from, to) = (begin.unwrap_or(earliest), if ended { until.unwrap_or(found.end) } else { found.hay.len() });
        if !self.lines.is_empty() {
            self.lines.push(b'\n');
        }
        let room = TEXT_LIMIT.saturating_sub(self.lines.len());
        let shown = &found.hay[from..to];
        self.lines.extend_from_slice(&shown[..shown.len().min(room)]);
        self.kept += 1;
        if self.kept == 1 {
            self.cut = shown.len() > room || (begin.is_none() && found.at(earliest) > 0);
        }
        self.shown_to = found.at(to).max(found.at(found.end));
        self.open = !ended && shown.len() < room;
    }

    /// Continues the last line with output that has arrived.
    pub(crate) fn go_on(&mut self, bytes: &[u8], position: u64) {
        let skip = usize::try_from(self.shown_to.saturating_sub(position)).unwrap_or(usize::MAX);
        if !self.open || self.shown_to < position || skip >= bytes.len() {
            return;
        }
        let rest = &bytes[skip..];
        let line = &rest[..rest.iter().position(is_break).unwrap_or(rest.len())];
        let room = TEXT_LIMIT.saturating_sub(self.lines.len());
        self.lines.extend_from_slice(&line[..line.len().min(room)]);
        self.shown_to += line.len() as u64;
        self.cut |= self.kept == 1 && line.len() > room;
        self.open = line.len() == rest.len() && line.len() < room;
    }
}
