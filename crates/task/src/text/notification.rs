//! Renders a notification as one element.

use std::fmt::Write as _;

use super::{escape, escape_line, fitting_end, fitting_start, headline::headline, watch::push_matches};
use crate::{
    NewNotification,
    human::{size, span},
};

/// What the elements around the output take at most, besides the output itself.
const AROUND_OUTPUT: usize = 400;

/// Renders a notification in at most `limit` bytes, unless it does not fit even without output.
pub(crate) fn notification(notification: &NewNotification, limit: usize) -> String {
    let mut text = frame(notification);
    if !notification.kind.is_about_watches() {
        let room = limit.saturating_sub(text.len() + AROUND_OUTPUT);
        push_output(&mut text, notification, room);
    }
    text.push_str("</task-notification>");
    text
}

/// Everything before the output.
fn frame(notification: &NewNotification) -> String {
    let mut text = format!(
        "<task-notification kind=\"{}\" task_id=\"{}\" status=\"{}\">\n{}\n",
        notification.kind.word(),
        notification.task,
        notification.status.word(),
        headline(notification),
    );
    // Writing to a String cannot fail. A task without a description has the beginning of its command as one.
    if !notification.command.starts_with(&notification.description) {
        let _ = writeln!(text, "<description>{}</description>", escape_line(&notification.description));
    }
    let truncated = if notification.command_truncated { " truncated=\"true\"" } else { "" };
    let _ = writeln!(text, "<command{truncated}>{}</command>", escape(&notification.command));
    let _ = writeln!(text, "<duration>{}</duration>", span(notification.duration));
    let last_line = notification.stall.as_ref().map(|stall| &stall.last_line);
    let last_line = last_line.or(notification.liveness.as_ref().map(|liveness| &liveness.last_line));
    if let Some(last_line) = last_line.filter(|line| !line.is_empty()) {
        let _ = writeln!(text, "<last-line>{}</last-line>", escape_line(last_line));
    }
    if let Some(watch) = &notification.watch {
        push_matches(&mut text, watch);
    }
    let _ = writeln!(text, "<output-file>{}</output-file>", escape_line(&notification.output_file));
    text
}

/// The output. If it does not fit, the beginning gets at most half of the room.
fn push_output(text: &mut String, notification: &NewNotification, room: usize) {
    let NewNotification { output_head: head, output_tail: tail, output_bytes: bytes, .. } = notification;
    if *bytes == 0 {
        text.push_str("<output-tail empty=\"true\"></output-tail>\n");
        return;
    }
    let (head, tail) = (head.trim_end(), tail.trim_end());
    let head_end = fitting_start(head, room / 2);
    let head_text = escape(&head[..head_end]);
    let tail_start = fitting_end(tail, room - head_text.len());
    let truncated = notification.output_truncated || head_end < head.len() || tail_start > 0;
    if !head_text.is_empty() {
        let _ = writeln!(text, "<output-head>\n{head_text}\n</output-head>");
    }
    let tail_text = escape(&tail[tail_start..]);
    let line = if tail_text.is_empty() { "" } else { "\n" };
    let total = size(*bytes);
    let _ = writeln!(
        text,
        "<output-tail truncated=\"{truncated}\" total=\"{total}\" total_bytes=\"{bytes}\">{line}{tail_text}{line}</output-tail>",
    );
}
