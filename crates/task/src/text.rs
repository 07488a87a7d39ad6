//! Texts for a model. Everything from a command or its output is escaped, so that it cannot forge structure.

use std::{fmt::Write as _, time::SystemTime};

use super::{
    MemoryKills, NewNotification, NotificationKind, Outcome, Reads, Signal, Task, Waiting, escapes, output,
    shorten::{DESCRIPTION_LIMIT, shorten},
};

/// The most characters of output in a task's preview.
const PREVIEW_LIMIT: usize = 200;
/// The most tasks in a summary.
const SUMMARY_LIMIT: usize = 50;
/// The size in bytes at which a summary stops describing tasks.
const SUMMARY_BYTES: usize = 48 * 1024;

/// Converts output to plain text: whole characters, no terminal escapes, no control characters but newline and tab, and of each line only
/// the text that carriage returns did not overwrite.
pub fn plain(bytes: &[u8]) -> String {
    let standing: Vec<&[u8]> = output::trim_start(bytes).split(|byte| *byte == b'\n').map(standing_part).collect();
    escapes::strip(&standing.join(&b'\n'))
}

/// The part of a line that carriage returns did not overwrite.
fn standing_part(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == b'\r').rfind(|part| !part.is_empty()).unwrap_or_default()
}

/// The last 200 characters of output as plain text, for previews.
pub fn preview(tail: &[u8]) -> String {
    let text = plain(tail);
    let text = text.trim_end();
    let skip = text.chars().count().saturating_sub(PREVIEW_LIMIT);
    text.chars().skip(skip).collect()
}

/// Escapes text for use inside an element or a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

fn headline(notification: &NewNotification) -> String {
    match (&notification.kind, &notification.outcome) {
        (NotificationKind::Completed, Some(outcome)) => match outcome {
            Outcome::Exited { code: 0 } => "The background command finished successfully (exit code 0).".to_owned(),
            Outcome::Exited { code } => {
                format!("The background command failed with exit code {code}.{}", shortage(notification.memory_kills))
            }
            Outcome::Signaled { signal: Signal::KILL } if notification.memory_kills.count > 0 => format!(
                "The background command was killed (SIGKILL) when the sandbox ran out of memory{}; it has no exit code.",
                limit(notification.memory_kills)
            ),
            Outcome::Signaled { signal } => format!(
                "The background command was ended by {signal}; it has no exit code.{}",
                shortage(notification.memory_kills)
            ),
            Outcome::TimedOut { after } => format!(
                "The background command was stopped because it ran longer than its timeout of {}.",
                humantime::format_duration(*after)
            ),
            Outcome::Stopped { .. } => {
                "The background command was stopped on purpose. This is not a failure.".to_owned()
            }
            Outcome::FailedToStart { message, .. } => format!("The background command never ran: {}.", escape(message)),
            Outcome::Lost { message, .. } => {
                format!("How the background command ended is unknown: {}. It was not run again.", escape(message))
            }
        },
        (NotificationKind::Completed, None) => "The background command ended.".to_owned(),
        (NotificationKind::Stalled, _) => {
            let stall = notification.stall.as_ref();
            let silent = stall.map(|stall| stall.silent_for).unwrap_or_default();
            format!(
                "The background command has printed nothing for {} and {}. It is still running. {}",
                seconds(silent),
                evidence(stall.and_then(|stall| stall.waiting.as_ref())),
                advice(notification.takes_input),
            )
        }
        (NotificationKind::Resumed, _) => {
            "The background command, reported as waiting for input before, moved on. It is still running.".to_owned()
        }
        (NotificationKind::LateOutcome, outcome) => {
            let late = outcome.as_ref().map(Outcome::to_string).unwrap_or_default();
            format!("How an earlier background command had ended was found later: {}.", escape(&late))
        }
    }
}

/// A sentence about processes killed for lack of memory; empty if there were none.
fn shortage(kills: MemoryKills) -> String {
    if kills.count == 0 {
        return String::new();
    }
    let processes = if kills.count == 1 { "process" } else { "processes" };
    format!(
        " While it ran the sandbox ran out of memory{}, and the kernel killed {} {processes} in it.",
        limit(kills),
        kills.count
    )
}

/// The memory limit in brackets, if it is known.
fn limit(kills: MemoryKills) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some(bytes) = kills.limit else { return String::new() };
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes % unit == 0 => format!(" (limit {} {name})", bytes / unit),
        Some((unit, name)) => format!(" (limit {:.1} {name})", bytes as f64 / *unit as f64),
        None => format!(" (limit {bytes} bytes)"),
    }
}

fn evidence(waiting: Option<&Waiting>) -> String {
    match waiting {
        Some(Waiting { pid, command, reads }) => {
            let reads = match reads {
                Reads::Terminal => "terminal",
                Reads::Stdin => "standard input",
            };
            format!("its process {pid} ({}) waits to read its {reads}", escape(command))
        }
        None => "its last line looks like a prompt".to_owned(),
    }
}

