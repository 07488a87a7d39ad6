//! The first sentences of a notification: what happened, and what can be done about it.

use super::{escape_line, watch};
use crate::{
    MemoryKills, NewNotification, NotificationKind, Outcome, Reads, Signal, Stall, StopCause, Waiting,
    advice::advice,
    human::{size, span},
};

pub(super) fn headline(notification: &NewNotification) -> String {
    match notification.kind {
        NotificationKind::Completed => completed(notification) + &watch::unannounced(notification),
        NotificationKind::Stalled => stalled(notification),
        NotificationKind::Resumed => {
            "The background command, reported as waiting for input before, moved on. It is still running.".to_owned()
        }
        NotificationKind::LateOutcome => {
            let late = notification.outcome.as_ref().map(Outcome::to_string).unwrap_or_default();
            format!("How an earlier background command had ended was found later: {}.", escape_line(&late))
        }
        NotificationKind::Heartbeat => {
            let elapsed = span(notification.duration);
            format!("The background command has been running for {elapsed}. {}", printed(notification))
        }
        NotificationKind::WatchMatched
        | NotificationKind::WatchDisabled
        | NotificationKind::WatchesSuspended
        | NotificationKind::WatchesRestored => watch::headline(notification),
        NotificationKind::Idle => {
            let silent = notification.liveness.as_ref().map(|liveness| liveness.silent_for).unwrap_or_default();
            format!(
                "The background command has printed nothing for {} after its last output. It is still running; a server may be ready.",
                span(silent)
            )
        }
    }
}

fn completed(notification: &NewNotification) -> String {
    let kills = notification.memory_kills;
    match &notification.outcome {
        None => "The background command ended.".to_owned(),
        Some(Outcome::Exited { code: 0 }) => {
            "The background command finished with exit code 0: it succeeded.".to_owned()
        }
        Some(Outcome::Exited { code }) => {
            format!("The background command finished with exit code {code}: it failed.{}", shortage(kills))
        }
        Some(Outcome::Signaled { signal: Signal::KILL }) if kills.count > 0 => format!(
            "The background command died without an exit code: it was killed (SIGKILL) when the sandbox ran out of memory{}.",
            limit(kills)
        ),
        Some(Outcome::Signaled { signal }) => {
            format!("The background command died without an exit code: {signal} ended it.{}", shortage(kills))
        }
        Some(Outcome::TimedOut { after }) => {
            format!(
                "The background command timed out after {} and was stopped; it has no exit code.{}",
                span(*after),
                shortage(kills)
            )
        }
        Some(Outcome::Stopped { cause, .. }) => {
            format!("The background command was stopped on purpose{}. This is not a failure.", reason(cause))
        }
        Some(Outcome::FailedToStart { message, .. }) => {
            format!("The background command never ran: {}.", escape_line(message))
        }
        Some(Outcome::Lost { message, .. }) => {
            format!(
                "The background command's end is unknown, so there is no exit code: {}. It was not run again.",
                escape_line(message)
            )
        }
    }
}

/// The reason for a stop in brackets, if the caller gave one.
fn reason(cause: &StopCause) -> String {
    match cause {
        StopCause::Request { reason, .. } if !reason.trim().is_empty() => format!(" ({})", escape_line(reason)),
        StopCause::Request { .. }
        | StopCause::Disconnect
        | StopCause::SandboxStopped
        | StopCause::SandboxDeleted
        | StopCause::ServerShutdown
        | StopCause::Timeout { .. } => String::new(),
    }
}

/// How much a running command has printed, and when.
fn printed(notification: &NewNotification) -> String {
    match (&notification.liveness, notification.output_bytes) {
        (_, 0) => "It has printed nothing so far.".to_owned(),
        (Some(liveness), bytes) => {
            format!("It has printed {}, the last of it {} ago.", size(bytes), span(liveness.silent_for))
        }
        (None, bytes) => format!("It has printed {}.", size(bytes)),
    }
}

/// A sentence about processes killed for lack of memory; empty if there were none.
pub(super) fn shortage(kills: MemoryKills) -> String {
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
pub(super) fn limit(kills: MemoryKills) -> String {
    kills.limit.map(|bytes| format!(" (limit {})", size(bytes))).unwrap_or_default()
}

fn stalled(notification: &NewNotification) -> String {
    let stall = notification.stall.as_ref();
    let silent = stall.map(|stall| stall.silent_for).unwrap_or_default();
    let waiting = stall.and_then(|stall| stall.waiting.as_ref());
    format!(
        "The background command has printed nothing for {} and {}. It is still running. {}",
        span(silent),
        evidence(waiting),
        remedy(notification, stall)
    )
}

pub(super) fn evidence(waiting: Option<&Waiting>) -> String {
    match waiting {
        Some(Waiting { pid, command, reads }) => {
            let reads = match reads {
                Reads::Terminal => "terminal",
                Reads::Stdin => "standard input",
            };
            format!("its process {pid} ({}) waits to read its {reads}", escape_line(command))
        }
        None => "its last line looks like a prompt".to_owned(),
    }
}

/// What to do about a stall.
fn remedy(notification: &NewNotification, stall: Option<&Stall>) -> String {
    let last_line = stall.map(|stall| stall.last_line.as_str()).unwrap_or_default();
    let waiting = stall.and_then(|stall| stall.waiting.as_ref());
    let advice = advice(&notification.command, last_line, waiting);
    let again = match advice {
        Some(advice) => format!("run it again with {}", advice.remedy),
        None => "run it again in a non-interactive way (such as with -y or input from a file)".to_owned(),
    };
    let asks = advice.map(|advice| format!("{} usually asks for {}. ", advice.name, advice.asks)).unwrap_or_default();
    if notification.takes_input {
        format!("{asks}Answer it with WriteInput, or stop it and {again}.")
    } else {
        format!("{asks}If it waits for input, stop it and {again}.")
    }
}
