#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
use std::{fs, path::PathBuf};

use super::*;

fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/prompt/build-logs");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn examples_are_prompts() {
    for rule in &RULES {
        assert!(
            !rule.source.is_empty() && !rule.examples.is_empty() && !rule.counterexamples.is_empty(),
            "{}",
            rule.name
        );
        for example in rule.examples {
            assert!(waiting_line(example.as_bytes()).is_some(), "{}: {example:?}", rule.name);
            assert!(
                waiting_line(format!("working\n50%\r{example}").as_bytes()).is_some(),
                "{}: {example:?}",
                rule.name
            );
        }
        let text = text::plain(rule.examples[0].as_bytes());
        assert!((rule.matches)(&Line::new(&text).unwrap()), "{} does not know its first example", rule.name);
    }
}

#[test]
fn counterexamples_are_no_prompts() {
    for rule in &RULES {
        for line in rule.counterexamples {
            assert_eq!(waiting_line(line.as_bytes()), None, "{}", rule.name);
        }
    }
}

#[test]
fn answered_prompt_is_no_prompt() {
    for example in RULES.iter().flat_map(|rule| rule.examples) {
        assert_eq!(waiting_line(format!("{example}\n").as_bytes()), None, "{example:?}");
        assert_eq!(waiting_line(format!("{example}\nok, working").as_bytes()), None, "{example:?}");
    }
}

#[test]
fn build_log_lines_are_no_prompts() {
    let (mut lines, mut wrong) = (0, Vec::new());
    for (path, log) in corpus() {
        for line in log.split(|byte| *byte == b'\n') {
            lines += 1;
            // Output may pause after each state of a progress bar, before or after its carriage return.
            let ends = line.iter().enumerate().filter(|(_, byte)| **byte == b'\r').flat_map(|(at, _)| [at, at + 1]);
            for end in ends.chain([line.len()]) {
                if let Some(prompt) = waiting_line(&line[..end]) {
                    wrong.push(format!("{}: {prompt}", path.file_name().unwrap().display()));
                }
            }
        }
    }
    assert!(lines > 3000, "the corpus has {lines} lines");
    assert!(wrong.is_empty(), "{} lines look like prompts:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn statements_are_no_prompts() {
    for line in ["", "\n", " \n ", "Compiling errand v0.1.0", "center: ", "listening on :80", "done.", "100%"] {
        assert_eq!(waiting_line(line.as_bytes()), None, "{line:?}");
    }
}

#[test]
fn evidence_is_bounded() {
    let line = format!("{} password:", "x".repeat(1 << 20));
    assert_eq!(waiting_line(line.as_bytes()).map(|line| line.chars().count()), Some(200));
    assert_eq!(last_line(line.as_bytes()).chars().count(), 200);
}

#[test]
fn waiting_process_makes_any_last_line_evidence() {
    assert_eq!(last_line(b"one\ntwo \n\n"), "two");
    assert_eq!(last_line(b"\n"), "");
}
