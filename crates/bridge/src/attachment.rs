//! A live view of one task, whichever bridge it comes through.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use errand_runtime::RuntimeError;
use errand_task::{Ending, Gap, ProcessIdentity, ResourceUsage, Stream, Waiting};

/// A live view of one task. Dropping it disturbs nothing.
pub struct Attachment(Box<dyn Attached>);

/// What each bridge makes an [`Attachment`] of.
#[async_trait]
pub trait Attached: Send {
    /// As [`Attachment::next`]. Cancel safe.
    ///
    /// # Errors
    /// As for [`Attachment::next`].
    async fn next(&mut self) -> Result<Report, RuntimeError>;

    /// As [`Attachment::follow`]. There is nothing to do where everything is reported as it comes.
    ///
    /// # Errors
    /// As for [`Attachment::follow`].
    async fn follow(&mut self) -> Result<(), RuntimeError> {
        Ok(())
    }
}

impl Attachment {
    /// An attachment over this.
    pub fn new(attached: impl Attached + 'static) -> Self {
        Self(Box::new(attached))
    }

    /// The next report. After [`Report::Claimed`] and [`Report::Broken`] nothing more comes. Cancel safe.
    ///
    /// # Errors
    /// [`RuntimeError::NotStarted`] when the engine found out late that it could not start the process.
    pub async fn next(&mut self) -> Result<Report, RuntimeError> {
        self.0.next().await
    }

    /// Asks for what is printed from now on as well: a launch may emit only the first piece by itself.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn follow(&mut self) -> Result<(), RuntimeError> {
        self.0.follow().await
    }
}

/// What an attachment reports, in the order in which it was found. Output is in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The task directory was there already: another launch has the task. The attachment ends.
    Claimed,
    /// The command's first process exists.
    Started {
        /// That process.
        process: ProcessIdentity,
        /// How long ago it was made.
        age: Duration,
    },
    /// More of the log.
    Output(OutputPiece),
    /// The output up to a position comes faster than it can be carried, and is left out here. The log has it.
    Skipped {
        /// Position of the byte that is reported next.
        to: u64,
    },
    /// The processes of a silent command were looked at, and what was seen is news.
    Activity(Activity),
    /// The command is over, or never ran. Some of its output may still be on its way.
    Ended {
        /// How.
        ending: Ending,
        /// What it used, where the bridge tells.
        usage: Option<ResourceUsage>,
        /// How many processes of the sandbox were killed for want of memory while it ran, as the sandbox says.
        oom_kills: u32,
    },
    /// Nothing more will be written to the log, but for what daemons may add that the command left behind.
    Over {
        /// Bytes of all output then, with what the log has not kept.
        bytes: u64,
        /// True when the log lacks output because it could not be written.
        incomplete: bool,
        /// What the log has not kept because of the output limit.
        gap: Option<Gap>,
    },
    /// The attachment broke off, which says nothing about the command.
    Broken,
}

/// A piece of output of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPiece {
    /// Position of its first byte in all output. Past the end of the piece before where the log has a gap.
    pub offset: u64,
    /// Where it comes from.
    pub stream: Stream,
    /// The bytes.
    pub bytes: Bytes,
}

impl OutputPiece {
    /// Output of streams that are not told apart.
    pub fn both(offset: u64, bytes: impl Into<Bytes>) -> Self {
        Self { offset, stream: Stream::Both, bytes: bytes.into() }
    }

    /// Position after its last byte.
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }

    /// What of it is before `end`; none when nothing is.
    pub fn up_to(mut self, end: u64) -> Option<Self> {
        self.bytes.truncate(usize::try_from(end.saturating_sub(self.offset)).unwrap_or(usize::MAX));
        (!self.bytes.is_empty()).then_some(self)
    }
}

/// What the processes of a silent command do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// How long there had been no output.
    pub silent_for: Duration,
    /// Whether they have used CPU time or done I/O since the look before.
    pub busy: bool,
    /// One that is blocked reading its terminal or its standard input.
    pub waiting: Option<Waiting>,
}
