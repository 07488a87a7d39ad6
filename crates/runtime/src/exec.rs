//! A process that was started in a sandbox: its output as it comes, and its standard input.

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

/// Output as it comes. It ends when the process has ended, or when the connection to the engine is lost: the stream alone cannot
/// tell which.
pub type ExecOutput = Pin<Box<dyn Stream<Item = Result<Chunk, RuntimeError>> + Send>>;

/// A process's standard input.
pub type ExecInput = Pin<Box<dyn AsyncWrite + Send>>;

/// A running process. Dropping this closes its standard input and leaves it running.
pub struct Exec {
    output: ExecOutput,
    input: ExecInput,
}

/// All that a short process has printed.
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
    /// A process with this output and input.
    pub fn new(output: ExecOutput, input: ExecInput) -> Self {
        Self { output, input }
    }

    /// Its output and its input apart, to read the one while the other is written.
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

    /// Writes to standard input, ends it, and meanwhile reads everything until the process ends. One that ends without having read it all
    /// is no error. Meant for processes that print little.
    ///
    /// # Errors
    /// As for [`Exec::collect`].
    pub async fn feed(self, bytes: &[u8], limit: usize) -> Result<Collected, RuntimeError> {
        let (output, mut input) = self.split();
        let reading = std::pin::pin!(collect(output, limit));
        let writing = std::pin::pin!(async {
            let written = async {
                input.write_all(bytes).await?;
                input.shutdown().await
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
    /// When the stream fails, or when more than `limit` bytes come.
    pub async fn collect(self, limit: usize) -> Result<Collected, RuntimeError> {
        // The input stays open: a process may take its end for a sign.
        let Self { output, input: _input } = self;
        collect(output, limit).await
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
