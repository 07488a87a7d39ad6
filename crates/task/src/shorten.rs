//! Bounds of texts that a caller or a sandbox wrote, where they are kept beyond their task or sent to somebody.
//!
//! A sandbox may claim anything of any size. What is cut here ends with [`MARK`].

use super::{Outcome, Stall, StopCause};

/// Stands at the end of a text that was cut.
const MARK: char = '…';
/// The most characters of a task's description.
pub(super) const DESCRIPTION_LIMIT: usize = 1000;
/// The most characters of what an outcome says for people, and of the reason for a stop.
const MESSAGE_LIMIT: usize = 1000;
/// The most characters of the last line of a stalled command.
pub(super) const LINE_LIMIT: usize = 200;
/// The most characters of a process's name. The kernel keeps 15 bytes.
const NAME_LIMIT: usize = 64;

/// Cuts a text to at most `limit` characters, the mark among them.
pub(super) fn shorten(text: &mut String, limit: usize) {
    // A text of few bytes has few characters: most are not counted.
    if text.len() > limit && text.char_indices().nth(limit).is_some() {
        let end = text.char_indices().nth(limit.saturating_sub(1)).map_or(0, |(end, _)| end);
        text.truncate(end);
        text.push(MARK);
    }
}

/// Cuts a text to its last characters, at most `limit` bytes of them. True when something was cut.
pub(super) fn keep_end(text: &mut String, limit: usize) -> bool {
    let Some(excess) = text.len().checked_sub(limit).filter(|excess| *excess > 0) else { return false };
    let start = (excess..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text.drain(..start);
    true
}

impl Outcome {
    /// The same with texts of bounded size: 1000 characters.
    pub fn bounded(mut self) -> Self {
        match &mut self {
            Self::FailedToStart { message, .. } | Self::Lost { message, .. } => shorten(message, MESSAGE_LIMIT),
            Self::Stopped { cause: StopCause::Request { reason }, .. } => shorten(reason, MESSAGE_LIMIT),
            Self::Stopped { .. } | Self::Exited { .. } | Self::Signaled { .. } | Self::TimedOut { .. } => {}
        }
        self
    }
}

impl Stall {
    /// The same with texts of bounded size: 200 characters of the last line, 64 of the name of a process.
    pub fn bounded(mut self) -> Self {
        shorten(&mut self.last_line, LINE_LIMIT);
        if let Some(waiting) = &mut self.waiting {
            shorten(&mut waiting.command, NAME_LIMIT);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortened_text_ends_with_the_mark() {
        let cut = |text: &str, limit| {
            let mut text = text.to_owned();
            shorten(&mut text, limit);
            text
        };
        assert_eq!((cut("äöü", 3).as_str(), cut("äöü", 2).as_str(), cut("", 0).as_str()), ("äöü", "ä…", ""));
        assert_eq!(cut(&"€".repeat(2_000_000), 1000).chars().count(), 1000);
    }

    #[test]
    fn shortened_tail_keeps_whole_characters() {
        let mut text = "a€b".to_owned();
        assert!(!keep_end(&mut text, 5));
        assert!(keep_end(&mut text, 3));
        assert_eq!(text, "b");
    }
}
