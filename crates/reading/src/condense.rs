//! Condenses output for a model: rendered, folded, and cut to a number of characters.

use crate::{fold::fold, limit::limit, render::Renderer};

/// Condensed output. Whatever is left out is counted, and marked in the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condensed {
    /// The text.
    pub text: String,
    /// Position of the first byte that the text is about.
    pub from: u64,
    /// Position after the last byte.
    pub to: u64,
    /// Bytes of the output that the text is about.
    pub bytes: u64,
    /// Lines that repeated others, or were earlier states of a progress display.
    pub folded_lines: u64,
    /// Characters that were left out of the middle.
    pub characters: u64,
    /// Line breaks among them.
    pub lines: u64,
}

/// Condenses pieces of output, each with its position, to at most `most` characters, at least 200. A terminal of `rows` rows is assumed. The
/// text begins with a whole line where `begins_whole`, or where a newline allows it; likewise after output that is missing between pieces.
pub fn condense<'a>(
    pieces: impl IntoIterator<Item = (u64, &'a [u8])>,
    rows: u16,
    most: usize,
    begins_whole: bool,
) -> Condensed {
    let (mut renderer, mut rendered) = (Renderer::new(rows), String::new());
    let mut condensed = Condensed::default();
    let mut position = None;
    for (offset, bytes) in pieces {
        let follows = position == Some(offset);
        let whole = follows || (position.is_none() && begins_whole);
        let skipped = if whole { 0 } else { partial_line(bytes) };
        if let Some(position) = position.filter(|_| !follows) {
            condensed.end_part(&mut renderer, &mut rendered);
            let missing = (offset + skipped as u64).saturating_sub(position);
            condensed.text.push_str(&format!("\n[... {missing} bytes of output not read ...]\n"));
        }
        renderer.feed(&bytes[skipped..], &mut rendered);
        if position.is_none() {
            condensed.from = offset + skipped as u64;
        }
        condensed.bytes += (bytes.len() - skipped) as u64;
        condensed.to = offset + bytes.len() as u64;
        position = Some(condensed.to);
    }
    condensed.end_part(&mut renderer, &mut rendered);
    let limited = limit(std::mem::take(&mut condensed.text), most);
    (condensed.text, condensed.characters, condensed.lines) = (limited.text, limited.characters, limited.lines);
    condensed
}

impl Condensed {
    fn end_part(&mut self, renderer: &mut Renderer, rendered: &mut String) {
        renderer.finish(rendered);
        let folded = fold(rendered);
        rendered.clear();
        self.text.push_str(&folded.text);
        self.folded_lines += folded.lines;
    }
}

/// How many bytes at the beginning of a piece belong to a line that began earlier, and maybe to a sequence; 0 if nothing else would be left.
pub fn partial_line(bytes: &[u8]) -> usize {
    memchr::memchr(b'\n', bytes).map(|at| at + 1).filter(|from| *from < bytes.len()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn build_log_is_condensed() {
        let progress: String = (0..=100).map(|percent| format!("\rfetching {percent}%")).collect();
        let output = format!("\u{1b}[1mstart\u{1b}[0m\n{progress}\n{}end\n", "warning: x\n".repeat(50));
        let condensed = condense([(0, output.as_bytes())], 24, 16_000, true);
        assert_eq!(condensed.text, "start\nfetching 100%\nwarning: x\n[the same line 49 more times]\nend\n");
        assert_eq!((condensed.bytes, condensed.folded_lines), (output.len() as u64, 49));
        assert_eq!((condensed.characters, condensed.lines), (0, 0));
    }

    #[test]
    fn missing_output_is_marked_with_its_size() {
        let condensed = condense([(0, &b"one\ntw"[..]), (6, b"o\n"), (1000, b"2m part\nlast\n")], 24, 16_000, true);
        assert_eq!(condensed.text, "one\ntwo\n\n[... 1000 bytes of output not read ...]\nlast\n");
        assert_eq!(condensed.bytes, 13);
        let tail = condense([(7, &b"art\nlast\n"[..])], 24, 16_000, false);
        assert_eq!((tail.text.as_str(), tail.bytes), ("last\n", 5));
        assert_eq!(condense([(7, &b"a single line"[..])], 24, 16_000, false).text, "a single line");
    }

    proptest! {
        #[test]
        fn text_never_exceeds_its_limit(output in prop::collection::vec(any::<u8>(), 0..4000), most in 200usize..2000) {
            prop_assert!(condense([(0, &output[..])], 24, most, true).text.chars().count() <= most);
        }

        #[test]
        fn pieces_change_no_condensed_text(output in "([ab]{1,3}|\n|\r|\u{1b}\\[A|10%|é){0,200}", cut in 0usize..300) {
            let output = output.as_bytes();
            let cut = cut.min(output.len());
            let pieces = [(0, &output[..cut]), (cut as u64, &output[cut..])];
            prop_assert_eq!(condense(pieces, 5, 400, true), condense([(0, output)], 5, 400, true));
        }
    }
}
