//! Validates which parts of a log to read, and in which format.

use tonic::Status;

use super::{Violations, tasks};
use crate::api::{auth::Caller, output::Format};
use errand_engine::{ReadSelection, TaskRef};
use errand_proto::v1::{OutputFormat, ReadOutputRequest, StreamOutputRequest, read_output_request::Selection};

/// Bytes of a range when the request does not say.
const RANGE_DEFAULT: u64 = 65_536;
/// Bytes of a tail when the request does not say.
const TAIL_DEFAULT: u64 = 4096;
/// The most bytes of a range or of a tail.
const PIECE_LIMIT: u64 = 1_048_576;
/// Bytes of the head, and of the tail, when the request does not say.
const SIDE_DEFAULT: u64 = 8000;
/// The most bytes of the head, and of the tail.
const SIDE_LIMIT: u64 = 524_288;

/// A StreamOutput request.
pub(in crate::api) struct Stream {
    /// The task whose log is streamed.
    pub(in crate::api) task: TaskRef,
    /// The first byte.
    pub(in crate::api) offset: u64,
    /// Whether to wait for further output.
    pub(in crate::api) follow: bool,
    /// The format in which output is sent.
    pub(in crate::api) format: Format,
}

/// Reads a ReadOutput request.
pub(in crate::api) fn read(
    request: &ReadOutputRequest,
    caller: &Caller,
) -> Result<(TaskRef, ReadSelection, Format), Status> {
    let mut violations = Violations::new();
    let task = tasks::reference(&request.task_id, &request.bot_id, &request.session_id, caller, &mut violations);
    let selection = selection(request.selection.as_ref(), &mut violations);
    let format = violations.choice::<OutputFormat>("format", request.format).map(Format::from);
    let read = (|| Some((task?, selection?, format?)))();
    let (task, selection, format) = violations.or(read)?;
    Ok((task?, selection, format))
}

/// Reads a StreamOutput request.
pub(in crate::api) fn stream(request: &StreamOutputRequest, caller: &Caller) -> Result<Stream, Status> {
    let mut violations = Violations::new();
    let task = tasks::reference(&request.task_id, &request.bot_id, &request.session_id, caller, &mut violations);
    let offset = violations.number("offset", request.offset, 0, u64::MAX);
    let format = violations.choice::<OutputFormat>("format", request.format).map(Format::from);
    let read = (|| Some((task?, offset?, format?)))();
    let (task, offset, format) = violations.or(read)?;
    Ok(Stream { task: task?, offset, follow: !request.no_follow, format })
}

fn selection(given: Option<&Selection>, violations: &mut Violations) -> Option<ReadSelection> {
    match given {
        None => Some(ReadSelection::Tail { limit: TAIL_DEFAULT }),
        Some(Selection::Range(range)) => violations.within("range", |violations| {
            let offset = violations.number("offset", range.offset, 0, u64::MAX);
            let limit = violations.number("limit", range.limit, RANGE_DEFAULT, PIECE_LIMIT);
            Some(ReadSelection::Range { offset: offset?, limit: limit? })
        }),
        Some(Selection::Tail(tail)) => violations.within("tail", |violations| {
            let limit = violations.number("limit", tail.limit, TAIL_DEFAULT, PIECE_LIMIT);
            Some(ReadSelection::Tail { limit: limit? })
        }),
        Some(Selection::HeadTail(sides)) => violations.within("head_tail", |violations| {
            let head = violations.number("head", sides.head, SIDE_DEFAULT, SIDE_LIMIT);
            let tail = violations.number("tail", sides.tail, SIDE_DEFAULT, SIDE_LIMIT);
            Some(ReadSelection::HeadTail { head: head?, tail: tail? })
        }),
    }
}
