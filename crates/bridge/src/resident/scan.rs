//! Asks the guest for lines of a log.

use tonic::Code;

use super::{
    calls::{ANSWER_LIMIT, meaning, within},
    channel::Channel,
    checked,
    connection::client,
    proto,
};
use crate::{ReadError, SCAN_TIME, ScannedLog};
use errand_reading::{Query, Scan};
use errand_task::{Stream, TaskId};

/// Lets the guest scan a log.
pub(super) async fn scan(channel: &Channel, task: TaskId, scan: &Scan) -> Result<ScannedLog, ReadError> {
    let mut client = client(channel).max_decoding_message_size(checked::SCAN_MESSAGE);
    match within(SCAN_TIME + ANSWER_LIMIT, client.scan_log(request(task, scan))).await? {
        Ok(answer) => Ok(channel.checked(checked::scanned(answer.into_inner(), scan))?),
        Err(status) if status.code() == Code::NotFound => Err(ReadError::Gone),
        Err(status) => Err(meaning(channel, &status).into()),
    }
}

fn request(task: TaskId, scan: &Scan) -> proto::ScanLogRequest {
    use proto::{scan_grep::Pattern as Message, scan_log_request::Query as Asked};
    // All of them have small limits.
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let query = match &scan.query {
        Query::Lines { offset, limit } => Asked::Lines(proto::ScanLines { offset: *offset, limit: number(*limit) }),
        Query::Grep(grep) => Asked::Grep(proto::ScanGrep {
            pattern: Some(if grep.pattern.is_regex() {
                Message::Regex(grep.pattern.source().to_owned())
            } else {
                Message::Text(grep.pattern.source().to_owned())
            }),
            ignore_case: grep.pattern.ignores_case(),
            before: number(grep.before),
            after: number(grep.after),
            most: number(grep.most),
        }),
    };
    proto::ScanLogRequest {
        task_id: task.to_string(),
        query: Some(query),
        stream: scan.stream.map(|stream| match stream {
            Stream::Both => proto::Stream::Unspecified.into(),
            Stream::Stdout => proto::Stream::Stdout.into(),
            Stream::Stderr => proto::Stream::Stderr.into(),
        }),
        time_ms: u64::try_from(SCAN_TIME.as_millis()).unwrap_or(u64::MAX),
    }
}
