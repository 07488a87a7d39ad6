//! One search for all watches of a task.
//!
//! A large piece of output is searched where it is: only its beginning is copied, behind the end of the output before it. One expression for
//! all watches together decides whether a piece holds any match; only then is it searched for each watch.

use memchr::memmem;
use regex::bytes::Regex;

use super::{
    PatternError, compile,
    pattern::{COMPILED_LIMIT, limited, source},
    tally::{CONTEXT, Found, Match, TEXT_LIMIT, Tally},
};
use errand_task::{ArmedWatch, WatchPattern};

/// How far back a match may begin that ends in new output. A longer match may be missed.
pub const LONGEST: usize = 8 * 1024;
/// The least beginning of a piece that is copied.
const STITCH: usize = 1024;
/// The most bytes of the expression for all watches together. Beyond, each watch is searched for alone.
const ANY_LIMIT: usize = 2 * COMPILED_LIMIT;

/// A search for several watches. Holds about 25 KiB of output at most.
#[derive(Debug)]
pub struct Scanner {
    watches: Vec<Searched>,
    /// Matches where any of several watches matches.
    any: Option<Regex>,
    /// How far back a match may begin.
    overlap: usize,
    /// The end of the output so far.
    buffer: Vec<u8>,
    /// Position of the buffer's first byte.
    start: u64,
    /// Whether a match at the end of the output waits for what follows.
    waits: bool,
}

/// One watch.
#[derive(Debug)]
struct Searched {
    index: u32,
    source: String,
    matcher: Matcher,
    once: bool,
    done: bool,
    /// Position of the first byte that the next match may begin with.
    next: u64,
    tally: Option<Tally>,
}

#[derive(Debug)]
enum Matcher {
    Text(Box<memmem::Finder<'static>>),
    Regex(Regex),
}

impl Matcher {
    /// The first match at or after `from`.
    fn find(&self, hay: &[u8], from: usize) -> Option<(usize, usize)> {
        match self {
            Self::Text(finder) => {
                let start = from + finder.find(hay.get(from..)?)?;
                Some((start, start + finder.needle().len()))
            }
            Self::Regex(regex) => {
                let mut from = from;
                while from <= hay.len() {
                    let found = regex.find_at(hay, from)?;
                    if !found.is_empty() {
                        return Some((found.start(), found.end()));
                    }
                    from = found.end() + 1;
                }
                None
            }
        }
    }

    /// How far back a match may begin that ends in new output.
    fn overlap(&self) -> usize {
        match self {
            Self::Text(finder) => finder.needle().len().saturating_sub(1),
            Self::Regex(_) => LONGEST,
        }
    }
}

impl Scanner {
    /// A search for these watches.
    ///
    /// # Errors
    /// When a pattern is not accepted.
    pub fn new(watches: &[ArmedWatch]) -> Result<Self, PatternError> {
        let searched = |watch: &ArmedWatch| {
            let compiled = compile(&watch.pattern)?;
            let matcher = match &watch.pattern {
                WatchPattern::Text(text) => Matcher::Text(Box::new(memmem::Finder::new(text.as_bytes()).into_owned())),
                WatchPattern::Regex(_) => Matcher::Regex(compiled),
            };
            let (index, once, next) = (watch.index, watch.once, watch.from);
            Ok(Searched { index, source: source(&watch.pattern), matcher, once, done: false, next, tally: None })
        };
        let watches: Vec<Searched> = watches.iter().map(searched).collect::<Result<_, _>>()?;
        let overlap = watches.iter().map(|watch| watch.matcher.overlap()).max().unwrap_or(0);
        let first = watches.iter().map(|watch| watch.next).min().unwrap_or(0);
        let start = first.saturating_sub(CONTEXT as u64);
        let mut scanner = Self { watches, any: None, overlap, buffer: Vec::new(), start, waits: false };
        scanner.join();
        Ok(scanner)
    }

    /// Makes the expression for all watches that are still searched for.
    fn join(&mut self) {
        let sources: Vec<_> = self.active().map(|watch| format!("(?:{})", watch.source)).collect();
        // A comment in a pattern would go on in the next one. Then each is searched for alone, as when all together are too large.
        let may_comment = sources.iter().any(|source| source.contains('#'));
        self.any = if sources.len() > 1 && !may_comment { limited(&sources.join("|"), ANY_LIMIT).ok() } else { None };
    }

    fn active(&self) -> impl Iterator<Item = &Searched> {
        self.watches.iter().filter(|watch| !watch.done)
    }

    /// Whether there is nothing left to look for.
    pub fn is_done(&self) -> bool {
        self.active().next().is_none()
    }

    /// Position of the byte that is to be pushed next.
    pub fn position(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }

