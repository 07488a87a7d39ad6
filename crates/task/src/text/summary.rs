//! The unfinished tasks as text for a system prompt.

use std::{fmt::Write as _, time::SystemTime};

use super::escape_line;
use crate::{
    Task,
    human::{size, span},
    shorten::{DESCRIPTION_LIMIT, shorten},
};

/// The most tasks in a summary.
const SUMMARY_LIMIT: usize = 50;
/// The size in bytes at which a summary stops describing tasks.
const SUMMARY_BYTES: usize = 48 * 1024;

/// Renders the unfinished tasks as text for a system prompt, at most 64 KiB, one line each; empty if there are none.
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
        // Writing to a String cannot fail.
        let _ = writeln!(text, "- {} {}: {}", task.id, state(task, now), escape_line(&title));
    }
    if tasks.len() > described {
        let _ = writeln!(text, "- and {} more", tasks.len() - described);
    }
    text.push_str("</running-tasks>");
    text
}

/// Where a task stands: `running for 2 min 3 s, 1.5 MiB of output`.
fn state(task: &Task, now: SystemTime) -> String {
    let mut state = task.status().word().to_owned();
    if task.state.started_at().is_some() {
        let _ = write!(state, " for {}", span(task.duration(now)));
    }
    if task.output.bytes > 0 {
        let _ = write!(state, ", {} of output", size(task.output.bytes));
    }
    if task.stall.is_some() {
        state.push_str(", seems to wait for input");
    } else if let Some(since) = task.idle_since {
        let _ = write!(state, ", silent for {}", span(now.duration_since(since).unwrap_or_default()));
    }
    state
}
