//! Validates which parts of a log to read, and in which format.

use tonic::Status;

use super::{Acknowledge, Violations, lines, notify, tasks};
use crate::api::{auth::Caller, output::Format, rendered::Streamed};
use errand_engine::{ReadSelection, TaskRef};
use errand_proto::v1::{OutputFormat, ReadOutputRequest, StreamOutputRequest, read_output_request::Selection};
use errand_reading::Scan;

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

/// Characters of condensed output when the request does not say.
const CHARACTERS_DEFAULT: u64 = 16_000;
/// The fewest and the most characters of condensed output.
const CHARACTERS_LEAST: u64 = 200;
const CHARACTERS_LIMIT: u64 = 200_000;

/// What a ReadOutput request asks for.
#[derive(Debug)]
pub(in crate::api) enum Read {
    /// Pieces of the log.
    Pieces(ReadSelection, Format),
    /// Pieces of the log as a terminal would show them.
    Rendered(ReadSelection),
    /// Condensed to at most this many characters.
    Condensed(ReadSelection, usize),
    /// Lines.
    Lines(Scan),
}

/// A StreamOutput request.
pub(in crate::api) struct Stream {
    /// The task whose log is streamed.
    pub(in crate::api) task: TaskRef,
    /// The first byte.
    pub(in crate::api) offset: u64,
    /// Whether to wait for further output.
    pub(in crate::api) follow: bool,
    /// The format in which output is sent.
    pub(in crate::api) format: Streamed,
}

/// Reads a ReadOutput request.
pub(in crate::api) fn read(
    request: &ReadOutputRequest,
    caller: &Caller,
) -> Result<(TaskRef, Read, Acknowledge), Status> {
    let mut violations = Violations::new();
    let task = tasks::reference(&request.task_id, &request.bot_id, &request.session_id, caller, &mut violations);
    let format = violations.choice::<OutputFormat>("format", request.format);
    let characters = characters(request.max_characters, format, &mut violations);
    let read = match &request.selection {
        Some(Selection::Lines(given)) => {
            let scan = violations.within("lines", |violations| lines::selection(given, violations));
            rendered_only(format, &mut violations).and(scan).map(Read::Lines)
        }
        Some(Selection::Grep(given)) => {
            let scan = violations.within("grep", |violations| lines::search(given, violations));
            rendered_only(format, &mut violations).and(scan).map(Read::Lines)
        }
        given => {
            let selection = selection(given.as_ref(), format, &mut violations);
            (|| {
                let selection = selection?;
                Some(match format? {
                    OutputFormat::Unspecified | OutputFormat::Bytes => Read::Pieces(selection, Format::Bytes),
                    OutputFormat::Text => Read::Pieces(selection, Format::Text),
                    OutputFormat::Lz4 => Read::Pieces(selection, Format::Lz4),
                    OutputFormat::Rendered => Read::Rendered(selection),
                    OutputFormat::Condensed => Read::Condensed(selection, characters?),
                })
            })()
        }
    };
    let acknowledge = notify::acknowledge(request.acknowledge_mode, false, &mut violations);
    let read = (|| Some((task?, read?, acknowledge?)))();
    let (task, read, acknowledge) = violations.or(read)?;
    Ok((task?, read, acknowledge))
}

/// Lines have one format.
fn rendered_only(format: Option<OutputFormat>, violations: &mut Violations) -> Option<()> {
    match format? {
        OutputFormat::Unspecified | OutputFormat::Rendered => Some(()),
        other => {
            let name = other.as_str_name();
            violations.add("format", format!("must be OUTPUT_FORMAT_RENDERED or unset for lines, is {name}"));
            None
        }
    }
}

fn characters(given: i32, format: Option<OutputFormat>, violations: &mut Violations) -> Option<usize> {
    let characters = violations.number("max_characters", given.into(), CHARACTERS_DEFAULT, CHARACTERS_LIMIT)?;
    if given != 0 && format.is_some_and(|format| format != OutputFormat::Condensed) {
        violations.add("max_characters", "must not be set unless `format` is OUTPUT_FORMAT_CONDENSED");
    } else if characters < CHARACTERS_LEAST {
        violations.add("max_characters", format!("must be at least {CHARACTERS_LEAST}, is {characters}"));
    }
    usize::try_from(characters).ok()
}

impl Violations {
    /// The format of a stream.
    pub(super) fn streamed(&mut self, field: &str, number: i32) -> Option<Streamed> {
        Some(match self.choice::<OutputFormat>(field, number)? {
            OutputFormat::Unspecified | OutputFormat::Bytes => Streamed::Pieces(Format::Bytes),
            OutputFormat::Text => Streamed::Pieces(Format::Text),
            OutputFormat::Lz4 => Streamed::Pieces(Format::Lz4),
            OutputFormat::Rendered => Streamed::Lines,
            OutputFormat::Condensed => {
                self.add(
                    field,
                    "must not be OUTPUT_FORMAT_CONDENSED: a stream cannot tell what will repeat; ReadOutput can",
                );
                return None;
            }
        })
    }
}

/// Reads a StreamOutput request.
pub(in crate::api) fn stream(request: &StreamOutputRequest, caller: &Caller) -> Result<Stream, Status> {
    let mut violations = Violations::new();
    let task = tasks::reference(&request.task_id, &request.bot_id, &request.session_id, caller, &mut violations);
    let offset = violations.number("offset", request.offset, 0, u64::MAX);
    let format = violations.streamed("format", request.format);
    let read = (|| Some((task?, offset?, format?)))();
    let (task, offset, format) = violations.or(read)?;
    Ok(Stream { task: task?, offset, follow: !request.no_follow, format })
}

fn selection(
    given: Option<&Selection>,
    format: Option<OutputFormat>,
    violations: &mut Violations,
) -> Option<ReadSelection> {
    match given {
        // Condensing is for the whole of it.
        None if format == Some(OutputFormat::Condensed) => {
            Some(ReadSelection::HeadTail { head: SIDE_LIMIT, tail: SIDE_LIMIT })
        }
        // Lines are no piece of the log.
        None | Some(Selection::Lines(_) | Selection::Grep(_)) => Some(ReadSelection::Tail { limit: TAIL_DEFAULT }),
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