    /// Searches more output. What was pushed before is ignored; after a gap, the search begins anew.
    pub fn push(&mut self, offset: u64, bytes: &[u8]) {
        let known = self.position().saturating_sub(offset);
        let Some(bytes) =
            usize::try_from(known).ok().and_then(|known| bytes.get(known..)).filter(|new| !new.is_empty())
        else {
            return;
        };
        let offset = offset + known;
        self.skip_to(offset);
        let before = self.position();
        self.waits = false;
        self.go_on(bytes, offset);
        let (first, rest) = bytes.split_at(bytes.len().min(STITCH.max(2 * self.overlap)));
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(first);
        self.search(&buffer, self.start, before.saturating_sub(self.overlap as u64), false);
        if !rest.is_empty() {
            self.go_on(rest, offset + first.len() as u64);
            self.waits = false;
            let earliest = first.len().saturating_sub(self.overlap);
            let from = earliest.saturating_sub(CONTEXT);
            self.search(&bytes[from..], offset + from as u64, offset + earliest as u64, false);
            let kept = bytes.len().saturating_sub(self.overlap + CONTEXT);
            buffer.clear();
            buffer.extend_from_slice(&bytes[kept..]);
            self.start = offset + kept as u64;
        }
        self.buffer = buffer;
        self.forget();
    }

    /// Leaves the output before `offset` out.
    pub fn skip_to(&mut self, offset: u64) {
        if offset > self.position() {
            self.settle();
            self.buffer.clear();
            self.start = offset;
        }
    }

    /// Continues lines that are shown and were not complete.
    fn go_on(&mut self, bytes: &[u8], offset: u64) {
        for tally in self.watches.iter_mut().filter_map(|watch| watch.tally.as_mut()) {
            tally.go_on(bytes, offset);
        }
    }

    /// Searches `hay`, which begins at `base`, for matches that begin at `earliest` or later. `settled`: nothing follows for now.
    fn search(&mut self, hay: &[u8], base: u64, earliest: u64, settled: bool) {
        let at = |position: u64| usize::try_from(position.saturating_sub(base)).unwrap_or(usize::MAX);
        if let Some(any) = &self.any {
            let from = self.active().map(|watch| at(watch.next.max(earliest))).min().unwrap_or(usize::MAX);
            if from > hay.len() || !any.is_match_at(hay, from) {
                return;
            }
        }
        let mut finished = false;
        for watch in self.watches.iter_mut().filter(|watch| !watch.done) {
            let mut from = at(watch.next.max(earliest));
            while from < hay.len()
                && let Some((start, end)) = watch.matcher.find(hay, from)
            {
                let open = matches!(watch.matcher, Matcher::Regex(_)) && end == hay.len() && end - start < LONGEST;
                if open && !settled {
                    // With more output it may be longer, or no match.
                    self.waits = true;
                    break;
                }
                let found = Match { hay, base, start, end };
                match &mut watch.tally {
                    Some(tally) => tally.add(&found),
                    none => *none = Some(Tally::begin(&found)),
                }
                (watch.next, from) = (base + end as u64, end);
                if watch.once {
                    (watch.done, finished) = (true, true);
                    break;
                }
            }
        }
        if finished {
            self.join();
        }
    }

    /// Forgets the output that no match can begin in any more.
    fn forget(&mut self) {
        let kept = self.overlap + CONTEXT;
        // Not at each push: moving the rest costs as much as it is long.
        if self.buffer.len() > 2 * kept {
            let forgotten = self.buffer.len() - kept;
            self.buffer.drain(..forgotten);
            self.start += forgotten as u64;
        }
    }

    /// Whether [`Scanner::settle`] would change something.
    pub fn is_unsettled(&self) -> bool {
        self.waits || self.tallies().any(|tally| tally.open)
    }

    /// Nothing has followed for a while: a match at the end counts, and lines are shown as far as they go.
    pub fn settle(&mut self) {
        if std::mem::take(&mut self.waits) {
            let buffer = std::mem::take(&mut self.buffer);
            let end = self.start + buffer.len() as u64;
            self.search(&buffer, self.start, end.saturating_sub(self.overlap as u64), true);
            self.buffer = buffer;
        }
        for tally in self.watches.iter_mut().filter_map(|watch| watch.tally.as_mut()) {
            tally.open = false;
        }
    }

    fn tallies(&self) -> impl Iterator<Item = &Tally> {
        self.watches.iter().filter_map(|watch| watch.tally.as_ref())
    }

    /// Whether [`Scanner::take`] would return something.
    pub fn has_found(&self) -> bool {
        self.tallies().any(|tally| !tally.open)
    }

    /// The matches since the last call, in the order of the watches, but for those whose line may go on. All their lines together have at most
    /// [`TEXT_LIMIT`] bytes; the earliest matches come first.
    pub fn take(&mut self) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        for watch in &mut self.watches {
            if let Some(tally) = watch.tally.take_if(|tally| !tally.open) {
                let Tally { count, offset, lines, cut, .. } = tally;
                found.push(Found { index: watch.index, count, offset, next: watch.next, lines, cut });
            }
        }
        let mut order: Vec<usize> = (0..found.len()).collect();
        order.sort_by_key(|place| found[*place].offset);
        let mut room = TEXT_LIMIT;
        for place in order {
            let Found { lines, cut, .. } = &mut found[place];
            *cut |= lines.len() > room;
            lines.truncate(room);
            room -= lines.len();
        }
        found
    }
}

#[cfg(test)]
mod tests;
