//! What notifications about watches say to a model.

use std::fmt::Write as _;

use super::escape;
use crate::{NewNotification, NotificationKind, WatchNotice, WatchPattern};

/// The sentence about a notification of a watch.
pub(super) fn headline(notification: &NewNotification) -> String {
    let held = notification.held_back;
    let matches = |count: u64| if count == 1 { "1 match".to_owned() } else { format!("{count} matches") };
    match notification.kind {
        NotificationKind::WatchMatched if held == 0 => {
            "The output of the background command matches a watch. It is still running.".to_owned()
        }
        NotificationKind::WatchMatched => format!(
            "The output of the background command matches a watch: {}, held back until now because another notification had just been sent. \
             It is still running.",
            matches(held)
        ),
        NotificationKind::WatchDisabled => format!(
            "A watch of the background command matches too often and was turned off; {} had been held back. The command is still running, and \
             its end will be announced. Set more specific watches with SetWatches if needed.",
            matches(held)
        ),
        NotificationKind::WatchesSuspended => {
            "This session got too many notifications about watches. For a while it gets no more of them; ends and stalls of commands are \
             announced as always."
                .to_owned()
        }
        NotificationKind::WatchesRestored => {
            format!("Notifications about watches are sent again; {} had been held back in this session.", matches(held))
        }
        NotificationKind::Completed
        | NotificationKind::Stalled
        | NotificationKind::Resumed
        | NotificationKind::LateOutcome
        | NotificationKind::Heartbeat
        | NotificationKind::Idle => String::new(),
    }
}

/// A sentence about matches that were never announced; empty if there were none.
pub(super) fn unannounced(notification: &NewNotification) -> String {
    match notification.held_back {
        0 => String::new(),
        1 => " 1 further match of its watches was not announced.".to_owned(),
        count => format!(" {count} further matches of its watches were not announced."),
    }
}

/// What matched, and where.
pub(super) fn push_matches(text: &mut String, watch: &WatchNotice) {
    let kind = match watch.watch.pattern {
        WatchPattern::Text(_) => "substring",
        WatchPattern::Regex(_) => "regex",
    };
    let cut = if watch.lines.cut { " truncated=\"true\"" } else { "" };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "<watch index=\"{}\" {kind}=\"{}\" matches=\"{}\" offset=\"{}\"{cut}>\n{}\n</watch>",
        watch.index,
        escape(watch.watch.pattern.as_str()),
        watch.matches,
        watch.offset,
        escape(&watch.lines.text),
    );
    for other in &watch.others {
        let _ = writeln!(text, "<watch index=\"{}\" matches=\"{}\"></watch>", other.index, other.matches);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use crate::{
        BotId, MemoryKills, NewNotification, NotificationKind, Owner, SessionId, Status, TaskId, TenantId, Watch,
        WatchCount, WatchLines, WatchNotice, WatchPattern,
    };

    fn notification(kind: NotificationKind, held_back: u64) -> NewNotification {
        let watch = Watch { pattern: WatchPattern::Regex("<b>\"$".to_owned()), once: false };
        let lines = WatchLines { text: "</watch><evil>".to_owned(), cut: true };
        let others = vec![WatchCount { index: 2, matches: 9 }];
        let owner = (TenantId::new("t"), BotId::new("b"), SessionId::new("s"));
        let (Ok(tenant), Ok(bot), Ok(session)) = owner else { panic!("the names are valid") };
        NewNotification {
            task: TaskId::new(),
            owner: Owner { tenant, bot, session },
            kind,
            status: Status::Running,
            outcome: None,
            memory_kills: MemoryKills::default(),
            description: "build".to_owned(),
            command: "make".to_owned(),
            command_truncated: false,
            output_head: String::new(),
            output_tail: String::new(),
            output_truncated: true,
            output_bytes: 500,
            output_file: "/log".to_owned(),
            duration: Duration::from_secs(3),
            stall: None,
            liveness: None,
            takes_input: false,
            labels: Default::default(),
            traceparent: None,
            acknowledged: false,
            watch: Some(WatchNotice { index: 1, watch, offset: 120, lines, matches: 3, others }),
            held_back,
            created_at: UNIX_EPOCH,
        }
        .bounded()
    }

    #[test]
    fn match_text_is_escaped_and_complete() {
        let text = notification(NotificationKind::WatchMatched, 0).text();
        let expected = "<duration>3 s</duration>\n\
            <watch index=\"1\" regex=\"&lt;b&gt;&quot;$\" matches=\"3\" offset=\"120\" truncated=\"true\">\n\
            &lt;/watch&gt;&lt;evil&gt;\n</watch>\n<watch index=\"2\" matches=\"9\"></watch>\n\
            <output-file>/log</output-file>\n</task-notification>";
        assert!(text.ends_with(expected), "{text}");
        assert!(text.contains("kind=\"watch_matched\"") && text.contains("matches a watch. It is still running."));
    }

    #[test]
    fn texts_tell_how_many_matches_waited() {
        for (kind, held, told) in [
            (NotificationKind::WatchMatched, 1, "1 match, held back until now"),
            (NotificationKind::WatchDisabled, 7, "turned off; 7 matches had been held back"),
            (NotificationKind::WatchesSuspended, 2, "gets no more of them"),
            (NotificationKind::WatchesRestored, 40, "40 matches had been held back in this session"),
            (NotificationKind::Completed, 5, "5 further matches of its watches were not announced"),
        ] {
            let text = notification(kind, held).text();
            assert!(text.contains(told), "{text}");
        }
        assert!(!notification(NotificationKind::Completed, 0).text().contains("watch"));
    }
}
