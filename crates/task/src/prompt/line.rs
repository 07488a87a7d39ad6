//! One line of output, prepared for the rules.

/// An unfinished line: the command has not written its newline.
pub(super) struct Line<'a> {
    /// The line without surrounding blanks.
    pub(super) text: &'a str,
    /// The same text in lower case.
    pub(super) lower: String,
    /// True if the line ends with a blank: most prompts do, hardly any log line does.
    pub(super) spaced: bool,
}

impl<'a> Line<'a> {
    /// Prepares a line; `None` if it is blank.
    pub(super) fn new(line: &'a str) -> Option<Self> {
        let text = line.trim();
        let spaced = line.ends_with([' ', '\t']);
        (!text.is_empty()).then(|| Self { text, lower: text.to_lowercase(), spaced })
    }

    /// Whether the lower-case text ends with one of these.
    pub(super) fn ends(&self, endings: &[&str]) -> bool {
        endings.iter().any(|ending| self.lower.ends_with(ending))
    }

    /// Whether the lower-case text begins with one of these.
    pub(super) fn begins(&self, beginnings: &[&str]) -> bool {
        beginnings.iter().any(|beginning| self.lower.starts_with(beginning))
    }

    /// Whether the lower-case text contains this word.
    pub(super) fn has_word(&self, word: &str) -> bool {
        self.lower.split(|c: char| !c.is_alphanumeric()).any(|other| other == word)
    }
}

/// The content of the brackets at the end of a text, without nested brackets. `None` if a word stands directly before them, as in code.
pub(super) fn last_brackets(text: &str) -> Option<String> {
    let open = match text.chars().last()? {
        ')' => '(',
        ']' => '[',
        _ => return None,
    };
    let inner = &text[..text.len() - 1];
    let mut depth = 0_u32;
    let start = inner.char_indices().rev().find_map(|(at, character)| {
        match character {
            // `(yes/no/[fingerprint])` has a pair within the pair.
            ')' | ']' => depth += 1,
            '(' | '[' if depth > 0 => depth -= 1,
            _ if character == open => return Some(at),
            _ => {}
        }
        None
    })?;
    let in_code = inner[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_');
    (!in_code).then(|| inner[start + 1..].replace(['[', ']', '(', ')'], ""))
}
