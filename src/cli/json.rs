//! Prints protocol messages as JSON for scripts: one line each, with the field names of the protocol.
//!
//! Enums are written by name, times in RFC 3339, durations such as `1.500s`, 64-bit integers as numbers, bytes in base64. Fields that have
//! no presence are written even at their default, so that scripts always find them; unset messages are left out.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use super::error::CliError;
use errand_proto as proto;
use errand_proto::v1;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).expect("the built-in descriptors are whole"));

/// A message whose protocol name is known.
pub(super) trait Named: prost::Message {
    /// The name within `errand.v1`.
    const NAME: &'static str;
}

macro_rules! named {
    ($($message:ident),* $(,)?) => {
        $(impl Named for v1::$message {
            const NAME: &'static str = stringify!($message);
        })*
    };
}

named!(
    Task,
    Notification,
    OutputWatchState,
    Sandbox,
    RunTaskResponse,
    StreamOutputResponse,
    ReadOutputResponse,
    AckNotificationsResponse,
    DeleteSandboxResponse,
    FileEntry,
    MakeDirectoryResponse,
    RenameFileResponse,
    WriteTreeResponse,
    WatchFilesResponse,
    ActiveBot,
    ReadFileResponse,
    RemoveFileResponse,
    SignalTaskResponse,
    TaskWait,
    WaitTaskResponse,
    WatchTasksResponse,
);

/// The message as one line of JSON, without the line's end.
///
/// # Errors
///
/// When the server sent a value that JSON cannot represent, such as a time outside its range.
pub(super) fn line<M: Named>(message: &M) -> Result<String, CliError> {
    let unfit =
        |error: &dyn std::fmt::Display| CliError::Unexpected(format!("cannot print {} as JSON: {error}", M::NAME));
    let descriptor = POOL
        .get_message_by_name(&format!("errand.v1.{}", M::NAME))
        .ok_or_else(|| unfit(&"the protocol has no such message"))?;
    let message =
        DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).map_err(|error| unfit(&error))?;
    let options =
        SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false).skip_default_fields(false);
    let mut line = Vec::new();
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut line), &options)
        .map_err(|error| unfit(&error))?;
    String::from_utf8(line).map_err(|error| unfit(&error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use super::*;
    use v1::{Exited, Outcome, OutputPart, Task, TaskStatus, outcome, output_part, run_task_response};

    #[test]
    fn task_has_the_field_names_of_protocol() {
        let task = Task {
            task_id: "0192".to_owned(),
            bot_id: "b".to_owned(),
            command: "exit 0".to_owned(),
            status: TaskStatus::Succeeded.into(),
            outcome: Some(Outcome {
                kind: Some(outcome::Kind::Exited(Exited { code: 0 })),
                shell_exit_code: Some(0),
                out_of_memory: None,
            }),
            output_bytes: 1 << 40,
            timeout: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            created_at: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            ..Task::default()
        };
        let line = line(&task).unwrap();
        assert!(!line.contains('\n'));
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["task_id"], "0192");
        assert_eq!(json["bot_id"], "b");
        assert_eq!(json["status"], "TASK_STATUS_SUCCEEDED");
        assert_eq!(json["outcome"], serde_json::json!({"exited": {"code": 0}, "shell_exit_code": 0}));
        assert_eq!(json["output_bytes"], 1_i64 << 40);
        assert_eq!(json["timeout"], "1.500s");
        assert_eq!(json["created_at"], "1970-01-01T00:00:00Z");
        assert_eq!(json["labels"], serde_json::json!({"k": "v"}));
        assert_eq!(json["session_id"], "", "a default is written");
        assert!(json.get("finished_at").is_none(), "an unset message is left out");
    }

    #[test]
    fn stream_message_holds_only_its_event() {
        let part = OutputPart {
            offset: 2,
            content: Some(output_part::Content::Text("hi".to_owned())),
            next_offset: 4,
            stream: 0,
        };
        let message = v1::RunTaskResponse { event: Some(run_task_response::Event::Output(part)), lease_id: None };
        let expected = r#"{"output":{"offset":2,"text":"hi","next_offset":4,"stream":"OUTPUT_STREAM_UNSPECIFIED"}}"#;
        assert_eq!(line(&message).unwrap(), expected);
    }

    #[test]
    fn time_outside_its_range_is_an_error() {
        let created_at = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -5 });
        assert!(line(&Task { created_at, ..Task::default() }).is_err());
    }
}
