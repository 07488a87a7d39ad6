//! Presents a task's outcome: as an exit code, as a sentence, as a table cell.

use super::{console::Console, exit_code, text};
use errand_proto::v1::{OutOfMemory, Outcome, Task, outcome::Kind};

/// The exit code for a task's end: the number that a shell would show, or 125 if the end is unknown.
pub(super) fn exit_code(task: &Task) -> u8 {
    let number = task.outcome.as_ref().and_then(|outcome| outcome.shell_exit_code);
    number.and_then(|number| u8::try_from(number).ok()).unwrap_or(exit_code::LOST)
}

/// A sentence about a command that did not simply exit. `None` if it did.
pub(super) fn sentence(task: &Task) -> Option<String> {
    match task.outcome.as_ref().and_then(|outcome| outcome.kind.as_ref()) {
        Some(Kind::Exited(_)) => {
            task.outcome.as_ref()?.out_of_memory.map(|memory| shortage("while the command ran ", memory))
        }
        Some(Kind::Signaled(_)) => task.outcome.as_ref().map(|outcome| format!("the command was {}", words(outcome))),
        Some(Kind::TimedOut(_) | Kind::Stopped(_) | Kind::FailedToStart(_) | Kind::Lost(_)) => {
            task.outcome.as_ref().map(words)
        }
        None => Some("the server does not say how the command ended".to_owned()),
    }
}

/// An outcome in a few words.
pub(super) fn words(outcome: &Outcome) -> String {
    let mut words = ending(outcome);
    if let Some(memory) = outcome.out_of_memory {
        words = shortage(&format!("{words}: "), memory);
    }
    words
}

/// Adds to `before` that memory ran out.
fn shortage(before: &str, memory: OutOfMemory) -> String {
    let limit = match memory.limit_bytes {
        0 => String::new(),
        bytes => format!(" (limit {})", text::bytes_text(bytes)),
    };
    format!("{before}the sandbox ran out of memory{limit}")
}

fn ending(outcome: &Outcome) -> String {
    match &outcome.kind {
        Some(Kind::Exited(exited)) => format!("exited {}", exited.code),
        Some(Kind::Signaled(signaled)) => format!("ended by {}", signal_name(&signaled.name, signaled.signal)),
        Some(Kind::TimedOut(timed_out)) => format!("timed out after {}", text::wire_duration_text(timed_out.after)),
        Some(Kind::Stopped(stopped)) => {
            let how = match stopped.signal {
                0 => "before the command ran".to_owned(),
                signal => format!("with {}", signal_name("", signal)),
            };
            let reason = if stopped.reason.is_empty() { String::new() } else { format!(": {}", stopped.reason) };
            format!("stopped {how} ({}){reason}", stopped.by)
        }
        Some(Kind::FailedToStart(failed)) => format!("failed to start: {}", failed.message),
        Some(Kind::Lost(lost)) => format!("lost: {}", lost.message),
        None => "unknown".to_owned(),
    }
}

fn signal_name(name: &str, number: i32) -> String {
    match (name, number) {
        ("", 2) => "SIGINT".to_owned(),
        ("", 9) => "SIGKILL".to_owned(),
        ("", 15) => "SIGTERM".to_owned(),
        ("", number) => format!("signal {number}"),
        (name, _) => name.to_owned(),
    }
}

/// Tells people how a finished task ended and returns the exit code. Prints nothing with JSON, because the task itself was printed before.
pub(super) async fn report(task: &Task, console: &mut Console) -> u8 {
    if !console.is_json() {
        if let Some(sentence) = sentence(task) {
            console.note(&text::one_line(&sentence, 2000)).await;
        }
        if task.output_incomplete {
            console.note("the log lacks some of the output: the sandbox's disk was full").await;
        }
        if let Some(gap) = task.output_gap {
            not_kept(gap.end - gap.start, console).await;
        }
    }
    exit_code(task)
}

/// Tells people how many bytes are missing from the output shown.
pub(super) async fn not_kept(bytes: i64, console: &mut Console) {
    if bytes > 0 {
        let missing = text::bytes_text(bytes);
        console.note(&format!("{missing} of the output were not kept")).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use errand_proto::v1::{Exited, FailedToStart, Lost, Signaled, Stopped, TimedOut};

    fn task(kind: Option<Kind>, shell_exit_code: Option<i32>) -> Task {
        Task { outcome: Some(Outcome { kind, shell_exit_code, out_of_memory: None }), ..Task::default() }
    }

    #[test]
    fn every_outcome_has_exit_code_and_sentence() {
        let after = prost_types::Duration { seconds: 5, nanos: 0 };
        let stopped = |signal, reason: &str| {
            Kind::Stopped(Stopped { by: "request".to_owned(), signal, reason: reason.to_owned() })
        };
        let failed = FailedToStart { message: "no such directory: /x".to_owned(), ..FailedToStart::default() };
        let lost = Lost { message: "the sandbox was removed".to_owned(), ..Lost::default() };
        let cases = [
            (Kind::Exited(Exited { code: 0 }), Some(0), 0, None),
            (Kind::Exited(Exited { code: 3 }), Some(3), 3, None),
            (
                Kind::Signaled(Signaled { signal: 9, name: "SIGKILL".to_owned() }),
                Some(137),
                137,
                Some("the command was ended by SIGKILL"),
            ),
            (Kind::TimedOut(TimedOut { after: Some(after) }), Some(124), 124, Some("timed out after 5s")),
            (stopped(15, ""), Some(143), 143, Some("stopped with SIGTERM (request)")),
            (stopped(9, "no longer needed"), Some(137), 137, Some("stopped with SIGKILL (request): no longer needed")),
            (stopped(0, ""), Some(143), 143, Some("stopped before the command ran (request)")),
            (Kind::FailedToStart(failed), Some(126), 126, Some("failed to start: no such directory: /x")),
            (Kind::Lost(lost), None, 125, Some("lost: the sandbox was removed")),
        ];
        for (kind, shell_exit_code, code, expected) in cases {
            let task = task(Some(kind), shell_exit_code);
            assert_eq!(exit_code(&task), code, "{task:?}");
            assert_eq!(sentence(&task).as_deref(), expected);
        }
    }

    #[test]
    fn every_outcome_mentions_exhausted_memory() {
        let said = |kind, limit_bytes| {
            let out_of_memory = Some(OutOfMemory { killed_processes: 1, limit_bytes });
            let outcome = Outcome { kind: Some(kind), shell_exit_code: Some(137), out_of_memory };
            (words(&outcome), sentence(&Task { outcome: Some(outcome), ..Task::default() }).expect("a sentence"))
        };
        let killed = said(Kind::Signaled(Signaled { signal: 9, name: "SIGKILL".to_owned() }), 2 << 30);
        let expected = "ended by SIGKILL: the sandbox ran out of memory (limit 2 GiB)";
        assert_eq!(killed, (expected.to_owned(), format!("the command was {expected}")));
        let exited = said(Kind::Exited(Exited { code: 137 }), 0);
        assert_eq!(exited.0, "exited 137: the sandbox ran out of memory");
        assert_eq!(exited.1, "while the command ran the sandbox ran out of memory");
    }

    #[test]
    fn missing_outcome_is_no_success() {
        assert_eq!(exit_code(&Task::default()), exit_code::LOST);
        assert!(sentence(&Task::default()).is_some());
        assert_eq!(exit_code(&task(None, Some(256))), exit_code::LOST);
    }
}
