//! Cuts a text to a number of characters: its head, a mark that says how much is left out, and its tail.

/// The most characters of the mark.
const MARK: usize = 80;

/// A text that was cut.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Limited {
    pub(crate) text: String,
    /// How many characters are left out.
    pub(crate) characters: u64,
    /// How many newlines are among them.
    pub(crate) lines: u64,
}

/// Cuts a text to at most `most` characters, at least 200, including the mark.
pub(crate) fn limit(text: String, most: usize) -> Limited {
    let most = most.max(2 * MARK);
    // Skip counting: a text has at most as many characters as bytes.
    let total = if text.len() <= most { 0 } else { text.chars().count() };
    if total <= most {
        return Limited { text, characters: 0, lines: 0 };
    }
    let head = (most - MARK) / 2;
    let tail = most - MARK - head;
    let left_out = total - head - tail;
    let at = |characters: usize| text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
    let (begin, end) = (at(head), at(total - tail));
    let lines = memchr::memchr_iter(b'\n', &text.as_bytes()[begin..end]).count();
    let mark = format!("\n[... {left_out} characters with {lines} line breaks left out ...]\n");
    let text = [&text[..begin], &mark, &text[end..]].concat();
    Limited { text, characters: left_out as u64, lines: lines as u64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_text_is_unchanged() {
        let text = "é".repeat(200);
        assert_eq!(limit(text.clone(), 200), Limited { text, characters: 0, lines: 0 });
    }

    #[test]
    fn mark_tells_how_much_is_left_out() {
        let text: String = (0..10_000).map(|number| format!("{number}\n")).collect();
        let cut = limit(text, 1000);
        assert!(cut.text.starts_with("0\n1\n") && cut.text.ends_with("9998\n9999\n"));
        let mark = format!("\n[... {} characters with {} line breaks left out ...]\n", cut.characters, cut.lines);
        assert!(cut.text.contains(&mark) && cut.characters == 48_890 - 920, "{}", cut.characters);
    }

    proptest! {
        #[test]
        fn head_tail_and_rest_add_up(text in "[aé\n]{0,2000}", most in 200usize..1000) {
            let total = text.chars().count();
            let cut = limit(text.clone(), most);
            prop_assert!(cut.text.chars().count() <= most);
            if total <= most {
                prop_assert_eq!(&cut.text, &text);
            } else {
                let (head, rest) = cut.text.split_once("\n[... ").unwrap_or_default();
                let (mark, tail) = rest.split_once(" ...]\n").unwrap_or_default();
                prop_assert!(text.starts_with(head) && text.ends_with(tail));
                let shown = head.chars().count() + tail.chars().count();
                prop_assert_eq!(shown as u64 + cut.characters, total as u64);
                let lines = [head, tail].concat().matches('\n').count() as u64 + cut.lines;
                prop_assert_eq!(lines, text.matches('\n').count() as u64);
                let told = format!("{} characters with {} line breaks left out", cut.characters, cut.lines);
                prop_assert_eq!(mark, told);
            }
        }
    }
}