fn advice(takes_input: bool) -> &'static str {
    if takes_input {
        "Answer it with WriteInput, or stop it."
    } else {
        "If it waits for input, stop it and run it again in a non-interactive way (such as with -y or input from a file)."
    }
}

/// Renders a notification as one element.
pub(super) fn notification(notification: &NewNotification) -> String {
    let mut text = format!(
        "<task-notification kind=\"{}\" task_id=\"{}\" status=\"{}\">\n{}\n",
        notification.kind.word(),
        notification.task,
        notification.status.word(),
        headline(notification),
    );
    // Writing to a String cannot fail.
    let _ = writeln!(text, "<description>{}</description>", escape(&notification.description));
    let truncated = if notification.command_truncated { " truncated=\"true\"" } else { "" };
    let _ = writeln!(text, "<command{truncated}>{}</command>", escape(&notification.command));
    let _ = writeln!(text, "<duration>{}</duration>", seconds(notification.duration));
    if let Some(stall) = &notification.stall {
        let _ = writeln!(text, "<last-line>{}</last-line>", escape(&stall.last_line));
    }
    let _ = writeln!(text, "<output-file>{}</output-file>", escape(&notification.output_file));
    if notification.output_bytes == 0 {
        text.push_str("<output-tail empty=\"true\"></output-tail>\n");
    } else {
        let _ = writeln!(
            text,
            "<output-tail truncated=\"{}\" total_bytes=\"{}\">\n{}\n</output-tail>",
            notification.output_truncated,
            notification.output_bytes,
            escape(notification.output_tail.trim_end()),
        );
    }
    text.push_str("</task-notification>");
    text
}

/// Renders the unfinished tasks as text for a system prompt, at most 64 KiB; empty if there are none.
pub fn summarize(tasks: &[Task], now: SystemTime) -> String {
    if tasks.is_empty() {
        return String::new();
    }
    let mut text = format!("<running-tasks count=\"{}\">\n", tasks.len());
    let mut described = 0;
    for task in tasks.iter().take(SUMMARY_LIMIT) {
        if text.len() > SUMMARY_BYTES {
            break;
        }
        described += 1;
        let mut title = task.spec.title();
        shorten(&mut title, DESCRIPTION_LIMIT);
        let _ = writeln!(
            text,
            "- {} {}{}, for {}: {}",
            task.id,
            task.status().word(),
            if task.stall.is_some() { " (seems to wait for input)" } else { "" },
            seconds(task.duration(now)),
            escape(&title).replace(['\n', '\r'], " "),
        );
    }
    if tasks.len() > described {
        let _ = writeln!(text, "- and {} more", tasks.len() - described);
    }
    text.push_str("</running-tasks>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_overwritten_progress_are_left_out() {
        assert_eq!(plain(b"\x1b[31mred\x1b[0m\n10%\r50%\r100%\r\nend\x07"), "red\n100%\nend");
    }

    #[test]
    fn partial_first_character_is_left_out() {
        let text = "naïve".as_bytes();
        assert_eq!(plain(&text[3..]), "ve");
    }

    #[test]
    fn escaped_text_forms_no_tag() {
        assert_eq!(escape("</output-tail><x a=\"1\">&lt;"), "&lt;/output-tail&gt;&lt;x a=&quot;1&quot;&gt;&amp;lt;");
    }

    #[test]
    fn stall_text_names_evidence_and_remedies() {
        let waiting = Waiting { pid: 17, command: "<sh>".to_owned(), reads: Reads::Terminal };
        assert_eq!(evidence(Some(&waiting)), "its process 17 (&lt;sh&gt;) waits to read its terminal");
        assert_eq!(evidence(None), "its last line looks like a prompt");
        assert!(advice(true).contains("WriteInput") && advice(false).contains("non-interactive"));
    }

    #[test]
    fn out_of_memory_text_names_the_limit() {
        let kills = |count, limit| MemoryKills { before: None, count, limit };
        assert_eq!(shortage(kills(0, Some(1 << 30))), "");
        let told = shortage(kills(1, Some(2 << 30)));
        assert!(told.contains("ran out of memory (limit 2 GiB)") && told.contains("killed 1 process in"), "{told}");
        let told = shortage(kills(2, Some(3 << 29)));
        assert!(told.contains("(limit 1.5 GiB)") && told.contains("killed 2 processes"), "{told}");
        assert_eq!((limit(kills(1, None)).as_str(), limit(kills(1, Some(9))).as_str()), ("", " (limit 9 bytes)"));
    }

    #[test]
    fn preview_is_the_last_characters() {
        let long = "é".repeat(300);
        assert_eq!(preview(long.as_bytes()).chars().count(), 200);
        assert_eq!(preview(b"done\n\n"), "done");
    }
}
