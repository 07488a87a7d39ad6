//! Processes in containers: starts them and finds out what the engine reports late.

use std::pin::Pin;

use bollard::{
    Docker,
    container::LogOutput,
    exec::{StartExecOptions, StartExecResults},
    models::ExecConfig,
};
use bytes::BytesMut;
use futures_util::{Stream, StreamExt as _, stream};

use super::error;
use crate::{Chunk, Exec, ExecOutput, ExitStatus, RuntimeError};

/// Read buffer of one process's output, in bytes. The engine sends at most 32 KiB at a time.
pub(super) const READ_BUFFER: usize = 32 * 1024;
/// The longest message of the engine about a process that it could not start, in bytes.
const REFUSAL_LIMIT: usize = 8 * 1024;

/// Starts a process as this user, or as the container's own.
pub(super) async fn exec(
    docker: &Docker,
    runtime_id: &str,
    user: Option<&str>,
    argv: &[String],
) -> Result<Exec, RuntimeError> {
    let config = ExecConfig {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(argv.to_vec()),
        user: user.map(str::to_owned),
        ..ExecConfig::default()
    };
    let created =
        docker.create_exec(runtime_id, config).await.map_err(|failure| error::about_container(failure, runtime_id))?;
    let options = StartExecOptions { output_capacity: Some(READ_BUFFER), ..StartExecOptions::default() };
    let started = docker.start_exec(&created.id, Some(options)).await.map_err(error::about_exec_start)?;
    match started {
        StartExecResults::Attached { output, input } => {
            let output = with_late_refusals(output.map(chunk));
            Ok(Exec::new(output, input).with_status(status(docker.clone(), created.id)))
        }
        StartExecResults::Detached => {
            Err(RuntimeError::Uncertain { detail: "the engine started a process without attaching to it".to_owned() })
        }
    }
}

fn chunk(item: Result<LogOutput, bollard::errors::Error>) -> Result<Chunk, RuntimeError> {
    match item {
        Ok(LogOutput::StdErr { message }) => Ok(Chunk::Stderr(message)),
        // The engine sends its own messages without a frame, which makes them `Console`.
        Ok(LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message }) => {
            Ok(Chunk::Stdout(message))
        }
        Err(failure) => Err(RuntimeError::Unavailable { detail: failure.to_string() }),
    }
}

/// Asks how a process has exited. The engine knows before it closes the process's streams.
fn status(docker: Docker, exec: String) -> ExitStatus {
    Box::pin(async move { docker.inspect_exec(&exec).await.ok()?.exit_code?.try_into().ok() })
}

/// The engine answers a start before it has started the process. If that fails, its message is the process's only output; this turns the
/// message into an error.
fn with_late_refusals(output: impl Stream<Item = Result<Chunk, RuntimeError>> + Send + 'static) -> ExecOutput {
    let output = Filtered { output: Box::pin(output), held: Some(BytesMut::new()), next: None };
    Box::pin(stream::unfold(output, |mut output| async move { output.item().await.map(|item| (item, output)) }))
}

struct Filtered {
    output: Pin<Box<dyn Stream<Item = Result<Chunk, RuntimeError>> + Send>>,
    /// Output held back because it may be a message of the engine; none once it cannot be any more.
    held: Option<BytesMut>,
    /// What comes after the output that was held back.
    next: Option<Result<Chunk, RuntimeError>>,
}

impl Filtered {
    async fn item(&mut self) -> Option<Result<Chunk, RuntimeError>> {
        loop {
            if let Some(next) = self.next.take() {
                return Some(next);
            }
            let item = self.output.next().await;
            let Some(mut held) = self.held.take() else { return item };
            match item {
                Some(Ok(Chunk::Stdout(bytes))) => {
                    if held.is_empty() && !may_be_refusal(&bytes) {
                        return Some(Ok(Chunk::Stdout(bytes)));
                    }
                    held.extend_from_slice(&bytes);
                    if !may_be_refusal(&held) {
                        return Some(Ok(Chunk::Stdout(held.freeze())));
                    }
                    self.held = Some(held);
                }
                Some(item) if held.is_empty() => return Some(item),
                Some(item) => {
                    self.next = Some(item);
                    return Some(Ok(Chunk::Stdout(held.freeze())));
                }
                None if held.is_empty() => return None,
                None => return Some(error::late_refusal(&held).map_or_else(|| Ok(Chunk::Stdout(held.freeze())), Err)),
            }
        }
    }
}

fn may_be_refusal(output: &[u8]) -> bool {
    output.len() <= REFUSAL_LIMIT && error::may_begin_refusal(output)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::NotStarted;

    const REFUSAL: &str = "OCI runtime exec failed: exec: \"x\": executable file not found in $PATH: unknown\r\n";

    fn stdout(text: &str) -> Chunk {
        Chunk::Stdout(Bytes::copy_from_slice(text.as_bytes()))
    }

    async fn filtered(chunks: impl IntoIterator<Item = Chunk>) -> Vec<Result<Chunk, RuntimeError>> {
        let chunks: Vec<_> = chunks.into_iter().map(Ok).collect();
        with_late_refusals(stream::iter(chunks)).collect().await
    }

    #[tokio::test]
    async fn only_engine_output_counts_as_refusal() {
        for cut in [1, 10, REFUSAL.len()] {
            let (begin, end) = REFUSAL.split_at(cut);
            let items = filtered([begin, end].map(stdout).into_iter().filter(|chunk| *chunk != stdout(""))).await;
            let refused = RuntimeError::NotStarted { reason: NotStarted::NotFound, detail: REFUSAL.trim().to_owned() };
            assert_eq!(format!("{items:?}"), format!("{:?}", [Err::<Chunk, _>(refused)]), "{cut}");
        }
    }

    #[tokio::test]
    async fn output_of_a_process_passes_unchanged() {
        let stderr = Chunk::Stderr(Bytes::from_static(b"started"));
        let long = format!("{REFUSAL}{}", "x".repeat(REFUSAL_LIMIT));
        for chunks in [
            vec![],
            vec![stdout("hello"), stdout(REFUSAL)],
            vec![stdout("OCI run")],
            vec![stdout(REFUSAL), stderr.clone()],
            vec![stderr.clone(), stdout(REFUSAL)],
            vec![stdout(&long)],
            vec![stdout("\0binary"), stderr],
        ] {
            let items = filtered(chunks.clone()).await;
            let wanted: Vec<Result<Chunk, RuntimeError>> = chunks.into_iter().map(Ok).collect();
            assert_eq!(format!("{items:?}"), format!("{wanted:?}"));
        }
    }
}
