//! A process that was started in a sandbox: its output as it comes, its standard input, and its exit status.

use std::{fmt, pin::Pin};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, future::Either};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::RuntimeError;

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// From standard output.
    Stdout(Bytes),
    /// From standard error.
    Stderr(Bytes),
}

/// Output as it comes. It ends when the process has ended, or when the connection to the runtime is lost; the stream alone cannot tell
/// which. See [`Runtime::exec`](crate::Runtime::exec) for a process that was not started after all.
pub type ExecOutput = Pin<Box<dyn Stream<Item = Result<Chunk, RuntimeError>> + Send>>;

/// A process's standard input. A runtime need not be able to end it while it still carries output, so shutting it down may do nothing: a
/// process must learn from its input where that ends.
pub type ExecInput = Pin<Box<dyn AsyncWrite + Send>>;

/// Asks the runtime how a process has exited: 0 to 255, and 128 + n after the signal n. None when the runtime does not know. To be awaited
/// after the end of the output.
pub type ExitStatus = Pin<Box<dyn Future<Output = Option<i32>> + Send>>;

/// A running process. Dropping this closes its standard input and leaves it running.
pub struct Exec {
    output: ExecOutput,
    input: ExecInput,
    status: Option<ExitStatus>,
}

/// The whole output of a short process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Its standard output.
    pub stdout: BytesMut,
    /// Its standard error.
    pub stderr: BytesMut,
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exec")
    }
}

impl Exec {
    /// A process with this output and input, whose exit status the runtime does not report.
    pub fn new(output: ExecOutput, input: ExecInput) -> Self {
        Self { output, input, status: None }
    }

    /// The same process, with its exit status.
    #[must_use]
    pub fn with_status(self, status: ExitStatus) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Splits the process into its output and its input, to read the one while the other is written.
    pub fn split(self) -> (ExecOutput, ExecInput) {
        (self.output, self.input)
    }

    /// The next piece of output; none at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Chunk, RuntimeError>> {
        self.output.next().await
    }

    /// Writes to standard input.
    ///
    /// # Errors
    /// [`RuntimeError::Unavailable`] when the connection is gone.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), RuntimeError> {
        let written = async {
            self.input.write_all(bytes).await?;
            self.input.flush().await
        };
        written.await.map_err(|error| RuntimeError::Unavailable { detail: format!("writing to a process: {error}") })
    }

    /// Writes to standard input, and meanwhile reads everything until the process ends. The process must know the length of its input: the
    /// runtime need not end it. A process that ends before it has read everything is no error. Meant for processes that print little.
    ///
    /// # Errors
    /// As for [`Exec::collect`].
    pub async fn feed(self, bytes: &[u8], limit: usize) -> Result<Collected, RuntimeError> {
        let (output, mut input) = self.split();
        let reading = std::pin::pin!(collect(output, limit));
        let writing = std::pin::pin!(async move {
            let written = async {
                input.write_all(bytes).await?;
                input.flush().await
            };
            if let Err(error) = written.await {
                tracing::debug!(%error, "a process reads no further");
            }
        });
        match futures_util::future::select(reading, writing).await {
            Either::Left((collected, _)) => collected,
            Either::Right(((), reading)) => reading.await,
        }
    }

    /// Reads everything until the process ends. Meant for processes that print little.
    ///
    /// # Errors
    /// [`RuntimeError::NotStarted`] when the process was not started after all, [`RuntimeError::Refused`] when more than `limit` bytes come,
    /// and when the stream fails.
    pub async fn collect(self, limit: usize) -> Result<Collected, RuntimeError> {
        // The input stays open: a process may end when its input does.
        let Self { output, input: _input, status: _ } = self;
        collect(output, limit).await
    }

    /// Like [`Exec::collect`], and asks the runtime for the exit status; none where the runtime does not know it.
    ///
    /// # Errors
    /// As for [`Exec::collect`].
    pub async fn collect_with_status(self, limit: usize) -> Result<(Collected, Option<i32>), RuntimeError> {
        let Self { output, input: _input, status } = self;
        let collected = collect(output, limit).await?;
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        Ok((collected, status))
    }
}

async fn collect(mut output: ExecOutput, limit: usize) -> Result<Collected, RuntimeError> {
    let mut collected = Collected::default();
    while let Some(chunk) = output.next().await {
        match chunk? {
            Chunk::Stdout(bytes) => collected.stdout.extend_from_slice(&bytes),
            Chunk::Stderr(bytes) => collected.stderr.extend_from_slice(&bytes),
        }
        if collected.stdout.len() + collected.stderr.len() > limit {
            return Err(RuntimeError::Refused { detail: format!("a process printed more than {limit} bytes") });
        }
    }
    Ok(collected)
}
