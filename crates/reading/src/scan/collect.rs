//! Keeps the lines that were asked for, and counts the others.

use std::collections::VecDeque;

use super::{Grep, Line, Pattern, Query, SCANNED_BYTES, Scanned, assembly::Ended};

/// The lines that were found so far.
#[derive(Debug)]
pub(super) struct Collector {
    found: Scanned,
    cost: usize,
    wanted: Wanted,
}

#[derive(Debug)]
enum Wanted {
    /// The lines after the first `skip`, at most `limit`.
    After { skip: u64, limit: u64 },
    /// Of the last lines, at most `count`, the first `limit`.
    Last { count: usize, limit: u64, lines: VecDeque<Line> },
    /// The lines that match, and their context.
    Matching(Search),
}

#[derive(Debug)]
struct Search {
    grep: Grep,
    /// Lines that may be the context before the next match.
    before: VecDeque<Line>,
    /// How many more lines are the context after the last match.
    after: usize,
    /// How many matching lines were kept.
    kept: u64,
    /// No further match is kept.
    full: bool,
}

impl Collector {
    pub(super) fn new(query: &Query) -> Self {
        let wanted = match query {
            Query::Lines { offset, limit } => {
                let limit = *limit as u64;
                match u64::try_from(*offset) {
                    Ok(skip) => Wanted::After { skip, limit },
                    Err(_) => Wanted::Last {
                        count: usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX),
                        limit,
                        lines: VecDeque::new(),
                    },
                }
            }
            Query::Grep(grep) => {
                Wanted::Matching(Search { grep: grep.clone(), before: VecDeque::new(), after: 0, kept: 0, full: false })
            }
        };
        Self { found: Scanned::default(), cost: 0, wanted }
    }

    /// What lines are searched for.
    pub(super) fn pattern(&self) -> Option<&Pattern> {
        match &self.wanted {
            Wanted::Matching(search) => Some(&search.grep.pattern),
            Wanted::After { .. } | Wanted::Last { .. } => None,
        }
    }

    /// Takes a line that was not searched yet.
    pub(super) fn take_plain(&mut self, line: Ended, text: &str) {
        let matched = self.pattern().is_some_and(|pattern| pattern.find(text, 0).is_some());
        self.take(Ended { matched, ..line }, text);
    }

    /// Takes the next line.
    pub(super) fn take(&mut self, line: Ended, text: &str) {
        self.found.total_lines += 1;
        self.found.matching_lines += u64::from(line.matched);
        let number = self.found.total_lines;
        match &mut self.wanted {
            Wanted::After { skip, limit } => {
                let next = self.found.lines.len() as u64;
                // Without a gap: once a line had no room, none that follows is kept.
                if number == skip.saturating_add(next + 1) && next < *limit {
                    let line = made(String::new(), line, number, text);
                    if self.cost + line.cost() <= SCANNED_BYTES {
                        self.cost += line.cost();
                        self.found.lines.push(line);
                    }
                }
            }
            Wanted::Last { count, lines, .. } => {
                let room = recycled(lines, *count, &mut self.cost);
                let line = made(room, line, number, text);
                self.cost += line.cost();
                lines.push_back(line);
                while self.cost > SCANNED_BYTES {
                    self.cost -= lines.pop_front().map_or(self.cost, |line| line.cost());
                }
            }
            Wanted::Matching(search) => search.take(line, number, text, &mut self.found.lines, &mut self.cost),
        }
    }

    pub(super) fn finish(self) -> Scanned {
        let Self { mut found, wanted, .. } = self;
        let total = found.total_lines;
        found.left_out = match wanted {
            Wanted::After { skip, limit } => limit.min(total.saturating_sub(skip)) - found.lines.len() as u64,
            Wanted::Last { count, limit, lines } => {
                let first = total.saturating_sub(count as u64);
                found.lines = lines.into_iter().filter(|line| line.number <= first.saturating_add(limit)).collect();
                limit.min(total - first) - found.lines.len() as u64
            }
            Wanted::Matching(search) => found.matching_lines - search.kept,
        };
        found
    }
}

impl Search {
    fn take(&mut self, line: Ended, number: u64, text: &str, found: &mut Vec<Line>, cost: &mut usize) {
        if self.full {
            return;
        }
        if line.matched {
            self.full = self.kept == self.grep.most as u64;
            let line = made(String::new(), line, number, text);
            let before: usize = self.before.iter().map(Line::cost).sum();
            self.full |= *cost + before + line.cost() > SCANNED_BYTES;
            if !self.full {
                *cost += before + line.cost();
                found.extend(self.before.drain(..));
                found.push(line);
                self.kept += 1;
                self.after = self.grep.after;
            }
        } else if self.after > 0 {
            let line = made(String::new(), line, number, text);
            self.full = *cost + line.cost() > SCANNED_BYTES;
            if !self.full {
                *cost += line.cost();
                found.push(line);
                self.after -= 1;
            }
        } else if self.grep.before > 0 {
            let room = recycled(&mut self.before, self.grep.before, &mut 0);
            self.before.push_back(made(room, line, number, text));
        }
    }
}

/// Makes room for one more line of at most `most`. Returns the text of a line that left, to be used again.
fn recycled(lines: &mut VecDeque<Line>, most: usize, cost: &mut usize) -> String {
    if lines.len() < most {
        return String::new();
    }
    lines.pop_front().map_or_else(String::new, |line| {
        *cost = cost.saturating_sub(line.cost());
        line.text
    })
}

fn made(mut room: String, line: Ended, number: u64, text: &str) -> Line {
    room.clear();
    room.push_str(text);
    let Ended { offset, end, stream, matched, left_out } = line;
    Line { number, offset, end, text: room, left_out, matched, stream }
}
