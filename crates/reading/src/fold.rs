//! Folds lines that tell nothing new: the same line again and again, and the states of a progress display, of which the last one stays.

/// Fewer lines than this are not folded: the mark takes a line too.
const LEAST: usize = 3;
/// What progress bars are drawn with.
const BAR: &[char] = &['#', '=', '>', '-', '.', '*', ' ', '|', '/', '\\', '<', '+', ':'];
/// What only progress bars are drawn with: heavy lines, block elements, and the patterns of spinners. Tables have light and vertical lines.
const BLOCKS: &[(char, char)] =
    &[('\u{2501}', '\u{2501}'), ('\u{2578}', '\u{257B}'), ('\u{2580}', '\u{259F}'), ('\u{2800}', '\u{28FF}')];

/// A text with folded lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Folded {
    pub(crate) text: String,
    /// How many lines are left out.
    pub(crate) lines: u64,
}

/// Folds the lines of a text.
pub(crate) fn fold(text: &str) -> Folded {
    let mut folded = Folded { text: String::with_capacity(text.len()), lines: 0 };
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(first) = lines.next() {
        let shape = shape(first);
        let mut alike = 1;
        let mut last = first;
        while let Some(next) = lines.next_if(|next| is_like(next, first, shape.as_deref())) {
            alike += 1;
            last = next;
            if alike < LEAST {
                folded.text.push_str(if alike == 2 { first } else { "" });
            }
        }
        folded.end_run(first, last, alike, shape.is_some());
    }
    folded
}

impl Folded {
    /// Adds a run of lines that are alike. Of a run of two, the first was added already.
    fn end_run(&mut self, first: &str, last: &str, alike: usize, progress: bool) {
        if alike < LEAST {
            return self.text.push_str(last);
        }
        // The first line, which was added when the second one came.
        self.text.truncate(self.text.len() - first.len());
        let left_out = alike - 1;
        self.lines += left_out as u64;
        if progress {
            self.text.push_str(&format!("[{left_out} earlier states of this line left out]\n"));
            self.text.push_str(last);
        } else {
            self.text.push_str(first);
            self.text.push_str(&format!("[the same line {left_out} more times]"));
            // The end of the text stays with or without a newline.
            self.text.push_str(if last.ends_with('\n') { "\n" } else { "" });
        }
    }
}

fn is_like(line: &str, first: &str, first_shape: Option<&str>) -> bool {
    match first_shape {
        Some(first_shape) => shape(line).as_deref() == Some(first_shape),
        None => line.trim_end() == first.trim_end(),
    }
}

/// What the states of one progress display have in common; none for any other line. Numbers and bars are left out of it.
fn shape(line: &str) -> Option<String> {
    let line = line.trim_end();
    if !shows_progress(line) {
        return None;
    }
    let mut shape = String::with_capacity(line.len());
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        if character.is_ascii_digit() {
            // A number, with the unit of a size: `999 kB` is followed by `1.1 MB`.
            while characters.next_if(|next| next.is_ascii_digit() || matches!(next, '.' | ',')).is_some() {}
            let mut rest = characters.clone();
            let blank = rest.next_if_eq(&' ').is_some();
            let scaled = rest.next_if(|next| "kKMGT".contains(*next)).is_some();
            rest.next_if_eq(&'i');
            if rest.peek() == Some(&'B') && (scaled || blank) {
                characters = rest;
            }
            push_once(&mut shape, '0');
        } else if BAR.contains(&character) || is_block(character) {
            push_once(&mut shape, '-');
        } else {
            shape.push(character);
        }
    }
    Some(shape)
}

fn push_once(shape: &mut String, character: char) {
    // A bar may shrink to nothing between two numbers, and a number may appear in one: both are one mark.
    match shape.chars().next_back() {
        Some(last) if last == character => {}
        _ => shape.push(character),
    }
}

fn is_block(character: char) -> bool {
    BLOCKS.iter().any(|(first, last)| (*first..=*last).contains(&character))
}

