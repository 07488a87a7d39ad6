//! `errand events`: shows notifications without taking them from other subscribers, and acknowledges them on demand.

use super::{
    args::{EventsAction, EventsArgs, Scope},
    connection::Connection,
    console::Console,
    error::CliError,
    exit_code, outcome, text, watch,
};
use errand_proto::v1::{
    AckNotificationsRequest, AckNotificationsResponse, DeliveryMode, ListNotificationsRequest, Notification,
    SubscribeRequest, WatchMatch,
};

/// How many notifications are requested at a time.
const PAGE: i32 = 100;
/// The most sequences in one acknowledgement.
const MOST_ACKNOWLEDGED: usize = 1000;

/// Shows or acknowledges notifications.
pub(super) async fn events(args: EventsArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    match args.action {
        Some(EventsAction::Ack { scope, sequences }) => acknowledge(&scope, &sequences, connection, console).await,
        None if args.follow => follow(args, connection, console).await,
        None => list(args, connection, console).await,
    }
}

async fn list(args: EventsArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let mut client = connection.notifications();
    let mut page_token = String::new();
    loop {
        let request = ListNotificationsRequest {
            bot_id: args.scope.bot.clone(),
            session_id: args.scope.session.clone(),
            include_acknowledged: args.all,
            page_size: PAGE,
            page_token,
            ..ListNotificationsRequest::default()
        };
        let mut page = client.list_notifications(request).await?.into_inner();
        page.notifications.retain(|notification| notification.sequence > args.after);
        console.each(&page.notifications, line).await?;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(exit_code::SUCCESS);
        }
    }
}

/// Subscribes as a mere observer: all other subscribers still get every notification.
async fn follow(args: EventsArgs, connection: &Connection, console: &mut Console) -> Result<u8, CliError> {
    let request = SubscribeRequest {
        bot_id: args.scope.bot,
        session_id: args.scope.session,
        after_sequence: args.after,
        delivery: DeliveryMode::Broadcast.into(),
        lease_duration: None,
    };
    let mut stream = connection.notifications().subscribe(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        if let Some(notification) = message.notification {
            console.each(&[notification], line).await?;
        }
    }
    Ok(exit_code::SUCCESS)
}

async fn acknowledge(
    scope: &Scope,
    sequences: &[i64],
    connection: &Connection,
    console: &mut Console,
) -> Result<u8, CliError> {
    let mut client = connection.notifications();
    let mut total = AckNotificationsResponse::default();
    for sequences in sequences.chunks(MOST_ACKNOWLEDGED) {
        let request = AckNotificationsRequest {
            bot_id: scope.bot.clone(),
            session_id: scope.session.clone(),
            sequences: sequences.to_vec(),
            lease_id: String::new(),
        };
        total.acknowledged += client.ack_notifications(request).await?.into_inner().acknowledged;
    }
    console.each(&[total], |total| format!("acknowledged {}", total.acknowledged)).await?;
    Ok(exit_code::SUCCESS)
}

/// One notification on one line. Column widths are fixed, because later lines must align with those already printed.
fn line(notification: &Notification) -> String {
    let what = match (&notification.outcome, &notification.stall, &notification.heartbeat) {
        (Some(outcome), ..) => outcome::words(outcome),
        (None, Some(stall), _) => format!("waits after {:?}", text::one_line(&stall.last_line, 40)),
        (None, None, Some(heartbeat)) => {
            let (bytes, line) = (text::bytes_text(notification.output_bytes), text::one_line(&heartbeat.last_line, 40));
            format!("{bytes}, silent for {} after {line:?}", text::wire_duration_text(heartbeat.silent_for))
        }
        (None, None, None) => match &notification.watch {
            Some(found) => matched(found, notification.held_back),
            None => text::status_name(notification.status),
        },
    };
    format!(
        "{:>6}  {:<20}  {:<9}  {:<36}  {:<10}  {}  {}  {}",
        notification.sequence,
        text::time_text(notification.created_at),
        text::kind_name(notification.kind),
        text::one_line(&notification.task_id, 36),
        text::wire_duration_text(notification.duration),
        text::one_line(&what, 80),
        text::one_line(&notification.description, 80),
        labels(notification),
    )
    .trim_end()
    .to_owned()
}

