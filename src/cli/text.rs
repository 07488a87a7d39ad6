//! Parses and formats small values: durations, ages, pairs, names of the protocol. Nothing here prints.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use crate::config;
use errand_proto::v1;
use errand_task::byte_size;

/// Reads a duration such as `30s`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "expected a duration with its unit, such as 30s, 1m30s or 2h".to_owned())
}

/// Reads a duration greater than 0.
pub(super) fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("expected a duration greater than 0".to_owned()),
        duration => Ok(duration),
    }
}

/// Reads `NAME=VALUE`. The value may be empty and may contain further equals signs.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE, such as LANG=C".to_owned()),
    }
}

/// Reads a size such as `512MiB`.
pub(super) fn parse_memory(text: &str) -> Result<i64, String> {
    config::memory(text).map_err(|rule| format!("expected {rule}"))
}

/// Reads permissions in octal, such as `755`.
pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| (1..=0o7777).contains(mode));
    mode.ok_or_else(|| "expected permissions in octal, such as 644 or 755".to_owned())
}

/// Reads a number of bytes, or a size such as `64KiB`.
pub(super) fn parse_size(text: &str) -> Result<i64, String> {
    byte_size(text)
        .and_then(|bytes| i64::try_from(bytes).ok())
        .ok_or_else(|| "expected a number, or a size such as 64KiB, 1MiB or 2GiB".to_owned())
}

/// Pairs as a map, or the name that was given twice.
pub(super) fn unique_pairs(pairs: Vec<(String, String)>) -> Result<HashMap<String, String>, String> {
    let mut map = HashMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        if map.contains_key(&name) {
            return Err(name);
        }
        map.insert(name, value);
    }
    Ok(map)
}

/// A duration for the wire. One beyond the wire's range becomes the longest possible, which the server refuses.
pub(super) fn wire_duration(duration: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: duration.subsec_nanos().cast_signed() }
}

/// A duration from the wire for people: its two largest units. Empty when unset.
pub(super) fn wire_duration_text(duration: Option<prost_types::Duration>) -> String {
    duration.and_then(|duration| Duration::try_from(duration).ok()).map(duration_text).unwrap_or_default()
}