/// Whether a line is one state of a progress display: it has a percentage, a count such as 3/17, or a bar. Numbers alone are no progress:
/// they may be what the command was run for.
fn shows_progress(line: &str) -> bool {
    line.chars().filter(|character| is_block(*character)).count() >= 3
        || line.split(|c: char| c.is_whitespace() || "()[]<>,;:|".contains(c)).any(is_measure)
        || has_bar(line)
}

/// `45%`, `4.5%`, or `3/17`.
fn is_measure(word: &str) -> bool {
    if let Some(percent) = word.strip_suffix('%') {
        return percent.parse::<f32>().is_ok_and(|percent| (0.0..=100.0).contains(&percent));
    }
    let count = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let counts = word.split_once('/').map(|(done, all)| (count(done), count(all)));
    matches!(counts, Some((Some(done), Some(all))) if done <= all)
}

/// Whether there is a bar in brackets, such as `[###   ]` or `[=>  ]`.
fn has_bar(line: &str) -> bool {
    line.split('[').skip(1).filter_map(|rest| rest.split_once(']')).any(|(bar, _)| {
        bar.chars().count() >= 5
            && bar.contains(['#', '=', '-', '*', '.'])
            && bar.chars().all(|c| "#=>-.* ".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(text: &str) -> (String, u64) {
        let Folded { text, lines } = fold(text);
        (text, lines)
    }

    #[test]
    fn repeated_lines_are_counted() {
        assert_eq!(folded("a\na\nb\n"), ("a\na\nb\n".to_owned(), 0));
        assert_eq!(folded("x\na\na\na\na\nb"), ("x\na\n[the same line 3 more times]\nb".to_owned(), 3));
        assert_eq!(folded("a\na\na"), ("a\n[the same line 2 more times]".to_owned(), 2));
        assert_eq!(folded(""), (String::new(), 0));
    }

    #[test]
    fn progress_is_folded_to_its_last_state() {
        let pip = "Collecting x\nDownload 10% [#    ] 99 kB/s\nDownload 55.5% [##   ] 1.1 MB/s\nDownload 100% [#####] 12 MB/s\nok\n";
        let shown = "Collecting x\n[2 earlier states of this line left out]\nDownload 100% [#####] 12 MB/s\nok\n";
        assert_eq!(folded(pip), (shown.to_owned(), 2));
        let (text, left_out) = folded("[1/9] Compiling\n[2/9] Compiling\n[9/9] Compiling");
        assert_eq!((text.lines().last(), left_out), (Some("[9/9] Compiling"), 2));
        let (text, left_out) = folded("⠋ ███░░ build\n⠙ ████░ build\n⠹ █████ build\n");
        assert_eq!((text.lines().last(), left_out), (Some("⠹ █████ build"), 2));
    }

    #[test]
    fn numbers_alone_are_no_progress() {
        for text in
            ["1\n2\n3\n4\n", "line 1 failed\nline 2 failed\nline 3 failed\n", "a/1\na/2\na/3\n", "9/1\n8/2\n7/3\n"]
        {
            assert_eq!(folded(text), (text.to_owned(), 0));
        }
        let dates = "2026/11/27 GET /a\n2026/11/28 GET /a\n2026/11/29 GET /a\n";
        assert_eq!(folded(dates), (dates.to_owned(), 0));
        let others = "[1/9] Compiling a\n[2/9] Compiling b\n[3/9] Linking\n";
        assert_eq!(folded(others), (others.to_owned(), 0));
    }

    proptest! {
        #[test]
        fn folded_and_shown_lines_add_up(text in "([ab]|10%|20%|\\[#{5}\\]|1/2|\n){0,60}") {
            let Folded { text: shown, lines } = fold(&text);
            let marks = shown.lines().filter(|line| line.starts_with("[the same") || line.contains(" earlier states of")).count();
            let count = |text: &str| text.split_inclusive('\n').count();
            prop_assert_eq!(count(&shown) - marks + usize::try_from(lines).unwrap_or(0), count(&text));
            prop_assert_eq!(shown.ends_with('\n'), text.ends_with('\n'));
            prop_assert!(marks > 0 || shown == text);
        }
    }
}
