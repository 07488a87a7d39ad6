//! A live view of one task, independent of the bridge that provides it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use errand_runtime::RuntimeError;
use errand_task::{Ending, Gap, ProcessIdentity, ResourceUsage, Stream, Waiting, WatchMatches};

/// A live view of one task. Dropping it does not affect the command.
pub struct Attachment(Box<dyn Attached>);

/// What each bridge implements to provide an [`Attachment`].
#[async_trait]
pub trait Attached: Send {
    /// As [`Attachment::next`]. Cancel safe.
    ///
    /// # Errors
    /// As for [`Attachment::next`].
    async fn next(&mut self) -> Result<Report, RuntimeError>;

    /// As [`Attachment::follow`]. Does nothing where the bridge reports everything as it comes.
    ///
    /// # Errors
    /// As for [`Attachment::follow`].
    async fn follow(&mut self) -> Result<(), RuntimeError> {
        Ok(())
    }
}

impl Attachment {
    /// Wraps a bridge's implementation.
    pub fn new(attached: impl Attached + 'static) -> Self {
        Self(Box::new(attached))
    }

    /// The next report. Nothing follows [`Report::Claimed`] or [`Report::Broken`]. Cancel safe.
    ///
    /// # Errors
    /// [`RuntimeError::NotStarted`] when the runtime learned late that it could not start the process.
    pub async fn next(&mut self) -> Result<Report, RuntimeError> {
        self.0.next().await
    }

    /// Asks for further output as well: a launch may report only the first piece by itself.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn follow(&mut self) -> Result<(), RuntimeError> {
        self.0.follow().await
    }
}

/// What an attachment reports, in the order in which it was found. Output comes in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The task directory existed already: another launch has the task. The attachment ends.
    Claimed,
    /// The command's first process exists.
    Started {
        /// That process.
        process: ProcessIdentity,
        /// How long ago the process was created.
        age: Duration,
    },
    /// More of the log.
    Output(OutputPiece),
    /// The output up to a position arrives faster than it can be transferred and is skipped here. The log has it.
    Skipped {
        /// Position of the byte that is reported next.
        to: u64,
    },
    /// The processes of a silent command were examined, and their state has changed.
    Activity(Activity),
    /// The sandbox searches the output for the watches of the launch or the attachment. Without this report, it does not.
    Watching,
    /// The output matches watches.
    Matched {
        /// At most one entry for each watch.
        matches: Vec<WatchMatches>,
        /// Bytes of output that could not be searched since the last such report.
        unsearched: u64,
    },
    /// The command has ended, or never ran. Some of its output may still be in transit.
    Ended {
        /// How it ended.
        ending: Ending,
        /// What the command used, if the bridge reports it.
        usage: Option<ResourceUsage>,
        /// How many processes in the sandbox were killed for lack of memory while the command ran, as the sandbox reports.
        oom_kills: u32,
    },
    /// The log is complete, except for what daemons that the command left behind may still add.
    Over {
        /// Size of all output at that time, in bytes, including what the log has not kept.
        bytes: u64,
        /// True when output is missing from the log because it could not be written.
        incomplete: bool,
        /// What the log has not kept because of the output limit.
        gap: Option<Gap>,
    },
    /// The attachment broke off. This says nothing about the command.
    Broken,
}

/// A piece of output of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPiece {
    /// Position of the first byte in all output. Greater than the end of the previous piece where the log has a gap.
    pub offset: u64,
    /// The stream that the output comes from.
    pub stream: Stream,
    /// The bytes.
    pub bytes: Bytes,
}

impl OutputPiece {
    /// Output whose streams are not told apart.
    pub fn both(offset: u64, bytes: impl Into<Bytes>) -> Self {
        Self { offset, stream: Stream::Both, bytes: bytes.into() }
    }

    /// Position after the last byte.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// The part of the piece before `end`; none when it is empty.
    pub fn up_to(mut self, end: u64) -> Option<Self> {
        self.bytes.truncate(usize::try_from(end.saturating_sub(self.offset)).unwrap_or(usize::MAX));
        (!self.bytes.is_empty()).then_some(self)
    }

    /// The part of the piece at and after `start`; none if there is none.
    pub fn since(mut self, start: u64) -> Option<Self> {
        let before = usize::try_from(start.saturating_sub(self.offset)).unwrap_or(usize::MAX).min(self.bytes.len());
        self.offset += before as u64;
        self.bytes = self.bytes.split_off(before);
        (!self.bytes.is_empty()).then_some(self)
    }
}

/// What the processes of a silent command are doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// How long there had been no output.
    pub silent_for: Duration,
    /// Whether the processes have used CPU time or done I/O since they were last examined.
    pub busy: bool,
    /// A process that is blocked reading its terminal or its standard input.
    pub waiting: Option<Waiting>,
}