/// A duration for people: its two largest units, such as `1m 30s`; below a second, milliseconds.
pub(super) fn duration_text(duration: Duration) -> String {
    let rounded = match duration.as_secs() {
        0 => Duration::from_millis(u64::from(duration.subsec_millis())),
        1..10 => Duration::from_millis(u64::from(duration.subsec_millis()) / 100 * 100 + duration.as_secs() * 1000),
        seconds => Duration::from_secs(seconds),
    };
    let text = humantime::format_duration(rounded).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A time from the wire. `None` when it is unset or out of range.
pub(super) fn wire_time(timestamp: Option<prost_types::Timestamp>) -> Option<SystemTime> {
    timestamp.and_then(|timestamp| SystemTime::try_from(timestamp).ok())
}

/// The time from `start` to `end`, for people. Empty without a start; 0 if `end` is before `start`.
pub(super) fn span_text(start: Option<SystemTime>, end: SystemTime) -> String {
    start.map(|start| duration_text(end.duration_since(start).unwrap_or_default())).unwrap_or_default()
}

/// A time for people and for sorting: RFC 3339 in UTC, to the second.
pub(super) fn time_text(timestamp: Option<prost_types::Timestamp>) -> String {
    wire_time(timestamp).map(|time| humantime::format_rfc3339_seconds(time).to_string()).unwrap_or_default()
}

/// Bytes for people: `512 B`, `1.5 KiB`.
pub(super) fn bytes_text(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes.max(0) as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let text = format!("{size:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

/// Untrusted text on one line of a terminal: control characters are shown, not executed. At most `width` characters.
pub(super) fn one_line(text: &str, width: usize) -> String {
    let mut line = String::new();
    for (index, character) in text.trim().chars().enumerate() {
        if index + 1 >= width && text.trim().chars().nth(width).is_some() {
            line.push('…');
            break;
        }
        match character {
            '\n' | '\t' | '\r' => line.push(' '),
            character if character.is_control() => line.extend(character.escape_unicode()),
            character => line.push(character),
        }
    }
    line
}

/// The short name of a status: `timed_out`.
pub(super) fn status_name(status: i32) -> String {
    short_name(v1::TaskStatus::try_from(status).map(|status| status.as_str_name()), "TASK_STATUS_", status)
}

/// The short name of a kind of notification: `completed`.
pub(super) fn kind_name(kind: i32) -> String {
    short_name(v1::NotificationKind::try_from(kind).map(|kind| kind.as_str_name()), "NOTIFICATION_KIND_", kind)
}

/// The short name of a sandbox's state: `running`.
pub(super) fn state_name(state: i32) -> String {
    short_name(v1::SandboxState::try_from(state).map(|state| state.as_str_name()), "SANDBOX_STATE_", state)
}

/// A value that this program does not know, from a newer server, is shown as its number.
fn short_name<E>(name: Result<&'static str, E>, prefix: &str, number: i32) -> String {
    match name {
        Ok(name) => name.strip_prefix(prefix).unwrap_or(name).to_lowercase(),
        Err(_) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;

    #[test]
    fn durations_show_their_two_largest_units() {
        let shown = |millis| duration_text(Duration::from_millis(millis));
        assert_eq!(shown(0), "0s");
        assert_eq!(shown(120), "120ms");
        assert_eq!(shown(1549), "1s 500ms");
        assert_eq!(shown(90_500), "1m 30s");
        assert_eq!(shown(3_723_000), "1h 2m");
    }

    #[test]
    fn durations_need_a_unit_and_some_exceed_zero() {
        assert_eq!(parse_duration("1m30s").unwrap(), Duration::from_secs(90));
        assert!(parse_duration("30").unwrap_err().contains("such as 30s"));
        assert!(parse_duration("0s").is_ok());
        assert!(parse_positive_duration("0s").is_err());
    }

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        assert_eq!((parse_size("0"), parse_size("65536"), parse_size("2GiB")), (Ok(0), Ok(65_536), Ok(2 << 30)));
        for wrong in ["", "-1", "1.5MiB", "KiB", "1kb"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pair_needs_a_name_and_takes_any_value() {
        assert_eq!(parse_pair("A=b=c").unwrap(), ("A".to_owned(), "b=c".to_owned()));
        assert_eq!(parse_pair("A=").unwrap().1, "");
        for wrong in ["A", "=b", ""] {
            assert!(parse_pair(wrong).unwrap_err().contains("NAME=VALUE"));
        }
        let twice = vec![("A".to_owned(), "1".to_owned()), ("A".to_owned(), "2".to_owned())];
        assert_eq!(unique_pairs(twice).unwrap_err(), "A");
    }

    #[test]
    fn permissions_are_octal() {
        assert_eq!((parse_mode("644"), parse_mode("0755")), (Ok(0o644), Ok(0o755)));
        for wrong in ["", "0", "8", "10000", "rwx", "-1"] {
            assert!(parse_mode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn foreign_text_cannot_control_the_terminal() {
        assert_eq!(one_line("a\nb\u{1b}[31mc\n", 40), "a b\\u{1b}[31mc");
        assert_eq!(one_line("abcdef", 6), "abcdef");
        assert_eq!(one_line("abcdefg", 6), "abcde…");
    }

    #[test]
    fn names_are_short_and_unknown_numbers_stay() {
        assert_eq!(status_name(v1::TaskStatus::FailedToStart.into()), "failed_to_start");
        assert_eq!(kind_name(v1::NotificationKind::Stalled.into()), "stalled");
        assert_eq!(state_name(v1::SandboxState::Gone.into()), "gone");
        assert_eq!(status_name(99), "99");
    }

    #[test]
    fn sizes_have_one_decimal_at_most() {
        assert_eq!(bytes_text(0), "0 B");
        assert_eq!(bytes_text(1536), "1.5 KiB");
        assert_eq!(bytes_text(2 << 30), "2 GiB");
    }
}
