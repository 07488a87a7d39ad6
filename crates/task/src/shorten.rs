//! Shortens texts of callers and sandboxes before they are stored in notifications or sent to clients.
//!
//! A sandbox may send texts of any size. A shortened text ends with [`MARK`].

use super::{Outcome, Stall, StopCause};

/// The end of every shortened text.
const MARK: char = '…';
/// The most characters of a task's description.
pub(super) const DESCRIPTION_LIMIT: usize = 1000;
/// The most characters of an outcome's text for people, and of the reason for a stop.
const MESSAGE_LIMIT: usize = 1000;
/// The most characters of the last line of a stalled command.
pub(super) const LINE_LIMIT: usize = 200;
/// The most characters of a process's name. The kernel keeps 15 bytes.
const NAME_LIMIT: usize = 64;

/// Cuts a text to at most `limit` characters, including the mark.
pub(super) fn shorten(text: &mut String, limit: usize) {
    // Skip counting: a text has at most as many characters as bytes.
    if text.len() > limit && text.char_indices().nth(limit).is_some() {
        let end = text.char_indices().nth(limit.saturating_sub(1)).map_or(0, |(end, _)| end);
        text.truncate(end);
        text.push(MARK);
    }
}

/// Cuts a text to its last whole characters, at most `limit` bytes. True if something was cut.
pub(super) fn keep_end(text: &mut String, limit: usize) -> bool {
    let Some(excess) = text.len().checked_sub(limit).filter(|excess| *excess > 0) else { return false };
    let start = (excess..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text.drain(..start);
    true
}

/// Cuts a text to its first whole characters, at most `limit` bytes. True if something was cut.
pub(super) fn keep_start(text: &mut String, limit: usize) -> bool {
    let end = (0..=limit.min(text.len())).rfind(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let cut = end < text.len();
    text.truncate(end);
    cut
}

impl Outcome {
    /// Shortens its texts to 1000 characters.
    pub fn bounded(mut self) -> Self {
        match &mut self {
            Self::FailedToStart { message, .. } | Self::Lost { message, .. } => shorten(message, MESSAGE_LIMIT),
            Self::Stopped { cause: StopCause::Request { reason, .. }, .. } => shorten(reason, MESSAGE_LIMIT),
            Self::Stopped { .. } | Self::Exited { .. } | Self::Signaled { .. } | Self::TimedOut { .. } => {}
        }
        self
    }
}

impl Stall {
    /// Shortens the last line to 200 characters and the process name to 64.
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
        let mut text = "a€b".to_owned();
        assert!(!keep_start(&mut text, 5));
        assert!(keep_start(&mut text, 3));
        assert_eq!(text, "a");
    }
}
