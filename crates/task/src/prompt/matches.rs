//! The match functions of the rules.

use super::line::{Line, last_brackets};

/// `[Y/n]`, `(yes/no)`, and `(y)` after a question. A colon or a question mark may follow.
pub(super) fn yes_or_no(line: &Line<'_>) -> bool {
    let end = line.lower.trim_end_matches([':', '?', ' ']);
    // dpkg prints its default after the choice.
    let end = match end.rsplit_once('[') {
        Some((before, default)) if default.starts_with("default=") => before.trim_end(),
        _ => end,
    };
    if end.split_whitespace().last().is_some_and(|word| matches!(word, "y/n" | "yes/no")) {
        return true;
    }
    let Some(inner) = last_brackets(end) else { return false };
    let options: Vec<&str> = inner.split(['/', ',', '|']).collect();
    let has = |wanted: [&str; 2]| options.iter().any(|option| wanted.contains(option));
    match options.len() {
        1 => has(["y", "yes"]) && line.text.contains('?'),
        2..=16 => has(["y", "yes"]) && has(["n", "no"]),
        _ => false,
    }
}

/// `Password:`, `password for bob:`.
pub(super) fn secret(line: &Line<'_>) -> bool {
    let Some(asked) = line.lower.strip_suffix(':') else { return false };
    let asked = asked.trim_end().trim_end_matches(" (again)");
    let names = ["password", "passphrase", "pass phrase", "passcode", "verification code"];
    names.iter().any(|name| asked.ends_with(name))
        || ["password for ", "passphrase for ", "pass phrase for ", "pin for "].iter().any(|name| {
            let before = asked.find(name).map(|at| &asked[..at]);
            before.is_some_and(|before| !before.ends_with(char::is_alphanumeric))
        })
}

/// `Username:`, `Username for 'https://…':`, `login:`.
pub(super) fn user_name(line: &Line<'_>) -> bool {
    let Some(asked) = line.lower.strip_suffix(':') else { return false };
    let last = asked.rsplit(|c: char| !c.is_alphanumeric()).next();
    line.begins(&["username for ", "username ("])
        || asked.ends_with("user name")
        || (matches!(last, Some("username" | "login")) && !line.begins(&["last login"]))
}

/// `[1-3]:`, `Choose from 1, 2 [1]:`, and the questions of common menus.
pub(super) fn selection(line: &Line<'_>) -> bool {
    let end = line.lower.trim_end_matches([':', '?', ' ']);
    let asks = line.text.ends_with([':', '?']);
    let chooses = line.lower.split(|c: char| !c.is_alphanumeric()).next();
    let chooses = matches!(chooses, Some("choose" | "select" | "pick"));
    let brackets = last_brackets(end);
    let range = brackets.as_deref().and_then(|inner| inner.split_once('-')).is_some_and(|(first, last)| {
        [first, last].iter().all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    line.text == "#?"
        || (range && (asks || chooses))
        || (brackets.is_some() && asks && chooses)
        || line.ends(&["selection number:", "your choice:", "your selection:", "geographic area:", "time zone:"])
}

/// `Press any key to continue`, with any text around it.
pub(super) fn key(line: &Line<'_>) -> bool {
    let end = line.lower.trim_end_matches(['.', '…', ' ', ':', ')', ']', '>', '-', '!']);
    let aims = ["to continue", "to abort", "to exit", "to quit", "to proceed", "to cancel", "any key"];
    ["press", "hit", "strike"].iter().any(|word| line.has_word(word)) && aims.iter().any(|aim| end.ends_with(aim))
}

/// The last line of a pager's screen.
pub(super) fn pager(line: &Line<'_>) -> bool {
    matches!(line.text, ":" | "(END)")
        || (line.begins(&["lines ", "manual page "]) && line.ends(&["(end)", "to quit)"]))
        || line.begins(&["--more--", "-- more --"])
        || line.ends(&["--more--", "-- more --"])
}

/// A question that does not list its answers.
pub(super) fn question(line: &Line<'_>) -> bool {
    let words = [
        "are you sure",
        "are you sure?",
        "continue?",
        "proceed?",
        "overwrite?",
        "retry?",
        "is this ok?",
        "is this correct?",
        "[r]ename:",
        "<y>?",
    ];
    let beginnings = ["rm: ", "cp: overwrite", "mv: overwrite", "mv: replace", "do you want ", "would you like "];
    line.ends(&words) || (line.text.ends_with('?') && line.begins(&beginnings))
}

/// The prompt of a shell: a mark after nothing, after a directory or after a version. The text before the mark is checked because Markdown,
/// XML and progress bars end with the same marks.
pub(super) fn shell(line: &Line<'_>) -> bool {
    let Some(mark) = line.text.chars().last().filter(|mark| matches!(mark, '$' | '#' | '>')) else { return false };
    let body = &line.text[..line.text.len() - 1];
    let apart = line.spaced || body.ends_with(' ');
    if body.contains('<') {
        return false;
    }
    // `(venv) ` before it.
    let body = match body.strip_prefix('(').and_then(|rest| rest.split_once(") ")) {
        Some((_, rest)) => rest,
        None => body,
    };
    let words: Vec<&str> = body.split_whitespace().collect();
    match words.as_slice() {
        [] => line.spaced,
        [word] => {
            is_at_host(word) && (apart || word.contains(':'))
                || (mark != '>' && apart && is_directory(word))
                || is_version(word)
                || (mark == '#' && line.spaced && is_device(word))
        }
        [host, directory] => {
            (host.starts_with('[') && is_at_host(&host[1..]) && directory.ends_with(']'))
                || (is_at_host(host) && is_directory(directory))
                || (*host == "PS" && mark == '>' && directory.contains([':', '/']))
        }
        _ => false,
    }
}

/// `bob@host`, with or without a directory.
fn is_at_host(word: &str) -> bool {
    word.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty()
            && host.starts_with(char::is_alphanumeric)
            && user.chars().all(|c| c.is_alphanumeric() || "._-".contains(c))
    })
}

fn is_directory(word: &str) -> bool {
    word.starts_with(['/', '~']) && !word.contains("//")
}

/// `bash-5.2`.
fn is_version(word: &str) -> bool {
    word.split_once("sh-").is_some_and(|(kind, version)| {
        kind.len() <= 3
            && kind.bytes().all(|byte| byte.is_ascii_lowercase())
            && version.starts_with(|c: char| c.is_ascii_digit())
            && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    })
}

/// `router`, `switch(config)`.
fn is_device(word: &str) -> bool {
    let name = word.split('(').next().unwrap_or_default();
    name.len() >= 3
        && word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-()".contains(c))
}

/// The prompt of an interpreter, a debugger or a database client.
pub(super) fn interpreter(line: &Line<'_>) -> bool {
    let known = [">>>", "(pdb)", "(gdb)", "(lldb)", "(dlv)", "ipdb>", "php >", "node >"];
    let numbered = line.lower.strip_prefix("in [").and_then(|rest| rest.strip_suffix("]:"));
    known.contains(&line.lower.as_str())
        || numbered.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        || line.lower.starts_with("mariadb [") && line.lower.ends_with("]>")
        || (line.spaced && is_named(line.text))
}

/// `mysql>`, `irb(main):001:0>`, `postgres=#`: one word and its mark.
fn is_named(text: &str) -> bool {
    let database = ["=#", "=>", "-#", "->", "(#", "(>"].iter().find_map(|mark| text.strip_suffix(mark));
    let Some(name) = database.or_else(|| text.strip_suffix('>')) else { return false };
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._:-()@".contains(c))
}