/// What matched, and how much of it came late.
fn matched(found: &WatchMatch, held_back: i64) -> String {
    let pattern = found.watch.as_ref().map(watch::shown).unwrap_or_default();
    let line = text::one_line(found.lines.lines().next().unwrap_or_default(), 40);
    let late = if held_back > 0 { format!(", {held_back} held back") } else { String::new() };
    format!("{pattern} at byte {}{late}: {line}", found.offset)
}

/// The labels in the order of their keys: `chat=7 thread=3`.
fn labels(notification: &Notification) -> String {
    let mut labels: Vec<String> = notification.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort_unstable();
    text::one_line(&labels.join(" "), 80)
}

#[cfg(test)]
mod tests {
    use super::*;
    use errand_proto::v1::{
        Exited, Heartbeat, NotificationKind, Outcome, OutputWatch, Stall, outcome::Kind, output_watch as watch,
    };

    fn notification() -> Notification {
        Notification {
            sequence: 7,
            task_id: "0190a7c4-0000-7000-8000-000000000000".to_owned(),
            description: "build\nit".to_owned(),
            duration: Some(prost_types::Duration { seconds: 90, nanos: 5 }),
            created_at: Some(prost_types::Timestamp { seconds: 60, nanos: 0 }),
            ..Notification::default()
        }
    }

    #[test]
    fn completion_line_shows_time_task_and_outcome() {
        let outcome =
            Outcome { kind: Some(Kind::Exited(Exited { code: 2 })), shell_exit_code: Some(2), out_of_memory: None };
        let kind = NotificationKind::Completed.into();
        let shown = line(&Notification { kind, outcome: Some(outcome), ..notification() });
        let expected = "     7  1970-01-01T00:01:00Z  completed  0190a7c4-0000-7000-8000-000000000000  1m 30s      \
                        exited 2  build it";
        assert_eq!(shown, expected);
    }

    #[test]
    fn labels_and_liveness_are_shown() {
        let labels = [("thread", "3"), ("chat", "7")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let silent_for = Some(prost_types::Duration { seconds: 20, nanos: 0 });
        let heartbeat = Some(Heartbeat { silent_for, last_line: "step\x1b 2".to_owned() });
        let kind = NotificationKind::Heartbeat.into();
        let shown = line(&Notification { kind, heartbeat, labels, output_bytes: 1536, ..notification() });
        let expected = r#"1.5 KiB, silent for 20s after "step\\u{1b} 2"  build it  chat=7 thread=3"#;
        assert!(shown.contains("  heartbeat  ") && shown.ends_with(expected), "{shown}");
    }

    #[test]
    fn match_shows_pattern_place_and_line() {
        let watch = Some(WatchMatch {
            watch: Some(OutputWatch { kind: Some(watch::Kind::Regex("err.*".to_owned())), once: false }),
            offset: 12,
            lines: "an error\nanother".to_owned(),
            matches: 2,
            ..WatchMatch::default()
        });
        let kind = NotificationKind::WatchMatched.into();
        let shown = line(&Notification { kind, watch, held_back: 2, ..notification() });
        assert!(shown.contains("  watch_matched  "), "{shown}");
        assert!(shown.ends_with("/err.*/ at byte 12, 2 held back: an error  build it"), "{shown}");
    }

    #[test]
    fn stall_shows_the_last_line_of_output() {
        let stall = Some(Stall { last_line: "Continue? [y/n] ".to_owned(), ..Stall::default() });
        let shown = line(&Notification { kind: NotificationKind::Stalled.into(), stall, ..notification() });
        assert!(shown.ends_with(r#"waits after "Continue? [y/n]"  build it"#), "{shown}");
    }
}
