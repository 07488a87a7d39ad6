//! Finds the simple commands in the text for a shell, roughly: enough to see which programs it runs. Nothing is expanded.

/// How deep `sh -c '…'` is followed.
const DEPTH: u32 = 3;

/// Words before which a program may stand.
const KEYWORDS: &[&str] = &["if", "then", "else", "elif", "do", "while", "until", "!", "{", "}", "fi", "done", "time"];
/// Programs that run another program, with those of their options that take a value of their own.
const WRAPPERS: &[(&str, &[&str])] = &[
    ("sudo", &["-u", "-g", "-U", "-h", "-p", "-C", "-r", "-t", "-D", "-R", "-T", "--user", "--group"]),
    ("doas", &["-u", "-C"]),
    ("env", &["-u", "-C", "-S", "--unset", "--chdir"]),
    ("nice", &["-n", "--adjustment"]),
    ("ionice", &["-c", "-n"]),
    ("timeout", &["-s", "-k", "--signal", "--kill-after"]),
    ("stdbuf", &["-i", "-o", "-e"]),
    ("xargs", &["-n", "-I", "-P", "-L", "-d", "-a", "-s"]),
    ("nohup", &[]),
    ("setsid", &[]),
    ("exec", &[]),
    ("command", &[]),
    ("builtin", &[]),
    ("unbuffer", &[]),
];
const SHELLS: &[&str] = &["sh", "bash", "dash", "ash", "zsh", "ksh"];

/// One program with its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Simple {
    words: Vec<String>,
}

impl Simple {
    /// The name of the program, without its directory.
    pub(super) fn program(&self) -> &str {
        let name = self.words.first().map(String::as_str).unwrap_or_default();
        name.rsplit('/').next().unwrap_or_default()
    }

    /// Whether an argument is this word.
    pub(super) fn has(&self, wanted: &str) -> bool {
        self.words.iter().skip(1).any(|word| word == wanted)
    }
}

/// The simple commands of a text, in order. `sudo` and its like count as the program that they run, and as themselves if there is none.
pub(super) fn simple_commands(text: &str) -> Vec<Simple> {
    let mut found = Vec::new();
    collect(text, DEPTH, &mut found);
    found
}

fn collect(text: &str, depth: u32, found: &mut Vec<Simple>) {
    for words in lists(text) {
        let words = unwrapped(words);
        let shell = words.first().map(|word| word.rsplit('/').next().unwrap_or_default().to_owned());
        if depth > 0 && shell.is_some_and(|shell| SHELLS.contains(&shell.as_str())) {
            // `-c`, also among other letters as in `-lc`.
            let script =
                words.iter().position(|word| word.starts_with('-') && !word.starts_with("--") && word.ends_with('c'));
            if let Some(script) = script.and_then(|at| words.get(at + 1)) {
                collect(script, depth - 1, found);
                continue;
            }
        }
        if !words.is_empty() {
            found.push(Simple { words: as_module(words) });
        }
    }
}

/// `python -m pip …` runs pip.
fn as_module(mut words: Vec<String>) -> Vec<String> {
    let python =
        words.first().is_some_and(|word| word.rsplit('/').next().is_some_and(|name| name.starts_with("python")));
    if python && words.len() > 2 && words[1] == "-m" {
        words.drain(..2);
    } else if python && words.get(1).is_some_and(|script| script.ends_with("manage.py")) {
        words.remove(0);
    }
    words
}

/// Removes keywords, assignments and wrappers from the beginning.
fn unwrapped(words: Vec<String>) -> Vec<String> {
    let is_assignment = |word: &str| {
        word.split_once('=')
            .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    };
    let (mut at, mut wrapper) = (0, None);
    while let Some(word) = words.get(at) {
        let name = word.rsplit('/').next().unwrap_or_default();
        if KEYWORDS.contains(&name) || is_assignment(word) {
            at += 1;
        } else if let Some((name, valued)) = WRAPPERS.iter().find(|(known, _)| *known == name) {
            let (begun, is_timeout) = (at, *name == "timeout");
            at += 1;
            while let Some(option) = words.get(at).filter(|word| word.starts_with('-')) {
                at += if valued.contains(&option.as_str()) { 2 } else { 1 };
            }
            // The duration.
            at += usize::from(is_timeout);
            wrapper = wrapper.or(Some(begun));
        } else {
            break;
        }
    }
    let from = if at < words.len() { at } else { wrapper.unwrap_or(words.len()) };
    words.into_iter().skip(from).collect()
}

/// Splits a text at the operators of the shell, and each part into words. Quotes are removed; what is in them stays together.
fn lists(text: &str) -> Vec<Vec<String>> {
    let (mut lists, mut words) = (Vec::new(), Vec::new());
    let mut word: Option<String> = None;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\'' => {
                let word = word.get_or_insert_default();
                for quoted in characters.by_ref() {
                    if quoted == '\'' {
                        break;
                    }
                    word.push(quoted);
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                while let Some(quoted) = characters.next() {
                    match quoted {
                        '"' => break,
                        '\\' => word.extend(characters.next()),
                        other => word.push(other),
                    }
                }
            }
            '\\' => match characters.next() {
                Some('\n') | None => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            '#' if word.is_none() => while characters.next_if(|next| *next != '\n').is_some() {},
            ';' | '&' | '|' | '\n' | '(' | ')' | '`' => {
                words.extend(word.take());
                if !words.is_empty() {
                    lists.push(std::mem::take(&mut words));
                }
            }
            blank if blank.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    if !words.is_empty() {
        lists.push(words);
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(text: &str) -> Vec<String> {
        simple_commands(text).iter().map(|simple| simple.program().to_owned()).collect()
    }

    #[test]
    fn operators_and_quotes_separate_commands() {
        assert_eq!(programs("a 1 && b 'x; y' | c \"p | q\" ; (d) & e\nf # g; h"), ["a", "b", "c", "d", "e", "f"]);
        assert_eq!(programs("a \\; b"), ["a"]);
        assert_eq!(programs("a \\\n b"), ["a"]);
        assert_eq!(programs("echo $(a b) c"), ["echo", "a", "c"]);
    }

    #[test]
    fn wrappers_and_assignments_are_looked_through() {
        let looked_through = [
            ("A=1 B= cmd", "cmd"),
            ("sudo -u bob -E cmd -n", "cmd"),
            ("sudo", "sudo"),
            ("sudo -s", "sudo"),
            ("env -i A=1 cmd", "cmd"),
            ("timeout -s KILL 5m cmd", "cmd"),
            ("nohup nice -n 5 cmd &", "cmd"),
            ("if cmd", "cmd"),
            ("/usr/bin/cmd", "cmd"),
            ("bash -ec 'cmd x'", "cmd"),
            ("bash script.sh", "bash"),
            ("python3 -m cmd install", "cmd"),
            ("python manage.py migrate", "manage.py"),
        ];
        for (text, program) in looked_through {
            assert_eq!(programs(text), [program], "{text}");
        }
        assert!(programs("A=1").is_empty());
    }
}
