//! One line of output, taken apart as the rules need it.

/// A line that the command has not ended.
pub(super) struct Line<'a> {
    /// Without the blanks around it.
    pub(super) text: &'a str,
    /// The same in lower case.
    pub(super) lower: String,
    /// True when the cursor stands after a blank: so do most prompts, and hardly a log line does.
    pub(super) spaced: bool,
}

impl<'a> Line<'a> {
    /// A line; none when it says nothing.
    pub(super) fn new(line: &'a str) -> Option<Self> {
        let text = line.trim();
        let spaced = line.ends_with([' ', '\t']);
        (!text.is_empty()).then(|| Self { text, lower: text.to_lowercase(), spaced })
    }

    /// Whether it ends with one of these, in lower case.
    pub(super) fn ends(&self, endings: &[&str]) -> bool {
        endings.iter().any(|ending| self.lower.ends_with(ending))
    }

    /// Whether it begins with one of these, in lower case.
    pub(super) fn begins(&self, beginnings: &[&str]) -> bool {
        beginnings.iter().any(|beginning| self.lower.starts_with(beginning))
    }

    /// Whether it has this word, in lower case.
    pub(super) fn has_word(&self, word: &str) -> bool {
        self.lower.split(|c: char| !c.is_alphanumeric()).any(|other| other == word)
    }
}

/// What is in the brackets at the end of a text, without brackets within them. None where a word is before them, as in code.
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
