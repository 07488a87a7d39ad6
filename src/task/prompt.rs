//! The signs that a silent command waits for input.
//!
//! Only the last line counts, and only how it ends: a question further up has been answered, or was none.

use super::text;

/// How a last line ends that waits for input, in lower case.
const ENDINGS: [&str; 11] = [
    "$",
    ">",
    "#",
    "password:",
    "passphrase:",
    "y/n]",
    "yes/no)",
    "are you sure",
    "are you sure?",
    "continue?",
    "proceed?",
];
/// The most of a line that is shown as evidence, in characters.
const EVIDENCE_LIMIT: usize = 200;

/// The last line of the output that says something, whatever it says.
pub fn last_line(tail: &[u8]) -> String {
    let text = text::plain(tail);
    evidence(text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default())
}

/// The end of a line.
fn evidence(line: &str) -> String {
    let skip = line.chars().count().saturating_sub(EVIDENCE_LIMIT);
    line.chars().skip(skip).collect()
}

/// The last line of the output, if the command left the cursor in it and it ends like a prompt.
pub fn waiting_line(tail: &[u8]) -> Option<String> {
    let text = text::plain(tail);
    // A line that was ended is a statement, not a question.
    let line = text.rsplit('\n').next()?.trim();
    let lower = line.to_lowercase();
    let waits = ENDINGS.iter().any(|ending| lower.ends_with(ending)) || asks_to_enter(&lower) || asks_to_press(&lower);
    (waits && !line.is_empty()).then(|| evidence(line))
}

/// `Enter your name:` and its kind.
fn asks_to_enter(line: &str) -> bool {
    line.ends_with(':') && line.split(|c: char| !c.is_alphanumeric()).any(|word| word == "enter")
}

/// `Press any key to continue` and its kind, with or without dots.
fn asks_to_press(line: &str) -> bool {
    line.contains("press ") && line.trim_end_matches(['.', '…', ' ']).ends_with("to continue")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_known_by_the_end_of_the_last_line() {
        for prompt in [
            "Password: ",
            "[sudo] password for joe: \nPassword:",
            "Overwrite? [Y/n]",
            "host key (yes/no)",
            "Are you sure?",
            "Continue? ",
            "Proceed?",
            "Enter your name: ",
            "press ENTER to continue...",
            "root@box:/# ",
            "$ ",
            "mysql> ",
            "\x1b[1mEnter passphrase:\x1b[0m ",
            "downloading 10%\rPassword:",
        ] {
            assert!(waiting_line(prompt.as_bytes()).is_some(), "{prompt:?}");
        }
    }

    #[test]
    fn statements_and_answered_questions_are_no_prompts() {
        for line in [
            "",
            "\n",
            "Compiling errand v0.1.0",
            "Password: \nok, working",
            "Are you sure?\n",
            "center: ",
            "listening on :80",
            "done.",
            "100%",
        ] {
            assert_eq!(waiting_line(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn evidence_is_bounded() {
        let line = format!("{} password:", "x".repeat(1000));
        assert_eq!(waiting_line(line.as_bytes()).map(|line| line.chars().count()), Some(200));
        assert_eq!(last_line(line.as_bytes()).chars().count(), 200);
    }

    #[test]
    fn any_last_line_is_evidence_beside_a_process_that_waits() {
        assert_eq!(last_line(b"one\ntwo \n\n"), "two");
        assert_eq!(last_line(b"\n"), "");
    }
}
